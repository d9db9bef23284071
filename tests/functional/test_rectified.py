"""ReLU's backward takes no launch where the reader of its output masks the gradient, and the numbers stay the same.

Each network is computed twice: as it is, and with :class:`Plain` in the place of ReLU, a function of this file that
nothing knows to be one. What both give must be the same bits: a mask is a choice between a number and 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpucnn
import gpucnn.functional as F
from gpucnn import Tensor, backends
from gpucnn.device import device as named
from gpucnn.functional.rectified import is_rectified

DEVICES = ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)]


class Plain(gpucnn.Function):
    """max(x, 0) whose backward always masks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = gpucnn.maximum(x, 0.0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return gpucnn.where(y > 0, grad, 0.0)


def values(*shape: int, seed: int = 0, device: str = "cpu", dtype: Any = np.float32) -> Tensor:
    array = np.random.default_rng(seed).normal(size=shape).astype(dtype)
    return gpucnn.tensor(array, device=device, requires_grad=True)


Network = Callable[[Any, list[Tensor]], Tensor]


def _conv(relu: Any, t: list[Tensor]) -> Tensor:
    return F.conv2d(relu(F.conv2d(t[0], t[1], padding=1)), t[2], stride=2)


def _pool(relu: Any, t: list[Tensor]) -> Tensor:
    return F.conv2d(F.max_pool2d(relu(F.conv2d(t[0], t[1], padding=1)), 3, 2, 1), t[2])


def _adaptive(relu: Any, t: list[Tensor]) -> Tensor:
    return F.conv2d(F.adaptive_max_pool2d(relu(F.conv2d(t[0], t[1], padding=1)), (3, 4)), t[2])


def _lrn(relu: Any, t: list[Tensor]) -> Tensor:
    return F.conv2d(F.local_response_norm(relu(F.conv2d(t[0], t[1])), 3, alpha=0.5), t[2])


def _linear(relu: Any, t: list[Tensor]) -> Tensor:
    return relu(F.conv2d(t[0], t[1], padding=1)).flatten(1).matmul(t[3][:, :150].T)


def _flat(relu: Any, t: list[Tensor]) -> Tensor:
    return F.linear(F.max_pool2d(relu(F.conv2d(t[0], t[1], padding=1)), 2).flatten(1), t[4])


def _two_readers(relu: Any, t: list[Tensor]) -> Tensor:
    y = relu(F.conv2d(t[0], t[1], padding=1))
    return F.conv2d(y, t[2]) + F.conv2d(y, t[2], padding=((0, 1), (0, 0)), dilation=(2, 1))


def _a_reader_that_masks_and_one_that_does_not(relu: Any, t: list[Tensor]) -> Tensor:
    y = relu(F.conv2d(t[0], t[1], padding=1))
    return F.conv2d(y, t[2]) + 0.3 * (y * y)[:, :, 1:, 1:]


def _residual(relu: Any, t: list[Tensor]) -> Tensor:
    y = relu(F.conv2d(t[0], t[1], padding=1))
    z = relu(y + F.conv2d(y, t[2], padding=((0, 1), (1, 0))))
    return F.conv2d(z, t[2])


def _twice(relu: Any, t: list[Tensor]) -> Tensor:
    return F.conv2d(relu(-0.5 * relu(F.conv2d(t[0], t[1], padding=1)) + 0.2), t[2])


def _sum_of_two(relu: Any, t: list[Tensor]) -> Tensor:
    a, b = relu(F.conv2d(t[0], t[1], padding=1)), relu(F.conv2d(t[0], t[1], padding=1) * -0.7)
    return F.conv2d(relu(a + b), t[2])


def _permuted(relu: Any, t: list[Tensor]) -> Tensor:
    return F.conv2d(relu(F.conv2d(t[0], t[1], padding=1)).permute(0, 1, 3, 2), t[2])


NETWORKS = {
    function.__name__.strip("_"): function
    for function in (
        *(_conv, _pool, _adaptive, _lrn, _linear, _flat, _two_readers, _a_reader_that_masks_and_one_that_does_not),
        *(_residual, _twice, _sum_of_two, _permuted),
    )
}


def tensors(device: str, dtype: Any = np.float32) -> list[Tensor]:
    shapes = [(2, 3, 5, 6), (5, 3, 3, 3), (5, 5, 2, 2), (4, 150), (4, 30)]
    return [values(*shape, seed=i, device=device, dtype=dtype) for i, shape in enumerate(shapes)]


def gradients(network: Network, relu: Any, device: str) -> list[Any]:
    inputs = tensors(device)
    y = network(relu, inputs)
    y.backward(gpucnn.tensor(np.random.default_rng(9).normal(size=y.shape).astype(np.float32), device=device))
    return [y.numpy(), *(t.grad.numpy() for t in inputs if t.grad is not None)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_a_relu_that_masks_itself(name: str, device: str) -> None:
    fused, plain = (gradients(NETWORKS[name], relu, device) for relu in (F.relu, Plain.apply))
    assert len(fused) == len(plain)
    for left, right in zip(fused, plain, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_by_finite_differences(name: str) -> None:
    inputs = tensors("cpu", np.float64)
    assert gpucnn.gradcheck(lambda a, b, c: NETWORKS[name](F.relu, [a, b, c, *inputs[3:]]), inputs[:3])


@pytest.mark.peers
@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_gradients_beside_torch(device: str) -> None:
    import torch

    inputs = tensors(device)
    y = _two_readers(F.relu, inputs)
    y.backward(gpucnn.tensor(np.ones(y.shape, np.float32) * 0.5, device=device))
    peers = [torch.tensor(t.numpy(), requires_grad=True) for t in inputs]
    hidden = torch.relu(torch.nn.functional.conv2d(peers[0], peers[1], padding=1))
    below = torch.nn.functional.pad(hidden, (0, 0, 0, 1))
    z = torch.nn.functional.conv2d(hidden, peers[2]) + torch.nn.functional.conv2d(below, peers[2], dilation=(2, 1))
    z.backward(torch.full(z.shape, 0.5))
    for own, peer in zip(inputs[:3], peers[:3], strict=True):
        np.testing.assert_allclose(own.grad.numpy(), peer.grad.numpy(), rtol=1e-4, atol=1e-4)


# ---- what may be masked ----


def hidden(device: str = "cpu") -> Tensor:
    return F.relu(values(2, 3, 4, 4, device=device))


def test_what_keeps_the_sign_is_rectified_and_nothing_else() -> None:
    y = hidden()
    for kept in (y, y.reshape(2, 48), y.flatten(1), y.permute(0, 2, 3, 1), F.max_pool2d(y, 2), F.dropout(y, 0.5)):
        assert is_rectified(kept)
    assert is_rectified(F.conv2d(y, values(2, 3, 2, 2), activation="relu"))
    assert is_rectified(gpucnn.add(y, y, activation="relu"))
    for other in (
        y * 2.0,
        y + y,
        F.avg_pool2d(y, 2),
        F.gelu(y),
        y.detach(),
        y.clone(),
        y.sum(1),
        F.max_pool2d(y - 1.0, 2),
    ):
        assert not is_rectified(other)


def test_a_leaf_is_not_rectified_whatever_it_came_from() -> None:
    with gpucnn.no_grad():
        y = hidden()
    y.requires_grad_()
    assert not is_rectified(y)
    w = values(2, 3, 2, 2)
    F.conv2d(y, w).sum().backward()
    assert y.grad is not None and bool((y.grad.numpy()[y.numpy() == 0] != 0).any())  # its own gradient, unmasked


def test_a_function_of_the_users_that_calls_relu_has_its_own_backward() -> None:
    class StraightThrough(gpucnn.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return F.relu(x)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad

    x, w = values(2, 3, 4, 4), values(2, 3, 2, 2)
    y = StraightThrough.apply(x)
    assert not is_rectified(y)
    F.conv2d(y, w).sum().backward()
    leaf = y.detach().requires_grad_()
    F.conv2d(leaf, w).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), leaf.grad.numpy())


def test_an_in_place_change_between_relu_and_its_reader_makes_the_mark_void() -> None:
    x, w = values(2, 3, 4, 4), values(2, 3, 2, 2)
    pooled = F.max_pool2d(F.relu(x), 2)  # the pool keeps no values: its output may be changed
    with gpucnn.no_grad():
        pooled.add_(1.0)
    assert not is_rectified(pooled)
    F.conv2d(pooled, w).sum().backward()
    expected, u = values(2, 3, 4, 4), values(2, 3, 2, 2)
    F.conv2d(F.max_pool2d(Plain.apply(expected), 2) + 1.0, u).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), expected.grad.numpy())


