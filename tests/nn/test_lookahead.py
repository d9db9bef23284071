"""Lookahead, and the moving average of buffers that it shares with evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import nn
from gpucnn.optim import SGD, Adam, Lookahead, MovingAverage
from gpucnn.optim.lr_scheduler import StepLR

SHAPES = [(3, 2, 2, 5), (4, 3), (7,)]
EVERYWHERE = pytest.mark.parametrize("device", ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)])


def draw(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]


def make_parameters(device: str = "cpu", seed: int = 0) -> list[nn.Parameter]:
    return [nn.Parameter(gpucnn.tensor(value, device=device)) for value in draw(seed)]


def take_steps(optimizer: Any, parameters: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        for parameter, gradient in zip(parameters, draw(100 + step), strict=True):
            parameter.grad = gpucnn.tensor(gradient, device=parameter.device)
        optimizer.step()


def by_formula(start: np.ndarray, gradients: list[np.ndarray], lr: float, k: int, alphas: list[float]) -> np.ndarray:
    """Algorithm 1 of the paper around plain SGD, float64."""
    fast = slow = start.astype(np.float64)
    for step, gradient in enumerate(gradients, 1):
        fast = fast - lr * gradient.astype(np.float64)
        if step % k == 0:
            slow = slow + alphas[step // k - 1] * (fast - slow)
            fast = slow
    return fast


@EVERYWHERE
@pytest.mark.parametrize("scheduled", [False, True])
def test_steps_follow_the_paper(device: str, scheduled: bool) -> None:
    parameters = make_parameters(device)
    alphas = [0.3, 0.6] if scheduled else [0.3, 0.3]
    alpha: Any = (lambda steps: 0.1 * steps) if scheduled else 0.3
    optimizer = Lookahead(SGD([{"params": parameters[:1]}, {"params": parameters[1:]}], lr=0.1), k=3, alpha=alpha)
    for steps in (2, 3, 6, 7):
        take_steps(optimizer, parameters, range(optimizer.steps, steps))
        for index, (parameter, start) in enumerate(zip(parameters, draw(0), strict=True)):
            gradients = [draw(100 + step)[index] for step in range(steps)]
            expected = by_formula(start, gradients, 0.1, 3, alphas)
            np.testing.assert_allclose(parameter.numpy(), expected, rtol=0, atol=1e-5)


@EVERYWHERE
def test_it_goes_on_from_its_state_bit_for_bit(device: str) -> None:
    def make(parameters: list[nn.Parameter]) -> Lookahead:
        return Lookahead(Adam(parameters, lr=0.05), k=4, alpha=0.7)

    straight = make_parameters(device)
    optimizer = make(straight)
    take_steps(optimizer, straight, range(6))
    saved, weights = optimizer.state_dict(), [p.numpy() for p in straight]
    saved["slow"]["averages"] = [average.numpy() for average in saved["slow"]["averages"]]
    saved["optimizer"]["state"] = {
        index: {key: value if key == "step" else value.numpy() for key, value in entry.items()}
        for index, entry in saved["optimizer"]["state"].items()
    }
    take_steps(optimizer, straight, range(6, 13))
    resumed = make_parameters(device, seed=5)
    other = make(resumed)
    with gpucnn.no_grad():
        for parameter, value in zip(resumed, weights, strict=True):
            parameter.copy_(value)
    other.load_state_dict(saved)
    take_steps(other, resumed, range(6, 13))
    assert other.steps == 13
    for a, b in zip(straight, resumed, strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_schedules_and_groups_are_the_inner_optimizers() -> None:
    parameters = make_parameters()
    inner = SGD(parameters[:2], lr=1.0, momentum=0.9)
    optimizer = Lookahead(inner, k=1, alpha=0.5)
    schedule = StepLR(optimizer, 1, 0.5)
    schedule.step()
    assert inner.param_groups[0]["lr"] == 0.5 and optimizer.param_groups is inner.param_groups
    optimizer.add_param_group({"params": parameters[2:], "lr": 0.1})
    before = parameters[2].numpy()
    take_steps(optimizer, parameters, range(1))
    np.testing.assert_allclose(parameters[2].numpy(), before - 0.05 * draw(100)[2], rtol=1e-6, atol=1e-7)
    assert optimizer.state is inner.state and optimizer.defaults is inner.defaults
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups is inner.param_groups and optimizer.state is inner.state
    optimizer.zero_grad()
    assert all(p.grad is None for p in parameters)
    assert repr(optimizer).startswith("Lookahead (\nk: 1\nalpha: 0.5\nSGD (\nParameter Group 0")


def test_over_parameters_that_several_optimizers_move() -> None:
    parameters = make_parameters()
    start = [p.numpy() for p in parameters]
    inner = [SGD(parameters[:1], lr=0.1), SGD(parameters[1:], lr=0.1)]
    lookahead = Lookahead(parameters, k=2, alpha=0.25)
    for step in range(2):
        for optimizer in inner:
            for p, gradient in zip(parameters, draw(100 + step), strict=True):
                p.grad = gpucnn.tensor(gradient)
            optimizer.step()
        lookahead.step()
    for index, parameter in enumerate(parameters):
        expected = by_formula(start[index], [draw(100 + step)[index] for step in range(2)], 0.1, 2, [0.25])
        np.testing.assert_allclose(parameter.numpy(), expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="group 0 of Lookahead has no learning rate"):
        StepLR(lookahead, 1)


def test_the_end_with_the_slow_weights_and_buffers() -> None:
    parameters = make_parameters()
    statistics, count = gpucnn.ones(3), gpucnn.tensor([4])
    optimizer = Lookahead(SGD(parameters, lr=0.1), k=100, alpha=0.5, buffers=[statistics, count])
    before = [p.numpy() for p in parameters]
    take_steps(optimizer, parameters, range(3))
    statistics.fill_(3.0)
    count.fill_(9)
    optimizer.synchronize()
    assert statistics.tolist() == [2.0] * 3 and count.tolist() == [9]
    middle = [p.numpy() for p in parameters]
    take_steps(optimizer, parameters, range(3, 5))
    statistics.fill_(8.0)
    optimizer.synchronize(0.0)
    for parameter, value, first in zip(parameters, middle, before, strict=True):
        assert np.array_equal(parameter.numpy(), value) and not np.array_equal(value, first)
    assert statistics.tolist() == [2.0] * 3


def test_a_closure_and_its_loss() -> None:
    parameter = nn.Parameter(gpucnn.tensor([2.0]))
    optimizer = Lookahead(SGD([parameter], lr=0.25), k=1, alpha=0.5)

    def closure() -> gpucnn.Tensor:
        optimizer.zero_grad()
        loss = (parameter * parameter).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert parameter.item() == 1.5


def test_it_follows_a_module_that_moves() -> None:
    holder = nn.Module()
    holder.weight = nn.Parameter(gpucnn.ones(1))
    optimizer = Lookahead(SGD(holder.parameters(), lr=1.0), k=2, alpha=0.5)
    for place in (np.float64, "cpu"):
        holder.to(place)
        holder.weight.grad = gpucnn.ones(1, dtype=np.float64)
        optimizer.step()
    assert holder.weight.item() == 0.0 and optimizer.slow.averages[0].dtype == np.float64


def test_wrong_arguments_and_states() -> None:
    parameters = make_parameters()
    for k in (0, 2.0, True):
        with pytest.raises(ValueError, match="k must be a positive int"):
            Lookahead(SGD(parameters), k=k)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"alpha must be between 0 and 1, got 1\.5"):
        Lookahead(SGD(parameters), alpha=1.5)
    with pytest.raises(ValueError, match="alpha must be between 0 and 1, got 2"):
        Lookahead(SGD(parameters), alpha=lambda steps: 2).synchronize()
    with pytest.raises(ValueError, match="Lookahead: got an empty parameter list"):
        Lookahead([])
    optimizer = Lookahead(SGD(parameters, lr=0.1, momentum=0.5))
    good = optimizer.state_dict()
    take_steps(optimizer, parameters, range(1))
    for state, message in (
        ({}, "not the state of a Lookahead"),
        ({**good, "steps": -1}, "must not be negative"),
        ({**good, "slow": {}}, "not a saved moving average"),
        ({**good, "slow": {**good["slow"], "averages": good["slow"]["averages"][:1]}}, "saved averages have shapes"),
        ({**good, "optimizer": {}}, "SGD: not the state of an optimizer"),
    ):
        slow = optimizer.slow.averages
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(state)
        assert optimizer.steps == 1 and optimizer.state and optimizer.slow.averages is slow


# ---- the moving average of buffers -----------------------------------------------------------------------------------


@EVERYWHERE
def test_floating_buffers_are_averaged_and_others_left(device: str) -> None:
    parameter = nn.Parameter(gpucnn.ones(2, device=device))
    mean, count = gpucnn.tensor([4.0, 0.0], device=device), gpucnn.tensor(3, device=device)
    average = MovingAverage([parameter], 0.75, [mean, count])
    mean.copy_([8.0, 4.0])
    count.fill_(5)
    average.update()
    with average.applied():
        assert mean.tolist() == [5.0, 1.0] and count.item() == 5
    assert mean.tolist() == [8.0, 4.0]
    average.copy_to()
    assert mean.tolist() == [5.0, 1.0]


def test_all_go_in_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters, calls = make_parameters(), []
    monkeypatch.setattr(parameters[0].backend, "moving_average_step", lambda averages, *_: calls.append(len(averages)))
    MovingAverage(parameters, 0.5, [gpucnn.ones(2)]).update()
    assert calls == [4]


def test_evaluation_with_averaged_weights_has_the_statistics_that_belong_to_them() -> None:
    """The weights in front grow a thousandfold: with averages of both, batch normalisation still normalises."""
    gpucnn.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4, device="cpu"), nn.BatchNorm1d(4, momentum=1.0, device="cpu"))
    x = gpucnn.tensor(np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32))
    with gpucnn.no_grad():
        model(x)  # the statistics are those of the first weights
    with_buffers = MovingAverage(model.parameters(), 1.0, model.buffers())
    without = MovingAverage(model.parameters(), 1.0)
    with gpucnn.no_grad():
        for parameter in model[0].parameters():
            parameter.mul_(1000.0)
        model(x)
    model.eval()

    def spread() -> float:
        with gpucnn.no_grad():
            return float(model(x).numpy().std(axis=0).mean())

    with_buffers.update()
    without.update()
    with with_buffers.applied():
        assert spread() == pytest.approx(1.0, rel=0.05)
    with without.applied():
        assert spread() < 0.1
    assert spread() == pytest.approx(1.0, rel=0.05)


def test_states_with_and_without_buffers() -> None:
    parameters, buffer = make_parameters(), gpucnn.tensor([1.0, 2.0])
    average = MovingAverage(parameters, 0.5, [buffer])
    buffer.fill_(3.0)
    average.update()
    state = average.state_dict()
    assert set(state) == {"steps", "averages", "buffers"} and set(MovingAverage(parameters).state_dict()) == {
        "steps",
        "averages",
    }
    other = MovingAverage(parameters, 0.5, [buffer])
    other.load_state_dict({**state, "buffers": [b.numpy() for b in state["buffers"]]})
    assert other.buffer_averages[0].tolist() == [2.0, 2.5]
    other.load_state_dict(MovingAverage(parameters).state_dict())  # of before there were buffers
    assert other.buffer_averages[0].tolist() == [2.0, 2.5] and other.steps == 0
    with pytest.raises(ValueError, match=r"saved averages of buffers have shapes \[\(2,\)\], the buffers \[\]"):
        MovingAverage(parameters).load_state_dict(state)
    with pytest.raises(TypeError, match="expected tensors, got int"):
        MovingAverage(parameters, 0.5, [3])  # type: ignore[list-item]


@pytest.mark.peers
def test_averages_of_weights_and_buffers_are_pytorchs() -> None:
    import torch

    decay = 0.8
    own = nn.Sequential(nn.Linear(3, 4, device="cpu"), nn.BatchNorm1d(4, device="cpu")).double()
    peer = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).double()
    peer.load_state_dict({name: torch.from_numpy(value.numpy()) for name, value in own.state_dict().items()})
    theirs = torch.optim.swa_utils.AveragedModel(
        peer, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay), use_buffers=True
    )
    theirs.update_parameters(peer)  # the first copies, as ours does when it is made
    average = MovingAverage(own.parameters(), decay, own.buffers())
    rng = np.random.default_rng(0)
    for _ in range(5):
        x = rng.standard_normal((8, 3))
        own(gpucnn.tensor(x))
        peer(torch.from_numpy(x))
        for mine, other in zip(own.parameters(), peer.parameters(), strict=True):
            change = rng.standard_normal(mine.shape)
            with gpucnn.no_grad(), torch.no_grad():
                mine.add_(gpucnn.tensor(change))
                other.add_(torch.from_numpy(change))
        average.update()
        theirs.update_parameters(peer)
    for mine, other in zip(average.averages, theirs.module.parameters(), strict=True):
        np.testing.assert_allclose(mine.numpy(), other.detach().numpy(), rtol=1e-12, atol=1e-13)
    floating = [buffer for buffer in theirs.module.buffers() if buffer.is_floating_point()]
    for mine, other in zip(average.buffer_averages, floating, strict=True):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-12, atol=1e-13)
