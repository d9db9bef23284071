"""Work on the rows of channels-last memory: pieces that stay in cache, values by channel repeated, sums down columns.

NumPy works on arrays of one shape in one loop, and twice as fast as on rows that share one; and channels are few beside
what its inner loops need. So a value by channel is repeated to the length of a piece, and for sums several rows are
taken as one wide row.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy.windows import spans

Array = NDArray[Any]

PIECE_BYTES = 256 << 10  # of one array in elementwise work, which has up to seven in use
SUM_BYTES = 1 << 20  # of one array in sums, which have one or two
WIDTH = 2048  # elements of a wide row, about, whose sums are taken down the columns


def cut(x: Array) -> int:
    """How many elements of ``x`` (..., C) a piece of elementwise work has; whole rows."""
    return max(PIECE_BYTES // (x.shape[-1] * x.itemsize), 1) * x.shape[-1]


def cuts(x: Array) -> list[slice]:
    """The elements of ``x`` in pieces of that many, the last of what is left."""
    size = cut(x)
    return [slice(start, min(start + size, x.size)) for start in range(0, x.size, size)]


def tiles(x: Array, *values: Any) -> list[Array]:
    """Values by channel, rounded to the dtype of ``x``, for every element of one of its pieces."""
    repeated = []
    for value in values:
        tile = np.empty((min(cut(x), x.size) // x.shape[-1], x.shape[-1]), x.dtype)
        tile[...] = value
        repeated.append(tile.reshape(-1))
    return repeated


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows [start, stop), worked on as rows of ``repeats`` rows each."""

    start: int
    stop: int
    repeats: int

    @property
    def rows(self) -> int:
        return self.stop - self.start

    def of(self, array: Array) -> Array:
        """The piece of ``array`` (rows, C) as (rows / repeats, repeats * C)."""
        return array[self.start : self.stop].reshape(-1, self.repeats * array.shape[1])


def wide_pieces(rows: Array) -> list[Piece]:
    """The rows in pieces of whole wide rows, and one more piece for what is left."""
    count, channels = rows.shape
    repeats = max(WIDTH // channels, 1)
    wide = count // repeats
    size = max(SUM_BYTES // (repeats * channels * rows.itemsize), 1)
    pieces = [Piece(a * repeats, b * repeats, repeats) for a, b in spans(wide, size)]
    return [*pieces, Piece(wide * repeats, count, 1)] if wide * repeats < count else pieces


def column_sums(part: Array, channels: int) -> Array:
    """(channels,) float64: sums over the rows of a wide piece, first within the wide columns."""
    wide = np.matmul(_ones(len(part), part.dtype), part)
    return wide.reshape(-1, channels).sum(axis=0, dtype=np.float64)


def column_dots(part: Array, other: Array, channels: int) -> Array:
    """The same of the products of two pieces' elements."""
    wide = np.einsum("rc,rc->c", part, other)
    return wide.reshape(-1, channels).sum(axis=0, dtype=np.float64)


@functools.lru_cache(maxsize=64)
def _ones(size: int, dtype: Any) -> Array:
    return np.ones(size, dtype)
