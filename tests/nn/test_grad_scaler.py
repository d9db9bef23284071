"""Loss scaling: PyTorch's GradScaler decision for decision, and steps that are skipped on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import nn
from gpucnn.amp import GradScaler
from gpucnn.nn.utils import clip_grad_norm_
from gpucnn.optim import SGD, Adagrad, Adam, AdamW, MovingAverage, Muon, Optimizer, RMSprop

EVERYWHERE = pytest.mark.parametrize("device", ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
ON_KERNELS = pytest.mark.parametrize("device", ["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
SHAPES = [(4, 3, 3, 2), (3, 5), (2, 1100)]
KINDS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda p: SGD(p, lr=0.1, weight_decay=0.1),
    "momentum": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "dampening": lambda p: SGD(p, lr=0.1, momentum=0.9, dampening=0.5),
    "adam": lambda p: Adam(p, lr=0.1, betas=(0.8, 0.999), amsgrad=True),
    "adamw": lambda p: AdamW(p, lr=0.1, betas=(0.0, 0.9)),
    "rmsprop": lambda p: RMSprop(p, lr=0.1, momentum=0.5, centered=True),
    "adagrad": lambda p: Adagrad(p, lr=0.1, lr_decay=0.5),
    "muon": lambda p: Muon(p, lr=0.1, ns_steps=2),
}


def make_parameters(device: str, shapes: list[Any] = SHAPES) -> list[nn.Parameter]:
    rng = np.random.default_rng(0)
    return [nn.Parameter(gpucnn.tensor(rng.standard_normal(s).astype(np.float32), device=device)) for s in shapes]


def give(parameters: list[nn.Parameter], step: int, scale: float = 1.0, bad: float | None = None) -> None:
    rng = np.random.default_rng(50 + step)
    for index, parameter in enumerate(parameters):
        gradient = (scale * rng.standard_normal(tuple(parameter.shape))).astype(np.float32)
        if bad is not None and index == 1:
            gradient[-1, -1] = bad
        parameter.grad = gpucnn.tensor(gradient, device=parameter.device)


def values(tensors: Any) -> list[Any]:
    return [tensor.numpy() for tensor in tensors]


@EVERYWHERE
@pytest.mark.parametrize("kind", KINDS)
def test_skipped_steps_are_as_if_they_had_not_been(kind: str, device: str) -> None:
    """Also the first, also several, and nothing is read on the host."""
    skipping, plain = make_parameters(device), make_parameters(device)
    optimizer, other = KINDS[kind](skipping), KINDS[kind](plain)
    scaler, scale, taken = GradScaler(device, init_scale=1024.0), 1024.0, 0
    for step in range(6):
        bad = {0: np.inf, 3: np.nan, 4: -np.inf}.get(step)
        give(skipping, step, scale, bad)
        before = values(skipping)
        scaler.step(optimizer)
        scaler.update()
        if bad is None:
            give(plain, step)
            other.step()
            taken += 1
        else:
            scale /= 2
            for now, then in zip(values(skipping), before, strict=True):
                np.testing.assert_array_equal(now, then)
    # The device works the bias corrections of a step after a skipped one out itself, in float32.
    for left, right in zip(values(skipping), values(plain), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)
    assert scaler.skipped_steps == 3 and scaler.get_scale() == scale == 128.0
    for entry, own in zip(optimizer.state_dict()["state"].values(), other.state_dict()["state"].values(), strict=True):
        assert entry.get("step") == own.get("step") == (taken if "step" in own else None)
    give(skipping, 9, scale)
    give(plain, 9)
    scaler.step(optimizer)  # after the counts were put right
    other.step()
    for left, right in zip(values(skipping), values(plain), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)


@EVERYWHERE
def test_the_scale_grows_and_shrinks(device: str) -> None:
    parameters = make_parameters(device)
    optimizer, scaler = SGD(parameters, lr=0.0), GradScaler(init_scale=8.0, growth_interval=2, growth_factor=4.0)
    scales = []
    for step, bad in enumerate([None, None, None, np.inf, None, None, np.nan, np.nan, None]):
        give(parameters, step, bad=bad)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    assert scales == [8.0, 32.0, 32.0, 16.0, 16.0, 64.0, 32.0, 16.0, 16.0]
    assert scaler.skipped_steps == 3 and scaler.state_dict()["_growth_tracker"] == 1


@EVERYWHERE
def test_the_scale_does_not_grow_beyond_float32(device: str) -> None:
    parameters = make_parameters(device)
    optimizer, scaler = SGD(parameters, lr=0.0), GradScaler(init_scale=2.0**127, growth_interval=1)
    give(parameters, 0)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**127


@EVERYWHERE
@pytest.mark.parametrize("way", ["scale", "backward"])
def test_gradients_of_a_scaled_loss(device: str, way: str) -> None:
    x = gpucnn.tensor(np.array([1.0, -2.0], np.float32), device=device, requires_grad=True)
    scaler = GradScaler(init_scale=64.0)
    loss = (x * x).sum()
    if way == "scale":
        scaled = scaler.scale(loss)
        assert scaled.item() == 64 * 5.0 and scaled.shape == ()
        scaled.backward()
    else:
        scaler.backward(loss)
    assert x.grad.tolist() == [128.0, -256.0]


@EVERYWHERE
def test_clipping_between_unscale_and_step(device: str) -> None:
    parameters, plain = make_parameters(device), make_parameters(device)
    optimizer, other, scaler = SGD(parameters, lr=0.1), SGD(plain, lr=0.1), GradScaler(init_scale=256.0)
    give(parameters, 0, 256.0)
    give(plain, 0)
    scaler.unscale_(optimizer)
    norm = clip_grad_norm_(parameters, 0.5)
    assert norm.item() == pytest.approx(clip_grad_norm_(plain, 0.5).item(), rel=1e-6)
    with pytest.raises(RuntimeError, match=r"SGD was unscaled since the last update\(\)"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    other.step()
    scaler.update()
    for left, right in zip(values(parameters), values(plain), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6)
    give(parameters, 1, bad=np.inf)
    before = values(parameters)
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.skipped_steps == 1
    for now, then in zip(values(parameters), before, strict=True):
        np.testing.assert_array_equal(now, then)


@ON_KERNELS
def test_launches_of_a_scaled_step(device: str) -> None:
    parameters = make_parameters(device)
    optimizers = [SGD(parameters[:1], lr=0.1), SGD(parameters[1:], lr=0.2, momentum=0.9)]
    average, scaler = MovingAverage(parameters, 0.9), GradScaler()
    give(parameters, 0)
    with parameters[0].backend.engine.record() as launches:
        scaler.step_all(optimizers, average, zero_grad=True)
        scaler.update()
    assert [launch.kernel for launch in launches] == ["check_gradients", "sgd_step", "update_scale"]
    assert not any(p.grad is None or p.grad.numpy().any() for p in parameters)


@EVERYWHERE
def test_optimizers_that_step_together_skip_together_and_the_average_goes_on(device: str) -> None:
    parameters = make_parameters(device)
    one, two = SGD(parameters[:1], lr=0.1, weight_decay=0.5), Adam(parameters[1:], lr=0.1)
    average, scaler = MovingAverage(parameters, 0.5), GradScaler()
    give(parameters, 0, bad=np.inf)
    before = values(parameters)
    average.averages[0].fill_(0.0)
    scaler.step_all([one, two], average)
    scaler.update()
    for now, then in zip(values(parameters), before, strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_allclose(average.averages[0].numpy(), 0.5 * before[0], rtol=1e-6)
    give(parameters, 1, bad=np.inf)
    scaler.step(one)  # on its own it has no infinite gradient
    scaler.step(two)
    scaler.update()
    assert scaler.skipped_steps == 2
    assert not np.array_equal(parameters[0].numpy(), before[0]) and np.array_equal(parameters[1].numpy(), before[1])


@EVERYWHERE
def test_optimizers_that_stepped_together_may_step_alone(device: str) -> None:
    """Then the gradients of one do not stop the other, as in PyTorch."""
    parameters = make_parameters(device)
    one, two = SGD(parameters[:2], lr=0.1), SGD(parameters[2:], lr=0.1)
    scaler = GradScaler(device, init_scale=4.0)
    give(parameters, 0)
    scaler.step_all([one, two])
    scaler.update()
    give(parameters, 1, bad=np.inf)  # of the first
    before = values(parameters)
    scaler.step(one)
    scaler.step(two)
    scaler.update()
    moved = [not np.array_equal(a, b) for a, b in zip(before, values(parameters), strict=True)]
    assert moved == [False, False, True]
    assert scaler.skipped_steps == 1 and scaler.get_scale() == 2.0


@ON_KERNELS
def test_a_captured_step_skips_and_scales_as_an_eager_one(device: str) -> None:
    def run(captured: bool) -> tuple[list[Any], Any]:
        parameters = make_parameters(device)
        optimizers = [Adam(parameters[:2], lr=0.1), SGD(parameters[2:], lr=0.1, momentum=0.9, dampening=0.5)]
        scaler = GradScaler(device, init_scale=16.0, growth_interval=2)

        def step(factor: Any) -> None:
            for parameter in parameters:
                parameter.grad = None
            loss = ((parameters[0] * parameters[0]).sum() + (parameters[1] * parameters[1]).sum()) * factor.sum()
            scaler.backward(loss + (parameters[2] * parameters[2]).sum())
            scaler.step_all(optimizers)
            scaler.update()

        factors = [1.0, np.inf, 2.0, 3.0, np.nan, 0.5]
        inputs = [gpucnn.tensor(np.array([factor], np.float32), device=device) for factor in factors]
        call: Callable[..., Any] = step
        for number, given in enumerate(inputs):
            if captured and number == 0:
                call = gpucnn.cuda.graph(step, given)
            else:
                call(given)
        states = [optimizer.state_dict()["state"][0].get("step") for optimizer in optimizers]
        return values(parameters), (scaler.state_dict(), states)

    with np.errstate(all="ignore"):
        eager, replayed = run(False), run(True)
    assert replayed[1] == eager[1] and eager[1][1] == [4, None] and eager[1][0]["skipped_steps"] == 2
    for left, right in zip(replayed[0], eager[0], strict=True):
        np.testing.assert_array_equal(left, right)
        assert np.isfinite(left).all()


@EVERYWHERE
def test_state_goes_round_and_numbers_are_set(device: str) -> None:
    parameters = make_parameters(device)
    scaler, optimizer = GradScaler(init_scale=32.0, growth_interval=3), SGD(parameters, lr=0.1)
    assert scaler.get_scale() == 32.0 and scaler.skipped_steps == 0
    scaler.update(16.0)
    for step, bad in enumerate([np.inf, None]):
        give(parameters, step, bad=bad)
        scaler.step(optimizer)
        scaler.update()
    state = scaler.state_dict()
    assert state == {
        "scale": 8.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 3, "_growth_tracker": 1,
        "skipped_steps": 1,
    }  # fmt: skip
    other = GradScaler()
    other.load_state_dict(state)
    assert other.state_dict() == state
    scaler.load_state_dict({**state, "scale": 4.0})
    scaler.update(2.0)
    assert scaler.get_scale() == 2.0 and scaler.skipped_steps == 1
    with pytest.raises(ValueError, match="not the state of a GradScaler"):
        scaler.load_state_dict({**state, "scale": -1.0})
    assert scaler.get_scale() == 2.0


def test_one_that_is_not_enabled_does_nothing() -> None:
    parameters, plain = make_parameters("cpu"), make_parameters("cpu")
    scaler = GradScaler(enabled=False)
    loss = (parameters[0] * parameters[0]).sum()
    assert scaler.scale(loss) is loss and scaler.get_scale() == 1.0 and scaler.state_dict() == {}
    scaler.backward(loss)
    optimizer = SGD(parameters, lr=0.1)
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    scaler.load_state_dict({})
    np.testing.assert_allclose(parameters[0].numpy(), 0.8 * plain[0].numpy(), rtol=1e-6)


def test_wrong_options_and_places() -> None:
    for options, message in [
        ({"init_scale": 0.0}, "init_scale must be a finite number above 0, got 0.0"),
        ({"growth_factor": 1.0}, "growth_factor must be above 1, got 1.0"),
        ({"backoff_factor": 1.0}, "backoff_factor must be between 0 and 1, got 1.0"),
        ({"growth_interval": 0}, "growth_interval must be a positive int, got 0"),
    ]:
        with pytest.raises(ValueError, match=f"GradScaler: {message}"):
            GradScaler(**options)  # type: ignore[arg-type]
    scaler = GradScaler("cpu")
    with pytest.raises(RuntimeError, match="GradScaler: it is on cpu, got a loss or gradients on emulated"):
        scaler.scale(gpucnn.ones(1, device="emulated"))
    with pytest.raises(ValueError, match="new_scale must be a finite number above 0, got nan"):
        scaler.update(float("nan"))


@pytest.mark.peers
@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_beside_pytorch(device: str) -> None:
    import torch

    shapes = SHAPES[1:]
    ours = make_parameters(device, shapes)
    theirs = [torch.nn.Parameter(torch.tensor(p.numpy())) for p in ours]
    options: dict[str, Any] = {"init_scale": 64.0, "growth_interval": 2}
    scaler, peer = GradScaler(device, **options), torch.amp.GradScaler("cpu", **options)
    adam, peer_adam = AdamW(ours, lr=0.05), torch.optim.AdamW(theirs, lr=0.05)
    peer.scale(torch.zeros(1))
    for step, bad in enumerate([None, np.inf, None, None, None, np.nan, None]):
        give(ours, step, scaler.get_scale(), bad)
        for own, other in zip(ours, theirs, strict=True):
            assert own.grad is not None
            other.grad = torch.tensor(own.grad.numpy())
        scaler.step(adam)
        peer.step(peer_adam)
        scaler.update()
        peer.update()
        assert scaler.get_scale() == peer.get_scale()
    state, theirs_state = scaler.state_dict(), peer.state_dict()
    assert {key: state[key] for key in theirs_state} == theirs_state
    for own, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(own.numpy(), other.detach().numpy(), rtol=1e-5, atol=1e-6)
    scaler.load_state_dict(theirs_state)
