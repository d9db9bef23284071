"""Where formulas have no answer, or arrays no elements: PyTorch's answers, in values and gradients, on every device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpucnn
import gpucnn.functional as F
from gpucnn import Tensor

DEVICES = ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)]

nan, inf, large = float("nan"), float("inf"), 3e38


def no_labels(like: Tensor) -> Tensor:
    return gpucnn.zeros(0, dtype=np.int64, device=like.device)


def statistics(channels: int, like: Tensor) -> tuple[Tensor, Tensor]:
    return gpucnn.zeros(channels, device=like.device), gpucnn.ones(channels, device=like.device)


# The function, its inputs, its value, and the gradients of its sum, as PyTorch 2.13 gives them.
CASES: dict[str, tuple[Callable[..., Tensor], list[Any], Any, list[Any]]] = {
    "0 to the 0": (lambda x: x**0, [[0.0, 2.0]], [1, 1], [[0, 0]]),
    "root of 0": (lambda x: x**0.5, [[0.0, 4.0]], [0, 2], [[inf, 0.25]]),
    "negative base": (lambda x: x**3, [[-2.0, 0.0]], [-8, 0], [[12, 0]]),
    "tensor to tensor": (
        lambda x, y: x**y, [[-3.0, 0.0, 0.0, 2.0, 0.0], [2.0, 0.0, 2.0, -1.0, -1.0]], [9, 1, 0, 0.5, inf],
        [[-6, 0, 0, -0.25, -inf], [nan, 0, 0, 0.5 * np.log(2), -inf]],
    ),
    "number to tensor, 0": (lambda y: 0**y, [[0.0, 2.0, -1.0]], [1, 0, inf], [[0, 0, -inf]]),
    "number to tensor, negative": (lambda y: (-2) ** y, [[2.0]], [4], [[nan]]),
    "division by 0": (lambda x, y: x / y, [[1.0, 0.0], [0.0, 2.0]], [inf, 0], [[inf, 0.5], [-inf, 0]]),
    "logarithm of 0": (lambda x: x.log(), [[0.0, 1.0]], [-inf, 0], [[inf, 1]]),
    "square root of 0": (lambda x: x.sqrt(), [[0.0, 4.0]], [0, 2], [[inf, 0.25]]),
    "overflow": (lambda x: x.exp(), [[1000.0, 0.0]], [inf, 1], [[inf, 1]]),
    "clip of NaN": (lambda x: x.clip(0.0, 1.0), [[nan, 2.0, 1.0, -1.0]], [nan, 1, 1, 0], [[0, 0, 1, 0]]),
    "clip between crossed bounds": (lambda x: x.clip(2.0, 1.0), [[0.0, 1.5, 3.0]], [1, 1, 1], [[0, 0, 0]]),
    "maximum of NaN": (lambda x, y: x.maximum(y), [[nan, 1.0], [0.0, nan]], [nan, nan], [[1, 1], [1, 1]]),
    "maximum of equals": (lambda x, y: x.maximum(y), [[1.0, 2.0], [1.0, 0.0]], [1, 2], [[0.5, 1], [0.5, 0]]),
    "minimum with a number": (lambda x: x.minimum(1.0), [[1.0, 2.0, 0.0]], [1, 1, 0], [[0.5, 0, 1]]),
    "largest of large equals": (lambda x: x.max(), [[large, large, 0.0]], np.float32(large), [[0.5, 0.5, 0]]),
    "smallest with infinities": (lambda x: x.min(), [[-inf, 1.0, -inf]], -inf, [[0.5, 0, 0.5]]),
    "largest of NaN": (lambda x: x.max(), [[nan, 1.0]], nan, [[1, 0]]),
    "deviation of equals": (lambda x: x.std(), [[1.0, 1.0, 1.0]], 0, [[0, 0, 0]]),
    "softmax of -inf": (lambda x: F.softmax(x, 1), [[[-inf, 1.0]]], [[0, 1]], [[[0, 0]]]),
    "softmax of nothing but -inf": (lambda x: F.softmax(x, 1), [[[-inf, -inf]]], [[nan, nan]], [[[nan, nan]]]),
    "softmax of large numbers": (lambda x: F.softmax(x, 0), [[large, -large]], [1, 0], [[0, 0]]),
    "softmax over no classes": (lambda x: F.softmax(x, 1), [np.zeros((3, 0))], np.zeros((3, 0)), [np.zeros((3, 0))]),
    "log_softmax over no classes": (
        lambda x: F.log_softmax(x, 1), [np.zeros((2, 0))], np.zeros((2, 0)), [np.zeros((2, 0))],
    ),
    "largest of each of no rows": (lambda x: x.max(1)[0], [np.zeros((0, 3))], np.zeros(0), [np.zeros((0, 3))]),
    "mean of nothing": (lambda x: x.mean(), [np.zeros(0)], nan, [np.zeros(0)]),
    "sum over no axes is over all": (lambda x: x.sum(()), [np.ones((2, 3))], 6, [np.ones((2, 3))]),
    "matrices without columns": (
        lambda a, b: a @ b, [np.ones((3, 2, 0)), np.ones((3, 0, 4))], np.zeros((3, 2, 4)),
        [np.ones((3, 2, 0)), np.ones((3, 0, 4))],
    ),
    "matrices without rows": (
        lambda a, b: a @ b, [np.ones((2, 0, 3)), np.ones((3, 2))], np.zeros((2, 0, 2)),
        [np.ones((2, 0, 3)), np.zeros((3, 2))],
    ),
    "linear of no rows": (
        lambda x, w, b: F.linear(x, w, b), [np.ones((0, 3)), np.ones((2, 3)), np.ones(2)], np.zeros((0, 2)),
        [np.ones((0, 3)), np.zeros((2, 3)), np.zeros(2)],
    ),
    "batch_norm of no images": (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True), [np.ones((0, 3, 2, 2)), np.ones(3), np.ones(3)],
        np.zeros((0, 3, 2, 2)), [np.ones((0, 3, 2, 2)), np.zeros(3), np.zeros(3)],
    ),
    "batch_norm of images without pixels": (
        lambda x, w: F.batch_norm(x, *statistics(3, x), w), [np.ones((2, 3, 0, 4)), np.ones(3)],
        np.zeros((2, 3, 0, 4)), [np.ones((2, 3, 0, 4)), np.zeros(3)],
    ),
    "losses of an infinite logit and of nothing but impossible classes": (
        lambda x: F.cross_entropy(x, gpucnn.tensor([1, 0, 1], device=x.device), "none"),
        [[[inf, 1.0, 2.0], [-inf, -inf, -inf], [-inf, 3.0, -inf]]], [nan, nan, 0],
        [[[nan, nan, nan], [nan, nan, nan], [0, 0, 0]]],
    ),
    "gelu by tanh, far out": (
        lambda x: F.gelu(x, "tanh"), [[1e15, -1e15, 1e18, -1e18]], [1e15, 0, 1e18, 0], [[1, 0, 1, 0]],
    ),
    "loss of no rows": (lambda x: F.cross_entropy(x, no_labels(x)), [np.zeros((0, 3))], nan, [np.zeros((0, 3))]),
    "sum of the losses of no rows": (
        lambda x: F.cross_entropy(x, no_labels(x), "sum"), [np.zeros((0, 3))], 0, [np.zeros((0, 3))],
    ),
    "losses of no rows": (
        lambda x: F.cross_entropy(x, no_labels(x), "none"), [np.zeros((0, 3))], np.zeros(0), [np.zeros((0, 3))],
    ),
    "linear of a vector": (lambda x, w: F.linear(x, w), [[1.0, 2.0], [[3.0, 4.0]]], [11], [[3, 4], [[1, 2]]]),
}  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CASES)
def test_edge(name: str, device: str) -> None:
    function, arrays, value, gradients = CASES[name]
    inputs = [gpucnn.tensor(np.array(a, np.float32), device=device, requires_grad=True) for a in arrays]
    result = function(*inputs)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.numpy(), np.array(value, np.float32), rtol=1e-6)
    result.backward(gpucnn.ones(result.shape, device=device))
    for x, expected in zip(inputs, gradients, strict=True):
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), np.array(expected, np.float32), rtol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_argmax_keeps_the_number_of_axes_and_names_empty_ones(device: str) -> None:
    x = gpucnn.tensor([[1.0, 5.0], [2.0, 3.0]], device=device)
    assert x.argmax(keepdim=True).tolist() == [[1]] and x.argmin(0, keepdim=True).tolist() == [[0, 1]]
    assert gpucnn.zeros(0, 3, device=device).argmax(1).shape == (0,)
    with pytest.raises(ValueError, match=r"argmax: no elements to choose from in shape \(0, 3\)"):
        gpucnn.zeros(0, 3, device=device).argmax(0)


@pytest.mark.parametrize("device", DEVICES)
def test_images_and_rows_in_any_order_come_out_channels_last(device: str) -> None:
    """NumPy alone would give the result the order of the smaller operand here."""
    x, rows = gpucnn.ones(2, 1, 1, 3, device=device), gpucnn.ones(4, 2, 3, device=device)
    assert (x + rows).data.transpose(0, 2, 3, 1).flags.c_contiguous


def test_variance_without_degrees_of_freedom() -> None:
    assert gpucnn.tensor([1.0, 2.0], device="cpu").var(correction=3).item() == inf
    assert np.isnan(gpucnn.tensor([1.0], device="cpu").var().item())


def test_divisors_are_ints() -> None:
    with pytest.raises(TypeError, match=r"avg_pool2d: divisor_override must be an int, got 2.5"):
        F.avg_pool2d(gpucnn.ones(1, 1, 4, 4, device="cpu"), 2, divisor_override=2.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_a_factor_beyond_float32_is_infinite(device: str) -> None:
    x = gpucnn.tensor([1.0, -2.0, 0.0], device=device)
    for product in (x * 1e300, 1e300 * x):
        np.testing.assert_array_equal(product.numpy(), np.array([np.inf, -np.inf, np.nan], np.float32))
