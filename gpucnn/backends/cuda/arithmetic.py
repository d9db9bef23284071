"""Sums, products with a number, and copies in another order, on kernels/elementwise.cu and elementwise_half.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import instances
from gpucnn.backends.cuda.grids import THREADS, blocks, ceil_div

TILE, TILE_BLOCK = 32, (32, 8)  # of transpose
MOST_BLOCKS = 2**31 - 1


def add(backend: Any, x: Array, y: Array, activation: str | None = None) -> Array:
    """x + y, of one shape and dtype; with ``activation="relu"`` max(x + y, 0)."""
    z = backend.empty(x.shape, x.dtype)
    count = instances.lanes(x, y, z)
    work = x.size // count
    kernel = f"add_{_name(x)}{'_vec' if count > 1 else ''}"
    backend.launch(_source(x), kernel, blocks(work), THREADS, x, y, z, work, int(activation == "relu"))
    return z


def scale(backend: Any, x: Array, factor: float, by: Array | None = None, dtype: Any = None) -> Array:
    """x * factor * by[0], in ``dtype`` (default: that of x)."""
    y = backend.empty(x.shape, x.dtype if dtype is None else dtype)
    kernel = f"scale_{_name(x)}_{_name(y)}"
    backend.launch(_source(y), kernel, blocks(x.size), THREADS, x, y, by, factor, x.size)
    return y


def transpose(backend: Any, x: Array) -> Array:
    """(B, N, M) of x (B, M, N)."""
    images, rows, columns = x.shape
    y = backend.empty((images, columns, rows), x.dtype)
    grid = images * ceil_div(rows, TILE) * ceil_div(columns, TILE)
    if grid > MOST_BLOCKS:
        raise ValueError(f"transpose: shape {x.shape} has more than {MOST_BLOCKS} tiles of {TILE} x {TILE}")
    backend.launch(_source(x), f"transpose_{_name(x)}", grid, TILE_BLOCK, x, y, rows, columns)
    return y


def resize_rows(backend: Any, x: Array, columns: int) -> Array:
    """(..., columns) of x (..., C): the first elements of each row, then zeros."""
    y = backend.empty((*x.shape[:-1], columns), x.dtype)
    rows = y.size // columns if columns else 0
    backend.launch(_source(x), f"resize_rows_{_name(x)}", blocks(y.size), THREADS, x, y, rows, x.shape[-1], columns)
    return y


def _name(array: Array) -> str:
    return "float" if array.dtype == np.float32 else str(array.dtype.name)


def _source(array: Array) -> str:
    return instances.source("elementwise", array.dtype)
