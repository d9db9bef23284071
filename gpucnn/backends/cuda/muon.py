"""Muon's step for matrices of all shapes together, on kernels/muon.cu: 1 + 3 * steps launches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import chunks
from gpucnn.backends.cuda.grids import ceil_div
from gpucnn.backends.updates import Along, Row

SOURCE = "muon.cu"
THREADS = 256
SYMMETRIC, ADVANCE = 32, 64  # rows and columns of the tiles, as in kernels/muon.cu
MOST_TABLES = 64
MOST_ELEMENTS = 2**30  # of one matrix

Shapes = tuple[tuple[int, int, int], ...]
_tables: WeakKeyDictionary[Any, dict[Shapes, Any]] = WeakKeyDictionary()


class _Tables:
    """Where each matrix lies in the work arrays, and which tiles are its own, on the device."""

    def __init__(self, backend: Any, shapes: Shapes) -> None:
        matrices, symmetric, advance = [], [0], [0]
        x = gram = 0
        for outer, k, inner in shapes:
            rows, columns = sorted((k, outer * inner))
            if rows * columns > MOST_ELEMENTS:
                raise ValueError(f"muon_step: a matrix of {k} x {outer * inner} has more than {MOST_ELEMENTS} elements")
            matrices.append((outer, k, inner, rows, columns, x, gram, 0))
            x, gram = x + rows * columns, gram + rows * rows
            side = ceil_div(rows, SYMMETRIC)
            symmetric.append(symmetric[-1] + side * (side + 1) // 2)
            advance.append(advance[-1] + ceil_div(rows, ADVANCE) * ceil_div(columns, ADVANCE))
        self.x, self.gram = x, gram
        self.symmetric_tiles, self.advance_tiles = symmetric[-1], advance[-1]
        self.matrices = backend.constant(np.array(matrices, np.int64))
        self.symmetric = backend.constant(np.array(symmetric, np.int32))
        self.advance = backend.constant(np.array(advance, np.int32))


def step(
    backend: Any,
    parameters: Sequence[Array],
    gradients: Sequence[Array],
    momenta: Sequence[Array],
    steps: int,
    rows: Sequence[Row],
    along: Along,
) -> None:
    """Muon, as base.py states it."""
    places = [place for place, parameter in enumerate(parameters) if parameter.size]
    if not places:
        return
    tables = _tables_of(backend, tuple(parameters[place].shape for place in places))
    numbers = [rows[place].array for place in places]
    sizes = tuple(int(parameters[place].size) for place in places)
    first_chunk, _, count = chunks.tables_of(backend, sizes)
    x, squares = backend.empty(tables.x), backend.empty(2 * count)

    def chosen(arrays: Sequence[Any] | None) -> list[Any]:
        return [None] * len(places) if arrays is None else [arrays[place] for place in places]

    chunks.launch(
        backend, SOURCE, "muon_prepare", [chosen(parameters), chosen(gradients), chosen(momenta)],
        int(along.zero_gradients),
        before=(
            numbers, chunks.table_or_none(chosen(along.skipped)), along.inverse_scale, along.found_inf,
            tables.matrices, x, squares,
        ),
    )  # fmt: skip
    rate = None if along.average is None else along.average.array
    moved = [chunks.table_or_none(chosen(arrays)) for arrays in (parameters, along.averages)]
    if steps:
        _iterate(backend, tables, x, squares, numbers, first_chunk, steps, (*moved, numbers, rate, along.found_inf))
        return
    chunks.launch(
        backend, SOURCE, "muon_apply", [chosen(parameters), chosen(along.averages)],
        before=(numbers, rate, along.found_inf, tables.matrices, x, squares),
    )  # fmt: skip


def _iterate(
    backend: Any,
    tables: _Tables,
    x: Array,
    squares: Array,
    numbers: list[Array],
    first_chunk: Array,
    steps: int,
    last: tuple[Any, ...],
) -> None:
    """``steps`` Newton-Schulz iterations of all matrices, three launches each; the very last one takes ``last`` too and
    moves the parameters.
    """
    gram, polynomial, other = backend.empty(tables.gram), backend.empty(tables.gram), backend.empty(tables.x)
    count = len(numbers)
    for number in range(steps):
        first = int(number == 0)
        backend.launch(
            SOURCE, "muon_gram", tables.symmetric_tiles, THREADS,
            x, squares, numbers, tables.matrices, first_chunk, tables.symmetric, gram, count, first,
        )  # fmt: skip
        backend.launch(
            SOURCE, "muon_polynomial", tables.symmetric_tiles, THREADS,
            gram, numbers, tables.matrices, tables.symmetric, polynomial, count,
        )  # fmt: skip
        if number == steps - 1:
            backend.launch(
                SOURCE, "muon_finish", tables.advance_tiles, THREADS,
                *last, polynomial, x, squares, tables.matrices, first_chunk, tables.advance, count, first,
            )  # fmt: skip
            return
        backend.launch(
            SOURCE, "muon_advance", tables.advance_tiles, THREADS,
            polynomial, x, squares, numbers, tables.matrices, first_chunk, tables.advance, other, count, first,
        )  # fmt: skip
        x, other = other, x


def _tables_of(backend: Any, shapes: Shapes) -> _Tables:
    known = _tables.setdefault(backend, {})
    if shapes not in known:
        if len(known) >= MOST_TABLES:
            known.clear()
        known[shapes] = _Tables(backend, shapes)
    return known[shapes]
