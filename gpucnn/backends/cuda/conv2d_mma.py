"""Convolution, linear layers and matrix products on tensor cores (kernels/conv2d_mma.cuh): their launches.

The functions have the signatures of the primitives in base.py. Arrays are float16, bfloat16, or float32, whose factors
are rounded to tf32; y and dx have the inputs' dtype, dw and db are float32, and so are biases. Which instance runs is
chosen in mma_choice.py, unless ``instance`` names one: ``"128x64"``, or ``"128x64:4"`` for four parts of K.

A linear layer is a 1 x 1 convolution over one image of 1 x M pixels, and a batch of matrix products is a convolution
whose groups lie one behind the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import mma_choice, simt
from gpucnn.backends.cuda.grids import ceil_div
from gpucnn.backends.cuda.mma_choice import PRODUCT, Direction, Gemm, Instance
from gpucnn.geometry import Conv2dGeometry

MOST = 1 << 30  # pixels with their padding, filter elements, rows, columns: kernels count them in int
MOST_REACH = 1 << 15  # of a filter and of the padding, in rows or columns: wgrad keeps them in 16 bits
LAUNCH_BYTES = 48 * 1024  # of shared memory, static included, that a launch gets without asking for more
WGMMA_BYTES = 1024  # beside the stages: to a multiple of 512, and lines of ones
STATIC_BYTES = 512  # more than any of these kernels has


@dataclass(frozen=True, slots=True)
class Problem:
    """What a launch computes; the fields of ``struct MmaProblem`` in kernels/conv2d_mma.cuh, in their order."""

    N: int
    H: int
    W: int
    C: int
    K: int
    R: int
    S: int
    P: int
    Q: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_left: int
    dilation_h: int
    dilation_w: int
    depth: int
    filters: int
    pixels: int
    plane: int
    window: int
    k_per_split: int
    relu: int
    vector: int
    q_multiplier: int
    q_shift: int
    pq_multiplier: int
    pq_shift: int
    x_outer: int
    w_outer: int
    y_outer: int

    def as_struct(self) -> tuple[int, ...]:
        """The fields in order, for the struct of the kernels."""
        return tuple(getattr(self, name) for name in self.__slots__)


# ---- the primitives ----------------------------------------------------------------------------------------------


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
    _check_geometry("fprop", g)
    y = backend.empty(g.output_shape, x.dtype)
    if y.size:
        _fprop(backend, x, w, bias, y, _flat(g), _outer(g), activation == "relu", instance)
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
    _check_geometry("dgrad", g)
    dx = backend.empty(g.input_shape, dy.dtype)
    if dx.size:
        _dgrad(backend, dy, w, mask, dx, _flat(g), _outer(g), instance)
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
    """dw (K,R,S,C/groups) of x (N,H,W,C) and dy (N,P,Q,K), and with ``bias`` db (K,), the sums of dy."""
    _check_geometry("wgrad", g)
    if not dy.size:
        return backend.xp.zeros(g.weight_shape, "float32"), backend.xp.zeros(g.K, "float32") if bias else None
    dw, db = backend.empty(g.weight_shape), backend.empty(g.K) if bias else None
    _wgrad(backend, x, dy, dw, db, _flat(g), _outer(g), Direction.WGRAD, instance)
    return dw, db


def linear_forward(
    backend: Any,
    x: Array,
    w: Array,
    bias: Array | None,
    activation: str | None = None,
    tf32: bool = False,
    instance: str | None = None,
) -> Array:
    """y (M, N) = x (M, K) times w (N, K) transposed, plus bias (N,), after ``activation``."""
    m, k = x.shape
    n = w.shape[0]
    y = backend.empty((m, n), x.dtype)
    if not k:
        y[...] = 0 if bias is None else _activated(backend, bias, activation)
    elif y.size:
        _fprop(backend, x, w, bias, y, _matrix("linear", m, k, n), None, activation == "relu", instance)
    return y


def linear_dgrad(
    backend: Any, dy: Array, w: Array, mask: Array | None = None, tf32: bool = False, instance: str | None = None
) -> Array:
    """dx (M, K) = dy (M, N) times w (N, K), 0 where not mask > 0."""
    m, n = dy.shape
    k = w.shape[1]
    dx = backend.empty((m, k), dy.dtype)
    if not n:
        dx[...] = 0
    elif dx.size:
        _dgrad(backend, dy, w, mask, dx, _matrix("linear", m, k, n), None, instance)
    return dx


def linear_wgrad(
    backend: Any, x: Array, dy: Array, bias: bool = False, tf32: bool = False, instance: str | None = None
) -> tuple[Array, Array | None]:
    """dw (N, K) = dy (M, N) transposed times x (M, K), and with ``bias`` db (N,), the sums of dy."""
    m, k = x.shape
    n = dy.shape[1]
    if not m or not k or not n:
        db = dy.sum(axis=0, dtype="float32") if bias else None
        return backend.xp.zeros((n, k), "float32"), db
    dw, db = backend.empty((n, k)), backend.empty(n) if bias else None
    _wgrad(backend, x, dy, dw, db, _matrix("linear", m, k, n), None, Direction.WGRAD, instance)
    return dw, db


def matmul(
    backend: Any,
    a: Array,
    b: Array,
    transpose_a: bool = False,
    transpose_b: bool = False,
    tf32: bool = False,
    instance: str | None = None,
) -> Array:
    """(..., M, N) of a (..., M, K) and b (..., K, N), either stored transposed; leading axes are equal."""
    if transpose_a and transpose_b:  # too rare for instances of its own: the product of b and a, transposed
        swapped = matmul(backend, b, a, False, False, tf32, instance)
        return backend.xp.ascontiguousarray(backend.xp.swapaxes(swapped, -1, -2))
    m, k = a.shape[:-3:-1] if transpose_a else a.shape[-2:]
    n = b.shape[-2 if transpose_b else -1]
    out = backend.empty((*a.shape[:-2], m, n), a.dtype)
    if not out.size:
        return out
    if not k:
        out[...] = 0
        return out
    batch = math.prod(a.shape[:-2])
    if transpose_b:
        outer = (batch, m * k, n * k, m * n)
        _fprop(backend, a, b, None, out, _matrix("matmul", m, k, n), outer, False, instance)
    elif transpose_a:  # a takes the place of dy (terms, rows), b that of x (terms, columns)
        outer = (batch, k * n, m * n, k * m)
        direction = Direction.WGRAD if a.dtype.itemsize == 4 else Direction.PRODUCT
        _wgrad(backend, b, a, out, None, _matrix("matmul", k, n, m), outer, direction, instance)
    else:  # a takes the place of dy (rows, terms), b that of w (terms, columns)
        outer = (batch, m * n, k * n, m * k)
        _dgrad(backend, a, b, None, out, _matrix("matmul", m, n, k), outer, instance)
    return out


# ---- instances ---------------------------------------------------------------------------------------------------


def candidates(direction: str, g: Conv2dGeometry, precision: str, arch: int, aligned: bool = True) -> list[str]:
    """The instances that may compute "fprop", "dgrad" or "wgrad" of ``g`` in "float16", "bfloat16" or "tf32" on a GPU
    of compute capability ``arch``; ``aligned`` says whether the arrays start at multiples of 16 bytes.
    """
    return [choice.name for choice in mma_choice.candidates(_gemm(direction, g), precision, arch, aligned)]


def choose(
    direction: str,
    g: Conv2dGeometry,
    precision: str,
    arch: int,
    multiprocessors: int | None = None,
    aligned: bool = True,
) -> str:
    """The candidate that runs where none is asked for. Raises ValueError where the GPU has no tensor cores for it."""
    return mma_choice.choose(_gemm(direction, g), precision, arch, multiprocessors, aligned).name


def _gemm(direction: str, g: Conv2dGeometry) -> Gemm:
    return Gemm.of(Direction(direction), _flat(g), g.groups)


# ---- launches ----------------------------------------------------------------------------------------------------

# How many members a launch has, and the elements from one to the next in x, w and y; None stands for one member.
Outer = tuple[int, int, int, int] | None


def _fprop(
    backend: Any, x: Array, w: Array, bias: Array | None, y: Array, g: Conv2dGeometry, outer: Outer, relu: bool,
    instance: str | None,
) -> None:  # fmt: skip
    launch = _Launch(backend, Direction.FPROP, g, outer, x.dtype, (x, w), (y,), instance)
    launch.run(x, w, bias, y, relu=relu)


def _dgrad(
    backend: Any, dy: Array, w: Array, mask: Array | None, dx: Array, g: Conv2dGeometry, outer: Outer,
    instance: str | None,
) -> None:  # fmt: skip
    launch = _Launch(backend, Direction.DGRAD, g, outer, dy.dtype, (dy, w), (dx, mask), instance)
    launch.run(dy, w, mask, dx)


def _wgrad(
    backend: Any, x: Array, dy: Array, dw: Array, db: Array | None, g: Conv2dGeometry, outer: Outer,
    direction: Direction, instance: str | None,
) -> None:  # fmt: skip
    launch = _Launch(backend, direction, g, outer, x.dtype, (x, dy), (dw,), instance)
    launch.run(x, dy, dw, *(() if direction is PRODUCT else (db,)))


class _Launch:
    """One launch: its instance, its split and its problem."""

    def __init__(
        self,
        backend: Any,
        direction: Direction,
        g: Conv2dGeometry,
        outer: Outer,
        dtype: Any,
        inputs: tuple[Array, ...],
        outputs: tuple[Array | None, ...],
        instance: str | None,
    ) -> None:
        self.backend, self.direction, self.g = backend, direction, g
        self.precision = mma_choice.precision(dtype)
        self.outer = outer or (g.groups, g.C // g.groups, 0, g.K // g.groups)
        gemm = Gemm.of(direction, g, self.outer[0])
        aligned = simt.aligned(*inputs)
        self.gemm, self.aligned, self.arch, self.forced = gemm, aligned, architecture(backend.engine), instance
        if instance is None:
            self.choice = mma_choice.choose(gemm, self.precision, self.arch, multiprocessors(backend.engine), aligned)
        else:
            self.choice = self._named(instance)
        width = gemm.columns * next(array for array in outputs if array is not None).dtype.itemsize
        self.vector = width % 16 == 0 and simt.aligned(*outputs)

    def _named(self, name: str) -> mma_choice.Choice:
        return mma_choice.named(name, self.gemm, self.precision, self.arch, self.aligned)

    def run(self, *arrays: Array | None, relu: bool = False) -> None:
        """Launch with ``arrays``, in the order of the kernel's declaration: the instance asked for, the one that was
        fastest here (tuning.py), or the chosen one.
        """
        if self.forced is None:
            chosen = self.backend.tuner.pick(
                f"mma_{self.direction.value}", lambda: f"{self.precision} {self.g} {self.outer[0]}", self.choice.name,
                lambda: [one.name for one in mma_choice.candidates(self.gemm, self.precision, self.arch, self.aligned)],
                lambda name: self._launch(self._named(name), arrays, relu), not self.backend.engine.capturing,
            )  # fmt: skip
            if chosen != self.choice.name:
                self.choice = self._named(chosen)
        self._launch(self.choice, arrays, relu)

    def _launch(self, choice: mma_choice.Choice, arrays: tuple[Array | None, ...], relu: bool) -> None:
        backend, tile, parts = self.backend, choice.instance, choice.parts
        blocks = self.gemm.tiles(tile)
        partial = counters = None
        if parts > 1:
            partial = backend.empty(blocks * parts * mma_choice.partial_floats(tile, self.direction))
            counters = backend.counters(blocks * (parts + mma_choice.TREE_LEVELS))
        problem = _problem(self.g, self.outer, choice.terms, relu, self.vector)
        shared = shared_bytes(tile, self.arch)
        source, kernel = names(self.direction, self.precision, tile)
        grid = (blocks, parts)
        backend.launch(source, kernel, grid, tile.threads, *arrays, partial, counters, problem, shared_mem=shared)


def names(direction: Direction, precision: str, instance: Instance) -> tuple[str, str]:
    """The source and the kernel of an instance."""
    tag = mma_choice.TAGS[precision]
    family = "wgrad" if direction is PRODUCT else direction.value
    prefix = "matmul_tn" if direction is PRODUCT else f"conv2d_{direction.value}"
    core = {128: "wgmma", 256: "wgmma_pair"}[instance.threads] if instance.form == "wgmma" else "mma"
    return f"conv2d_{core}_{family}_{tag}.cu", f"{prefix}_{tag}_{instance.name}"


def shared_bytes(instance: Instance, arch: int) -> int:
    """The dynamic shared memory of an instance. Where static shared memory brings it above what comes without asking,
    it is made large enough to be asked for.
    """
    dynamic = instance.stages(arch) * (instance.rows + instance.columns) * mma_choice.LINE_BYTES
    dynamic += WGMMA_BYTES if instance.form == "wgmma" else 0
    return dynamic if dynamic + STATIC_BYTES <= LAUNCH_BYTES else max(dynamic, LAUNCH_BYTES + STATIC_BYTES)


def architecture(engine: Any) -> int:
    """The compute capability that kernels run on: 80 stands for sm_80."""
    arch = getattr(engine, "arch", None)
    return int(arch) if arch is not None else int(str(engine.architecture).removeprefix("compute_").rstrip("af"))


def multiprocessors(engine: Any) -> int | None:
    """How many the GPU has; None on the emulator, which takes those of the architecture's usual GPU."""
    return getattr(engine, "multiprocessors", None)


