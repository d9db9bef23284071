"""Elementwise arithmetic with broadcasting; operands are tensors or numbers, computed in PyTorch's common dtype."""

from __future__ import annotations

import math
from typing import Any

from gpucnn import dtypes, layout
from gpucnn.autograd import Function
from gpucnn.functional import checks
from gpucnn.functional.operands import (
    Operand,
    added,
    checked,
    common_dtype,
    compute,
    compute_alike,
    reference,
    shape_of,
    unbroadcast,
)
from gpucnn.functional.rectified import rectify
from gpucnn.tensor import Tensor, bool_, float32


class Add(Function):
    """x + y."""

    @staticmethod
    def forward(ctx: Any, x: Operand, y: Operand) -> Tensor:
        ctx.x, ctx.y = shape_of(x), shape_of(y)
        return compute_alike(reference(x, y), "add", x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        need_x, need_y = ctx.needs_input_grad
        return unbroadcast(grad, ctx.x) if need_x else None, unbroadcast(grad, ctx.y) if need_y else None


class AddReLU(Function):
    """max(x + y, 0) of two tensors of one shape and dtype, in one pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        z = added(x, y, "relu")
        ctx.save_for_backward(z)
        return rectify(ctx, z)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        if not ctx.received_masked:
            first = layout.settled(z.data)
            dz = layout.memory_view(layout.like(layout.settled(grad.data), first))
            dx = grad.backend.relu_backward(dz, layout.memory_view(first))
            grad = Tensor(layout.from_memory(dx, first), grad.device)
        need_x, need_y = ctx.needs_input_grad
        return grad if need_x else None, grad if need_y else None


class Subtract(Function):
    """x - y."""

    @staticmethod
    def forward(ctx: Any, x: Operand, y: Operand) -> Tensor:
        ctx.x, ctx.y = shape_of(x), shape_of(y)
        return compute_alike(reference(x, y), "subtract", x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        need_x, need_y = ctx.needs_input_grad
        return unbroadcast(grad, ctx.x) if need_x else None, unbroadcast(-grad, ctx.y) if need_y else None


class Multiply(Function):
    """x * y."""

    @staticmethod
    def forward(ctx: Any, x: Operand, y: Operand) -> Tensor:
        need_x, need_y = ctx.needs_input_grad
        _save(ctx, x if need_y else None, y if need_x else None)
        ctx.x, ctx.y = shape_of(x), shape_of(y)
        return compute_alike(reference(x, y), "multiply", x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, y = _saved(ctx)
        need_x, need_y = ctx.needs_input_grad
        return unbroadcast(grad * y, ctx.x) if need_x else None, unbroadcast(grad * x, ctx.y) if need_y else None


class Divide(Function):
    """x / y."""

    @staticmethod
    def forward(ctx: Any, x: Operand, y: Operand) -> Tensor:
        _save(ctx, x if ctx.needs_input_grad[1] else None, y)
        ctx.x, ctx.y = shape_of(x), shape_of(y)
        if not dtypes.is_floating(common_dtype(x, y)):  # the quotient of integers is float32
            x = x.to(dtype=float32) if isinstance(x, Tensor) else float(x)
            y = y.to(dtype=float32) if isinstance(y, Tensor) else float(y)
        return compute_alike(reference(x, y), "true_divide", x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, y = _saved(ctx)
        need_x, need_y = ctx.needs_input_grad
        return (
            unbroadcast(grad / y, ctx.x) if need_x else None,
            unbroadcast(-grad * x / (y * y), ctx.y) if need_y else None,
        )


class Power(Function):
    """x ** y; the gradients are PyTorch's where a formula has none.

    For x it is 0 where y is 0; for y it is 0 where x is 0 and y is not negative.
    """

    @staticmethod
    def forward(ctx: Any, x: Operand, y: Operand) -> Tensor:
        z = compute_alike(reference(x, y), "power", x, y)
        _save(ctx, x, y, z if ctx.needs_input_grad[1] else None)
        return z

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, y, z = _saved(ctx)
        need_x, need_y = ctx.needs_input_grad
        dx = dy = None
        if need_x:
            slope: Operand
            if isinstance(y, Tensor):
                zero = y == 0
                slope = where(zero, 0.0, y * x ** (y - where(zero, 0.0, 1.0)))
            else:
                slope = y * x ** (y - 1) if y else 0.0
            dx = unbroadcast(grad * slope, x.shape)
        if need_y:
            if isinstance(x, Tensor):
                slope = where((x == 0) & (y >= 0), 0.0, z * Log.apply(x.to(dtype=z.dtype)))
            else:
                slope = z * (math.log(x) if x > 0 else math.nan) if x else where(y >= 0, 0.0, -z)
            dy = unbroadcast(grad * slope, y.shape)
        return dx, dy


class Negative(Function):
    """-x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return compute(x, "negative", x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return compute(grad, "negative", grad)


class Exp(Function):
    """e ** x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = compute(x, "exp", x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grad * y


class Log(Function):
    """The natural logarithm."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return compute(x, "log", x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad / x


class Sqrt(Function):
    """The square root."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = compute(x, "sqrt", x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grad / (2.0 * y)


class Absolute(Function):
    """|x|; the gradient at 0 is 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return compute(x, "absolute", x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * compute(x, "sign", x)


class Where(Function):
    """x where the condition holds, else y."""

    @staticmethod
    def forward(ctx: Any, condition: Tensor, x: Operand, y: Operand) -> Tensor:
        ctx.save_for_backward(condition)
        ctx.x, ctx.y = shape_of(x), shape_of(y)
        # NumPy's where takes a Python number for float64, so numbers get their dtype first.
        dtype = common_dtype(x, y)
        x, y = (o.to(dtype=dtype) if isinstance(o, Tensor) else dtype.type(o) for o in (x, y))
        return compute(condition, "where", condition, x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (condition,) = ctx.saved_tensors
        zero = grad.dtype.type(0)
        _, need_x, need_y = ctx.needs_input_grad
        dx = unbroadcast(compute(grad, "where", condition, grad, zero), ctx.x) if need_x else None
        dy = unbroadcast(compute(grad, "where", condition, zero, grad), ctx.y) if need_y else None
        return None, dx, dy


class ExtremumOfTwo(Function):
    """The larger (or smaller) of x and y; NaN if either is, and equals share the gradient evenly, as in PyTorch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Operand, largest: bool) -> Tensor:
        _save(ctx, x, y)
        ctx.largest = largest
        return compute_alike(x, "maximum" if largest else "minimum", x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, y = _saved(ctx)
        need_x, need_y, _ = ctx.needs_input_grad
        shared = where(x == y, grad * 0.5, grad)
        x_loses, y_loses = (x < y, x > y) if ctx.largest else (x > y, x < y)
        dx = unbroadcast(where(x_loses, 0.0, shared), x.shape) if need_x else None
        dy = unbroadcast(where(y_loses, 0.0, shared), y.shape) if need_y else None
        return dx, dy, None


def _save(ctx: Any, *operands: Operand) -> None:
    ctx.save_for_backward(*(operand if isinstance(operand, Tensor) else None for operand in operands))
    ctx.numbers = [None if isinstance(operand, Tensor) else operand for operand in operands]


def _saved(ctx: Any) -> list[Operand]:
    return [number if tensor is None else tensor for tensor, number in zip(ctx.saved_tensors, ctx.numbers, strict=True)]


# ---- the public operators ----


def add(input: Operand, other: Operand, activation: str | None = None) -> Tensor:
    """input + other, broadcast; with ``activation="relu"`` max(input + other, 0), as at the end of a residual block."""
    operands = checked("add", input, other)
    checks.activation("add", activation, ("relu",))
    if activation is None:
        return Add.apply(*operands)
    x, y = operands
    fits = isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape == y.shape and x.dtype == y.dtype
    if fits and x.backend.computes(x.dtype):
        return AddReLU.apply(x, y)
    from gpucnn.functional.activation import relu  # which knows this file

    return relu(Add.apply(x, y))


def sub(input: Operand, other: Operand) -> Tensor:
    """input - other, broadcast."""
    return Subtract.apply(*checked("sub", input, other))


def mul(input: Operand, other: Operand) -> Tensor:
    """input * other, broadcast."""
    return Multiply.apply(*checked("mul", input, other))


def div(input: Operand, other: Operand) -> Tensor:
    """input / other, broadcast."""
    return Divide.apply(*checked("div", input, other))


def pow(input: Operand, exponent: Operand) -> Tensor:
    """input ** exponent, broadcast; either may be a number."""
    return Power.apply(*checked("pow", input, exponent))


def neg(input: Tensor) -> Tensor:
    """-input."""
    checks.tensors("neg", input=input)
    return Negative.apply(input)


def abs(input: Tensor) -> Tensor:
    """|input|; the gradient at 0 is 0."""
    checks.tensors("abs", input=input)
    return Absolute.apply(input)


def exp(input: Tensor) -> Tensor:
    """e ** input."""
    checks.real("exp", input=input)
    return Exp.apply(input)


def log(input: Tensor) -> Tensor:
    """The natural logarithm of input."""
    checks.real("log", input=input)
    return Log.apply(input)


def sqrt(input: Tensor) -> Tensor:
    """The square root of input."""
    checks.real("sqrt", input=input)
    return Sqrt.apply(input)


def where(condition: Tensor, input: Operand, other: Operand) -> Tensor:
    """input where ``condition`` (a bool tensor) holds, else other; all three broadcast."""
    checks.tensors("where", condition=condition)
    if condition.dtype != bool_:
        raise TypeError(f"where: condition must be a bool tensor, got {condition.dtype}")
    return Where.apply(*checked("where", condition, input, other))


def maximum(input: Tensor, other: Operand) -> Tensor:
    """The larger of two, elementwise; NaN where either is. Equals share the gradient evenly."""
    checks.tensors("maximum", input=input)
    return ExtremumOfTwo.apply(*checked("maximum", input, other), True)


def minimum(input: Tensor, other: Operand) -> Tensor:
    """The smaller of two, elementwise; NaN where either is. Equals share the gradient evenly."""
    checks.tensors("minimum", input=input)
    return ExtremumOfTwo.apply(*checked("minimum", input, other), False)


def clip(input: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """input held within [min, max]; the gradient flows where it was within, the ends included. NaN stays NaN."""
    checks.tensors("clip", input=input)
    if min is None and max is None:
        raise ValueError("clip: expected min, max or both")
    result = input if min is None else where(input >= min, input, min)
    result = result if max is None else where(result <= max, result, max)
    return where(input != input, input.detach(), result)
