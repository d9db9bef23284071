"""Adam, AdamW, RMSprop and Adagrad: the formulas, groups, states, moves, and PyTorch beside them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import nn
from gpucnn.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from tests.support import optimizer_reference as reference
from tests.support.tolerance import EPS_FACTOR, PLAIN_FACTOR

SHAPES = [(5, 3, 3, 2), (4, 7), (7,), (1, 1, 1, 1), (0, 4), (2, 1, 3, 1), ()]
STEPS = 5
EVERYWHERE = pytest.mark.parametrize("device", ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)])

CASES: list[tuple[Any, dict[str, Any]]] = [
    (Adam, {}),
    (Adam, {"lr": 0.1, "betas": (0.5, 0.8), "eps": 1e-3, "weight_decay": 0.3}),
    (Adam, {"lr": 0.1, "amsgrad": True, "maximize": True, "betas": (0.7, 0.5)}),
    (Adam, {"lr": 0.1, "betas": (0.0, 0.0), "decoupled_weight_decay": True, "weight_decay": 0.2}),
    (AdamW, {"lr": 0.1}),
    (AdamW, {"lr": 0.1, "weight_decay": 0.5, "amsgrad": True, "betas": (0.8, 0.6)}),
    (AdamW, {"lr": 0.05, "weight_decay": 0.0, "maximize": True}),
    (RMSprop, {}),
    (RMSprop, {"lr": 0.1, "alpha": 0.7, "eps": 1e-3, "weight_decay": 0.3, "maximize": True}),
    (RMSprop, {"lr": 0.1, "momentum": 0.9}),
    (RMSprop, {"lr": 0.1, "centered": True, "alpha": 0.5, "eps": 0.01}),
    (RMSprop, {"lr": 0.1, "centered": True, "momentum": 0.8, "weight_decay": 0.1, "alpha": 0.9, "eps": 0.01}),
    (Adagrad, {}),
    (Adagrad, {"lr": 0.2, "lr_decay": 0.1, "weight_decay": 0.3, "initial_accumulator_value": 0.5, "eps": 1e-3}),
    (Adagrad, {"lr": 0.2, "maximize": True}),
]
RULES: dict[Any, Callable[..., dict[str, Any]]] = {
    Adam: reference.adam, AdamW: reference.adam, RMSprop: reference.rmsprop, Adagrad: reference.adagrad,
}  # fmt: skip
BY_CASE = pytest.mark.parametrize(("kind", "options"), CASES, ids=lambda x: getattr(x, "__name__", str(x)))


def draw(seed: int, dtype: Any) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in SHAPES]


def make_parameters(device: str = "cpu", dtype: Any = np.float32, seed: int = 0) -> list[nn.Parameter]:
    return [nn.Parameter(gpucnn.tensor(value, device=device)) for value in draw(seed, dtype)]


def set_gradients(parameters: list[nn.Parameter], step: int, skipped: tuple[int, ...] = ()) -> None:
    for index, gradient in enumerate(draw(100 + step, np.float64)):
        p = parameters[index]
        p.grad = None if index in skipped else gpucnn.tensor(gradient.astype(p.dtype), device=p.device)


def wanted(kind: Any, start: Any, gradients: Any, options: dict[str, Any], real: Any = np.float64) -> dict[str, Any]:
    named = dict(options)
    if kind in (Adam, AdamW):
        named["decoupled"] = named.pop("decoupled_weight_decay", kind is AdamW)
        if kind is AdamW:
            named.setdefault("weight_decay", 1e-2)
    return reference.over_arrays(RULES[kind], start, gradients, real, **named)


@EVERYWHERE
@BY_CASE
def test_steps_follow_the_formula(kind: Any, options: dict[str, Any], device: str) -> None:
    """After each of five steps; what rounding may do is told by the same steps in plain float32, elementwise, and by
    the largest number on the way.
    """
    parameters = make_parameters(device)
    start = [p.numpy() for p in parameters]
    optimizer = kind(parameters, **options)
    history: list[list[np.ndarray]] = [[] for _ in parameters]
    largest: list[dict[str, float]] = [{"parameter": np.max(np.abs(s), initial=0)} for s in start]
    for step in range(STEPS):
        set_gradients(parameters, step)
        for gradients, parameter in zip(history, parameters, strict=True):
            gradients.append(parameter.grad.numpy())
        optimizer.step()
        for parameter, begin, gradients, scales in zip(parameters, start, history, largest, strict=True):
            expected = wanted(kind, begin, gradients, options)
            plain = wanted(kind, begin, gradients, options, np.float32)
            state = optimizer.state[parameter]
            assert state["step"] == step + 1 and set(state) == {"step", *expected} - {"parameter"}
            for name, value in expected.items():
                got = (parameter if name == "parameter" else state[name]).numpy()
                assert got.dtype == np.float32 and got.shape == value.shape
                scales[name] = max(scales.get(name, 0.0), np.max(np.abs(value), initial=0))
                error = PLAIN_FACTOR * np.max(np.abs(plain[name] - value), initial=0)
                allowed = max(error, EPS_FACTOR * (step + 1) * np.finfo(np.float32).eps * scales[name])
                np.testing.assert_allclose(got, value, rtol=0, atol=allowed, err_msg=f"{name} at step {step}")


@BY_CASE
def test_float64_is_computed_in_float64(kind: Any, options: dict[str, Any]) -> None:
    parameters = make_parameters(dtype=np.float64)
    start = [p.numpy() for p in parameters]
    optimizer = kind(parameters, **options)
    for step in range(STEPS):
        set_gradients(parameters, step)
        optimizer.step()
    for index, parameter in enumerate(parameters):
        gradients = [draw(100 + step, np.float64)[index] for step in range(STEPS)]
        expected = wanted(kind, start[index], gradients, options)
        np.testing.assert_allclose(parameter.numpy(), expected["parameter"], rtol=1e-12, atol=1e-13)


@EVERYWHERE
def test_groups_keep_their_options_and_late_parameters_their_own_count(device: str) -> None:
    parameters = make_parameters(device)
    start = [p.numpy() for p in parameters]
    groups = [
        {"params": parameters[:2]},
        {"params": parameters[2:3], "weight_decay": 0.5},
        {"params": parameters[3:], "lr": 0.02, "betas": (0.5, 0.9)},
    ]
    optimizer = Adam(groups, lr=0.1, weight_decay=0.1)
    own = [{}, {}, {"weight_decay": 0.5}, *[{"lr": 0.02, "betas": (0.5, 0.9)}] * 4]
    for step in range(3):
        set_gradients(parameters, step, skipped=(1, 3) if step == 0 else ())
        optimizer.step()
        if step == 0:
            assert np.array_equal(parameters[1].numpy(), start[1]) and parameters[1] not in optimizer.state
    for index, parameter in enumerate(parameters):
        steps = range(index in (1, 3), 3)
        gradients = [draw(100 + step, np.float32)[index] for step in steps]
        expected = wanted(Adam, start[index], gradients, {"lr": 0.1, "weight_decay": 0.1, **own[index]})
        np.testing.assert_allclose(parameter.numpy(), expected["parameter"], rtol=1e-5, atol=1e-5)
        assert optimizer.state[parameter]["step"] == len(steps)


@BY_CASE
def test_one_launch_for_all_parameters_of_equal_options(kind: Any, options: dict[str, Any]) -> None:
    parameters = make_parameters("emulated")
    groups = [{"params": parameters[:3]}, {"params": parameters[3:], "weight_decay": 0.7}]
    optimizer = kind(groups, **options)
    set_gradients(parameters, 0)
    optimizer.step()
    set_gradients(parameters, 1)
    with parameters[0].backend.engine.record() as launches:
        optimizer.step()
    assert len(launches) == 1


@EVERYWHERE
@BY_CASE
def test_a_run_goes_on_from_its_state_bit_for_bit(kind: Any, options: dict[str, Any], device: str) -> None:
    def groups(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
        return [{"params": parameters[:2]}, {"params": parameters[2:], "weight_decay": 0.1}]

    straight = make_parameters(device)
    optimizer = kind(groups(straight), **options)
    for step in range(3):
        set_gradients(straight, step, skipped=(2,))
        optimizer.step()
    weights = [p.numpy() for p in straight]
    state = optimizer.state_dict()
    saved = {
        "param_groups": state["param_groups"],
        "state": {
            index: {key: value if key == "step" else value.numpy() for key, value in entry.items()}
            for index, entry in state["state"].items()
        },
    }
    resumed = make_parameters(device, seed=9)
    with gpucnn.no_grad():
        for parameter, value in zip(resumed, weights, strict=True):
            parameter.copy_(value)
    other = kind(groups(resumed), lr=7.0)
    other.load_state_dict(saved)
    for step in range(3, 5):
        for parameters, its in ((straight, optimizer), (resumed, other)):
            set_gradients(parameters, step)
            its.step()
    for a, b in zip(straight, resumed, strict=True):
        assert np.array_equal(a.numpy(), b.numpy())
        assert optimizer.state[a]["step"] == other.state[b]["step"]


@BY_CASE
def test_large_arrays_are_updated_piece_by_piece(kind: Any, options: dict[str, Any]) -> None:
    """One array and its three parts go the same way, to the bit."""
    values = np.random.default_rng(0).standard_normal((3, 140001)).astype(np.float32)
    ends = [slice(0, 3), slice(3, 70000), slice(70000, None)]
    whole = [nn.Parameter(gpucnn.tensor(values[0], device="cpu"))]
    parts = [nn.Parameter(gpucnn.tensor(values[0, end].copy(), device="cpu")) for end in ends]
    for parameters, places in ((whole, [slice(None)]), (parts, ends)):
        optimizer = kind(parameters, **options)
        for gradient in values[1:]:
            for p, place in zip(parameters, places, strict=True):
                p.grad = gpucnn.tensor(gradient[place].copy(), device="cpu")
            optimizer.step()
    assert np.array_equal(whole[0].numpy(), np.concatenate([p.numpy() for p in parts]))


def test_the_state_lies_like_the_parameter() -> None:
    filters = nn.Conv2d(3, 4, (2, 3), data_format="NHWC", device="cpu").weight
    images = nn.Parameter(gpucnn.zeros(2, 3, 4, 5, device="cpu"))
    optimizer = Adam([filters, images], amsgrad=True)
    for parameter in (filters, images):
        parameter.grad = gpucnn.Tensor(np.ones(parameter.shape, np.float32), "cpu")
    optimizer.step()
    for parameter in (filters, images):
        for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
            assert optimizer.state[parameter][name].data.strides == parameter.data.strides
    np.testing.assert_allclose(images.numpy(), -1e-3, rtol=1e-6)


@BY_CASE
def test_the_state_follows_a_module_that_moves(kind: Any, options: dict[str, Any]) -> None:
    holder = nn.Module()
    holder.weight = nn.Parameter(gpucnn.tensor([[1.0, -2.0], [0.5, 3.0]], device="cpu"))
    start = holder.weight.numpy()
    optimizer = kind(holder.parameters(), **options)
    gradients = [np.array([[0.5, 1.0], [-1.0, 2.0]]) * (1 + step) for step in range(4)]
    for gradient, place in zip(gradients, ("cpu", "emulated", np.float64, "cpu"), strict=True):
        holder.to("cpu").to(place)
        holder.weight.grad = gpucnn.tensor(gradient.astype(holder.weight.dtype), device=holder.weight.device)
        optimizer.step()
    expected = wanted(kind, start, gradients, options)
    np.testing.assert_allclose(holder.weight.numpy(), expected["parameter"], rtol=2e-5, atol=2e-5)
    name = next(key for key in expected if key != "parameter")
    assert optimizer.state[holder.weight][name].dtype == np.float64


def test_options_may_change_between_steps() -> None:
    """A schedule of the momentum, as OneCycleLR has, brings arrays in late."""
    parameter = nn.Parameter(gpucnn.tensor([1.0], device="cpu"))
    optimizer = RMSprop([parameter], lr=0.1)
    for momentum in (0.0, 0.9):
        optimizer.param_groups[0]["momentum"] = momentum
        parameter.grad = gpucnn.ones(1, device="cpu")
        optimizer.step()
    assert set(optimizer.state[parameter]) == {"step", "square_avg", "momentum_buffer"}


@BY_CASE
def test_a_step_counts_as_a_change_in_place(kind: Any, options: dict[str, Any]) -> None:
    parameter = nn.Parameter(gpucnn.tensor([2.0], device="cpu"))
    loss = (parameter * parameter).sum()
    parameter.grad = gpucnn.ones(1, device="cpu")
    kind([parameter], **options).step()
    with pytest.raises(RuntimeError, match="modified in place"):
        loss.backward()


@EVERYWHERE
@pytest.mark.parametrize("kind", [Adam, AdamW, RMSprop, Adagrad])
def test_what_is_not_finite_is_no_warning(kind: Any, device: str) -> None:
    values = np.array([math.nan, math.inf, 3e38, 0.0], np.float32)
    parameter = nn.Parameter(gpucnn.tensor(np.ones(4, np.float32), device=device))
    parameter.grad = gpucnn.tensor(values, device=device)
    kind([parameter], lr=0.1).step()
    got = parameter.numpy()
    assert np.isnan(got[:2]).all() and got[3] == np.float32(1 - (0.1 * 1e-2 if kind is AdamW else 0))


@EVERYWHERE
def test_amsgrad_keeps_nan(device: str) -> None:
    parameter = nn.Parameter(gpucnn.tensor([1.0, 1.0], device=device))
    optimizer = Adam([parameter], amsgrad=True)
    for gradient in ([math.nan, 1.0], [1.0, 1.0]):
        parameter.grad = gpucnn.tensor(gradient, device=device)
        optimizer.step()
    assert np.isnan(optimizer.state[parameter]["max_exp_avg_sq"].numpy()).tolist() == [True, False]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Adam, {"lr": -1.0}, "Adam: lr must be a finite number, not negative, got -1.0"),
        (Adam, {"betas": (0.9, 1.0)}, r"Adam: betas must be at least 0 and below 1, got \(0.9, 1.0\)"),
        (Adam, {"betas": 0.9}, "Adam: betas must be two numbers, got 0.9"),
        (Adam, {"betas": (0.9, "x")}, "Adam: betas must be at least 0"),
        (AdamW, {"eps": math.inf}, "AdamW: eps must be a finite number"),
        (AdamW, {"weight_decay": -0.1}, "AdamW: weight_decay must be"),
        (RMSprop, {"alpha": -0.1}, "RMSprop: alpha must be a finite number, not negative"),
        (RMSprop, {"alpha": 1.1}, "RMSprop: alpha must be at most 1, got 1.1"),
        (RMSprop, {"momentum": math.nan}, "RMSprop: momentum must be"),
        (Adagrad, {"lr_decay": -1.0}, "Adagrad: lr_decay must be"),
        (Adagrad, {"initial_accumulator_value": -1.0}, "Adagrad: initial_accumulator_value must be"),
    ],
)
def test_options_out_of_range(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(make_parameters(), **options)


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW, RMSprop, Adagrad])
@pytest.mark.parametrize("option", ["foreach", "fused", "capturable", "differentiable"])
def test_how_pytorch_computes_is_no_option(kind: Any, option: str) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{option}'"):
        kind(make_parameters(), **{option: True})


@pytest.mark.parametrize("count", [-1, "x", None])
def test_a_state_whose_count_is_none_changes_nothing(count: Any) -> None:
    parameters = make_parameters()
    optimizer = Adam(parameters)
    set_gradients(parameters, 0)
    optimizer.step()
    state = optimizer.state_dict()
    state["state"][1]["step"] = count
    target = Adam(make_parameters())
    with pytest.raises(ValueError, match="Adam: step of parameter 1"):
        target.load_state_dict(state)
    assert not target.state


def test_adamw_takes_adams_state() -> None:
    target = AdamW(make_parameters())
    target.load_state_dict(Adam(make_parameters(), lr=0.5).state_dict())
    assert target.param_groups[0]["decoupled_weight_decay"] is True and target.param_groups[0]["lr"] == 0.5


@EVERYWHERE
def test_sgd_maximizes(device: str) -> None:
    down, up = make_parameters(device), make_parameters(device)
    for parameters, maximize, sign in ((down, False, -1), (up, True, 1)):
        for weight_decay, momentum in ((0.0, 0.0), (0.1, 0.0), (0.1, 0.9)):
            optimizer = SGD(parameters, 0.1, momentum, weight_decay=weight_decay, maximize=maximize)
            for step in range(2):
                for p, gradient in zip(parameters, draw(step, np.float32), strict=True):
                    p.grad = gpucnn.tensor(np.asarray(sign * gradient), device=device)
                optimizer.step()
    for a, b in zip(down, up, strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


# ---- PyTorch ---------------------------------------------------------------------------------------------------------


@pytest.mark.peers
@BY_CASE
def test_ten_steps_are_pytorchs(kind: Any, options: dict[str, Any]) -> None:
    import torch

    own = make_parameters(dtype=np.float64)
    peer = [torch.nn.Parameter(torch.from_numpy(p.numpy().copy())) for p in own]

    def over(kind: Any, parameters: list[Any]) -> Any:
        return kind(
            [{"params": parameters[:2], "lr": 0.03}, {"params": parameters[2:], "weight_decay": 0.2}], **options
        )

    ours, theirs = over(kind, own), over(getattr(torch.optim, kind.__name__), peer)
    for step in range(10):
        set_gradients(own, step, skipped=(1, 3) if step in (0, 4) else ())
        for a, b in zip(own, peer, strict=True):
            b.grad = None if a.grad is None else torch.from_numpy(a.grad.numpy())
        ours.step()
        theirs.step()
    same_state(ours, theirs)
    for a, b in zip(own, peer, strict=True):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-11, atol=1e-12)
    # The states go both ways: ours goes on from PyTorch's, and PyTorch's from ours.
    again = over(kind, own)
    again.load_state_dict(theirs.state_dict())
    state = ours.state_dict()
    for entry in state["state"].values():
        entry |= {key: torch.as_tensor(np.asarray(value)) for key, value in entry.items()}
    theirs.load_state_dict({**theirs.state_dict(), "state": state["state"]})
    set_gradients(own, 10)
    for a, b in zip(own, peer, strict=True):
        b.grad = torch.from_numpy(a.grad.numpy())
    again.step()
    theirs.step()
    same_state(again, theirs)
    for a, b in zip(own, peer, strict=True):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-11, atol=1e-12)


def same_state(ours: Optimizer, theirs: Any) -> None:
    """Equal names, places and numbers, and options that PyTorch has too."""
    own, peer = ours.state_dict(), theirs.state_dict()
    assert set(own["state"]) == set(peer["state"])
    for index, entry in own["state"].items():
        assert set(entry) == set(peer["state"][index])
        for key, value in entry.items():
            np.testing.assert_allclose(np.asarray(value), peer["state"][index][key].numpy(), rtol=1e-11, atol=1e-12)
    for a, b in zip(own["param_groups"], peer["param_groups"], strict=True):
        assert {key: b[key] for key in a} == a
