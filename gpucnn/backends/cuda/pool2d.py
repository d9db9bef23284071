"""Max and average pooling on kernels/pool2d.cu, pool2d_rare.cu and pool2d_half.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import instances
from gpucnn.backends.cuda.grids import MAX_BLOCKS, MAX_ROW_BLOCKS, THREADS, ceil_div, power_of_two
from gpucnn.backends.launch import address
from gpucnn.geometry import Pool2dGeometry

MOST = 2**30  # rows, and elements of a row: the kernels count them in int, and one step of the grid further
MOST_BYTE_TAPS = 256  # windows of more taps keep their index in an int
WARP = 32
SQUARE_STRIDE = 2  # of the instances for windows of 2 x 2 and of 3 x 3


def max_forward(backend: Any, x: Array, g: Pool2dGeometry) -> tuple[Array, Array]:
    """y and index (N,P,Q,C) of x (N,H,W,C)."""
    wide = g.R * g.S > MOST_BYTE_TAPS
    y = backend.empty(g.output_shape, x.dtype)
    index = backend.empty(g.output_shape, np.int32 if wide else np.uint8)
    lanes = 1 if wide else instances.channel_lanes(g.C, x, y)
    grid, block = launch_shape(g.N * g.P, g.Q * g.C // lanes)
    backend.launch(*_max_instance("max_pool2d_forward", g, x.dtype, lanes), grid, block, x, y, index, g)
    return y, index


def max_backward(backend: Any, dy: Array, index: Array, g: Pool2dGeometry) -> Array:
    """dx (N,H,W,C) of dy and index (N,P,Q,C)."""
    dx = backend.empty(g.input_shape, dy.dtype)
    lanes = 1 if g.R * g.S > MOST_BYTE_TAPS else instances.channel_lanes(g.C, dy, dx)
    if address(index) % lanes:
        lanes = 1
    rows, columns = g.N * g.H, g.W
    if lanes > 1 and square(g):  # rows and columns of tiles
        tile_rows, columns = square_tiles(g)
        rows = g.N * tile_rows
    grid, block = launch_shape(rows, columns * g.C // lanes)
    backend.launch(*_max_instance("max_pool2d_backward", g, dy.dtype, lanes), grid, block, dy, index, dx, g)
    return dx


def avg_forward(backend: Any, x: Array, g: Pool2dGeometry, count_include_pad: bool, divisor: int | None) -> Array:
    """y (N,P,Q,C) of x (N,H,W,C)."""
    y = backend.empty(g.output_shape, x.dtype)
    lanes = instances.channel_lanes(g.C, x, y)
    if _whole_image(g):
        columns = g.C // lanes
        tile = power_of_two(columns, 1, WARP)
        backend.launch(
            _rare_source(x.dtype), "avg_pool2d_forward_global" + instances.suffix(x.dtype, lanes),
            (ceil_div(columns, tile), g.N), (tile, THREADS // tile),
            x, y, g.H * g.W, columns, 1 / (divisor or g.H * g.W),
        )  # fmt: skip
        return y
    grid, block = launch_shape(g.N * g.P, g.Q * g.C // lanes)
    name = "avg_pool2d_forward" + instances.suffix(x.dtype, lanes)
    backend.launch(_rare_source(x.dtype), name, grid, block, x, y, g, int(count_include_pad), divisor or 0)
    return y


def avg_backward(backend: Any, dy: Array, g: Pool2dGeometry, count_include_pad: bool, divisor: int | None) -> Array:
    """dx (N,H,W,C) of dy (N,P,Q,C)."""
    dx = backend.empty(g.input_shape, dy.dtype)
    lanes = instances.channel_lanes(g.C, dy, dx)
    grid, block = launch_shape(g.N * g.H, g.W * g.C // lanes)
    name = "avg_pool2d_backward" + instances.suffix(dy.dtype, lanes)
    backend.launch(_rare_source(dy.dtype), name, grid, block, dy, dx, g, int(count_include_pad), divisor or 0)
    return dx


def _max_instance(name: str, g: Pool2dGeometry, dtype: Any, lanes: int) -> tuple[str, str]:
    """The source and the kernel, "max_pool2d_forward_2x2_vec4"."""
    suffix = instances.suffix(dtype, lanes)
    if g.R * g.S > MOST_BYTE_TAPS:
        return _rare_source(dtype), f"{name}_wide{suffix}"
    size = f"_{g.R}x{g.S}" if lanes > 1 and square(g) else ""
    return instances.source("pool2d", dtype), name + size + suffix


def square(g: Pool2dGeometry) -> bool:
    """Whether an instance is made for these windows."""
    sizes = (g.stride_h, g.stride_w, g.dilation_h, g.dilation_w)
    return g.R == g.S and g.R in (2, 3) and sizes == (SQUARE_STRIDE, SQUARE_STRIDE, 1, 1)


def square_tiles(g: Pool2dGeometry) -> tuple[int, int]:
    """Rows and columns of the tiles of inputs that a thread of those instances owns in backward."""
    return ceil_div(g.H + g.pad_top, SQUARE_STRIDE), ceil_div(g.W + g.pad_left, SQUARE_STRIDE)


def _whole_image(g: Pool2dGeometry) -> bool:
    """Whether there is one window, over the whole image."""
    padding = (g.pad_top, g.pad_bottom, g.pad_left, g.pad_right)
    one = g.P == g.Q == 1 and (g.R, g.S) == (g.H, g.W) and padding == (0, 0, 0, 0)
    return one and (g.dilation_h, g.dilation_w) == (1, 1) and g.N <= MAX_ROW_BLOCKS


def _rare_source(dtype: Any) -> str:
    return "pool2d_rare.cu" if dtype.itemsize == 4 else "pool2d_half.cu"


def launch_shape(rows: int, row_elements: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Grid and block over the rows of an image and the elements of a row; short rows share a block."""
    if max(rows, row_elements) > MOST:
        raise ValueError(
            f"pool2d: batch times height and width times channels must be at most 2**30, got {rows} and {row_elements}"
        )
    x = power_of_two(row_elements, 1, THREADS)
    y = THREADS // x
    grid = min(ceil_div(row_elements, x), MAX_BLOCKS), min(ceil_div(rows, y), MAX_ROW_BLOCKS)
    return grid, (x, y)
