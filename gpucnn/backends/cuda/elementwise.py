"""ReLU and dropout, of half types too, and the bias' gradient: kernels/relu.cu, dropout.cu and bias.cu."""

from __future__ import annotations

from typing import Any

from gpucnn.backends.base import Array, RandomKey
from gpucnn.backends.cuda import activation, instances
from gpucnn.backends.cuda.grids import THREADS, blocks, ceil_div, power_of_two
from gpucnn.random import drop_threshold

SLAB_ROWS = 512  # rows that one block of column_sums adds up, more only where there would be more than MOST_SLABS
MOST_SLABS = 1024


def relu_forward(backend: Any, x: Array) -> Array:
    """max(x, 0) of any shape."""
    return activation.forward(backend, "relu", x)


def relu_backward(backend: Any, dy: Array, y: Array) -> Array:
    """dy where y > 0, else 0."""
    return activation.backward(backend, "relu", dy, y)


def dropout(backend: Any, x: Array, p: float, key: RandomKey) -> Array:
    """x * keep / (1 - p), keep of ``random.keep_mask``."""
    y = backend.empty(x.shape, x.dtype)
    source, name, work = instances.elementwise("dropout", "dropout", x, y)
    threads = ceil_div(x.size, 4) if work == x.size else work  # a thread owns a Philox block, or a vector
    seed, step, purpose = (int(part) for part in key)
    backend.launch(
        source, name, blocks(threads), THREADS,
        x, y, work, backend.stream_offset(purpose), drop_threshold(p), 1.0 / (1.0 - p), seed, step, purpose,
    )  # fmt: skip
    return y


def bias_grad(backend: Any, dy: Array) -> Array:
    """db (K,), float32: the sums of the columns of dy (..., K)."""
    columns, dtype = dy.shape[-1], dy.dtype
    rows = dy.size // columns
    tile = power_of_two(columns, 1, 32)
    rows_per_slab = max(SLAB_ROWS, ceil_div(rows, MOST_SLABS))
    slabs = max(ceil_div(rows, rows_per_slab), 1)
    tiles = ceil_div(columns, tile)
    joining = (backend.empty((slabs, columns)), backend.counters(tiles)) if slabs > 1 else (None, None)
    db = backend.empty((columns,))
    backend.launch(
        instances.source("bias", dtype), "column_sums" + instances.suffix(dtype, 1), (tiles, slabs),
        (tile, THREADS // tile), dy, *joining, db, rows, columns, rows_per_slab,
    )  # fmt: skip
    return db
