"""The memory order of what operators give, and the copies that a training step makes to change it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpucnn
import gpucnn.functional as F
from gpucnn import Tensor, layout, nn
from gpucnn.functional.arithmetic import add

IMAGE = (2, 4, 5, 6)

OPERATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "add": lambda x: x + x,
    "add a number": lambda x: x + 1,
    "add a row from the left": lambda x: gpucnn.ones(6, device=x.device) + x,
    "multiply channels": lambda x: x * gpucnn.ones(4, 1, 1, device=x.device),
    "multiply with other order": lambda x: x * Tensor(x.backend.xp.ones(IMAGE, np.float32), x.device),
    "other order from the left": lambda x: Tensor(x.backend.xp.ones(IMAGE, np.float32), x.device) - x,
    "a slice": lambda x: x[:, :, ::2] * 2,
    "exp": lambda x: x.exp(),
    "clip": lambda x: x.clip(0.0, 1.0),
    "where": lambda x: gpucnn.where(x > 0, x, 0.0),
    "compare": lambda x: x > 0,
    "sum, kept": lambda x: x.sum((2, 3), keepdim=True) * x,
    "mean, kept": lambda x: x.mean(1, keepdim=True),
    "max": lambda x: x.max(2, keepdim=True)[0],
    "index": lambda x: x[[0, 1, 0]],
    "cat": lambda x: gpucnn.cat([x, x], 1),
    "stack": lambda x: gpucnn.stack([x[0], x[1]]),
    "reshape": lambda x: x.flatten(1).reshape(*IMAGE),
    "expand": lambda x: x[:, :1].expand(*IMAGE),
    "clone": lambda x: x.clone(),
    "to float64": lambda x: x.double(),
    "relu": F.relu,
    "relu of a slice": lambda x: F.relu(x[:, 1:]),
    "gelu": F.gelu,
    "gelu by tanh, of a slice": lambda x: F.gelu(x[:, 1:], "tanh"),
    "silu": F.silu,
    "softmax": lambda x: F.softmax(x, 1),
    "log_softmax": lambda x: F.log_softmax(x, 3),
    "local_response_norm": lambda x: F.local_response_norm(x, 3),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "batch_norm in evaluation": lambda x: F.batch_norm(
        x, gpucnn.zeros(4, device=x.device), gpucnn.ones(4, device=x.device)
    ),
    "dropout": lambda x: F.dropout(x, 0.5),
    "conv2d": lambda x: F.conv2d(x, gpucnn.ones(3, 4, 2, 2, device=x.device)),
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "pad_channels": lambda x: F.pad_channels(x, 3),
    "add with relu": lambda x: gpucnn.add(x, x, activation="relu"),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, (4, 3)),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, (4, 3)),
    "adaptive_avg_pool2d to one pixel": lambda x: F.adaptive_avg_pool2d(x, 1),
}


def channels_last(x: Tensor) -> bool:
    return bool(x.data.transpose(0, 2, 3, 1).flags.c_contiguous)


@pytest.mark.parametrize("device", ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", OPERATORS)
def test_four_axes_come_out_channels_last(name: str, device: str) -> None:
    x = gpucnn.randn(*IMAGE, device=device, requires_grad=True)
    y = OPERATORS[name](x)
    assert y.ndim == 4 and channels_last(y)
    if y.requires_grad:
        y.sum().backward()
        assert channels_last(x.grad)


@pytest.mark.parametrize(
    "operator",
    [
        F.relu,
        F.gelu,
        F.silu,
        lambda x: x * 2,
        lambda x: F.max_pool2d(x, 2, data_format="NHWC"),
        lambda x: F.adaptive_avg_pool2d(x, 3, data_format="NHWC"),
    ],
)
def test_nhwc_tensors_stay_in_c_order(operator: Any) -> None:
    x = gpucnn.Tensor(np.random.default_rng(0).standard_normal((2, 5, 6, 4)).astype(np.float32), "cpu")
    with layout.count_copies() as copies:
        y = operator(x)
    assert y.data.flags.c_contiguous and copies == [0]


def test_nhwc_convolution_equals_nchw() -> None:
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((2, 6, 7, 3), (3, 2, 3, 5), (5,)))
    y = F.conv2d(*(gpucnn.tensor(a, device="cpu") for a in (x, w, b)), stride=2, padding=1, data_format="NHWC")
    transposed = (x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1), b)
    z = F.conv2d(*(gpucnn.tensor(a, device="cpu") for a in transposed), stride=2, padding=1)
    np.testing.assert_array_equal(y.numpy(), z.numpy().transpose(0, 2, 3, 1))


@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_a_training_step_copies_for_layout_at_flatten_only(device: str) -> None:
    gpucnn.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(4),
        nn.LocalResponseNorm(3),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4, 8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(8, 5),
    ).to(device)
    optimizer = gpucnn.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = gpucnn.randn(6, 3, 8, 8, device=device), gpucnn.tensor([0, 1, 2, 3, 4, 0], device=device)
    for _ in range(2):
        optimizer.zero_grad()
        with layout.count_copies() as copies:
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    # The flattened images are 1 x 1 here, whose two orders are one: not even flatten copies.
    assert copies == [0]
    z = gpucnn.randn(2, 3, 4, 4, device=device, requires_grad=True)
    upstream = gpucnn.randn(2, 2, device=device)
    with layout.count_copies() as copies:
        F.linear(z.flatten(1), gpucnn.ones(2, 48, device=device)).backward(upstream)
    assert copies == [2]  # the images forward, their gradient back


def test_memory_view_and_like() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((2, 3, 4, 5))
    last = layout.canonical(a)
    assert layout.memory_view(last).flags.c_contiguous and layout.memory_view(last).base is not None
    np.testing.assert_array_equal(layout.memory_view(last), a.transpose(0, 2, 3, 1))
    assert layout.like(a, last).strides == last.strides and layout.like(last, last) is last
    with pytest.raises(ValueError, match="is not dense"):
        layout.memory_view(a[:, ::2])


@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_axes_of_length_1_leave_no_choice_of_order(device: str) -> None:
    """Exchanged axes of length 1 keep their strides; memory views of images agree in shape all the same."""
    x = gpucnn.randn(2, 4, 1, 3, device=device, requires_grad=True)
    turned = x.permute(0, 1, 3, 2)
    other = gpucnn.randn(2, 4, 3, 1, device=device)
    assert layout.memory_view(turned.data).shape == layout.memory_view(other.data).shape == (2, 3, 1, 4)
    y = F.relu(turned)
    (y + add(turned, other, activation="relu")).backward(other)
    given = x.numpy().transpose(0, 1, 3, 2)
    slope = (given > 0).astype(np.float32) + (given + other.numpy() > 0)
    np.testing.assert_array_equal(x.grad.numpy(), (slope * other.numpy()).transpose(0, 1, 3, 2))


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_the_sum_of_two_orders_is_channels_last(device: str, activation: str | None) -> None:
    last = gpucnn.randn(2, 3, 4, 5, device=device)
    first = gpucnn.randn(2, 60, device=device).data.reshape(2, 3, 4, 5)
    in_c_order = gpucnn.Tensor(first, device)
    assert not layout.is_channels_last(in_c_order.data)
    for x, y in ((last, in_c_order), (in_c_order, last)):
        z = add(x, y, activation)
        assert layout.is_channels_last(z.data)
        total = x.numpy() + y.numpy()
        np.testing.assert_array_equal(z.numpy(), np.maximum(total, 0) if activation else total)
