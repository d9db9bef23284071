"""Schedules of the learning rate."""

from __future__ import annotations

import json

import pytest

import gpucnn
from gpucnn.optim import SGD
from gpucnn.optim.lr_scheduler import LambdaLR, StepLR


def make_optimizer(*rates: float) -> SGD:
    return SGD([{"params": [gpucnn.zeros(1, device="cpu")], "lr": rate} for rate in rates or (0.1,)])


def rates_over(scheduler: StepLR | LambdaLR, epochs: int) -> list[list[float]]:
    rates = []
    for _ in range(epochs):
        rates.append([group["lr"] for group in scheduler.optimizer.param_groups])
        scheduler.step()
    return rates


def test_step_lr_drops_every_step_size_epochs() -> None:
    scheduler = StepLR(make_optimizer(0.1, 1.0), step_size=3)
    expected = [[0.1 * 0.1 ** (epoch // 3), 0.1 ** (epoch // 3)] for epoch in range(8)]
    for got, wanted in zip(rates_over(scheduler, 8), expected, strict=True):
        assert got == pytest.approx(wanted, rel=1e-12)


def test_step_lr_can_drop_every_epoch() -> None:
    assert rates_over(StepLR(make_optimizer(1.0), step_size=1, gamma=0.5), 4) == [[1.0], [0.5], [0.25], [0.125]]


def test_lambda_lr_multiplies_the_initial_rate() -> None:
    one = LambdaLR(make_optimizer(0.5, 2.0), lambda epoch: 1 / (1 + epoch))
    assert rates_over(one, 3) == [[0.5, 2.0], [0.25, 1.0], [0.5 / 3, 2.0 / 3]]
    each = LambdaLR(make_optimizer(0.5, 2.0), [lambda epoch: 1.0, lambda epoch: 0.5**epoch])
    assert rates_over(each, 3) == [[0.5, 2.0], [0.5, 1.0], [0.5, 0.5]]
    assert each.get_last_lr() == [0.5, 0.25]


def test_a_schedule_goes_on_from_its_state() -> None:
    straight = StepLR(make_optimizer(), 2, gamma=0.5)
    rates_over(straight, 3)
    saved = json.loads(json.dumps(straight.state_dict()))
    optimizer = make_optimizer()
    resumed = StepLR(optimizer, 2, gamma=0.5)
    optimizer.load_state_dict(straight.optimizer.state_dict())
    resumed.load_state_dict(saved)
    assert resumed.last_epoch == 3 and resumed.get_last_lr() == straight.get_last_lr() == [0.05]
    assert rates_over(resumed, 4) == rates_over(straight, 4)


def test_last_epoch_goes_on_without_a_state() -> None:
    optimizer = make_optimizer()
    with pytest.raises(ValueError, match="group 0 has no initial_lr"):
        StepLR(optimizer, 2, last_epoch=3)
    optimizer.param_groups[0]["initial_lr"] = 0.1
    LambdaLR(optimizer, lambda epoch: 10.0**-epoch, last_epoch=1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="step_size must be a positive int, got 0"):
        StepLR(make_optimizer(), 0)
    with pytest.raises(ValueError, match="got 1 functions for 2 parameter groups"):
        LambdaLR(make_optimizer(0.1, 0.2), [lambda epoch: 1.0])
    with pytest.raises(TypeError, match="expected an Optimizer, got int"):
        StepLR(3, 1)  # type: ignore[arg-type]
    scheduler = StepLR(make_optimizer(), 2)
    for state, message in (
        ({}, "not the state of a scheduler"),
        (StepLR(make_optimizer(1, 2), 2).state_dict(), "of 2 groups"),
    ):
        with pytest.raises(ValueError, match=message):
            scheduler.load_state_dict(state)
