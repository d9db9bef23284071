"""Elementwise arithmetic with broadcasting, and comparisons.

Operands are tensors or numbers, computed in PyTorch's common dtype. Backward sums a gradient over the axes that
broadcasting had added or stretched (un-broadcasting).
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn import layout
from gpucnn.autograd import Function, running_on
from gpucnn.functional import checks
from gpucnn.tensor import Tensor, bool_, float32, int64, tensor

Operand = Any  # Tensor, number or NumPy array


def _data(operand: Operand) -> Any:
    return operand.data if isinstance(operand, Tensor) else operand


def _compute(like: Tensor, ufunc: str, *operands: Operand) -> Tensor:
    function = getattr(like.backend.xp, ufunc)
    return Tensor(layout.elementwise(function, *map(_data, operands)), like.device)


def _compute_alike(like: Tensor, ufunc: str, *operands: Operand) -> Tensor:
    """As :func:`_compute`, the tensors first brought to one dtype."""
    dtype = common_dtype(*operands)
    if all(not isinstance(operand, Tensor) or operand.dtype == dtype for operand in operands):
        return _compute(like, ufunc, *operands)
    function = getattr(like.backend.xp, ufunc)

    def compute(*arrays: Any) -> Any:
        return function(*(a.astype(dtype) if hasattr(a, "astype") and a.dtype != dtype else a for a in arrays))

    return Tensor(layout.elementwise(compute, *map(_data, operands)), like.device)


def common_dtype(*operands: Operand) -> np.dtype[Any]:
    """PyTorch's result dtype: bools give way to integers, integers to real numbers, of whatever width.

    Of one kind, the tensors with axes decide, then those without, then the numbers (float32, int64, bool).
    """
    tensors = [operand for operand in operands if isinstance(operand, Tensor)]
    if len({operand.dtype for operand in tensors}) == 1 and tensors[0].dtype.kind == "f":
        return tensors[0].dtype  # the usual case
    groups = (
        [operand.dtype for operand in tensors if operand.ndim],
        [operand.dtype for operand in tensors if not operand.ndim],
        [_number_dtype(operand) for operand in operands if not isinstance(operand, Tensor)],
    )
    result = bool_
    decided = False
    for group in groups:
        for kind in ("f", "iu", "b"):
            found = [dtype for dtype in group if dtype.kind in kind]
            if found:
                if not decided or _rank(found[0]) > _rank(result):
                    result, decided = np.result_type(*found), True
                break
    return result


def _rank(dtype: np.dtype[Any]) -> int:
    return {"b": 0, "f": 2}.get(dtype.kind, 1)


def _number_dtype(number: Any) -> np.dtype[Any]:
    return bool_ if isinstance(number, bool) else int64 if isinstance(number, int) else float32


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
    """Tensors of one device and Python's numbers.

    NumPy arrays become tensors. Raises for all else, and for shapes that do not broadcast.
    """
    if not any(isinstance(operand, Tensor) for operand in operands):
        kinds = ", ".join(type(operand).__name__ for operand in operands)
        raise TypeError(f"{operator}: expected a tensor among its operands, got {kinds}")
    device = _reference(*operands).device
    found = [operand if isinstance(operand, Tensor) else _constant(operator, operand, device) for operand in operands]
    given = [operand for operand in found if isinstance(operand, Tensor)]
    checks.tensors(operator, **{f"operand {index}": operand for index, operand in enumerate(given)})
    try:
        np.broadcast_shapes(*(operand.shape for operand in given))
    except ValueError:
        shapes = " and ".join(str(operand.shape) for operand in given)
        raise ValueError(f"{operator}: shapes {shapes} do not broadcast") from None
    return found


def _constant(operator: str, value: Any, device: Any) -> Operand:
    """A NumPy array as a tensor; any real number as Python's bool, int or float, which widen no dtype."""
    if isinstance(value, np.ndarray) and value.ndim:
        return tensor(value, device=device)
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.item()
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"{operator}: expected tensors and numbers, got {type(value).__name__}")


