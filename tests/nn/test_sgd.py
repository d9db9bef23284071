"""SGD against PyTorch's documented formulas in float64, and the optimizer base around it."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpucnn
from gpucnn import nn
from gpucnn.optim import SGD

SHAPES = [(5, 3, 3, 2), (4, 7), (7,), (1, 1, 1, 1), (2, 1, 3, 1)]
STEPS = 5


def make_parameters(dtype: type = np.float64, seed: int = 0) -> list[nn.Parameter]:
    rng = np.random.default_rng(seed)
    return [nn.Parameter(gpucnn.tensor(rng.standard_normal(s).astype(dtype), device="cpu")) for s in SHAPES]


def gradients_at(step: int) -> list[np.ndarray]:
    rng = np.random.default_rng(100 + step)
    return [rng.standard_normal(shape) for shape in SHAPES]


def set_gradients(parameters: list[nn.Parameter], step: int) -> None:
    for parameter, gradient in zip(parameters, gradients_at(step), strict=True):
        parameter.grad = gpucnn.tensor(gradient.astype(parameter.dtype), device="cpu")


def by_formula(
    start: np.ndarray,
    gradients: list[np.ndarray],
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> np.ndarray:
    """torch.optim.SGD's documentation, line by line, float64."""
    theta, b = start.astype(np.float64).copy(), None
    for gradient in gradients:
        g = gradient.astype(np.float64)
        if weight_decay != 0:
            g = g + weight_decay * theta
        if momentum != 0:
            b = g if b is None else momentum * b + (1 - dampening) * g
            g = g + momentum * b if nesterov else b
        theta = theta - lr * g
    return theta


OPTIONS = [
    {"lr": 0.1},
    {"lr": 0.1, "weight_decay": 0.3},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "dampening": 0.4, "weight_decay": 0.05},
    {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.05},
    {"lr": 0.0, "momentum": 0.9},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_steps_follow_the_formula(options: dict, dtype: type) -> None:
    parameters = make_parameters(dtype)
    start = [p.numpy() for p in parameters]
    optimizer = SGD(parameters, **options)
    for step in range(STEPS):
        set_gradients(parameters, step)
        optimizer.step()
    for index, parameter in enumerate(parameters):
        expected = by_formula(
            start[index], [gradients_at(step)[index].astype(dtype) for step in range(STEPS)], **options
        )
        scale = np.abs(start[index]) + 5 * STEPS  # no value on the way is larger
        assert np.all(np.abs(parameter.numpy() - expected) <= 4 * np.finfo(dtype).eps * scale)
        assert parameter.dtype == dtype


