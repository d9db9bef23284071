"""The gradient of every operator against central differences in float64, with unequal upstream gradients."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpucnn
import gpucnn.functional as F
from gpucnn import Tensor


def values(*shape: int, seed: int = 0, low: float = 0.2) -> Tensor:
    """Numbers of both signs, kept away from 0, where some slopes jump, and from each other."""
    rng = np.random.default_rng([seed, *shape])
    size = int(np.prod(shape))
    spread = rng.permutation(np.linspace(low, 2.0, size)) * rng.choice([-1, 1], size)
    return gpucnn.tensor(spread.reshape(shape), device="cpu", requires_grad=True)


labels = gpucnn.tensor([0, 2, 1], device="cpu")

CASES: dict[str, tuple[Callable[..., Any], list[Tensor]]] = {
    "add, broadcast both ways": (lambda a, b: a + b, [values(3, 1, 4), values(2, 1)]),
    "add a number": (lambda a: 2.0 + a, [values(3)]),
    "sub, four axes and two": (lambda a, b: a - b, [values(2, 3, 4, 5), values(4, 1)]),
    "mul, four axes and three": (lambda a, b: a * b, [values(2, 3, 4, 5), values(3, 1, 1)]),
    "div": (lambda a, b: a / b, [values(2, 3), values(3)]),
    "number / tensor": (lambda a: 2 / a, [values(2, 3)]),
    "pow, tensor to tensor": (lambda a, b: a.abs() ** b, [values(2, 3), values(3)]),
    "pow, tensor to number": (lambda a: a**3, [values(2, 3)]),
    "pow, tensor to 0": (lambda a: a**0, [values(2, 3)]),
    "pow, number to tensor": (lambda a: 2**a, [values(2, 3)]),
    "neg": (lambda a: -a, [values(4)]),
    "exp": (lambda a: a.exp(), [values(2, 3, 2, 2)]),
    "log": (lambda a: (a * a).log(), [values(3)]),
    "sqrt": (lambda a: (a * a + 1).sqrt(), [values(3)]),
    "abs": (abs, [values(5)]),
    "clip": (lambda a: a.clip(-1.0, 1.0), [values(3, 4)]),
    "clip by tensors": (lambda a, b: a.clip(max=b), [values(3, 4), values(4, seed=1)]),
    "where": (lambda a, b: gpucnn.where(a > b, a, b * 2), [values(3, 4), values(4, seed=1)]),
    "maximum": (gpucnn.maximum, [values(3, 4), values(3, 4, seed=1)]),
    "minimum": (gpucnn.minimum, [values(3, 4), values(4, seed=1)]),
    "sum over two axes of four": (lambda a: a.sum((1, 3), keepdim=True), [values(2, 3, 4, 5)]),
    "mean": (lambda a: a.mean(-1), [values(2, 3, 4, 5)]),
    "var": (lambda a: a.var(1), [values(2, 3, 4)]),
    "std, biased": (lambda a: a.std((0, 2), correction=0, keepdim=True), [values(2, 3, 4)]),
    "max of all": (lambda a: a.max(), [values(2, 3, 4)]),
    "max over an axis": (lambda a: a.max(1)[0], [values(2, 3, 4, 2)]),
    "min over an axis, kept": (lambda a: a.min(0, True).values, [values(2, 3)]),
    "reshape": (lambda a: a.reshape(4, -1), [values(2, 3, 2, 4)]),
    "flatten": (lambda a: a.flatten(1), [values(2, 3, 2, 4)]),
    "flatten back to four axes": (lambda a: a.reshape(2, 3, 2, 2), [values(2, 12)]),
    "permute": (lambda a: a.permute(2, 0, 3, 1) * 2, [values(2, 3, 2, 4)]),
    "transpose": (lambda a: a.transpose(0, 2), [values(2, 3, 4)]),
    "squeeze and unsqueeze": (lambda a: a.squeeze(1).unsqueeze(0), [values(2, 1, 3)]),
    "expand": (lambda a: a.expand(3, 2, 4), [values(2, 1)]),
    "index, repeated": (lambda a: a[[0, 1, 1, 0, 1], :, 2], [values(2, 3, 4)]),
    "index by two lists": (lambda a: a[[0, 1, 1], [2, 2, 2]], [values(2, 3, 4)]),
    "index by slices": (lambda a: a[1:, ::2, None, ..., -1], [values(2, 3, 4)]),
    "index by a mask": (lambda a: a[a > 0], [values(3, 4)]),
    "index of images": (lambda a: a[:, [0, 0, 1]], [values(2, 3, 2, 2)]),
    "cat of images along channels": (lambda a, b: gpucnn.cat([a, b], 1), [values(2, 3, 2, 4), values(2, 1, 2, 4)]),
    "stack": (lambda a, b: gpucnn.stack([a, b], -1), [values(2, 3), values(2, 3, seed=1)]),
    "split": (lambda a: a.split([1, 3], 2), [values(2, 1, 4)]),
    "matmul": (lambda a, b: a @ b, [values(2, 3), values(3, 4)]),
    "matmul of a matrix with itself transposed": (lambda a: a.T @ a, [values(2, 3)]),
    "matmul, batch and matrix": (lambda a, b: a @ b, [values(5, 2, 3), values(3, 4)]),
    "matmul, broadcast batches": (lambda a, b: a @ b, [values(2, 1, 2, 3), values(3, 3, 2)]),
    "matrix times vector": (lambda a, b: a @ b, [values(2, 3), values(3)]),
    "vector times matrix": (lambda a, b: a @ b, [values(3), values(3, 2)]),
    "vector times vector": (lambda a, b: a @ b, [values(3), values(3, seed=1)]),
    "linear over three axes": (F.linear, [values(2, 2, 3), values(4, 3), values(4)]),
    "linear without bias": (F.linear, [values(2, 3), values(4, 3)]),
    "softmax of images": (lambda a: F.softmax(a, 1), [values(2, 3, 2, 2)]),
    "log_softmax": (lambda a: F.log_softmax(a, -1), [values(4, 3)]),
    "relu": (F.relu, [values(2, 3, 2, 2)]),
    "gelu": (F.gelu, [values(2, 3, 2, 2)]),
    "gelu by tanh": (lambda a: F.gelu(a, "tanh"), [values(3, 5)]),
    "silu": (F.silu, [values(2, 3, 2, 2)]),
    "local_response_norm": (lambda a: F.local_response_norm(a, 4, 0.5, 0.75, 1.0), [values(2, 6, 2, 3)]),
    "local_response_norm, three axes": (lambda a: F.local_response_norm(a, 3, 0.5, 0.6, 2.0), [values(2, 6, 2)]),
    "batch_norm of images": (
        lambda a, w, b: F.batch_norm(a, None, None, w, b, True, eps=0.1),
        [values(2, 3, 2, 2), values(3), values(3, seed=1)],
    ),
    "batch_norm of rows, scale alone": (
        lambda a, w: F.batch_norm(a, None, None, w, training=True),
        [values(5, 3), values(3)],
    ),
    "batch_norm, three axes, no scale": (
        lambda a, b: F.batch_norm(a, None, None, None, b, True),
        [values(2, 3, 3), values(3)],
    ),
    "batch_norm by running statistics": (
        lambda a, w, b: F.batch_norm(a, values(3).detach(), abs(values(3, seed=2)).detach(), w, b),
        [values(2, 3, 2), values(3), values(3, seed=1)],
    ),
    "cross_entropy": (lambda a: F.cross_entropy(a, labels), [values(3, 4)]),
    "cross_entropy, summed": (lambda a: F.cross_entropy(a, labels, "sum"), [values(3, 4)]),
    "cross_entropy of each": (lambda a: F.cross_entropy(a, labels, "none"), [values(3, 4)]),
    "cross_entropy, smoothed": (lambda a: F.cross_entropy(a, labels, label_smoothing=0.3), [values(3, 4)]),
    "cross_entropy of each, smoothed": (lambda a: F.cross_entropy(a, labels, "none", 0.2), [values(3, 4)]),
    "cross_entropy_with_correct": (
        lambda a: F.cross_entropy_with_correct(a, labels, "sum", 0.1)[0] * 0.5,
        [values(3, 4)],
    ),
    "pad_channels": (lambda a: F.pad_channels(a, 3), [values(2, 2, 2, 3)]),
    "conv2d, all at once": (
        lambda x, w, b: F.conv2d(x, w, b, (2, 1), ((1, 0), (2, 1)), (1, 2), 2),
        [values(2, 4, 6, 7), values(4, 2, 3, 2), values(4)],
    ),
    "conv2d, NHWC": (
        lambda x, w, b: F.conv2d(x, w, b, 1, "SAME", data_format="NHWC"),
        [values(2, 5, 4, 3), values(3, 3, 3, 2), values(2)],
    ),
    "max_pool2d, same": (lambda x: F.max_pool2d(x, 3, 2, "same"), [values(2, 2, 5, 6)]),
    "max_pool2d, NHWC, dilated": (lambda x: F.max_pool2d(x, 2, 1, 1, 2, data_format="NHWC"), [values(2, 5, 6, 3)]),
    "max_pool2d, ceil_mode": (lambda x: F.max_pool2d(x, (2, 3), 3, ceil_mode=True), [values(1, 2, 6, 8)]),
    "avg_pool2d, without padding in the count": (lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), [values(2, 2, 6, 6)]),
    "avg_pool2d, divisor": (lambda x: F.avg_pool2d(x, 2, 1, divisor_override=3), [values(2, 2, 3, 4)]),
    "adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, (3, 2)), [values(2, 2, 5, 3)]),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (3, 4)), [values(2, 2, 5, 3)]),
    "adaptive_avg_pool2d, NHWC, one window": (lambda x: F.adaptive_avg_pool2d(x, 1, "NHWC"), [values(2, 4, 3, 2)]),
    "adaptive_avg_pool1d": (lambda x: F.adaptive_avg_pool1d(x, 4), [values(2, 3, 6)]),
    "adaptive_max_pool1d": (lambda x: F.adaptive_max_pool1d(x, 3), [values(2, 3, 7)]),
    "to another dtype and back": (lambda a: a.to(np.float32).double() * 1.0, [values(2, 2)]),
    "clone": (lambda a: a.clone() * 2, [values(2, 2)]),
}


@pytest.mark.parametrize("name", CASES)
def test_gradient(name: str) -> None:
    function, inputs = CASES[name]
    single = name.startswith("to another")  # float32 on the way: coarser differences
    assert gpucnn.gradcheck(function, inputs, **({"eps": 1e-2, "atol": 1e-3} if single else {}))


def test_dropout_scales_what_it_keeps_and_its_gradient_uses_the_same_mask() -> None:
    gpucnn.manual_seed(3)
    x = gpucnn.ones(40, 50, device="cpu", requires_grad=True)
    y = F.dropout(x, 0.3)
    kept = y.numpy() != 0
    np.testing.assert_allclose(y.numpy()[kept], 1 / 0.7, rtol=1e-6)
    assert abs(kept.mean() - 0.7) < 0.05
    upstream = np.random.default_rng(0).uniform(0.5, 1.5, (40, 50)).astype(np.float32)
    y.backward(gpucnn.tensor(upstream, device="cpu"))
    np.testing.assert_allclose(x.grad.numpy(), np.where(kept, upstream / 0.7, 0), rtol=1e-6)
    assert F.dropout(x, 0.3, training=False) is x and F.dropout(x, 0.0) is x
    assert not F.dropout(x, 1.0).numpy().any()


def test_dropout_is_the_same_on_every_device() -> None:
    masks = []
    for device in ("cpu", "emulated"):
        gpucnn.manual_seed(5)
        masks.append(F.dropout(gpucnn.ones(2, 3, 5, 7, device=device), 0.4).numpy())
    np.testing.assert_array_equal(*masks)


def test_max_of_equals_shares_the_gradient() -> None:
    x = gpucnn.tensor([1.0, 3.0, 3.0], device="cpu", requires_grad=True)
    x.max().backward()
    assert x.grad.tolist() == [0.0, 0.5, 0.5]


def test_repeated_indices_accumulate_exactly_in_order() -> None:
    """Float32 sums depend on their order: the order is that of the indices, on every device."""
    rng = np.random.default_rng(0)
    index = rng.integers(0, 4, 1000)
    upstream = (rng.standard_normal(1000) * 10.0 ** rng.integers(-4, 5, 1000)).astype(np.float32)
    expected = np.zeros(4, np.float32)
    for place, value in zip(index, upstream, strict=True):
        expected[place] += value
    for device in ("cpu", "emulated"):
        x = gpucnn.zeros(4, device=device, requires_grad=True)
        x[index].backward(gpucnn.tensor(upstream, device=device))
        np.testing.assert_array_equal(x.grad.numpy(), expected)


def test_every_operator_has_a_case() -> None:
    operators = [name for name, value in vars(F).items() if inspect.isfunction(value) and not name.startswith("_")]
    text = inspect.getsource(inspect.getmodule(test_gradient))
    assert [
        name for name in operators if f"F.{name}" not in text and f".{name}(" not in text and name != "matmul"
    ] == []
