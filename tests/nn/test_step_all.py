"""Several optimizers and the moving average in one step: the same bits as one by one, fewer launches, also captured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import nn, optim
from gpucnn.optim import SGD, Adam, AdamW, Lookahead, MovingAverage, Muon, Optimizer, RMSprop, step_all

EVERYWHERE = pytest.mark.parametrize("device", ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
ON_KERNELS = pytest.mark.parametrize("device", ["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
SHAPES = [(4, 3, 3, 2), (4,), (7, 5), (1,), (5, 2049), (6, 3, 1, 1)]


def make_parameters(device: str) -> list[nn.Parameter]:
    rng = np.random.default_rng(0)
    return [nn.Parameter(gpucnn.tensor(rng.standard_normal(s).astype(np.float32), device=device)) for s in SHAPES]


def give_gradients(parameters: list[nn.Parameter], step: int) -> None:
    rng = np.random.default_rng(100 + step)
    for parameter in parameters:
        values = rng.standard_normal(tuple(parameter.shape)).astype(np.float32)
        parameter.grad = gpucnn.tensor(values, device=parameter.device)


def make_optimizers(p: list[nn.Parameter]) -> list[Optimizer]:
    return [
        SGD([{"params": p[1:2]}, {"params": p[3:4], "lr": 0.3, "momentum": 0.0}], lr=0.1, momentum=0.9),
        SGD(p[4:5], lr=0.02, momentum=0.85, nesterov=True, weight_decay=0.1),
        Muon([p[0], p[2]], lr=0.1, momentum=0.6, ns_steps=2, renormalize=True),
        AdamW(p[5:], lr=0.01),
    ]


def values(tensors: list[Any]) -> list[Any]:
    return [tensor.numpy() for tensor in tensors]


def assert_same(left: list[Any], right: list[Any]) -> None:
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


@EVERYWHERE
@pytest.mark.parametrize("zero_grad", [False, True])
def test_the_same_bits_as_one_by_one(device: str, zero_grad: bool) -> None:
    together, alone = make_parameters(device), make_parameters(device)
    buffers = [gpucnn.ones(3, device=device) for _ in range(2)]
    averages = [MovingAverage(p, optim.tutorial_decay(), [b]) for p, b in zip((together, alone), buffers, strict=True)]
    all_together, one_by_one = make_optimizers(together), make_optimizers(alone)
    for step in range(3):
        for parameters, buffer in zip((together, alone), buffers, strict=True):
            give_gradients(parameters, step)
            buffer.mul_(1.5)
        if step == 1:
            for parameters in (together, alone):
                parameters[4].grad = None  # averaged all the same
        step_all(all_together, averages[0], zero_grad=zero_grad)
        for optimizer in one_by_one:
            optimizer.step()
        averages[1].update()
        assert any(p.grad is not None and p.grad.numpy().any() for p in together) is not zero_grad
    assert_same(values(together), values(alone))
    assert_same(values(averages[0].all_averages()), values(averages[1].all_averages()))
    assert averages[0].steps == 3


@ON_KERNELS
def test_one_launch_for_each_kind_with_the_average_in_it(device: str) -> None:
    parameters = make_parameters(device)
    optimizers, average = make_optimizers(parameters), MovingAverage(parameters, 0.9)
    give_gradients(parameters, 0)
    with parameters[0].backend.engine.record() as launches:
        step_all(optimizers, average)
    iteration = ["muon_gram", "muon_polynomial", "muon_advance"]
    assert [launch.kernel for launch in launches] == [
        "sgd_step", "muon_prepare", *iteration, *iteration[:2], "muon_finish", "adam_step",
    ]  # fmt: skip
    with parameters[0].backend.engine.record() as launches:
        step_all([SGD(parameters[:3], lr=0.1)], average)  # the rest of the average in a launch of its own
    assert [launch.kernel for launch in launches] == ["sgd_step", "moving_average_step"]


@ON_KERNELS
def test_numbers_go_to_the_device_only_when_they_change(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = make_parameters(device)
    optimizer = SGD(parameters, lr=0.1, momentum=0.9)
    backend, copies = parameters[0].backend, []
    overwrite = backend.overwrite  # type: ignore[attr-defined]

    def noted(array: Any, values: Any) -> None:
        copies.append(values.shape)
        overwrite(array, values)

    monkeypatch.setattr(backend, "overwrite", noted)
    counts = []
    for step in range(4):
        give_gradients(parameters, step)
        if step == 3:
            optimizer.param_groups[0]["lr"] = 0.05
        optimizer.step()
        counts.append(len(copies))
    assert counts == [1, 2, 2, 3]  # the first step, the momentum that has begun, and another rate


@ON_KERNELS
@pytest.mark.parametrize("lookahead", [False, True])
def test_a_captured_step_follows_schedules_and_counts_bit_for_bit(device: str, lookahead: bool) -> None:
    """Rates, bias corrections, the average's decay and Lookahead's every second step come from the device."""

    def run(captured: bool) -> tuple[list[Any], Any]:
        parameters = make_parameters(device)
        optimizers, average = make_optimizers(parameters), MovingAverage(parameters, optim.tutorial_decay())
        if lookahead:
            optimizers.append(Lookahead(parameters, k=2, alpha=lambda steps: 0.3 + 0.1 * steps))
        x = gpucnn.ones(1, device=device)

        def step(factor: Any) -> None:
            for parameter in parameters:
                parameter.grad = None
            sum(((p * p).sum() * factor).sum() for p in parameters).backward()  # type: ignore[union-attr]
            step_all(optimizers, average)

        call: Callable[..., Any] = step
        for number in range(5):
            for optimizer in optimizers[:4]:
                for group in optimizer.param_groups:
                    group["lr"] = 0.1 / (1 + number)
            if captured and number == 0:
                call = gpucnn.cuda.graph(step, x)
            else:
                with parameters[0].backend.engine.record() as launches:
                    call(x)
        state = [optimizer.state_dict() for optimizer in optimizers[:1]]
        names = [launch.kernel for launch in launches]
        return values([*parameters, *average.averages]), (state[0]["param_groups"], average.steps, names)

    eager, replayed = run(False), run(True)
    assert_same(replayed[0], eager[0])
    assert replayed[1] == eager[1]


@ON_KERNELS
def test_what_cannot_be_captured(device: str) -> None:
    parameters = make_parameters(device)
    optimizer = SGD(parameters, lr=0.1)

    gradient_of = {parameter: parameter.detach() * 1.0 for parameter in parameters}

    def twice() -> None:
        for parameter in parameters:
            parameter.grad = gradient_of[parameter]
        optimizer.step()
        optimizer.step()

    with pytest.raises(RuntimeError, match="SGD: it steps twice in a step that is captured"):
        gpucnn.cuda.graph(twice, device=device)
    calls: list[int] = []

    def later() -> None:
        calls.append(1)
        parameters[0].grad = gradient_of[parameters[0]]
        parameters[1].grad = gradient_of[parameters[1]] if len(calls) > 1 else None
        fresh.step()

    fresh = SGD(parameters, lr=0.1)
    with pytest.raises(
        RuntimeError, match=r"SGD: a parameter of shape \(4,\) has a gradient in the step that is being"
    ):
        gpucnn.cuda.graph(later, device=device)


@ON_KERNELS
def test_a_captured_step_goes_on_from_a_loaded_state_and_notices_another_one(device: str) -> None:
    def run(captured: bool) -> Any:
        parameters = make_parameters(device)
        optimizer, average = SGD(parameters, lr=0.1, momentum=0.9), MovingAverage(parameters, 0.9)

        def step() -> None:
            for parameter in parameters:
                parameter.grad = None
            sum((p * p).sum() for p in parameters).backward()  # type: ignore[union-attr]
            step_all([optimizer], average)

        call = gpucnn.cuda.graph(step, device=device) if captured else step
        if not captured:
            step()
        saved = optimizer.state_dict(), average.state_dict()
        entries = {i: {k: v.numpy() for k, v in entry.items()} for i, entry in saved[0]["state"].items()}
        state = {**saved[0], "state": entries}
        averages = {**saved[1], "averages": values(saved[1]["averages"])}
        call()
        optimizer.load_state_dict(state)
        average.load_state_dict(averages)
        call()
        result = values([*parameters, *average.averages])
        optimizer.param_groups[0]["momentum"] = 0.0
        if captured:
            with pytest.raises(RuntimeError, match="SGD: options that decide which state there is"):
                call()
        return result

    assert_same(run(True), run(False))


@EVERYWHERE
def test_a_gradient_in_another_order_is_zeroed_too(device: str) -> None:
    parameter = nn.Parameter(gpucnn.ones((2, 3, 2, 2), device=device))
    gradient = gpucnn.ones((2, 3, 2, 2), device=device)
    gradient.data = gradient.data.copy(order="C")
    parameter.grad = gradient
    SGD([parameter], lr=0.5).step(zero_grad=True)
    assert not gradient.numpy().any() and (parameter.numpy() == 0.5).all()


@EVERYWHERE
@pytest.mark.parametrize("kind", [Adam, RMSprop, Muon])
def test_parameters_added_later(kind: Any, device: str) -> None:
    parameters = make_parameters(device)
    optimizer, other = kind([parameters[0]]), kind([parameters[2]])
    copy = nn.Parameter(parameters[2].detach() * 1.0)
    give_gradients(parameters, 0)
    optimizer.step()
    optimizer.add_param_group({"params": [copy]})
    give_gradients(parameters, 1)
    copy.grad = parameters[2].grad
    optimizer.step()
    other.step()
    np.testing.assert_array_equal(copy.numpy(), parameters[2].numpy())
