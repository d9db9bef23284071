"""The dtypes of results are PyTorch's, and gradients have the dtype of what they are gradients of."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import Tensor

DEVICES = ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)]

ints, reals, truths = np.array([1, 2, 4]), np.float32([1, 2, 4]), np.array([True, False, True])

RESULTS: dict[str, tuple[Callable[[Callable[[Any], Tensor]], Any], str, list[Any]]] = {
    "integers times a real number": (lambda t: t(ints) * 2.5, "float32", [2.5, 5, 10]),
    "integers over integers": (lambda t: t(ints) / t(ints), "float32", [1, 1, 1]),
    "an integer over integers": (lambda t: 1 / t(ints), "float32", [1, 0.5, 0.25]),
    "integers to a real power": (lambda t: t(ints) ** 0.5, "float32", [1, np.float32(2) ** 0.5, 2]),
    "integers to an integer power": (lambda t: t(ints) ** 2, "int64", [1, 4, 16]),
    "int32 and float32": (lambda t: t(ints.astype(np.int32)) + t(reals), "float32", [2, 4, 8]),
    "bools and an integer": (lambda t: t(truths) * 2, "int64", [2, 0, 2]),
    "bools and a real number": (lambda t: t(truths) * 2.5, "float32", [2.5, 0, 2.5]),
    "NumPy's float64 number": (lambda t: t(reals) * np.float64(2), "float32", [2, 4, 8]),
    "a float64 array without axes": (lambda t: t(reals) * np.array(2.0), "float32", [2, 4, 8]),
    "a float64 tensor without axes": (lambda t: t(reals) * t(np.array(2.0)), "float32", [2, 4, 8]),
    "a real tensor without axes and integers": (lambda t: t(ints) * t(np.float32(2)), "float32", [2, 4, 8]),
    "float32 and float64": (lambda t: t(reals) + t(reals.astype(np.float64)), "float64", [2, 4, 8]),
    "a fraction": (lambda t: t(reals) * Fraction(1, 2), "float32", [0.5, 1, 2]),
    "integers clipped by a real number": (lambda t: t(ints).clip(1.5), "float32", [1.5, 2, 4]),
    "maximum with a real number": (lambda t: t(ints).maximum(2.5), "float32", [2.5, 2.5, 4]),
    "where of integers and a real number": (lambda t: gpucnn.where(t(truths), t(ints), 0.5), "float32", [1, 0.5, 4]),
    "where of two integers": (lambda t: gpucnn.where(t(truths), 1, 2), "int64", [1, 2, 1]),
    "cat of integers and reals": (lambda t: gpucnn.cat([t(ints), t(reals[:1])]), "float32", [1, 2, 4, 1]),
    "sum of uint8": (lambda t: t(np.uint8([200, 200])).sum(0, keepdim=True), "int64", [400]),
    "sum of int32": (lambda t: t(np.int32([2**31 - 1, 1])).sum(0, keepdim=True), "int64", [2**31]),
    "bits of integers, and": (lambda t: t(ints) & 6, "int64", [0, 2, 4]),
    "bits of integers, or": (lambda t: 1 | t(ints), "int64", [1, 3, 5]),
    "bits of integers, exclusive or": (lambda t: t(ints) ^ 3, "int64", [2, 1, 7]),
    "bits of integers, not": (lambda t: ~t(ints), "int64", [-2, -3, -5]),
    "bools, exclusive or": (lambda t: t(truths) ^ True, "bool", [False, True, False]),
    "other byte order": (lambda t: t(np.array([1, 2], ">f4")) * 1, "float32", [1, 2]),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", RESULTS)
def test_result(name: str, device: str) -> None:
    compute, dtype, expected = RESULTS[name]
    result = compute(lambda array: gpucnn.tensor(array, device=device))
    assert result.dtype == dtype
    np.testing.assert_array_equal(result.numpy(), np.array(expected, dtype))


def test_gradients_have_the_dtype_of_their_tensor() -> None:
    x = gpucnn.tensor(np.float32([1, 2]), device="cpu", requires_grad=True)
    y = gpucnn.tensor(np.float64([3, 4]), device="cpu", requires_grad=True)
    seen = []

    class Seen(gpucnn.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 1.0

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            seen.append(grad.dtype)
            return grad

    (Seen.apply(x) * y).sum().backward()
    assert x.grad is not None and y.grad is not None
    assert x.grad.dtype == np.float32 and y.grad.dtype == np.float64 and seen == [np.float32]
    (x * 2).backward(gpucnn.tensor(np.ones(2), device="cpu"))
    assert x.grad.dtype == np.float32 and x.grad.tolist() == [5.0, 6.0]


def test_integer_results_require_no_gradient() -> None:
    x = gpucnn.tensor([1.5, 2.5], device="cpu", requires_grad=True)
    assert not x.long().requires_grad and x.double().requires_grad


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x * 1j, "mul: expected tensors and numbers, got complex"),
        (lambda x: x & 1, "bitwise_and: expected bools or integers, got a common dtype of float32"),
        (lambda x: ~x, "bitwise_not: expected bools or integers, got float32"),
        (lambda x: gpucnn.add(1, 2), "add: expected a tensor among its operands, got int, int"),
        (lambda x: gpucnn.maximum(1, x), "maximum: input must be a tensor, got int"),
        (lambda x: gpucnn.zeros(2, dtype=complex, device="cpu"), "expected real numbers or bools, got .* complex128"),
        (lambda x: gpucnn.zeros(2.5, device="cpu"), "float"),
    ],
)
def test_what_is_no_real_number_is_refused(call: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call(gpucnn.ones(2, device="cpu"))


def test_sizes_are_not_negative() -> None:
    with pytest.raises(ValueError, match=r"sizes of a tensor cannot be negative, got \(2, -1\)"):
        gpucnn.zeros(2, -1, device="cpu")
