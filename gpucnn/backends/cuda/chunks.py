"""Launches over many arrays at once, in chunks that blocks take in turn (kernels/chunks.cuh)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from gpucnn.backends.base import Array
from gpucnn.backends.cuda.grids import MAX_BLOCKS, THREADS, ceil_div
from gpucnn.layout import memory_view

CHUNK = 2048  # elements that a block takes at a time, as in kernels/chunks.cuh
MOST_TABLES = 64  # lists of sizes, and of weight decays, whose tables are kept on a device

Sizes = tuple[int, ...]
Numbers = tuple[float, ...]
_tables: WeakKeyDictionary[Any, dict[Sizes, tuple[Array, Array, int]]] = WeakKeyDictionary()
_number_tables: WeakKeyDictionary[Any, dict[Numbers, Array]] = WeakKeyDictionary()


def launch(
    backend: Any,
    source: str,
    kernel: str,
    lists: Sequence[Sequence[Array]],
    *arguments: Any,
    numbers: Sequence[float] | None = None,
) -> int:
    """Launches ``kernel`` over lists of arrays and returns how many chunks there were; none launches nothing.

    Arrays at one place of the lists share size and memory order; those without elements are left out. The kernel
    takes a table of pointers for each list, first_chunk and sizes, a float for each array if there are ``numbers``,
    how many arrays there are, and ``arguments``.
    """
    tables = [[memory_view(array) for array in arrays if array.size] for arrays in lists]
    first_chunk, sizes, chunks = tables_of(backend, tuple(int(array.size) for array in tables[0]))
    if not chunks:
        return 0
    own: tuple[Array, ...] = ()
    if numbers is not None:
        own = (_on_device(backend, tuple(n for n, array in zip(numbers, lists[0], strict=True) if array.size)),)
    grid = min(chunks, MAX_BLOCKS)
    backend.launch(source, kernel, grid, THREADS, *tables, first_chunk, sizes, *own, len(tables[0]), *arguments)
    return chunks


def tables_of(backend: Any, sizes: Sizes) -> tuple[Array, Array, int]:
    """first_chunk (arrays + 1,) and sizes (arrays,) on the device, and how many chunks there are; kept."""
    known = _tables.setdefault(backend, {})
    if sizes not in known:
        first_chunk = np.cumsum([0, *(ceil_div(size, CHUNK) for size in sizes)], dtype=np.int64)
        if len(known) >= MOST_TABLES:
            known.clear()
        on_device = backend.constant(first_chunk), backend.constant(np.array(sizes, np.int64))
        known[sizes] = *on_device, int(first_chunk[-1])
    return known[sizes]


def _on_device(backend: Any, numbers: Numbers) -> Array:
    """``numbers`` (arrays,) as float32 on the device; kept, so that a steady training step copies nothing."""
    known = _number_tables.setdefault(backend, {})
    if numbers not in known:
        if len(known) >= MOST_TABLES:
            known.clear()
        known[numbers] = backend.constant(np.array(numbers, np.float32))
    return known[numbers]