def test_a_change_of_what_relu_saved_is_still_noticed() -> None:
    x, w = values(2, 3, 4, 4), values(2, 3, 2, 2)
    y = F.relu(x)
    z = F.conv2d(y, w)
    with gpucnn.no_grad():
        y.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified in place"):
        z.sum().backward()


@pytest.mark.parametrize("device", DEVICES)
def test_a_graph_that_is_kept_gives_the_same_gradients_again(device: str) -> None:
    inputs = tensors(device)
    y = _pool(F.relu, inputs).sum()
    y.backward(retain_graph=True)
    first = [t.grad.numpy() for t in inputs[:3]]
    for t in inputs:
        t.grad = None
    y.backward()
    for before, t in zip(first, inputs[:3], strict=True):
        np.testing.assert_array_equal(before, t.grad.numpy())


def test_nan_takes_no_gradient_as_in_relu_itself() -> None:
    array = np.array([[np.nan, -1.0, 2.0, 0.0]], np.float32)
    x, w = gpucnn.tensor(array, device="cpu", requires_grad=True), values(3, 4)
    F.linear(F.relu(x), w).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy() != 0, [[False, False, True, False]])


# ---- launches ----


def launched(network: Callable[[], Tensor]) -> tuple[list[str], list[str]]:
    """The kernels of forward and of backward."""
    engine: Any = backends.get(named("emulated")).engine  # type: ignore[attr-defined]
    with engine.record() as launches:
        y = network()
        count = len(launches)
        y.backward(gpucnn.ones(y.shape, device="emulated"))
    names = [launch.kernel for launch in launches]
    return names[:count], names[count:]


READERS_THAT_DO_NOT_MASK = {  # the others of NETWORKS have none
    "linear": 1,  # a product
    "a_reader_that_masks_and_one_that_does_not": 1,
    "residual": 1,  # the sum before the second ReLU passes on what it is given
    "twice": 1,  # a negative factor
    "sum_of_two": 2,  # each term is a ReLU's and is read by the sum
}


@pytest.mark.parametrize("name", NETWORKS)
def test_relu_has_no_backward_launch_where_its_reader_masks(name: str) -> None:
    inputs = tensors("emulated")
    _, kernels = launched(lambda: NETWORKS[name](F.relu, inputs))
    assert sum("relu_backward" in kernel for kernel in kernels) == READERS_THAT_DO_NOT_MASK.get(name, 0), kernels


def test_without_a_reader_that_masks_relu_does_it_itself() -> None:
    inputs = tensors("emulated")
    _, kernels = launched(lambda: F.avg_pool2d(F.relu(F.conv2d(inputs[0], inputs[1])), 2))
    assert sum("relu_backward" in kernel for kernel in kernels) == 1
