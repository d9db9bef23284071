"""Which convolution kernel runs for which sizes, and its launch.

Arrays of half types, and float32 ones where tf32 will do, go to tensor cores (conv2d_mma.py). The others run on the
ordinary FMA units, and everything is chosen by the geometry and by the arrays' alignment, so that a run can be repeated
bit by bit. An *instance* is the end of a kernel's name: ``128x64_vec4``, ``128x64_few``, ``128x64_scalar``,
``64x128_vec4``, ``64x80_few``, ``64x80_scalar`` (tiles of kernels/conv2d_simt.cuh: rows x columns) or ``direct``
(kernels/conv2d_direct.cu). Every function takes one that overrides the choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import conv2d_mma, elementwise, simt
from gpucnn.backends.cuda.grids import THREADS, blocks, ceil_div, power_of_two
from gpucnn.geometry import Conv2dGeometry

DIRECT = "conv2d_direct.cu"
FEW_CHANNELS = 4  # in and out of a group: tiles would be nearly empty, the direct kernel is not
MOST_PIXELS = 1 << 30  # of one tensor, with its padding: kernels count pixels in int
MOST_TAPS = 31  # rows and columns of a filter together, as in kernels/conv2d_simt.cuh
MOST_ELEMENTS = (1 << 31) - 1  # of the images that one tile sees: kernels count them in int
LONGEST_SUM = 2048  # terms in one part of wgrad's sums, which may have millions
FEW_COLUMNS = 80  # of wgrad's results, for which the narrow tile wastes less than the wide one
INSTANCES = {
    "fprop": ("128x64_vec4", "128x64_few", "128x64_scalar", "direct"),
    "dgrad": ("128x64_vec4", "128x64_scalar", "direct"),
    "wgrad": ("64x128_vec4", "64x80_few", "64x80_scalar", "direct"),
}


@dataclass(frozen=True, slots=True)
class Options:
    """The fields of ``struct ConvolutionOptions`` in kernels/conv2d_simt.cuh."""

    k_per_part: int
    relu: bool = False

    def as_struct(self) -> tuple[int, ...]:
        """The fields in order, for the struct of the kernels."""
        return self.k_per_part, int(self.relu)


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
    _check_pixels("fprop", g)
    y = backend.empty(g.output_shape)
    if not y.size:
        return y
    aligned = simt.aligned(x, w, y)
    instance = _checked("fprop", instance, g) or _picked(
        backend, "fprop", g, aligned, lambda one: fprop(backend, x, w, bias, g, activation, tf32, one)
    )
    if instance == "direct":
        backend.launch(DIRECT, "conv2d_fprop_direct", *_direct_shape(g.N * g.P * g.Q, g.K), x, w, bias, y, g)
        return elementwise.relu_forward(backend, y) if activation == "relu" else y
    plan = plan_of("fprop", instance, g)
    options = Options(plan.split.length, activation == "relu")
    _launch(backend, "fprop", plan, x, w, bias, y, *plan.scratch(backend), options, g)
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
    _check_pixels("dgrad", g)
    dx = backend.empty(g.input_shape)
    if not dx.size:
        return dx
    aligned = simt.aligned(dy, w, mask, dx)
    instance = _checked("dgrad", instance, g) or _picked(
        backend, "dgrad", g, aligned, lambda one: dgrad(backend, dy, w, g, mask, tf32, one)
    )
    if instance == "direct":
        backend.launch(DIRECT, "conv2d_dgrad_direct", *_direct_shape(g.N * g.H * g.W, g.C), dy, w, dx, g)
        return dx if mask is None else elementwise.relu_backward(backend, dx, mask)
    plan = plan_of("dgrad", instance, g)
    _launch(backend, "dgrad", plan, dy, w, mask, dx, *plan.scratch(backend), Options(plan.split.length), g)
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
    _check_pixels("wgrad", g)
    if not dy.size:
        return backend.xp.zeros(g.weight_shape, dy.dtype), backend.xp.zeros(g.K, dy.dtype) if bias else None
    dw = backend.empty(g.weight_shape)
    aligned = simt.aligned(x, dy, dw)
    instance = _checked("wgrad", instance, g) or _picked(
        backend, "wgrad", g, aligned, lambda one: wgrad(backend, x, dy, g, bias, tf32, one)
    )
    if instance == "direct":
        backend.launch(DIRECT, "conv2d_wgrad_direct", blocks(dw.size), THREADS, x, dy, dw, g)
        return dw, elementwise.bias_grad(backend, dy) if bias else None
    db = backend.empty((g.K,)) if bias else None
    plan = plan_of("wgrad", instance, g)
    _launch(backend, "wgrad", plan, x, dy, dw, db, *plan.scratch(backend), Options(plan.split.length), g)
    return dw, db


def candidates(operator: str, g: Conv2dGeometry, aligned: bool = True) -> tuple[str, ...]:
    """The instances that can compute an ``operator`` ("fprop", "dgrad" or "wgrad"), the direct kernel last.

    ``aligned``: whether all arrays start at multiples of 16 bytes.
    """
    return tuple(
        one for one in INSTANCES[operator] if (aligned or one.endswith(("scalar", "direct"))) and _fits(one, g)
    )


def choose(operator: str, g: Conv2dGeometry, aligned: bool = True) -> str:
    """The instance that runs where none is asked for."""
    fits = candidates(operator, g, aligned)
    if operator == "wgrad":
        narrow = g.R * g.S * (g.C // g.groups) <= FEW_COLUMNS
        return "64x80_few" if narrow and "64x80_few" in fits else fits[0]
    return "direct" if max(g.C, g.K) <= FEW_CHANNELS * g.groups else fits[0]


def _picked(backend: Any, operator: str, g: Conv2dGeometry, aligned: bool, run: Callable[[str], Any]) -> str:
    """The instance that was fastest here, where that is known or asked for (tuning.py), else the chosen one."""
    default = choose(operator, g, aligned)
    may_time = not backend.engine.capturing
    return backend.tuner.pick(
        f"conv2d_{operator}", lambda: f"float32 {g}", default, lambda: candidates(operator, g, aligned), run, may_time
    )


def plan_of(operator: str, instance: str, g: Conv2dGeometry) -> simt.Plan:
    """The blocks of an instance and how they split K; not for the direct kernel."""
    c, k, taps = g.C // g.groups, g.K // g.groups, g.R * g.S
    elements = sum(math.prod(shape) for shape in (g.input_shape, g.weight_shape, g.output_shape))
    if operator == "wgrad":
        results = simt.tiles(instance, k, taps * c) * g.groups
        return simt.Plan.of(instance, results, g.N * g.P * g.Q, elements, sums=True, longest=LONGEST_SUM)
    if operator == "fprop":
        return simt.Plan.of(instance, simt.tiles(instance, g.N * g.P * g.Q, k) * g.groups, taps * c, elements)
    # The rows of a GEMM are the pixels of one phase of the stride, which see some of the taps (DgradAxis in
    # kernels/convolution.cuh); the first phase has the most pixels.
    phases = min(g.stride_h, g.H) * min(g.stride_w, g.W)
    rows = g.N * ceil_div(g.H, g.stride_h) * ceil_div(g.W, g.stride_w)
    taps_h = ceil_div(g.R, g.stride_h // math.gcd(g.stride_h, g.dilation_h))
    taps_w = ceil_div(g.S, g.stride_w // math.gcd(g.stride_w, g.dilation_w))
    return simt.Plan.of(instance, simt.tiles(instance, rows, c) * phases * g.groups, taps_h * taps_w * k, elements)


def _launch(backend: Any, operator: str, plan: simt.Plan, *arguments: Any) -> None:
    source = "conv2d_simt_scalar.cu" if plan.instance.endswith("scalar") else "conv2d_simt.cu"
    kernel = f"conv2d_{operator}_{plan.instance}"
    backend.launch(source, kernel, plan.grid, simt.threads(plan.instance), *arguments)


def _fits(instance: str, g: Conv2dGeometry) -> bool:
    """Whether an instance can compute a geometry, alignment aside."""
    if instance == "direct":
        return True
    if not _in_int(g, simt.tile(instance)[0]):
        return False
    if instance.endswith("scalar"):
        return True
    return (
        g.K // g.groups % 4 == 0 and g.R + g.S <= MOST_TAPS and (instance.endswith("few") or g.C // g.groups % 4 == 0)
    )


def _in_int(g: Conv2dGeometry, rows: int) -> bool:
    """Whether int counts the elements of the images that ``rows`` pixels, of the input or of the output, reach."""
    padded = (g.H + g.pad_top + g.pad_bottom) * (g.W + g.pad_left + g.pad_right) * g.C
    seen = (rows - 1) // max(1, min(g.P * g.Q, ceil_div(g.H, g.stride_h) * ceil_div(g.W, g.stride_w))) + 2
    return seen * max(padded, (g.P + g.R) * (g.Q + g.S) * g.K) <= MOST_ELEMENTS


def _checked(operator: str, instance: str | None, g: Conv2dGeometry) -> str | None:
    if instance is not None and instance not in candidates(operator, g):
        raise ValueError(
            f"conv2d {operator}: instance {instance} does not compute this geometry; these do:"
            f" {', '.join(candidates(operator, g))} (vec4 needs C/groups and K/groups divisible by 4, few"
            f" K/groups, and both R + S <= {MOST_TAPS}), got {g}"
        )
    return instance


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