class Add(Function):
    """x + y."""

    @staticmethod
    def forward(ctx: Any, x: Operand, y: Operand) -> Tensor:
        ctx.x, ctx.y = _shape(x), _shape(y)
        return _compute_alike(_reference(x, y), "add", x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        need_x, need_y = ctx.needs_input_grad
        return unbroadcast(grad, ctx.x) if need_x else None, unbroadcast(grad, ctx.y) if need_y else None


class Subtract(Function):
    """x - y."""

    @staticmethod
    def forward(ctx: Any, x: Operand, y: Operand) -> Tensor:
        ctx.x, ctx.y = _shape(x), _shape(y)
        return _compute_alike(_reference(x, y), "subtract", x, y)

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
        ctx.x, ctx.y = _shape(x), _shape(y)
        return _compute_alike(_reference(x, y), "multiply", x, y)

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
        ctx.x, ctx.y = _shape(x), _shape(y)
        if common_dtype(x, y).kind != "f":  # the quotient of integers is float32
            x = x.to(dtype=float32) if isinstance(x, Tensor) else float(x)
            y = y.to(dtype=float32) if isinstance(y, Tensor) else float(y)
        return _compute_alike(_reference(x, y), "true_divide", x, y)

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
        z = _compute_alike(_reference(x, y), "power", x, y)
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
        # NumPy's where takes a Python number for float64, so numbers get their dtype first.
        dtype = common_dtype(x, y)
        x, y = (o.to(dtype=dtype) if isinstance(o, Tensor) else dtype.type(o) for o in (x, y))
        return _compute(condition, "where", condition, x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (condition,) = ctx.saved_tensors
        zero = grad.dtype.type(0)
        _, need_x, need_y = ctx.needs_input_grad
        dx = unbroadcast(_compute(grad, "where", condition, grad, zero), ctx.x) if need_x else None
        dy = unbroadcast(_compute(grad, "where", condition, zero, grad), ctx.y) if need_y else None
        return None, dx, dy


class ExtremumOfTwo(Function):
    """The larger (or smaller) of x and y; NaN if either is, and equals share the gradient evenly, as in PyTorch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Operand, largest: bool) -> Tensor:
        _save(ctx, x, y)
        ctx.largest = largest
        return _compute_alike(x, "maximum" if largest else "minimum", x, y)

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
    return Where.apply(*_operands("where", condition, input, other))


def maximum(input: Tensor, other: Operand) -> Tensor:
    """The larger of two, elementwise; NaN where either is. Equals share the gradient evenly."""
    checks.tensors("maximum", input=input)
    return ExtremumOfTwo.apply(*_operands("maximum", input, other), True)


def minimum(input: Tensor, other: Operand) -> Tensor:
    """The smaller of two, elementwise; NaN where either is. Equals share the gradient evenly."""
    checks.tensors("minimum", input=input)
    return ExtremumOfTwo.apply(*_operands("minimum", input, other), False)


def clip(input: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """input held within [min, max]; the gradient flows where it was within, the ends included. NaN stays NaN."""
    checks.tensors("clip", input=input)
    if min is None and max is None:
        raise ValueError("clip: expected min, max or both")
    result = input if min is None else where(input >= min, input, min)
    result = result if max is None else where(result <= max, result, max)
    return where(input != input, input.detach(), result)


def _comparison(ufunc: str, meaning: str) -> Callable[[Operand, Operand], Tensor]:
    def compare(input: Operand, other: Operand) -> Tensor:
        operands = _operands(ufunc, input, other)
        like = _reference(*operands)
        with running_on(like.device):
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


def _bitwise(ufunc: str, meaning: str) -> Callable[[Operand, Operand], Tensor]:
    def combine(input: Operand, other: Operand) -> Tensor:
        operands = _operands(ufunc, input, other)
        dtype = common_dtype(*operands)
        if dtype.kind == "f":
            raise TypeError(f"{ufunc}: expected bools or integers, got a common dtype of {dtype}")
        like = _reference(*operands)
        with running_on(like.device):
            return _compute_alike(like, ufunc, *operands)

    combine.__name__ = combine.__qualname__ = ufunc
    combine.__doc__ = f"input {meaning} other, of bools or of the bits of integers, broadcast."
    return combine


bitwise_and = _bitwise("bitwise_and", "and")
bitwise_or = _bitwise("bitwise_or", "or")
bitwise_xor = _bitwise("bitwise_xor", "exclusive or")


def bitwise_not(input: Tensor) -> Tensor:
    """not input, of bools or of the bits of integers."""
    checks.tensors("bitwise_not", input=input)
    if input.dtype.kind == "f":
        raise TypeError(f"bitwise_not: expected bools or integers, got {input.dtype}")
    with running_on(input.device):
        return _compute(input, "invert", input)
