"""Sums, products with a number, casts, and copies in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import memory
from gpucnn.backends.numpy.elementwise import pieces, zeros
from gpucnn.backends.numpy.threads import for_each

Array = NDArray[Any]


def add(x: Array, y: Array, activation: str | None = None) -> Array:
    """x + y, with ``activation="relu"`` max(x + y, 0)."""
    if x.shape != y.shape or x.dtype != y.dtype or not (x.flags.c_contiguous and y.flags.c_contiguous):
        z: Array = np.add(x, y)
        return np.maximum(z, z.dtype.type(0), out=z) if activation == "relu" else z
    z = memory.empty(x.shape, x.dtype)
    flat_x, flat_y, flat_z, nothing = x.reshape(-1), y.reshape(-1), z.reshape(-1), zeros(x.dtype)

    def run(piece: slice) -> None:
        out = flat_z[piece]
        np.add(flat_x[piece], flat_y[piece], out=out)
        if activation == "relu":
            np.maximum(out, nothing[: len(out)], out=out)

    for_each(run, pieces(x.size), x.size)
    return z


def scale(x: Array, factor: float, by: Array | None = None, dtype: Any = None) -> Array:
    """x * factor * by[0]."""
    number = x.dtype.type(factor)
    y = x * (number if by is None else number * by.reshape(-1)[0])
    return y if dtype is None else y.astype(dtype, copy=False)


def cast(x: Array, dtype: Any) -> Array:
    """x in ``dtype``, rounded to nearest."""
    with np.errstate(over="ignore"):
        return x.astype(dtype)


def cast_all(arrays: Sequence[Array], outs: Sequence[Array]) -> None:
    """outs[i] = arrays[i], rounded to nearest."""
    with np.errstate(over="ignore"):
        for array, out in zip(arrays, outs, strict=True):
            out[...] = array


def transpose(x: Array) -> Array:
    """(B, N, M) of x (B, M, N)."""
    return np.ascontiguousarray(x.swapaxes(1, 2))


def resize_rows(x: Array, columns: int) -> Array:
    """(..., columns) of x (..., C): the first elements of each row, then zeros."""
    y = np.zeros((*x.shape[:-1], columns), x.dtype)
    kept = min(columns, x.shape[-1])
    y[..., :kept] = x[..., :kept]
    return y
