"""Which convolution kernel runs for which sizes, and its launch.

Everything is chosen by the geometry and by the arrays' alignment, so that a run can be repeated bit by bit. An
*instance* is the end of a kernel's name: ``128x64_vec4``, ``64x128_vec4``, ``64x64_vec4``, ``64x64_scalar`` (tiles of
kernels/conv2d_simt.cu: rows x columns) or ``direct`` (kernels/conv2d_direct.cu). Tests and benchmarks may ask for one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import conv2d_mma, elementwise, split_k
from gpucnn.backends.cuda.grids import ENOUGH_TILES, THREADS, TILE_THREADS, blocks, ceil_div, power_of_two, tiles
from gpucnn.backends.launch import address
from gpucnn.geometry import Conv2dGeometry

TILED = "conv2d_simt.cu"
DIRECT = "conv2d_direct.cu"
FEW_CHANNELS = 4  # in and out of a group: tiles would be nearly empty, the direct kernel is not
MOST_PIXELS = 1 << 30  # of one tensor, with its padding: kernels count pixels in int


def tensor_cores(array: Array, tf32: bool) -> bool:
    """Whether these arrays go to conv2d_mma.py: those of half types, and float32 ones where tf32 will do."""
    return tf32 or array.dtype != np.float32


def fprop(
    backend: Any,
    x: Array,
    w: Array,
    bias: Array | None,
    g: Conv2dGeometry,
    activation: str | None = None,
    tf32: bool = False,
    instance: str | None = None,
) -> Array:
    """y (N,P,Q,K) of x (N,H,W,C), w (K,R,S,C/groups) and bias (K,) or None, after ``activation``."""
    if tensor_cores(x, tf32):
        return conv2d_mma.fprop(backend, x, w, bias, g, activation, tf32, instance)
    y = _fprop(backend, x, w, bias, g, instance)
    return elementwise.relu_forward(backend, y) if activation == "relu" else y


def _fprop(backend: Any, x: Array, w: Array, bias: Array | None, g: Conv2dGeometry, instance: str | None) -> Array:
    _check_pixels("fprop", g)
    y = backend.empty(g.output_shape)
    rows, columns = g.N * g.P * g.Q, g.K // g.groups
    if not y.size:
        return y
    instance = instance or _instance(g, rows, columns, g.groups, x, w, y)
    _check_instance(instance, g)
    if instance == "direct":
        backend.launch(DIRECT, "conv2d_fprop_direct", *_direct_shape(rows, g.K), x, w, bias, y, g)
        return y
    grid = tiles(instance, rows, columns) * g.groups
    backend.launch(TILED, f"conv2d_fprop_{instance}", grid, TILE_THREADS, x, w, bias, y, g)
    return y


def dgrad(
    backend: Any,
    dy: Array,
    w: Array,
    g: Conv2dGeometry,
    mask: Array | None = None,
    tf32: bool = False,
    instance: str | None = None,
) -> Array:
    """dx (N,H,W,C) of dy (N,P,Q,K) and w (K,R,S,C/groups), 0 where not mask > 0."""
    if tensor_cores(dy, tf32):
        return conv2d_mma.dgrad(backend, dy, w, g, mask, tf32, instance)
    dx = _dgrad(backend, dy, w, g, instance)
    return dx if mask is None else elementwise.relu_backward(backend, dx, mask)


def _dgrad(backend: Any, dy: Array, w: Array, g: Conv2dGeometry, instance: str | None) -> Array:
    _check_pixels("dgrad", g)
    dx = backend.empty(g.input_shape)
    if not dx.size:
        return dx
    # The rows of a GEMM are the pixels of one phase of the stride; the first phase has the most.
    phases = min(g.stride_h, g.H) * min(g.stride_w, g.W)
    rows, columns = g.N * ceil_div(g.H, g.stride_h) * ceil_div(g.W, g.stride_w), g.C // g.groups
    instance = instance or _instance(g, rows, columns, phases * g.groups, dy, w, dx)
    _check_instance(instance, g)
    if instance == "direct":
        backend.launch(DIRECT, "conv2d_dgrad_direct", *_direct_shape(g.N * g.H * g.W, g.C), dy, w, dx, g)
        return dx
    grid = tiles(instance, rows, columns) * phases * g.groups
    backend.launch(TILED, f"conv2d_dgrad_{instance}", grid, TILE_THREADS, dy, w, dx, g)
    return dx


def wgrad(
    backend: Any,
    x: Array,
    dy: Array,
    g: Conv2dGeometry,
    bias: bool = False,
    tf32: bool = False,
    instance: str | None = None,
) -> tuple[Array, Array | None]:
    """dw (K,R,S,C/groups) of x (N,H,W,C) and dy (N,P,Q,K), and db (K,) with ``bias``.

    The sum over N*P*Q pixels is split (split_k.py); the partial sums take at most 64 MiB beside the result.
    """
    if tensor_cores(dy, tf32):
        return conv2d_mma.wgrad(backend, x, dy, g, bias, tf32, instance)
    return _wgrad(backend, x, dy, g, instance), elementwise.bias_grad(backend, dy) if bias else None


def _wgrad(backend: Any, x: Array, dy: Array, g: Conv2dGeometry, instance: str | None) -> Array:
    _check_pixels("wgrad", g)
    if not dy.size:
        return backend.xp.zeros(g.weight_shape, dy.dtype)
    dw = backend.empty(g.weight_shape)
    rows, columns, pixels = g.K // g.groups, g.R * g.S * (g.C // g.groups), g.N * g.P * g.Q
    if instance == "direct":
        backend.launch(DIRECT, "conv2d_wgrad_direct", blocks(dw.size), THREADS, x, dy, dw, g)
        return dw
    vector = _vector(g, x, dy, dw)
    if instance is None:
        instance = ("64x128_vec4" if columns > 64 else "64x64_vec4") if vector else "64x64_scalar"
    _check_instance(instance, g)
    results = tiles(instance, rows, columns) * g.groups
    split = split_k.choose(pixels, results, dw.size)
    partial = dw if split.parts == 1 else backend.empty((split.parts, *dw.shape))
    kernel = f"conv2d_wgrad_{instance}"
    backend.launch(TILED, kernel, (results, split.parts), TILE_THREADS, x, dy, partial, split.length, g)
    if partial is not dw:
        split_k.reduce(backend, partial, None, dw)
    return dw


def _instance(g: Conv2dGeometry, rows: int, columns: int, gemms: int, *arrays: Array) -> str:
    """The instance of fprop and dgrad for ``gemms`` products of ``rows`` x ``columns`` results."""
    if max(g.C, g.K) <= FEW_CHANNELS * g.groups:
        return "direct"
    if not _vector(g, *arrays):
        return "64x64_scalar"
    return "128x64_vec4" if tiles("128x64", rows, columns) * gemms >= ENOUGH_TILES else "64x64_vec4"


def _vector(g: Conv2dGeometry, *arrays: Array) -> bool:
    """Whether runs of four channels never cross a group's bounds or 16-byte boundaries."""
    return _fours(g) and all(address(array) % 16 == 0 for array in arrays)


def _fours(g: Conv2dGeometry) -> bool:
    return g.C // g.groups % 4 == 0 and g.K // g.groups % 4 == 0


def _check_instance(instance: str, g: Conv2dGeometry) -> None:
    if instance.endswith("vec4") and not _fours(g):
        raise ValueError(f"conv2d: instance {instance} needs C/groups and K/groups divisible by 4, got {g}")


def _direct_shape(pixels: int, channels: int) -> tuple[int, tuple[int, int]]:
    """Grid and block of the direct kernels: channels along x (a power of two), pixels along y."""
    across = power_of_two(channels, 1, 64)
    down = THREADS // across
    return min(ceil_div(pixels, down), 1 << 20), (across, down)


def _check_pixels(operator: str, g: Conv2dGeometry) -> None:
    pixels = g.N * (g.H + g.pad_top + g.pad_bottom) * (g.W + g.pad_left + g.pad_right)  # no fewer than N*P*Q
    if pixels > MOST_PIXELS or g.K * g.R * g.S * (g.C // g.groups) > MOST_PIXELS:
        raise ValueError(
            f"conv2d {operator}: at most {MOST_PIXELS} pixels (N*H*W with padding) and filter elements in one launch, "
            f"got {g}; split the batch"
        )
