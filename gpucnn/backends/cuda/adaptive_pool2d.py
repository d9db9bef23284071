"""Adaptive max and average pooling on kernels/adaptive_pool2d.cu and adaptive_pool2d_half.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import instances
from gpucnn.backends.cuda.pool2d import MOST, launch_shape
from gpucnn.backends.launch import address
from gpucnn.geometry import AdaptivePool2dGeometry

FAMILY = "adaptive_pool2d"


def max_forward(backend: Any, x: Array, g: AdaptivePool2dGeometry) -> tuple[Array, Array]:
    """y and index (N,P,Q,C) of x (N,H,W,C)."""
    y, index = backend.empty(g.output_shape, x.dtype), backend.empty(g.output_shape, np.int32)
    _launch(backend, "adaptive_max_pool2d_forward", g, g.N * g.P, g.Q, x, y, index)
    return y, index


def max_backward(backend: Any, dy: Array, index: Array, g: AdaptivePool2dGeometry) -> Array:
    """dx (N,H,W,C) of dy and index (N,P,Q,C)."""
    dx = backend.empty(g.input_shape, dy.dtype)
    _launch(backend, "adaptive_max_pool2d_backward", g, g.N * g.H, g.W, dy, index, dx)
    return dx


def avg_forward(backend: Any, x: Array, g: AdaptivePool2dGeometry) -> Array:
    """y (N,P,Q,C) of x (N,H,W,C)."""
    y = backend.empty(g.output_shape, x.dtype)
    _launch(backend, "adaptive_avg_pool2d_forward", g, g.N * g.P, g.Q, x, y)
    return y


def avg_backward(backend: Any, dy: Array, g: AdaptivePool2dGeometry) -> Array:
    """dx (N,H,W,C) of dy (N,P,Q,C)."""
    dx = backend.empty(g.input_shape, dy.dtype)
    _launch(backend, "adaptive_avg_pool2d_backward", g, g.N * g.H, g.W, dy, dx)
    return dx


def _launch(backend: Any, name: str, g: AdaptivePool2dGeometry, rows: int, columns: int, *arrays: Array) -> None:
    """A thread owns an element, or four channels, of the ``rows`` x ``columns`` pixels that are written."""
    if max(g.H * g.P, g.W * g.Q) > MOST:
        raise ValueError(
            f"adaptive_pool2d: input times output size must be at most 2**30 an axis, got {g.H} x {g.P}, {g.W} x {g.Q}"
        )
    dtype = arrays[0].dtype
    lanes = instances.channel_lanes(g.C, *(array for array in arrays if array.dtype == dtype))
    if any(address(array) % min(lanes * array.dtype.itemsize, instances.VECTOR_BYTES) for array in arrays):
        lanes = 1
    grid, block = launch_shape(rows, columns * g.C // lanes)
    backend.launch(instances.source(FAMILY, dtype), name + instances.suffix(dtype, lanes), grid, block, *arrays, g)
