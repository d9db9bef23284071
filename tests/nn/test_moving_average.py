"""The moving average of weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import gpucnn
from gpucnn import nn
from gpucnn.optim import MovingAverage, tutorial_decay

SHAPES = [(3, 2, 2, 5), (4, 3), (2,)]


def make_parameters(dtype: type = np.float64) -> list[nn.Parameter]:
    rng = np.random.default_rng(0)
    return [nn.Parameter(gpucnn.tensor(rng.standard_normal(s).astype(dtype), device="cpu")) for s in SHAPES]


def change(parameters: list[nn.Parameter], step: int) -> None:
    rng = np.random.default_rng(50 + step)
    with gpucnn.no_grad():
        for parameter in parameters:
            parameter.copy_(rng.standard_normal(parameter.shape))


def values(tensors: list[gpucnn.Tensor] | list[nn.Parameter]) -> list[np.ndarray]:
    return [tensor.numpy() for tensor in tensors]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("decay", "at"),
    [
        (0.75, lambda n: 0.75),
        (tutorial_decay(), lambda n: (1 + n) / (10 + n)),
        (tutorial_decay(0.25), lambda n: [2 / 11, 0.25][n > 1]),
    ],
)
def test_updates_follow_the_formula(
    dtype: type, decay: float | Callable[[int], float], at: Callable[[int], float]
) -> None:
    parameters = make_parameters(dtype)
    expected = [p.numpy().astype(np.float64) for p in parameters]
    average = MovingAverage(parameters, decay)
    for step in range(6):
        change(parameters, step)
        average.update()
        for index, parameter in enumerate(parameters):
            expected[index] = at(step + 1) * expected[index] + (1 - at(step + 1)) * parameter.numpy().astype(np.float64)
    assert average.steps == 6
    for own, wanted in zip(average.averages, expected, strict=True):
        np.testing.assert_allclose(own.numpy(), wanted, rtol=0, atol=6 * 4 * np.finfo(dtype).eps * 4)


def test_the_tutorials_decay() -> None:
    decay = tutorial_decay()
    assert decay(1) == 2 / 11 and decay(90) == 0.91 and decay(10**6) == 0.9999


def test_evaluation_sees_the_averages_and_training_its_weights() -> None:
    parameters = make_parameters()
    average = MovingAverage(parameters, 0.5)
    change(parameters, 0)
    average.update()
    before, arrays = values(parameters), [p.data for p in parameters]
    with average.applied():
        for parameter, wanted in zip(parameters, values(average.averages), strict=True):
            assert np.array_equal(parameter.numpy(), wanted)
        assert not np.array_equal(parameters[0].numpy(), before[0])
        assert gpucnn.is_grad_enabled()
    for parameter, wanted, array in zip(parameters, before, arrays, strict=True):
        assert np.array_equal(parameter.numpy(), wanted)
        assert parameter.data is array and parameter.requires_grad


def test_weights_come_back_after_an_exception() -> None:
    parameters = make_parameters()
    average = MovingAverage(parameters, 0.5)
    change(parameters, 0)
    before = values(parameters)
    with pytest.raises(KeyboardInterrupt), average.applied():
        raise KeyboardInterrupt
    assert all(np.array_equal(p.numpy(), wanted) for p, wanted in zip(parameters, before, strict=True))
    with average.applied():  # and it can be applied again
        assert not np.array_equal(parameters[0].numpy(), before[0])


def test_applied_twice_or_updated_meanwhile_raises() -> None:
    average = MovingAverage(make_parameters())
    with average.applied():
        with pytest.raises(RuntimeError, match="applied already"), average.applied():
            pass
        with pytest.raises(RuntimeError, match="right now"):
            average.update()
    average.update()
    assert average.steps == 1


def test_the_average_is_no_alias_of_the_weights() -> None:
    parameters = make_parameters()
    before = values(parameters)
    average = MovingAverage(parameters)
    change(parameters, 0)
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(average.averages, before, strict=True))


def test_all_arrays_go_in_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = make_parameters()
    calls: list[int] = []
    monkeypatch.setattr(parameters[0].backend, "moving_average_step", lambda averages, *_: calls.append(len(averages)))
    MovingAverage(parameters).update()
    assert calls == [3]


def test_it_follows_a_module_that_moves() -> None:
    holder = nn.Module()
    holder.weight = nn.Parameter(gpucnn.ones(1, device="cpu"))
    average = MovingAverage(holder.parameters(), 0.5)
    holder.to(np.float64)
    holder.weight.data[...] = 3.0
    average.update()
    assert average.averages[0].dtype == np.float64 and average.averages[0].item() == 2.0


def test_state_goes_round() -> None:
    parameters = make_parameters()
    average = MovingAverage(parameters, tutorial_decay())
    for step in range(3):
        change(parameters, step)
        average.update()
    other = MovingAverage(parameters, tutorial_decay())
    state = average.state_dict()
    other.load_state_dict({"steps": state["steps"], "averages": [a.numpy() for a in state["averages"]]})
    for each in (average, other):
        each.update()
    assert other.steps == 4
    for a, b in zip(average.averages, other.averages, strict=True):
        assert np.array_equal(a.numpy(), b.numpy()) and a is not b


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"steps": 1}, "not a saved moving average"),
        ({"steps": 1, "averages": [np.zeros(2)]}, "saved averages have shapes"),
        ({"steps": 1, "averages": [np.zeros(s) for s in SHAPES[:2]] + [np.zeros(3)]}, "saved averages have shapes"),
        ({"steps": 1, "averages": [np.zeros(s) for s in SHAPES[:2]] + ["x"]}, "saved averages have shapes"),
        ({"steps": -1, "averages": [np.zeros(s) for s in SHAPES]}, "must not be negative"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(state: dict, message: str) -> None:
    average = MovingAverage(make_parameters())
    before = values(average.averages)
    with pytest.raises(ValueError, match=message):
        average.load_state_dict(state)
    assert average.steps == 0
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(average.averages, before, strict=True))


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="empty"):
        MovingAverage([])
    with pytest.raises(TypeError, match="expected tensors, got float"):
        MovingAverage([1.0])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.5"):
        MovingAverage(make_parameters(), 1.5)
    with pytest.raises(ValueError, match=r"between 0 and 1, got '0\.9'"):
        MovingAverage(make_parameters(), "0.9")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="between 0 and 1, got 2"):
        MovingAverage(make_parameters(), lambda n: 2).update()


def test_an_update_that_overflows_is_no_warning() -> None:
    parameter = nn.Parameter(gpucnn.tensor(np.full(4, 3e38, np.float32), device="cpu"))
    average = MovingAverage([parameter], 0.5)
    with gpucnn.no_grad():
        parameter.fill_(-3e38)
    average.update()
    np.testing.assert_array_equal(average.averages[0].numpy(), np.full(4, -np.inf))
