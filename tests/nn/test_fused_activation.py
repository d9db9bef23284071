"""``activation=`` in operators and layers: what the activation after them gives, gradients too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpucnn
import gpucnn.functional as F
from gpucnn import Tensor, nn

DEVICES = ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)]
PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, "tanh"),
    "silu": F.silu,
}


def values(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def results(compute: Callable[..., Tensor], arrays: list[Any], device: str) -> list[Any]:
    """The value, and the gradients for an upstream gradient that is not uniform."""
    inputs = [gpucnn.tensor(array, device=device, requires_grad=True) for array in arrays]
    y = compute(*inputs)
    y.backward(gpucnn.tensor(values(*y.shape, seed=99), device=device))
    return [y.numpy(), *(x.grad.numpy() for x in inputs)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
@pytest.mark.parametrize("bias", [True, False])
def test_conv2d(device: str, data_format: str, bias: bool) -> None:
    nhwc = data_format == "NHWC"
    shapes = [(2, 5, 6, 3), (3, 3, 3, 7)] if nhwc else [(2, 3, 5, 6), (7, 3, 3, 3)]
    arrays = [values(*shape, seed=i) for i, shape in enumerate([*shapes, *([(7,)] if bias else [])])]

    def compute(activation: str | None, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        return F.conv2d(x, w, b, 2, 1, data_format=data_format, activation=activation)

    fused = results(lambda *t: compute("relu", *t), arrays, device)
    for left, right in zip(fused, results(lambda *t: F.relu(compute(None, *t)), arrays, device), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 6), (0, 6), (6,)])
def test_linear(device: str, shape: tuple[int, ...]) -> None:
    arrays = [values(*shape), values(4, 6, seed=1), values(4, seed=2)]
    fused = results(lambda *t: F.linear(*t, activation="relu"), arrays, device)
    for left, right in zip(fused, results(lambda *t: F.relu(F.linear(*t)), arrays, device), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(device: str, name: str, training: bool) -> None:
    arrays = [values(4, 3, 2, 5), values(3, seed=1), values(3, seed=2)]
    mean, var = (gpucnn.tensor(a, device=device) for a in (values(3, seed=3), np.abs(values(3, seed=4)) + 0.5))

    def compute(activation: str | None, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        running = (None, None) if training else (mean, var)
        return F.batch_norm(x, *running, w, b, training, activation=activation)

    fused = results(lambda *t: compute(name, *t), arrays, device)
    for left, right in zip(fused, results(lambda *t: PLAIN[name](compute(None, *t)), arrays, device), strict=True):
        np.testing.assert_allclose(left, right, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_add(device: str) -> None:
    arrays = [values(2, 3, 4, 5), values(2, 3, 4, 5, seed=1)]
    fused = results(lambda x, y: gpucnn.add(x, y, activation="relu"), arrays, device)
    for left, right in zip(fused, results(lambda x, y: F.relu(x + y), arrays, device), strict=True):
        np.testing.assert_array_equal(left, right)
    broadcast = results(lambda x, y: gpucnn.add(x, y, activation="relu"), [arrays[0], values(5)], device)
    for left, right in zip(broadcast, results(lambda x, y: F.relu(x + y), [arrays[0], values(5)], device), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda **o: nn.Conv2d(3, 4, 3, device="cpu", **o), (2, 3, 5, 5)),
        (lambda **o: nn.Linear(3, 4, device="cpu", **o), (2, 3)),
        (lambda **o: nn.BatchNorm1d(3, device="cpu", **o), (4, 3)),
        (lambda **o: nn.BatchNorm2d(3, device="cpu", **o), (2, 3, 5, 5)),
    ],
)
def test_layers_take_it_and_their_state_stays_the_same(make: Callable[..., nn.Module], shape: tuple[int, ...]) -> None:
    fused, plain = make(activation="relu"), make()
    assert "activation='relu'" in repr(fused) and "activation" not in repr(plain)
    assert list(fused.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(fused.state_dict())
    x = gpucnn.tensor(values(*shape), device="cpu")
    np.testing.assert_array_equal(fused(x).numpy(), F.relu(plain(x)).numpy())
    with pytest.raises(ValueError, match=r"activation must be None or 'relu'.*got 'tanh'"):
        make(activation="tanh")


@pytest.mark.parametrize("device", DEVICES)
def test_batches_are_counted_as_before(device: str) -> None:
    layer = nn.BatchNorm2d(3, device=device)
    for _ in range(3):
        layer(gpucnn.tensor(values(2, 3, 4, 4), device=device))
    layer(gpucnn.zeros(0, 3, 4, 4, device=device))
    assert int(layer.num_batches_tracked) == 4 and layer.num_batches_tracked.dtype == np.int64
    with pytest.raises(ValueError, match="expected more than 1 value per channel"):
        layer(gpucnn.zeros(1, 3, 1, 1, device=device))
    layer.eval()(gpucnn.zeros(1, 3, 1, 1, device=device))
    assert int(layer.num_batches_tracked) == 4
