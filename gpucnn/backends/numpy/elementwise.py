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
RUN = 1 << 13  # elements of zeros that stay in L1; NumPy copies runs shorter than its buffer, which is that long
LARGE = 1 << 18  # elements of a piece that another thread may take
ALONE = 1 << 18  # elements, below which two threads take as long as one
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
    if x.size <= 2 * RUN:
        np.maximum(x, zeros(x.dtype)[: x.size].reshape(x.shape), out=y)
        return y
    _in_pieces(_rectify_in_cache if x.size <= ALONE else _rectify, x.reshape(-1), y.reshape(-1))
    return y


def _rectify_in_cache(x: Array, y: Array) -> None:
    nothing, whole = zeros(x.dtype), x.size & -RUN
    np.maximum(x[:whole].reshape(-1, RUN), nothing[:RUN], out=y[:whole].reshape(-1, RUN))
    if whole < x.size:
        np.maximum(x[whole:], nothing[: x.size - whole], out=y[whole:])


def _rectify(x: Array, y: Array) -> None:
    np.maximum(x, 0, out=y)  # as fast as memory is


def relu_backward(dy: Array, y: Array) -> Array:
    """dy where y > 0, else 0."""
    dx = memory.empty(dy.shape, dy.dtype)
    _in_pieces(_pass_where_positive, dy.reshape(-1), y.reshape(-1), dx.reshape(-1))
    return dx


def _pass_where_positive(dy: Array, y: Array, dx: Array) -> None:
    wins = scratch("wins", y.shape, np.bool_)
    np.greater(y, 0, out=wins)  # an array of zeros would take longer here
    select(dy, wins, dx)


def _in_pieces(run: Callable[..., None], *arrays: Array) -> None:
    """``run`` on matching pieces of flat arrays: one, or an even number of large ones, because two threads with shorter
    calls of NumPy mostly wait for each other.
    """
    size = arrays[0].size
    if size <= ALONE:
        run(*arrays)
    else:
        parts = spans(size, -(-size // (2 * -(-size // (2 * LARGE)))))
        for_each(lambda part: run(*[array[part[0] : part[1]] for array in arrays]), parts, size)


def dropout(x: Array, p: float, key: tuple[int, int, int]) -> Array:
    """x * keep / (1 - p) with the Philox mask of ``key``, in memory order."""
    from gpucnn.random import keep_mask

    y = memory.empty(x.shape, x.dtype)
    with short_buffers():
        select(x, keep_mask(x.size, p, key).reshape(x.shape), y)
    np.multiply(y, x.dtype.type(1 / (1 - p)), out=y)
    return y
