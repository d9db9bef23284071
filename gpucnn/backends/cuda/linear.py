"""Matrix products: which GEMM kernel runs for which sizes, and its launch.

Arrays of half types, and float32 ones where tf32 will do, go to tensor cores (conv2d_mma.py), the others to
kernels/gemm.cuh. An *instance* is the end of a kernel's name: ``128x64_vec4`` or ``64x64_scalar`` (tile rows x columns,
and how memory is read).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import conv2d_mma, simt
from gpucnn.backends.cuda.conv2d import tensor_cores

LARGEST = 1 << 30  # rows, columns or terms: kernels count them in int
INSTANCES = ("128x64_vec4", "64x64_scalar")


@dataclass(frozen=True, slots=True)
class Shape:
    """The fields of ``struct GemmShape`` in kernels/gemm.cuh."""

    m: int
    n: int
    k: int
    batch: int
    k_per_part: int
    relu: bool

    def as_struct(self) -> tuple[int, ...]:
        """The fields in order, for the struct of the kernels."""
        return self.m, self.n, self.k, self.batch, self.k_per_part, int(self.relu)


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
    if tensor_cores(a, tf32):
        return conv2d_mma.matmul(backend, a, b, transpose_a, transpose_b, tf32, instance)
    return _gemm(backend, a, b, transpose_a, transpose_b, instance)


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
    if tensor_cores(x, tf32):
        return conv2d_mma.linear_forward(backend, x, w, bias, activation, tf32, instance)
    return _gemm(backend, x, w, False, True, instance, bias=bias, relu=activation == "relu")


def linear_dgrad(
    backend: Any, dy: Array, w: Array, mask: Array | None = None, tf32: bool = False, instance: str | None = None
) -> Array:
    """dx (M, K) = dy (M, N) times w (N, K), 0 where not mask > 0."""
    if tensor_cores(dy, tf32):
        return conv2d_mma.linear_dgrad(backend, dy, w, mask, tf32, instance)
    return _gemm(backend, dy, w, False, False, instance, mask=mask)


def linear_wgrad(
    backend: Any, x: Array, dy: Array, bias: bool = False, tf32: bool = False, instance: str | None = None
) -> tuple[Array, Array | None]:
    """dw (N, K) = dy (M, N) transposed times x (M, K), and db (N,) with ``bias``."""
    if tensor_cores(dy, tf32):
        return conv2d_mma.linear_wgrad(backend, x, dy, bias, tf32, instance)
    if not x.shape[1]:  # no results, whose pass would give db
        return backend.empty((dy.shape[1], 0)), dy.sum(axis=0) if bias else None
    db = backend.empty((dy.shape[1],)) if bias else None
    return _gemm(backend, dy, x, True, False, instance, row_sums=db), db


def candidates(
    m: int, n: int, k: int, transpose_a: bool = False, transpose_b: bool = False, aligned: bool = True
) -> tuple[str, ...]:
    """The instances that can multiply an M x K by a K x N matrix, stored transposed where the flags say so.

    ``aligned``: whether all arrays start at multiples of 16 bytes.
    """
    rows_in_memory = (m if transpose_a else k, k if transpose_b else n, n)
    # Both transposed is too rare for an instance of its own that reads vectors.
    vectors = aligned and all(row % 4 == 0 for row in rows_in_memory) and not (transpose_a and transpose_b)
    return INSTANCES if vectors else INSTANCES[1:]


def choose(m: int, n: int, k: int, transpose_a: bool = False, transpose_b: bool = False, aligned: bool = True) -> str:
    """The instance that runs where none is asked for."""
    return candidates(m, n, k, transpose_a, transpose_b, aligned)[0]


def _gemm(
    backend: Any,
    a: Array,
    b: Array,
    transpose_a: bool,
    transpose_b: bool,
    instance: str | None,
    bias: Array | None = None,
    mask: Array | None = None,
    row_sums: Array | None = None,
    relu: bool = False,
) -> Array:
    m, k = a.shape[:-3:-1] if transpose_a else a.shape[-2:]
    n = b.shape[-2 if transpose_b else -1]
    if max(m, n, k) > LARGEST:
        raise ValueError(f"matmul: at most {LARGEST} rows, columns and terms, got {m} x {n} results of {k} terms")
    out = backend.empty((*a.shape[:-2], m, n))
    if not out.size:
        return out
    batch = math.prod(a.shape[:-2])
    letters = "nt"[transpose_a] + "nt"[transpose_b]
    if instance is None:
        sizes = (m, n, k, transpose_a, transpose_b, simt.aligned(a, b, mask, out))
        instance = backend.tuner.pick(
            f"gemm_{letters}", lambda: f"float32 {m} {n} {k} {batch}", choose(*sizes), lambda: candidates(*sizes),
            lambda one: _gemm(backend, a, b, transpose_a, transpose_b, one, bias, mask, row_sums, relu),
            not backend.engine.capturing,
        )  # fmt: skip
    elif instance not in candidates(m, n, k, transpose_a, transpose_b):
        raise ValueError(f"matmul: instance {instance} does not compute {m} x {n} results of {k} terms")
    plan = simt.Plan.of(
        instance, simt.tiles(instance, m, n) * batch, k, a.size + b.size + out.size, sums=letters == "tn"
    )
    backend.launch(
        "gemm_transposed.cu" if letters == "tt" else "gemm.cu", f"gemm_{letters}_{instance}", plan.grid,
        simt.threads(instance), a, b, bias, mask, out, row_sums, *plan.scratch(backend),
        Shape(m, n, k, batch, plan.split.length, relu),
    )  # fmt: skip
    return out
