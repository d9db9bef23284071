"""Max and average pooling; the latter over blocks of images that stay in cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import max_pool2d, memory
from gpucnn.backends.numpy.pool_gradient import gather
from gpucnn.backends.numpy.threads import for_each
from gpucnn.backends.numpy.windows import Axis, Block, axes, blocks, window_view
from gpucnn.geometry import Pool2dGeometry

Array = NDArray[Any]

BLOCK_BYTES = 1 << 20  # of a block's inputs

max_forward = max_pool2d.forward


def max_backward(dy: Array, index: Array, g: Pool2dGeometry) -> Array:
    """dx (N,H,W,C): each dy (N,P,Q,C) added to the input that ``index`` names."""
    return gather(dy, index, g)


def avg_forward(x: Array, g: Pool2dGeometry, count_include_pad: bool, divisor: int | None) -> Array:
    """y (N,P,Q,C), each window's sum over its divisor."""
    y = memory.empty(g.output_shape, x.dtype)
    rows, columns = axes(g)
    divisors = _divisors(g, rows, columns, count_include_pad, divisor, x.dtype)

    def run(block: Block) -> None:
        windows = window_view(x, block, rows, columns)
        part = y[block.image : block.image_end, block.row : block.row_end]
        part[...] = windows[:, :, :, 0, 0]
        for r, s in list(np.ndindex(windows.shape[3:5]))[1:]:
            np.add(part, windows[:, :, :, r, s], out=part)
        np.divide(part, divisors[block.row : block.row_end], out=part)

    for_each(run, _blocks(g, x.itemsize))
    return y


def avg_backward(dy: Array, g: Pool2dGeometry, count_include_pad: bool, divisor: int | None) -> Array:
    """dx (N,H,W,C) of :func:`avg_forward`."""
    return gather(dy / _divisors(g, *axes(g), count_include_pad, divisor, dy.dtype), None, g)


def _divisors(
    g: Pool2dGeometry, rows: Axis, columns: Axis, count_include_pad: bool, divisor: int | None, dtype: Any
) -> Array:
    """(P, Q, 1): what each window's sum is divided by; 1 where a window counts nothing."""
    if divisor is not None:
        return np.full((g.P, g.Q, 1), divisor, dtype)
    if count_include_pad:  # places beyond the bottom and right padding, which ceil_mode adds, do not count
        rows = Axis(g.H + g.pad_top + g.pad_bottom, g.P, g.R, g.stride_h, 0, g.dilation_h)
        columns = Axis(g.W + g.pad_left + g.pad_right, g.Q, g.S, g.stride_w, 0, g.dilation_w)
    counts = np.outer(rows.is_input().sum(axis=1), columns.is_input().sum(axis=1))
    return np.maximum(counts, 1).astype(dtype)[:, :, None]


def _blocks(g: Pool2dGeometry, itemsize: int) -> list[Block]:
    row_bytes = -(-g.H * g.W * g.C * itemsize // g.P)
    return blocks(g.N, g.P, row_bytes, BLOCK_BYTES)
