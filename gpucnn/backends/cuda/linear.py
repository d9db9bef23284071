"""Matrix products: which GEMM kernel (kernels/gemm.cuh) runs for which sizes, and its launch."""

from __future__ import annotations

import math
from typing import Any

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import conv2d_mma, elementwise, split_k
from gpucnn.backends.cuda.conv2d import tensor_cores
from gpucnn.backends.cuda.grids import ENOUGH_TILES, TILE_THREADS, tiles
from gpucnn.backends.launch import address

LARGEST = 1 << 30  # rows, columns or terms: kernels count them in int


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
    return _gemm(backend, a, b, None, transpose_a, transpose_b, instance)


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
    y = _gemm(backend, x, w, bias, False, True, instance)
    return elementwise.relu_forward(backend, y) if activation == "relu" else y


def linear_dgrad(
    backend: Any, dy: Array, w: Array, mask: Array | None = None, tf32: bool = False, instance: str | None = None
) -> Array:
    """dx (M, K) = dy (M, N) times w (N, K), 0 where not mask > 0."""
    if tensor_cores(dy, tf32):
        return conv2d_mma.linear_dgrad(backend, dy, w, mask, tf32, instance)
    dx = _gemm(backend, dy, w, None, False, False, instance)
    return dx if mask is None else elementwise.relu_backward(backend, dx, mask)


def linear_wgrad(
    backend: Any, x: Array, dy: Array, bias: bool = False, tf32: bool = False, instance: str | None = None
) -> tuple[Array, Array | None]:
    """dw (N, K) = dy (M, N) transposed times x (M, K), and db (N,) with ``bias``."""
    if tensor_cores(dy, tf32):
        return conv2d_mma.linear_wgrad(backend, x, dy, bias, tf32, instance)
    dw = _gemm(backend, dy, x, None, True, False, instance)
    return dw, elementwise.bias_grad(backend, dy) if bias else None


def _gemm(
    backend: Any, a: Array, b: Array, bias: Array | None, transpose_a: bool, transpose_b: bool, instance: str | None
) -> Array:
    m, k = a.shape[:-3:-1] if transpose_a else a.shape[-2:]
    n = b.shape[-2 if transpose_b else -1]
    if max(m, n, k) > LARGEST:
        raise ValueError(f"matmul: at most {LARGEST} rows, columns and terms, got {m} x {n} results of {k} terms")
    out = backend.empty((*a.shape[:-2], m, n))
    if not out.size:
        return out
    batch = math.prod(a.shape[:-2])
    instance = instance or _instance(m, n, k, batch, transpose_a, transpose_b, (a, b, out))
    results = tiles(instance, m, n) * batch
    split = split_k.choose(k, results, out.size)
    whole = split.parts == 1
    c = out if whole else backend.empty((split.parts, *out.shape))
    kernel = f"gemm_{'nt'[transpose_a]}{'nt'[transpose_b]}_{instance}"
    sizes = (m, n, k, batch, split.length)
    source = "gemm_large.cu" if instance.startswith("128x64") else "gemm.cu"
    backend.launch(source, kernel, (results, split.parts), TILE_THREADS, a, b, bias if whole else None, c, *sizes)
    if not whole:
        split_k.reduce(backend, c, bias, out)
    return out


def _instance(
    m: int, n: int, k: int, batch: int, transpose_a: bool, transpose_b: bool, arrays: tuple[Array, ...]
) -> str:
    """``128x64_vec4``, ``64x64_vec4`` or ``64x64_scalar``: tile rows x columns, and how memory is read."""
    rows_in_memory = (m if transpose_a else k, k if transpose_b else n, n)
    vector = all(row % 4 == 0 for row in rows_in_memory) and all(address(array) % 16 == 0 for array in arrays)
    if not vector or (transpose_a and transpose_b):  # both transposed is too rare for instances of its own
        return "64x64_scalar"
    return "128x64_vec4" if tiles("128x64", m, n) * batch >= ENOUGH_TILES else "64x64_vec4"
