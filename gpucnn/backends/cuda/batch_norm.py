"""Batch normalisation on kernels/batch_norm.cu: three launches forward and back in training, one in evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn.backends.base import Array, BatchStatistics
from gpucnn.backends.cuda import activation as smooth
from gpucnn.backends.cuda import elementwise
from gpucnn.backends.cuda.grids import MAX_BLOCKS, MAX_ROW_BLOCKS, THREADS, ceil_div, fits_vectors, power_of_two

SOURCE = "batch_norm.cu"
WARP = 32
FINISH_COLUMNS, FINISH_ROWS = 8, 32  # the block of the finishing kernels
ROWS_PER_THREAD = 8  # at least, before there are more slabs or blocks: what a thread reads of its channel is read once
MOST_SLABS = 512  # of all columns together: enough to fill a GPU, and few to join


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a kernel covers (rows, C): the suffix of its name, its columns, and its blocks."""

    suffix: str
    rows: int
    columns: int
    block: tuple[int, int]

    @staticmethod
    def of(rows: int, channels: int, *arrays: Array) -> _Plan:
        vector = channels % 4 == 0 and fits_vectors(*arrays)
        columns = channels // 4 if vector else channels
        tile = power_of_two(columns, 1, WARP)
        return _Plan("_vec4" if vector else "", rows, columns, (tile, THREADS // tile))

    def row_blocks(self, most: int) -> int:
        """How many blocks share the rows of a column, ``most`` of all columns together."""
        wanted = ceil_div(self.rows, self.block[1] * ROWS_PER_THREAD)
        return max(min(wanted, most // self.column_blocks, MAX_ROW_BLOCKS), 1)

    @property
    def column_blocks(self) -> int:
        return ceil_div(self.columns, self.block[0])

    def slabs(self) -> tuple[int, int]:
        """(slabs, rows of each): every slab has at least one row."""
        rows_per_slab = ceil_div(self.rows, self.row_blocks(MOST_SLABS))
        return ceil_div(self.rows, rows_per_slab), rows_per_slab


def statistics(
    backend: Any,
    x: Array,
    running_mean: Array | None,
    running_var: Array | None,
    momentum: float,
    batches: Array | None = None,
) -> BatchStatistics:
    """mean, what its rounding left, and variance of x (..., C) by channel; updates the running ones in place, and adds
    1 to ``batches`` (1,).
    """
    channels = x.shape[-1]
    rows = x.size // channels
    if not rows:
        if batches is not None:
            backend.xp.add(batches, 1, out=batches)
        empty = backend.xp.zeros((3, channels), np.float32)
        return empty[0], empty[1], empty[2]
    plan = _Plan.of(rows, channels, x)
    slabs, rows_per_slab = plan.slabs()
    partial, result = backend.empty((slabs, 2, channels)), backend.empty((3, channels))
    backend.launch(
        SOURCE, f"batch_norm_statistics{plan.suffix}", (plan.column_blocks, slabs), plan.block,
        x, partial, rows, plan.columns, rows_per_slab,
    )  # fmt: skip
    backend.launch(
        SOURCE, "batch_norm_finish_statistics", ceil_div(channels, FINISH_COLUMNS), (FINISH_COLUMNS, FINISH_ROWS),
        partial, x, running_mean, running_var, batches, result, rows, channels, rows_per_slab, slabs, 1 - momentum, momentum,
    )  # fmt: skip
    return result[0], result[1], result[2]


def forward(
    backend: Any,
    x: Array,
    statistics: BatchStatistics,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    activation: str | None = None,
) -> Array:
    """y = f((x - mean) / sqrt(var + eps) * weight + bias), like x (..., C), f by the name in ``activation``."""
    z = _affine(backend, x, *statistics, weight, bias, eps)
    if activation is None:
        return z
    return elementwise.relu_forward(backend, z) if activation == "relu" else smooth.forward(backend, activation, z)


def backward(
    backend: Any,
    dy: Array,
    x: Array,
    statistics: BatchStatistics,
    weight: Array | None,
    eps: float,
    training: bool,
    needs: tuple[bool, bool, bool],
    bias: Array | None = None,
    activation: str | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """dx like x, dweight and dbias (C,), each None unless needed, as base.py states them."""
    if activation is not None:
        z = _affine(backend, x, *statistics, weight, bias, eps)
        relu = activation == "relu"
        dy = elementwise.relu_backward(backend, dy, z) if relu else smooth.backward(backend, activation, dy, z)
    need_x, need_weight, need_bias = needs
    mean, remainder, var = statistics
    channels = x.shape[-1]
    rows = x.size // channels
    if not rows:
        sizes = (x.shape, (channels,), (channels,))
        return tuple(backend.xp.zeros(s, np.float32) if n else None for s, n in zip(sizes, needs, strict=True))  # type: ignore[return-value]
    centred = need_weight or (need_x and training)
    dx = dweight = dbias = coefficients = None
    if centred:
        plan = _Plan.of(rows, channels, dy, x)
        slabs, rows_per_slab = plan.slabs()
        partial = backend.empty((slabs, 2, channels))
        backend.launch(
            SOURCE, f"batch_norm_sums{plan.suffix}", (plan.column_blocks, slabs), plan.block,
            dy, x, mean, partial, rows, plan.columns, rows_per_slab,
        )  # fmt: skip
        dweight = backend.empty((channels,)) if need_weight else None
        dbias = backend.empty((channels,)) if need_bias else None
        coefficients = backend.empty((2, channels)) if need_x and training else None
        backend.launch(
            SOURCE, "batch_norm_finish_sums", ceil_div(channels, FINISH_COLUMNS), (FINISH_COLUMNS, FINISH_ROWS),
            partial, remainder, var, dweight, dbias, coefficients, rows, channels, slabs, eps,
        )  # fmt: skip
    elif need_bias:
        dbias = elementwise.bias_grad(backend, dy)
    if need_x and training:
        dx = backend.empty(x.shape)
        plan = _Plan.of(rows, channels, dy, x, dx)
        backend.launch(
            SOURCE, f"batch_norm_backward{plan.suffix}", (plan.column_blocks, plan.row_blocks(MAX_BLOCKS)), plan.block,
            dy, x, mean, var, weight, coefficients, dx, rows, plan.columns, eps,
        )  # fmt: skip
    elif need_x:
        dx = _affine(backend, dy, None, None, var, weight, None, eps)
    return dx, dweight, dbias


def _affine(
    backend: Any, x: Array, mean: Array | None, remainder: Array | None, var: Array, weight: Array | None,
    bias: Array | None, eps: float,
) -> Array:  # fmt: skip
    y = backend.empty(x.shape)
    channels = x.shape[-1]
    plan = _Plan.of(x.size // channels, channels, x, y)
    grid = (plan.column_blocks, plan.row_blocks(MAX_BLOCKS) if plan.rows else 0)
    backend.launch(
        SOURCE, f"batch_norm_forward{plan.suffix}", grid, plan.block,
        x, mean, remainder, var, weight, bias, y, plan.rows, plan.columns, eps,
    )  # fmt: skip
    return y
