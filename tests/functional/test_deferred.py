"""Gradients between local response normalisation and max pooling are made only where somebody asks for them, and all
numbers stay the same bits.

Each network is computed twice: as it is, and with :func:`gpucnn.functional.deferred.taken` answering that nothing is
taken deferred.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import gpucnn
import gpucnn.functional as F
from gpucnn import Tensor, backends
from gpucnn.autograd import observe
from gpucnn.device import device as named
from gpucnn.functional import deferred
from tests.kernels.arrays import launches

SHAPE = 2, 16, 11, 14
Network = Callable[[Tensor], Tensor]


def norm(x: Tensor) -> Tensor:
    return F.local_response_norm(x, 9, alpha=0.5)


def pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2, ((0, 1), (1, 0)))


class Seen(gpucnn.Function):
    """The identity; its backward reads the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        assert type(grad) is Tensor
        return 2.0 * grad


# Each with the launches that it saves.
NETWORKS: dict[str, tuple[Network, int]] = {
    "norm, pool": (lambda x: pool(norm(F.relu(x))), 1),
    "pool, norm": (lambda x: norm(pool(F.relu(x))), 1),
    "norm, pool, flatten": (lambda x: pool(norm(x)).flatten(1) * 0.5, 2),
    "norm, pool, relu": (lambda x: F.relu(pool(norm(x))), 1),
    "of a leaf": (norm, 0),
    "pooling of a leaf": (pool, 0),
    "two pools of a norm": (lambda x: (lambda y: pool(y) + 0.5 * pool(y))(norm(x)), 0),
    "a pool and a sum of a norm": (lambda x: (lambda y: pool(y).sum() + (y * y).sum())(norm(x)), 0),
    "two norms of a pool": (lambda x: (lambda y: norm(y) * norm(0.5 * y))(pool(x)), 0),
    "pool, norm, pool, norm": (lambda x: norm(pool(norm(pool(x)))), 2),
    "norm, pool, norm, pool": (lambda x: pool(norm(pool(norm(x)))), 2),
    "a function between": (lambda x: pool(Seen.apply(norm(x))), 0),
    "other windows": (lambda x: F.max_pool2d(F.local_response_norm(x, 4, alpha=0.5), 2), 0),
    "flatten, unflatten": (lambda x: pool(norm(x)).flatten(1).reshape(2, 16, 35).transpose(1, 2), 2),
    "flattened, and read as it is": (lambda x: (lambda y: 0.5 * y.flatten(1) + (y * y).flatten(1))(pool(norm(x))), 1),
    "flattened twice": (lambda x: (lambda y: y.flatten(1) * y.flatten(1))(pool(norm(x))), 1),
    "channels last": (lambda x: F.max_pool2d(norm(x), 3, 2, 1, data_format="NHWC"), 0),
}


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], Any]:
    """Calls a function with nothing deferred."""

    def call(function: Callable[[], Any]) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(deferred, "taken", lambda x, kind: False)
            return function()

    return call


def leaf(device: str, dtype: Any = np.float32) -> Tensor:
    values = np.random.default_rng(5).normal(size=SHAPE).astype(np.float32)
    x = gpucnn.tensor(values, device=device).to(dtype=dtype).detach()
    return x.requires_grad_()


def gradient(network: Network, device: str, dtype: Any = np.float32, passes: int = 1) -> tuple[Any, list[str]]:
    """The gradient of a leaf, and the launches of backward."""
    x = leaf(device, dtype)
    y = network(x)
    upstream = np.random.default_rng(7).normal(size=y.shape).astype(np.float32)
    seed = gpucnn.tensor(upstream, device=device).to(dtype=y.dtype)
    backend = backends.get(named(device))
    with launches(backend) if device != "cpu" else nullcontext([]) as names:
        for remaining in reversed(range(passes)):
            y.backward(seed, retain_graph=remaining > 0)
    assert x.grad is not None
    return x.grad.numpy().astype(np.float32), names


def same(first: Any, second: Any) -> None:
    assert np.isfinite(first).all() and first.any()
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("device", ["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", NETWORKS)
def test_same_bits_with_fewer_launches(name: str, device: str, plainly: Any) -> None:
    network, saved = NETWORKS[name]
    found, names = gradient(network, device)
    expected, plain_names = plainly(lambda: gradient(network, device))
    same(found, expected)
    assert len(plain_names) - len(names) == saved, (names, plain_names)


@pytest.mark.parametrize("name", ["norm, pool", "pool, norm", "norm, pool, flatten", "two pools of a norm"])
def test_half_types(name: str, plainly: Any) -> None:
    network, saved = NETWORKS[name]
    (found, names), (expected, plain_names) = (
        call(lambda: gradient(network, "emulated", "bfloat16")) for call in (lambda f: f(), plainly)
    )
    same(found, expected)
    assert len(plain_names) - len(names) == saved


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_deferred_on_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = NETWORKS[name]
    expected, _ = gradient(network, "cpu")

    def refused(*_: Any) -> None:
        raise AssertionError("deferred")

    monkeypatch.setattr(deferred.Deferred, "__init__", refused)
    found, _ = gradient(network, "cpu")
    same(found, expected)


def test_a_second_walk_over_a_retained_graph(plainly: Any) -> None:
    network, _ = NETWORKS["norm, pool, flatten"]
    found, _ = gradient(network, "emulated", passes=2)
    same(found, plainly(lambda: gradient(network, "emulated", passes=2))[0])
    same(found, 2 * gradient(network, "emulated")[0])


def test_observers_and_captures_see_the_same_step(plainly: Any) -> None:
    """A replay gives the bits of the eager step, and observed calls are those of forward."""

    def captured() -> tuple[Any, list[str]]:
        gpucnn.manual_seed(0)
        calls: list[str] = []
        x = leaf("emulated")
        seeds = [gpucnn.randn(*shape, device="emulated") for shape in ((2, 16, 5, 7), (2, 560))]

        def step() -> Tensor:
            x.grad = None
            norm(pool(F.relu(x))).backward(seeds[0])
            pool(norm(x)).flatten(1).backward(seeds[1])
            assert x.grad is not None
            return x.grad

        with observe(lambda function, args, outputs, needs: calls.append(function.__name__)):
            eager = step().numpy()
        replay = gpucnn.cuda.graph(step, device="emulated")
        replay()
        same(replay().numpy(), eager)
        return eager, calls

    (found, calls), (expected, plain_calls) = captured(), plainly(captured)
    same(found, expected)
    assert calls == plain_calls


def test_a_deferred_gradient_is_made_once() -> None:
    made = []
    x = leaf("emulated").detach()

    def launch() -> Any:
        made.append(1)
        return x.data * 2

    grad = deferred.Deferred(deferred.POOLED, (x,), launch, x)
    other = grad.detach()
    assert grad.shape == x.shape and grad.dtype == x.dtype and grad.pending and other.pending
    assert deferred.parts(other, deferred.POOLED) == (x,) and deferred.parts(other, deferred.NORMALISED) is None
    assert not made
    np.testing.assert_array_equal(grad.numpy(), 2 * x.numpy())
    np.testing.assert_array_equal((other + 1.0).numpy(), 2 * x.numpy() + 1)
    assert made == [1] and not other.pending and deferred.parts(other, deferred.POOLED) is None
    with pytest.raises(AttributeError, match="no attribute 'dat'"):
        grad.dat  # noqa: B018
