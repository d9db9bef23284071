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
MOST_TABLES = 64  # lists of sizes whose tables are kept on a device

Sizes = tuple[int, ...]
_tables: WeakKeyDictionary[Any, dict[Sizes, tuple[Array, Array, int]]] = WeakKeyDictionary()


def launch(
    backend: Any,
    source: str,
    kernel: str,
    lists: Sequence[Sequence[Array | None]],
    *arguments: Any,
    before: Sequence[Any] = (),
) -> int:
    """Launches ``kernel`` over lists of arrays and returns how many chunks there were; none launches nothing.

    Arrays at one place of the lists share size and memory order; those without elements are left out. The first list
    is complete, others may hold None. The kernel takes a table of pointers for each list (a null pointer for a list of
    None), what is ``before`` the sizes, first_chunk and sizes, how many arrays there are, and ``arguments``.
    """
    places = [place for place, array in enumerate(lists[0]) if _size(array)]
    first_chunk, sizes, chunks = tables_of(backend, tuple(_size(lists[0][place]) for place in places))
    if not chunks:
        return 0
    views = [[None if (one := arrays[place]) is None else memory_view(one) for place in places] for arrays in lists]
    tables = [table_or_none(entries) for entries in views]
    grid = min(chunks, MAX_BLOCKS)
    backend.launch(source, kernel, grid, THREADS, *tables, *before, first_chunk, sizes, len(places), *arguments)
    return chunks


def _size(array: Array | None) -> int:
    return 0 if array is None else int(array.size)


def table_or_none(entries: list[Array | None]) -> list[Array | None] | None:
    """``entries``, or None where there is nothing in them: a null pointer in the place of a table."""
    return entries if any(entry is not None for entry in entries) else None


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
