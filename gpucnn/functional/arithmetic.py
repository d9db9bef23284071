"""Elementwise arithmetic with broadcasting, and comparisons.

Operands are tensors or numbers. Backward sums a gradient over the axes that broadcasting had added or stretched
(un-broadcasting).
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn import layout
from gpucnn.autograd import Function
from gpucnn.functional import checks
from gpucnn.tensor import Tensor, bool_, float32, tensor

Operand = Any  # Tensor, number or NumPy array


def _data(operand: Operand) -> Any:
    return operand.data if isinstance(operand, Tensor) else operand


def _compute(like: Tensor, ufunc: str, *operands: Operand) -> Tensor:
    function = getattr(like.backend.xp, ufunc)
    return Tensor(layout.elementwise(function, *map(_data, operands)), like.device)


def unbroadcast(gradient: Tensor, shape: tuple[int, ...] | None) -> Tensor | None:
    """The gradient of a broadcast result, summed to the shape of an operand; None for an operand that was no tensor."""
    if shape is None or gradient.shape == shape:
        return gradient if shape is not None else None
    added = gradient.ndim - len(shape)
    stretched = tuple(added + i for i, n in enumerate(shape) if n == 1 and gradient.shape[added + i] != 1)
    summed = gradient.data.sum(axis=(*range(added), *stretched), keepdims=True)
    return Tensor(layout.canonical(summed.reshape(shape)), gradient.device)


def _shape(operand: Operand) -> tuple[int, ...] | None:
    return operand.shape if isinstance(operand, Tensor) else None


def _reference(*operands: Operand) -> Tensor:
    return next(operand for operand in operands if isinstance(operand, Tensor))


def _operands(operator: str, *operands: Operand) -> list[Operand]:
    """Tensors of one device and numbers.

    NumPy arrays become tensors. Raises for all else, and for shapes that do not broadcast.
    """
    device = _reference(*operands).device
    found: list[Operand] = []
    for operand in operands:
        if isinstance(operand, np.ndarray) and operand.ndim:
            operand = tensor(operand, device=device)
        if not isinstance(operand, (Tensor, numbers.Number, np.generic, np.ndarray)):
            raise TypeError(f"{operator}: expected tensors and numbers, got {type(operand).__name__}")
        found.append(operand)
    given = [operand for operand in found if isinstance(operand, Tensor)]
    checks.tensors(operator, **{f"operand {index}": operand for index, operand in enumerate(given)})
    try:
        np.broadcast_shapes(*(operand.shape for operand in given))
    except ValueError:
        shapes = " and ".join(str(operand.shape) for operand in given)
        raise ValueError(f"{operator}: shapes {shapes} do not broadcast") from None
    return found


class Add(Function):
    """x + y."""

    @staticmethod
    def forward(ctx: Any, x: Operand, y: Operand) -> Tensor:
        ctx.x, ctx.y = _shape(x), _shape(y)
        return _compute(_reference(x, y), "add", x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return unbroadcast(grad, ctx.x), unbroadcast(grad, ctx.y)


class Subtract(Function):
    """x - y."""

    @staticmethod
    def forward(ctx: Any, x: Operand, y: Operand) -> Tensor:
        ctx.x, ctx.y = _shape(x), _shape(y)
        return _compute(_reference(x, y), "subtract", x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return unbroadcast(grad, ctx.x), unbroadcast(-grad, ctx.y) if ctx.needs_input_grad[1] else None


class Multiply(Function):
    """x * y."""

    @staticmethod
    def forward(ctx: Any, x: Operand, y: Operand) -> Tensor:
        _save(ctx, x, y)
        return _compute(_reference(x, y), "multiply", x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, y = _saved(ctx)
        need_x, need_y = ctx.needs_input_grad
        return (
            unbroadcast(grad * y, _shape(x)) if need_x else None,
            unbroadcast(grad * x, _shape(y)) if need_y else None,
        )


class Divide(Function):
    """x / y."""

    @staticmethod
    def forward(ctx: Any, x: Operand, y: Operand) -> Tensor:
        _save(ctx, x, y)
        return _compute(_reference(x, y), "true_divide", x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, y = _saved(ctx)
        need_x, need_y = ctx.needs_input_grad
        return (
            unbroadcast(grad / y, _shape(x)) if need_x else None,
            unbroadcast(-grad * x / (y * y), _shape(y)) if need_y else None,
        )


class Power(Function):
    """x ** y; the gradient for y is 0 where x is 0, as in PyTorch."""

    @staticmethod
    def forward(ctx: Any, x: Operand, y: Operand) -> Tensor:
        z = _compute(_reference(x, y), "power", x, y)
        _save(ctx, x, y, z)
        return z

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, y, z = _saved(ctx)
        need_x, need_y = ctx.needs_input_grad
        dx = dy = None
        if need_x:
            zero = y == 0
            slope = (
                y * x ** (y - 1)
                if not isinstance(y, Tensor)
                else where(zero, 0.0, y * x ** (y - where(zero, 0.0, 1.0)))
            )
            dx = unbroadcast(grad * slope if isinstance(y, Tensor) or not zero else grad * 0.0, _shape(x))
        if need_y:
            logarithm = log(where(x == 0, 1.0, x)) if isinstance(x, Tensor) else (float(np.log(x)) if x else 0.0)
            dy = unbroadcast(grad * z * logarithm, _shape(y))
        return dx, dy


class Negative(Function):
    """-x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _compute(x, "negative", x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _compute(grad, "negative", grad)


class Exp(Function):
    """e ** x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = _compute(x, "exp", x)
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
        return _compute(x, "log", x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad / x


class Sqrt(Function):
    """The square root."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = _compute(x, "sqrt", x)
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
        return _compute(x, "absolute", x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * _compute(x, "sign", x)


class Where(Function):
    """x where the condition holds, else y."""

    @staticmethod
    def forward(ctx: Any, condition: Tensor, x: Operand, y: Operand) -> Tensor:
        ctx.save_for_backward(condition)
        ctx.x, ctx.y = _shape(x), _shape(y)
        return _compute(condition, "where", condition, x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (condition,) = ctx.saved_tensors
        zero = grad.dtype.type(0)
        return (
            None,
            unbroadcast(_compute(grad, "where", condition, grad, zero), ctx.x),
            unbroadcast(_compute(grad, "where", condition, zero, grad), ctx.y),
        )


def _save(ctx: Any, *operands: Operand) -> None:
    ctx.save_for_backward(*(operand if isinstance(operand, Tensor) else None for operand in operands))
    ctx.numbers = [None if isinstance(operand, Tensor) else operand for operand in operands]


def _saved(ctx: Any) -> list[Operand]:
    return [number if tensor is None else tensor for tensor, number in zip(ctx.saved_tensors, ctx.numbers, strict=True)]


# ---- the public operators ----


def add(input: Operand, other: Operand) -> Tensor:
    """input + other, broadcast."""
    return Add.apply(*_operands("add", input, other))


def sub(input: Operand, other: Operand) -> Tensor:
    """input - other, broadcast."""
    return Subtract.apply(*_operands("sub", input, other))


def mul(input: Operand, other: Operand) -> Tensor:
    """input * other, broadcast."""
    return Multiply.apply(*_operands("mul", input, other))


def div(input: Operand, other: Operand) -> Tensor:
    """input / other, broadcast."""
    return Divide.apply(*_operands("div", input, other))


def pow(input: Operand, exponent: Operand) -> Tensor:
    """input ** exponent, broadcast; either may be a number."""
    return Power.apply(*_operands("pow", input, exponent))


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
    checks.floating("exp", input=input)
    return Exp.apply(input)


def log(input: Tensor) -> Tensor:
    """The natural logarithm of input."""
    checks.floating("log", input=input)
    return Log.apply(input)


def sqrt(input: Tensor) -> Tensor:
    """The square root of input."""
    checks.floating("sqrt", input=input)
    return Sqrt.apply(input)


def where(condition: Tensor, input: Operand, other: Operand) -> Tensor:
    """input where ``condition`` (a bool tensor) holds, else other; all three broadcast."""
    checks.tensors("where", condition=condition)
    if condition.dtype != bool_:
        raise TypeError(f"where: condition must be a bool tensor, got {condition.dtype}")
    dtype = next((o.dtype for o in (input, other) if isinstance(o, Tensor)), float32)
    # A Python number would make NumPy's where give float64.
    operands = [o if isinstance(o, Tensor) else dtype.type(o) if np.ndim(o) == 0 else o for o in (input, other)]
    return Where.apply(*_operands("where", condition, *operands))


def maximum(input: Tensor, other: Operand) -> Tensor:
    """The larger of two, elementwise; the gradient of equals goes to ``input``."""
    return where(ge(input, other), input, other)


def minimum(input: Tensor, other: Operand) -> Tensor:
    """The smaller of two, elementwise; the gradient of equals goes to ``input``."""
    return where(le(input, other), input, other)


def clip(input: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """input held within [min, max]; the gradient flows where it was within, the ends included."""
    if min is None and max is None:
        raise ValueError("clip: expected min, max or both")
    result = input if min is None else maximum(input, min)
    return result if max is None else minimum(result, max)


def _comparison(ufunc: str, meaning: str) -> Callable[[Operand, Operand], Tensor]:
    def compare(input: Operand, other: Operand) -> Tensor:
        operands = _operands(ufunc, input, other)
        like = _reference(*operands)
        with like.backend.context():
            return _compute(like, ufunc, *operands)

    compare.__name__ = compare.__qualname__ = ufunc
    compare.__doc__ = f"input {meaning} other, elementwise and broadcast, as a bool tensor without gradient."
    return compare


eq = _comparison("equal", "==")
ne = _comparison("not_equal", "!=")
lt = _comparison("less", "<")
le = _comparison("less_equal", "<=")
gt = _comparison("greater", ">")
ge = _comparison("greater_equal", ">=")
logical_and = _comparison("logical_and", "and")
logical_or = _comparison("logical_or", "or")


def logical_not(input: Tensor) -> Tensor:
    """not input, elementwise, as a bool tensor without gradient."""
    checks.tensors("logical_not", input=input)
    with input.backend.context():
        return _compute(input, "logical_not", input)
