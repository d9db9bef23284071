"""Comparisons, and the logic of bools and of the bits of integers; none has a gradient."""

from __future__ import annotations

from collections.abc import Callable

from gpucnn import dtypes
from gpucnn.autograd import running_on
from gpucnn.functional import checks
from gpucnn.functional.operands import Operand, checked, common_dtype, compute, compute_alike, reference
from gpucnn.tensor import Tensor


def _comparison(ufunc: str, meaning: str) -> Callable[[Operand, Operand], Tensor]:
    def compare(input: Operand, other: Operand) -> Tensor:
        operands = checked(ufunc, input, other)
        like = reference(*operands)
        with running_on(like.device):
            return compute(like, ufunc, *operands)

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
        operands = checked(ufunc, input, other)
        dtype = common_dtype(*operands)
        if dtypes.is_floating(dtype):
            raise TypeError(f"{ufunc}: expected bools or integers, got a common dtype of {dtype}")
        like = reference(*operands)
        with running_on(like.device):
            return compute_alike(like, ufunc, *operands)

    combine.__name__ = combine.__qualname__ = ufunc
    combine.__doc__ = f"input {meaning} other, of bools or of the bits of integers, broadcast."
    return combine


bitwise_and = _bitwise("bitwise_and", "and")
bitwise_or = _bitwise("bitwise_or", "or")
bitwise_xor = _bitwise("bitwise_xor", "exclusive or")


def bitwise_not(input: Tensor) -> Tensor:
    """not input, of bools or of the bits of integers."""
    checks.tensors("bitwise_not", input=input)
    if dtypes.is_floating(input.dtype):
        raise TypeError(f"bitwise_not: expected bools or integers, got {input.dtype}")
    with running_on(input.device):
        return compute(input, "invert", input)