def test_one_launch_for_groups_of_any_options(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = make_parameters()
    backend = parameters[0].backend
    sizes: list[int] = []
    step = backend.sgd_step

    def counted(*args: object) -> None:
        sizes.append(len(args[0]))  # type: ignore[arg-type]
        step(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(backend, "sgd_step", counted)
    optimizer = SGD(
        [
            {"params": parameters[:2]},
            {"params": parameters[2:3], "weight_decay": 0.1},
            {"params": parameters[3:], "lr": 0.2},
        ],
        lr=0.1,
    )
    set_gradients(parameters, 0)
    optimizer.step()
    assert sizes == [5]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_weight_decays_of_one_launch_stay_with_their_parameters_on_the_kernels(momentum: float) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in [(5, 7), (0,), (2100,), (3, 2, 2, 2)]]
    decays = [0.5, 0.1, 0.0, 0.25]
    parameters = [gpucnn.tensor(a, device="emulated", requires_grad=True) for a in arrays]
    optimizer = SGD(
        [{"params": [p], "weight_decay": d} for p, d in zip(parameters, decays, strict=True)], lr=0.1, momentum=momentum
    )
    gradients = [rng.standard_normal(a.shape).astype(np.float32) for a in arrays]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gpucnn.tensor(gradient, device="emulated")
    with parameters[0].backend.engine.record() as launches:
        optimizer.step()
        optimizer.step()
    assert len(launches) == 2
    for parameter, start, gradient, decay in zip(parameters, arrays, gradients, decays, strict=True):
        expected = by_formula(start, [gradient, gradient], lr=0.1, momentum=momentum, weight_decay=decay)
        np.testing.assert_allclose(parameter.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_groups_keep_their_own_options() -> None:
    parameters = make_parameters()
    start = [p.numpy() for p in parameters]
    own = [{"lr": 0.1, "momentum": 0.9}, {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.5}]
    optimizer = SGD(
        [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.02, "weight_decay": 0.5}], lr=0.1, momentum=0.9
    )
    for step in range(3):
        set_gradients(parameters, step)
        optimizer.step()
    for index, parameter in enumerate(parameters):
        expected = by_formula(start[index], [gradients_at(step)[index] for step in range(3)], **own[index >= 2])
        np.testing.assert_allclose(parameter.numpy(), expected, rtol=1e-13, atol=1e-13)


def test_a_parameter_without_gradient_is_left_alone_and_begins_its_momentum_late() -> None:
    parameters = make_parameters()
    start = [p.numpy() for p in parameters]
    optimizer = SGD(parameters, lr=0.1, momentum=0.9, dampening=0.5)
    set_gradients(parameters, 0)
    parameters[1].grad = None
    optimizer.step()
    assert np.array_equal(parameters[1].numpy(), start[1])
    set_gradients(parameters, 1)
    optimizer.step()
    options = {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}
    late = by_formula(start[1], [gradients_at(1)[1]], **options)
    usual = by_formula(start[0], [gradients_at(0)[0], gradients_at(1)[0]], **options)
    np.testing.assert_allclose(parameters[1].numpy(), late, rtol=1e-14)
    np.testing.assert_allclose(parameters[0].numpy(), usual, rtol=1e-13, atol=1e-14)


def test_a_gradient_in_another_memory_order_is_matched() -> None:
    rng = np.random.default_rng(0)
    values, gradient = rng.standard_normal((4, 3, 2, 5)), rng.standard_normal((4, 3, 2, 5))
    parameter = nn.Parameter(gpucnn.tensor(values, device="cpu"))
    parameter.grad = gpucnn.Tensor(gradient.copy(), "cpu")  # C order; the parameter lies channels-last
    assert parameter.data.strides != parameter.grad.data.strides
    SGD([parameter], lr=1.0).step()
    np.testing.assert_allclose(parameter.numpy(), values - gradient, rtol=1e-15)


def test_a_filter_of_an_nhwc_layer_is_updated() -> None:
    layer = nn.Conv2d(3, 4, (2, 3), data_format="NHWC", device="cpu")
    before = layer.weight.numpy()
    layer(gpucnn.randn(2, 5, 5, 3, device="cpu")).sum().backward()
    gradient = layer.weight.grad.numpy()
    SGD(layer.parameters(), lr=0.5, momentum=0.9).step()
    np.testing.assert_allclose(layer.weight.numpy(), before - 0.5 * gradient, rtol=1e-6, atol=1e-6)


def test_a_step_counts_as_a_change_in_place() -> None:
    parameter = nn.Parameter(gpucnn.tensor([2.0], device="cpu"))
    loss = (parameter * parameter).sum()
    parameter.grad = gpucnn.ones(1, device="cpu")
    SGD([parameter], lr=0.1).step()
    with pytest.raises(RuntimeError, match="modified in place"):
        loss.backward()


def test_step_with_a_closure_returns_its_loss() -> None:
    parameter = nn.Parameter(gpucnn.tensor([2.0], device="cpu"))
    optimizer = SGD([parameter], lr=0.25)

    def closure() -> gpucnn.Tensor:
        optimizer.zero_grad()
        loss = (parameter * parameter).sum()
        loss.backward()
        return loss

    with gpucnn.no_grad():
        assert optimizer.step(closure).item() == 4.0
    assert parameter.item() == 1.0


def test_zero_grad() -> None:
    parameters = make_parameters()
    optimizer = SGD(parameters, lr=0.1)
    set_gradients(parameters, 0)
    kept = parameters[0].grad
    optimizer.zero_grad(set_to_none=False)
    assert kept is parameters[0].grad and not kept.numpy().any()
    optimizer.zero_grad()
    assert all(p.grad is None for p in parameters)


def test_momentum_follows_a_module_that_moves() -> None:
    parameter = nn.Parameter(gpucnn.tensor([1.0], device="cpu"))
    holder = nn.Module()
    holder.weight = parameter
    optimizer = SGD([parameter], lr=0.5, momentum=0.5)
    for dtype in (np.float32, np.float64):
        holder.to(dtype)
        parameter.grad = gpucnn.tensor(np.array([1.0], dtype), device="cpu")
        optimizer.step()
    assert parameter.item() == 1.0 - 0.5 - 0.5 * 1.5
    assert optimizer.state[parameter]["momentum_buffer"].dtype == np.float64


# ---- construction ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -0.1}, "lr must be a finite number, not negative, got -0.1"),
        ({"lr": math.nan}, "lr must be a finite number"),
        ({"momentum": -1.0}, "momentum must be"),
        ({"weight_decay": -1e-4}, "weight_decay must be"),
        ({"dampening": math.inf}, "dampening must be"),
        ({"nesterov": True}, "nesterov needs a momentum above 0"),
        ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov needs a momentum above 0 and no dampening"),
    ],
)
def test_options_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"SGD: {message}"):
        SGD(make_parameters(), **options)
    with pytest.raises(ValueError, match=f"SGD: {message}"):
        SGD([{"params": make_parameters(), **options}])