# ---- sizes -------------------------------------------------------------------------------------------------------


def _flat(g: Conv2dGeometry) -> Conv2dGeometry:
    """A 1 x 1 convolution that sees each pixel once as one over a single row of pixels: no coordinates to work out."""
    steps = (g.R, g.S, g.stride_h, g.stride_w)
    if steps != (1, 1, 1, 1) or (g.pad_top, g.pad_bottom, g.pad_left, g.pad_right) != (0, 0, 0, 0):
        return g
    pixels = g.N * g.H * g.W
    return Conv2dGeometry(1, 1, pixels, g.C, g.K, 1, 1, 1, pixels, 1, 1, 0, 0, 0, 0, 1, 1, g.groups)


def _matrix(operator: str, rows: int, depth: int, filters: int) -> Conv2dGeometry:
    """The product of (rows, depth) and (depth, filters) as a 1 x 1 convolution."""
    if max(rows, depth, filters) > MOST or depth * filters > MOST:
        raise ValueError(
            f"{operator}: at most {MOST} rows, columns, terms and elements of the second matrix in one launch, got"
            f" {rows} rows, {depth} and {filters} columns"
        )
    return Conv2dGeometry(1, 1, rows, depth, filters, 1, 1, 1, rows, 1, 1, 0, 0, 0, 0, 1, 1, 1)


