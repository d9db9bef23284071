"""The methods and operators of Tensor, attached here because tensor.py knows nothing of the floors above it."""

from __future__ import annotations

from typing import Any

from gpucnn.functional import activation, arithmetic, comparison, linear, reduction, shape
from gpucnn.tensor import Tensor

BINARY = {
    "add": arithmetic.add,
    "sub": arithmetic.sub,
    "mul": arithmetic.mul,
    "truediv": arithmetic.div,
    "pow": arithmetic.pow,
    "and": comparison.bitwise_and,
    "or": comparison.bitwise_or,
    "xor": comparison.bitwise_xor,
}

OPERATORS = {
    "neg": arithmetic.neg,
    "abs": arithmetic.abs,
    "matmul": linear.matmul,
    "getitem": shape.getitem,
    "lt": comparison.lt,
    "le": comparison.le,
    "gt": comparison.gt,
    "ge": comparison.ge,
    "invert": comparison.bitwise_not,
}

METHODS: dict[str, Any] = {
    function.__name__: function
    for function in (
        *(arithmetic.abs, arithmetic.add, arithmetic.clip, arithmetic.div, arithmetic.exp, arithmetic.log),
        *(arithmetic.maximum, arithmetic.minimum, arithmetic.mul, arithmetic.neg, arithmetic.pow, arithmetic.sqrt),
        *(arithmetic.sub, reduction.all, reduction.any, reduction.argmax, reduction.argmin, reduction.max),
        *(reduction.mean, reduction.min, reduction.std, reduction.sum, reduction.var),
        *(shape.clone, shape.contiguous, shape.cpu, shape.cuda, shape.double, shape.expand, shape.flatten),
        *(shape.float, shape.half, shape.bfloat16, shape.long, shape.permute, shape.reshape, shape.split),
        *(shape.squeeze, shape.t, shape.to),
        *(shape.transpose, shape.unsqueeze, linear.matmul, activation.relu, activation.softmax, activation.log_softmax),
    )
} | {"view": shape.reshape, "clamp": arithmetic.clip}


def _reflected(function: Any) -> Any:
    return lambda self, other: function(other, self)


def _equality(function: Any) -> Any:
    # Python compares with anything, None too; what is no number or tensor is simply not equal.
    def compare(self: Tensor, other: Any) -> Any:
        try:
            return function(self, other)
        except TypeError:
            return NotImplemented

    return compare


def attach() -> None:
    """Gives Tensor its methods. Called once, when gpucnn.functional is imported."""
    for name, function in METHODS.items():
        setattr(Tensor, name, function)
    for name, function in OPERATORS.items():
        setattr(Tensor, f"__{name}__", function)
    for name, function in BINARY.items():
        setattr(Tensor, f"__{name}__", function)
        setattr(Tensor, f"__r{name}__", _reflected(function))
    Tensor.__eq__ = _equality(comparison.eq)
    Tensor.__ne__ = _equality(comparison.ne)
    Tensor.where = lambda self, condition, other: arithmetic.where(condition, self, other)
    Tensor.T = property(shape.t)


attach()