def test_parameters_that_cannot_be_optimized() -> None:
    parameter = nn.Parameter(gpucnn.ones(2, device="cpu"))
    with pytest.raises(ValueError, match="empty parameter list"):
        SGD([])
    with pytest.raises(TypeError, match="iterable of tensors"):
        SGD(parameter)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected tensors to optimize, got ndarray"):
        SGD([np.zeros(3)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="leaf"):
        SGD([parameter * 2.0])
    with pytest.raises(ValueError, match=r"shape \(2,\) appears twice"):
        SGD([{"params": parameter}, {"params": [parameter]}])
    with pytest.raises(ValueError, match="unknown option 'momentun'; known are lr, momentum"):
        SGD([{"params": [parameter], "momentun": 0.9}])
    for unordered in ([{"params": {parameter}}], {parameter}, frozenset([parameter])):
        with pytest.raises(TypeError, match="SGD: parameters must come in an order that stays the same, got a set"):
            SGD(unordered)
    optimizer = SGD([parameter], lr=0.3)
    optimizer.add_param_group({"params": gpucnn.ones(1, device="cpu"), "lr": 0.5})
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.5]


def test_repr_lists_the_groups() -> None:
    text = repr(SGD(make_parameters(), lr=0.5))
    assert text.startswith("SGD (\nParameter Group 0\n    dampening: 0.0\n    lr: 0.5\n") and text.endswith("\n)")


# ---- state -----------------------------------------------------------------------------------------------------------


def groups_of(parameters: list[nn.Parameter]) -> list[dict]:
    return [{"params": parameters[:2]}, {"params": parameters[2:], "weight_decay": 0.1}]


def test_a_run_goes_on_from_its_state_bit_for_bit() -> None:
    straight = make_parameters(np.float32)
    optimizer = SGD(groups_of(straight), lr=0.1, momentum=0.9)
    for step in range(3):
        set_gradients(straight, step)
        optimizer.step()
    state = optimizer.state_dict()
    assert state["param_groups"][1]["params"] == [2, 3, 4] and state["param_groups"][1]["weight_decay"] == 0.1
    assert set(state["state"]) == {0, 1, 2, 3, 4}
    weights = [p.numpy() for p in straight]
    as_arrays = {
        **state,
        "state": {i: {"momentum_buffer": e["momentum_buffer"].numpy()} for i, e in state["state"].items()},
    }
    set_gradients(straight, 3)
    optimizer.step()

    resumed = make_parameters(np.float32, seed=9)
    for parameter, value in zip(resumed, weights, strict=True):
        with gpucnn.no_grad():
            parameter.copy_(value)
    other = SGD(groups_of(resumed), lr=5.0)
    other.load_state_dict(as_arrays)
    set_gradients(resumed, 3)
    other.step()
    for a, b in zip(straight, resumed, strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    parameters = make_parameters()
    donor = SGD(groups_of(parameters), lr=0.1, momentum=0.9)
    set_gradients(parameters, 0)
    donor.step()
    good = donor.state_dict()
    target = SGD(groups_of(make_parameters()), lr=0.7)

    def altered(**changes: object) -> dict:
        return {**good, **changes}

    swapped = {**good["state"], 0: good["state"][1]}
    negative = [{**group, "lr": -1.0} for group in good["param_groups"]]
    repeated = [{**group, "params": [0] * len(group["params"])} for group in good["param_groups"]]
    for state, message in (
        (
            altered(param_groups=good["param_groups"][:1]),
            r"parameter groups of \[2\] parameters, this optimizer of \[2, 3\]",
        ),
        (altered(state=swapped), r"momentum_buffer of parameter 0 has shape \(4, 7\), the parameter \(5, 3, 3, 2\)"),
        (altered(state={**good["state"], 17: {}}), "numbers its parameters"),
        (altered(param_groups=repeated), "numbers its parameters"),
        (altered(param_groups=negative), "lr must be"),
        ({"state": {}}, "not the state of an optimizer"),
        ([], "not the state of an optimizer"),
    ):
        with pytest.raises(ValueError, match=message):
            target.load_state_dict(state)
        assert target.param_groups[0]["lr"] == 0.7 and not target.state


def test_a_step_that_overflows_is_no_warning() -> None:
    parameter = nn.Parameter(gpucnn.tensor(np.full(4, -3e38, np.float32), device="cpu"))
    parameter.grad = gpucnn.tensor(np.full(4, 3e38, np.float32), device="cpu")
    SGD([parameter], lr=1e30).step()
    np.testing.assert_array_equal(parameter.numpy(), np.full(4, -np.inf))