def _outer(g: Conv2dGeometry) -> Outer:
    depth, filters = g.C // g.groups, g.K // g.groups
    return g.groups, depth, filters * g.R * g.S * depth, filters


def _divisor(d: int) -> tuple[int, int]:
    """Multiplier and shift with which the kernels divide by ``d``: see divide() in conv2d_mma.cuh."""
    shift = max(d - 1, 0).bit_length()
    return ceil_div(1 << (32 + shift), d) - (1 << 32), shift


def _problem(g: Conv2dGeometry, outer: tuple[int, int, int, int], terms: int, relu: bool, vector: bool) -> Problem:
    depth, filters = g.C // g.groups, g.K // g.groups
    return Problem(
        *(g.N, g.H, g.W, g.C, g.K, g.R, g.S, g.P, g.Q),
        *(g.stride_h, g.stride_w, g.pad_top, g.pad_left, g.dilation_h, g.dilation_w),
        *(depth, filters, g.N * g.P * g.Q, g.P * g.Q, g.R * g.S * depth, terms, int(relu), int(vector)),
        *_divisor(g.Q),
        *_divisor(g.P * g.Q),
        *outer[1:],
    )


def _check_geometry(operator: str, g: Conv2dGeometry) -> None:
    pixels = g.N * (g.H + g.pad_top + g.pad_bottom) * (g.W + g.pad_left + g.pad_right)  # no fewer than N*P*Q
    if pixels > MOST or g.K * g.R * g.S * (g.C // g.groups) > MOST:
        raise ValueError(
            f"conv2d {operator}: at most {MOST} pixels (N*H*W with padding) and filter elements in one launch, got {g};"
            " split the batch"
        )
    rows, columns = g.R * g.dilation_h + g.pad_top, g.S * g.dilation_w + g.pad_left
    if max(rows, columns) >= MOST_REACH or (rows * g.W + columns) * g.C >= 1 << 31:
        raise ValueError(
            f"conv2d {operator}: on tensor cores a filter with its dilation and padding reaches over fewer than"
            f" {MOST_REACH} rows and columns and 2^31 elements, got {g}; use float32 without tf32"
        )


def _activated(backend: Any, bias: Array, activation: str | None) -> Array:
    return backend.xp.where(bias <= 0, backend.xp.zeros_like(bias), bias) if activation == "relu" else bias
