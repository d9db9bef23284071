"""Max and average pooling on the kernels of kernels/pool2d.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.backends.base import Array
from gpucnn.backends.cuda.grids import MAX_BLOCKS, MAX_ROW_BLOCKS, THREADS, ceil_div, fits_vectors, power_of_two
from gpucnn.backends.launch import address
from gpucnn.geometry import Pool2dGeometry

SOURCE = "pool2d.cu"
MOST = 2**30  # rows, and elements of a row: the kernels count them in int, and one step of the grid further
MOST_BYTE_TAPS = 256  # windows of more taps keep their index in an int


def max_forward(backend: Any, x: Array, g: Pool2dGeometry) -> tuple[Array, Array]:
    """y and index (N,P,Q,C) of x (N,H,W,C)."""
    wide = g.R * g.S > MOST_BYTE_TAPS
    y = backend.empty(g.output_shape, np.float32)
    index = backend.empty(g.output_shape, np.int32 if wide else np.uint8)
    vector = 1 if wide else _vector(g, x, y)
    grid, block = launch_shape(g.N * g.P, g.Q * g.C // vector)
    backend.launch(SOURCE, _instance("max_pool2d_forward", vector, wide), grid, block, x, y, index, g)
    return y, index


def max_backward(backend: Any, dy: Array, index: Array, g: Pool2dGeometry) -> Array:
    """dx (N,H,W,C) of dy and index (N,P,Q,C)."""
    wide = g.R * g.S > MOST_BYTE_TAPS
    dx = backend.empty(g.input_shape, np.float32)
    vector = 1 if wide or address(index) % 4 else _vector(g, dy, dx)
    grid, block = launch_shape(g.N * g.H, g.W * g.C // vector)
    backend.launch(SOURCE, _instance("max_pool2d_backward", vector, wide), grid, block, dy, index, dx, g)
    return dx


def avg_forward(backend: Any, x: Array, g: Pool2dGeometry, count_include_pad: bool, divisor: int | None) -> Array:
    """y (N,P,Q,C) of x (N,H,W,C)."""
    y = backend.empty(g.output_shape, np.float32)
    vector = _vector(g, x, y)
    grid, block = launch_shape(g.N * g.P, g.Q * g.C // vector)
    name = _instance("avg_pool2d_forward", vector)
    backend.launch(SOURCE, name, grid, block, x, y, g, int(count_include_pad), divisor or 0)
    return y


def avg_backward(backend: Any, dy: Array, g: Pool2dGeometry, count_include_pad: bool, divisor: int | None) -> Array:
    """dx (N,H,W,C) of dy (N,P,Q,C)."""
    dx = backend.empty(g.input_shape, np.float32)
    vector = _vector(g, dy, dx)
    grid, block = launch_shape(g.N * g.H, g.W * g.C // vector)
    name = _instance("avg_pool2d_backward", vector)
    backend.launch(SOURCE, name, grid, block, dy, dx, g, int(count_include_pad), divisor or 0)
    return dx


def _vector(g: Pool2dGeometry, *arrays: Array) -> int:
    """How many channels a thread owns."""
    return 4 if g.C % 4 == 0 and fits_vectors(*arrays) else 1


def _instance(name: str, vector: int, wide: bool = False) -> str:
    return name + ("_vec4" if vector == 4 else "") + ("_wide" if wide else "")


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
