"""Batch normalisation on kernels/batch_norm.cu, batch_norm_smooth.cu and batch_norm_half.cu.

Two launches forward and two back in training, one each in evaluation, the activation behind it included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn.backends.base import Array, BatchStatistics
from gpucnn.backends.cuda import elementwise, instances
from gpucnn.backends.cuda.activation import ACTIVATIONS
from gpucnn.backends.cuda.grids import MAX_ROW_BLOCKS, THREADS, ceil_div, power_of_two

FAMILY = "batch_norm"
SMOOTH = ("gelu_tanh", "silu")  # which float32 instances of their own are for
WARP = 32
ROWS_PER_THREAD = 8  # at least, before there are more slabs or blocks: what a thread reads of its channel is read once
MAX_BLOCKS = 1056  # of all columns together, for y and dx: eight on each of 132 multiprocessors; threads walk on
MOST_SLABS = 256  # of all columns together: enough to fill a GPU, and few for the last block to join


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a kernel covers (rows, C): the dtype and lanes of its instance, its columns, and its blocks."""

    dtype: Any
    lanes: int
    rows: int
    columns: int
    block: tuple[int, int]

    @staticmethod
    def of(rows: int, channels: int, *arrays: Array) -> _Plan:
        lanes = instances.channel_lanes(channels, *arrays)
        columns = channels // lanes
        tile = power_of_two(columns, 1, WARP)
        return _Plan(arrays[0].dtype, lanes, rows, columns, (tile, THREADS // tile))

    def instance(self, name: str, activation: str | None = None) -> tuple[str, str]:
        """Source and kernel."""
        suffix = instances.suffix(self.dtype, self.lanes)
        if activation in SMOOTH and self.dtype.itemsize == 4:
            return "batch_norm_smooth.cu", f"batch_norm_{name}_smooth{suffix}"
        return instances.source(FAMILY, self.dtype), f"batch_norm_{name}{suffix}"

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

    def joining(self, backend: Any, slabs: int) -> tuple[Array | None, Array | None]:
        """The slabs' results and the counters of the columns' blocks; none for one slab, which is the last itself."""
        if slabs == 1:
            return None, None
        return backend.empty((slabs, 2, self.columns * self.lanes)), backend.counters(self.column_blocks)


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
    result = backend.empty((3, channels))
    backend.launch(
        *plan.instance("statistics"), (plan.column_blocks, slabs), plan.block,
        x, *plan.joining(backend, slabs), running_mean, running_var, batches, result,
        rows, plan.columns, rows_per_slab, 1 - momentum, momentum,
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
    return _affine(backend, x, *statistics, weight, bias, eps, activation)


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
    need_x, need_weight, need_bias = needs
    channels = x.shape[-1]
    rows = x.size // channels
    if not rows:
        xp = backend.xp
        dx, dweight, dbias = (xp.zeros_like(x), *(xp.zeros((channels,), np.float32) for _ in range(2)))
        return dx if need_x else None, dweight if need_weight else None, dbias if need_bias else None
    dx = dweight = dbias = coefficients = None
    given = *statistics, weight, bias
    kind = ACTIVATIONS[activation]
    if need_weight or (need_x and training) or (need_bias and activation is not None):
        plan = _Plan.of(rows, channels, dy, x)
        slabs, rows_per_slab = plan.slabs()
        dweight = backend.empty((channels,)) if need_weight else None
        dbias = backend.empty((channels,)) if need_bias else None
        coefficients = backend.empty((2, channels)) if need_x and training else None
        backend.launch(
            *plan.instance("sums", activation), (plan.column_blocks, slabs), plan.block,
            dy, x, *given, *plan.joining(backend, slabs), dweight, dbias, coefficients,
            rows, plan.columns, rows_per_slab, eps, kind,
        )  # fmt: skip
    elif need_bias:
        dbias = elementwise.bias_grad(backend, dy)
    if need_x and (training or activation is not None):
        dx = backend.empty(x.shape, x.dtype)
        plan = _Plan.of(rows, channels, dy, x, dx)
        backend.launch(
            *plan.instance("backward", activation), (plan.column_blocks, plan.row_blocks(MAX_BLOCKS)), plan.block,
            dy, x, *given, coefficients, dx, rows, plan.columns, eps, kind,
        )  # fmt: skip
    elif need_x:
        dx = _affine(backend, dy, None, None, statistics[2], weight, None, eps, None)
    return dx, dweight, dbias


def _affine(
    backend: Any, x: Array, mean: Array | None, remainder: Array | None, var: Array, weight: Array | None,
    bias: Array | None, eps: float, activation: str | None,
) -> Array:  # fmt: skip
    y = backend.empty(x.shape, x.dtype)
    channels = x.shape[-1]
    plan = _Plan.of(x.size // channels, channels, x, y)
    grid = (plan.column_blocks, plan.row_blocks(MAX_BLOCKS) if plan.rows else 0)
    backend.launch(
        *plan.instance("forward", activation), grid, plan.block,
        x, mean, remainder, var, weight, bias, y, plan.rows, plan.columns, eps, ACTIVATIONS[activation],
    )  # fmt: skip
    return y
