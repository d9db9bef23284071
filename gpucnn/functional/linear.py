"""Products of matrices: matmul and the linear layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpucnn import layout
from gpucnn.autograd import Function
from gpucnn.functional import checks
from gpucnn.functional.half_weights import operand, parameter, rounded
from gpucnn.functional.rectified import is_rectified, masked, rectify
from gpucnn.functional.shape import expand, reshape, unsqueeze
from gpucnn.precision import uses_tf32
from gpucnn.tensor import Tensor


def _stored(array: Any) -> tuple[Any, bool]:
    """``array`` for the backend's matmul: C-contiguous memory, and whether it holds the matrix transposed."""
    if not array.flags.c_contiguous and array.swapaxes(-1, -2).flags.c_contiguous:
        return array.swapaxes(-1, -2), True
    return layout.contiguous(array), False


def _product(a: Tensor, b: Tensor, tf32: bool) -> Tensor:
    if not a.data.size or not b.data.size:
        shape = (*a.shape[:-1], b.shape[-1])
        return Tensor(a.backend.xp.zeros(shape, dtype=a.dtype), a.device)
    (left, transpose_left), (right, transpose_right) = _stored(a.data), _stored(b.data)
    return Tensor(a.backend.matmul(left, right, transpose_left, transpose_right, tf32), a.device)


def _transposed(x: Tensor) -> Tensor:
    return Tensor(x.data.swapaxes(-1, -2), x.device)


class MatMul(Function):
    """a (M, K) times b (K, N), or a batch (B, M, K) times (B, K, N)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        need_a, need_b = ctx.needs_input_grad
        a, half = operand("matmul", a)
        b = b if half is None or b.dtype == half else Tensor(rounded(b, half), b.device, version=b.version)
        ctx.tf32 = uses_tf32(a.device)
        ctx.save_for_backward(a if need_b else None, b if need_a else None)
        return _product(a, b, ctx.tf32)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        a, b = ctx.saved_tensors
        need_a, need_b = ctx.needs_input_grad
        da = _product(grad, _transposed(b), ctx.tf32) if need_a else None
        db = _product(_transposed(a), grad, ctx.tf32) if need_b else None
        return da, db


class Linear(Function):
    """f(x (M, K) times w (N, K) transposed, plus bias (N,)), f the identity or ReLU.

    In half types x and w are rounded first (the weight's copy is kept), and the gradients of w and bias are float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
        need_x, need_weight, *_ = ctx.needs_input_grad
        x, half = operand("linear", x)
        ctx.half_weight = None if half is None else rounded(weight, half)
        ctx.mask, ctx.tf32 = need_x and is_rectified(x), uses_tf32(x.device)
        x_data, w_data = layout.contiguous(x.data), _weight_memory(weight, ctx.half_weight)
        y = Tensor(x.backend.linear_forward(x_data, w_data, parameter(bias), activation, ctx.tf32), x.device)
        ctx.save_for_backward(
            x if need_weight or ctx.mask else None, weight if need_x else None, y if activation else None
        )
        return rectify(ctx, y) if activation else y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, y = ctx.saved_tensors
        need_x, need_weight, need_bias, _ = ctx.needs_input_grad
        backend, dy = grad.backend, layout.contiguous(grad.data)
        if y is not None and not ctx.received_masked:
            dy = backend.relu_backward(dy, y.data)
        dx = dw = db = None
        if need_x:
            mask = layout.contiguous(x.data) if ctx.mask else None
            dx = Tensor(backend.linear_dgrad(dy, _weight_memory(weight, ctx.half_weight), mask, ctx.tf32), grad.device)
            dx = masked(dx) if ctx.mask else dx
        if need_weight:
            dw_data, db_data = backend.linear_wgrad(layout.contiguous(x.data), dy, need_bias, ctx.tf32)
            dw = Tensor(dw_data, grad.device)
            db = Tensor(db_data, grad.device) if need_bias else None
        elif need_bias:
            db = Tensor(backend.bias_grad(dy), grad.device)
        return dx, dw, db, None


def _weight_memory(weight: Tensor, half: Any) -> Any:
    return layout.contiguous(weight.data if half is None else half)


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product, as PyTorch and NumPy have it.

    (..., M, K) times (..., K, N), leading axes broadcast, vectors allowed.
    """
    checks.mixed("matmul", input, other=other)
    if not input.ndim or not other.ndim:
        raise ValueError(f"matmul: expected at least one axis each, got {input.shape} and {other.shape}")
    a = unsqueeze(input, 0) if input.ndim == 1 else input
    b = unsqueeze(other, 1) if other.ndim == 1 else other
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: {input.shape} times {other.shape}: {a.shape[-1]} columns meet {b.shape[-2]} rows")
    try:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(f"matmul: leading axes of {input.shape} and {other.shape} do not broadcast") from None
    m, n = a.shape[-2], b.shape[-1]
    if batch:
        count = math.prod(batch)
        a = reshape(expand(a, *batch, *a.shape[-2:]), (count, *a.shape[-2:]))
        b = reshape(expand(b, *batch, *b.shape[-2:]), (count, *b.shape[-2:]))
    product = MatMul.apply(a, b)
    shape = (*batch, *((m,) if input.ndim > 1 else ()), *((n,) if other.ndim > 1 else ()))
    return product if product.shape == shape else reshape(product, shape)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Tensor:
    """input (..., K) times weight (N, K) transposed, plus bias (N,): (..., N); with ``activation="relu"`` max(y, 0).

    Computes in the dtype of :func:`gpucnn.precision`, else in the input's; beside an input of a half type weight and
    bias may be float32.

    Raises ValueError for sizes that disagree, TypeError for other than one real dtype.
    """
    checks.mixed("linear", input, weight=weight, bias=bias)
    checks.activation("linear", activation, ("relu",))
    shape, sizes = input.shape, weight.shape
    if len(sizes) != 2 or not shape or shape[-1] != sizes[1]:
        raise ValueError(f"linear: input {shape} does not fit weight {sizes}, expected (..., K) and (N, K)")
    if not sizes[0]:
        raise ValueError(f"linear: weight {sizes} has no rows, expected at least one output")
    if bias is not None and bias.shape != sizes[:1]:
        raise ValueError(f"linear: bias {bias.shape} does not fit weight {sizes}, expected {sizes[:1]}")
    if len(shape) == 2:
        return Linear.apply(input, weight, bias, activation)
    rows = reshape(input, (math.prod(shape[:-1]), shape[-1]))
    return reshape(Linear.apply(rows, weight, bias, activation), (*shape[:-1], sizes[0]))
