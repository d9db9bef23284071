"""ReLU and dropout, over pieces of memory that stay in cache."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import memory
from gpucnn.backends.numpy.scratch import scratch, short_buffers
from gpucnn.backends.numpy.threads import for_each
from gpucnn.backends.numpy.windows import spans

Array = NDArray[Any]

PIECE = 1 << 16  # elements: 256 KiB of float32
BITS = {4: np.int32, 8: np.int64}  # integers as wide as a float


def pieces(size: int) -> list[slice]:
    """[0, size) in slices of about PIECE elements."""
    return [slice(a, b) for a, b in spans(size, PIECE)]


@functools.cache
def zeros(dtype: Any) -> Array:
    """PIECE zeros, read-only: NumPy's comparisons with an array are faster than with a scalar."""
    array = np.zeros(PIECE, dtype)
    array.flags.writeable = False
    return array


def select(values: Array, wins: Array, out: Array) -> None:
    """out = values where ``wins`` (bool), else 0, by multiplying the values' bits by 0 or 1.

    As floats, 0 * inf would be NaN; np.where takes 15 times as long. Best called within :func:`short_buffers`, through
    which the multiplication widens ``wins``.
    """
    bits = BITS[values.itemsize]
    np.multiply(values.view(bits), wins, out=out.view(bits))


def relu_forward(x: Array) -> Array:
    """max(x, 0), NaN kept."""
    y = memory.empty(x.shape, x.dtype)
    flat_x, flat_y, nothing = x.reshape(-1), y.reshape(-1), zeros(x.dtype)

    def run(piece: slice) -> None:
        np.maximum(flat_x[piece], nothing[: piece.stop - piece.start], out=flat_y[piece])

    _in_pieces(run, x.size, x.size // 2)
    return y


def relu_backward(dy: Array, y: Array) -> Array:
    """dy where y > 0, else 0."""
    dx = memory.empty(dy.shape, dy.dtype)
    flat_dy, flat_y, flat_dx, nothing = dy.reshape(-1), y.reshape(-1), dx.reshape(-1), zeros(y.dtype)

    def run(piece: slice) -> None:
        size = piece.stop - piece.start
        wins = scratch("wins", (size,), np.bool_)
        np.greater(flat_y[piece], nothing[:size], out=wins)
        select(flat_dy[piece], wins, flat_dx[piece])

    _in_pieces(run, dy.size, dy.size)
    return dx


def _in_pieces(run: Callable[[slice], None], size: int, work: int) -> None:
    if size <= PIECE:
        run(slice(0, size))
    else:
        for_each(run, pieces(size), work)


def dropout(x: Array, p: float, key: tuple[int, int, int]) -> Array:
    """x * keep / (1 - p) with the Philox mask of ``key``, in memory order."""
    from gpucnn.random import keep_mask

    y = memory.empty(x.shape, x.dtype)
    with short_buffers():
        select(x, keep_mask(x.size, p, key).reshape(x.shape), y)
    np.multiply(y, x.dtype.type(1 / (1 - p)), out=y)
    return y
