"""Muon against the published formulas in float64, on polynomials of singular values, and as an optimizer."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import layout, nn, optim
from gpucnn.backends.numpy.muon import orthogonalize
from gpucnn.optim.muon import COEFFICIENTS
from tests.support.tolerance import assert_close

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
SHAPES = [(8, 3, 3, 2), (6, 4), (8, 3, 3, 2), (4, 6), (1, 5), (5, 1), (8, 18), (3, 3, 1, 1)]


def newton_schulz(x: np.ndarray, steps: int, eps: float, coefficients: tuple[float, ...] = COEFFICIENTS) -> np.ndarray:
    """K. Jordan's iteration on one matrix (K, M), with the tall one turned."""
    a, b, c = coefficients
    y = x.T if x.shape[0] > x.shape[1] else x
    y = y / max(math.sqrt(float((y * y).sum())), eps)
    for _ in range(steps):
        gram = np.einsum("ik,jk->ij", y, y)
        y = a * y + np.einsum("ij,jk->ik", b * gram + c * np.einsum("ij,jk->ik", gram, gram), y)
    return y.T if x.shape[0] > x.shape[1] else y


def by_formula(
    start: np.ndarray,
    gradients: list[np.ndarray],
    dtype: type,
    lr: float = 1e-3,
    weight_decay: float = 0.1,
    momentum: float = 0.95,
    nesterov: bool = True,
    eps: float = 1e-7,
    ns_steps: int = 5,
    adjust_lr_fn: str | None = None,
    renormalize: bool = False,
) -> np.ndarray:
    """torch.optim.Muon's documentation, and airbench94's scaling of the weight, all at ``dtype``."""
    w = start.astype(dtype).reshape(len(start), -1)
    buffer = np.zeros_like(w)
    factor = math.sqrt(max(1.0, w.shape[0] / w.shape[1]))
    if adjust_lr_fn == "match_rms_adamw":
        factor = 0.2 * math.sqrt(max(w.shape))
    for gradient in gradients:
        g = gradient.astype(dtype).reshape(w.shape)
        buffer = dtype(momentum) * buffer + dtype(1 - momentum) * g
        d = dtype(momentum) * buffer + dtype(1 - momentum) * g if nesterov else buffer
        if renormalize:
            w = w * dtype(math.sqrt(len(w)) / math.sqrt(float((w * w).sum())))
        w = dtype(1 - lr * weight_decay) * w - dtype(lr * factor) * newton_schulz(d, ns_steps, eps)
    return w.reshape(start.shape)


def arrays(seed: int, shapes: list[tuple[int, ...]] = SHAPES, dtype: type = np.float32) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def parameters_of(values: list[np.ndarray], device: str = "cpu") -> list[nn.Parameter]:
    return [nn.Parameter(gpucnn.tensor(value, device=device)) for value in values]


def give(parameters: list[nn.Parameter], gradients: list[np.ndarray]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gpucnn.tensor(gradient, device=parameter.device)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"lr": 0.1, "nesterov": False, "weight_decay": 0.0},
    {"lr": 0.24, "momentum": 0.6, "ns_steps": 3, "weight_decay": 0.0, "renormalize": True},
    {"lr": 0.05, "adjust_lr_fn": "match_rms_adamw", "momentum": 0.0, "weight_decay": 0.5},
    {"lr": 0.05, "adjust_lr_fn": "original", "ns_steps": 1, "renormalize": True},
    {"lr": 0.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(
    ("device", "dtype"),
    [
        ("cpu", np.float32),
        ("cpu", np.float64),
        ("emulated", np.float32),
        pytest.param("cuda", np.float32, marks=pytest.mark.gpu),
    ],
)
def test_steps_follow_the_formula(options: dict[str, Any], device: str, dtype: type) -> None:
    start, steps = arrays(0, dtype=dtype), 2 if device == "emulated" else 4
    parameters = parameters_of(start, device)
    optimizer = optim.Muon(parameters, **options)
    gradients = [arrays(10 + step, dtype=dtype) for step in range(steps)]
    for step in range(steps):
        give(parameters, gradients[step])
        optimizer.step()
    for index, parameter in enumerate(parameters):
        given = [gradients[step][index] for step in range(steps)]
        wide = np.longdouble if dtype is np.float64 else np.float64
        expected = by_formula(start[index], given, wide, **options)
        plain = by_formula(start[index], given, dtype, **options)
        steps_taken = np.linalg.norm(plain - start[index])  # the scale of what was added to the weight
        assert parameter.device.type == device
        assert_close(parameter.numpy(), expected, np.abs(start[index]) + steps_taken, plain, what=str(parameter.shape))


@pytest.mark.parametrize("size", [1.0, 1e3])
def test_gradients_whose_squares_no_float16_holds_move_the_weight_as_others_do(size: float) -> None:
    start, direction = arrays(4, [(5, 7)])[0], arrays(5, [(5, 7)])[0]
    options: dict[str, Any] = {"lr": 0.24, "momentum": 0.6, "ns_steps": 3, "weight_decay": 0.0, "renormalize": True}
    gradient = (size * direction).astype(np.float16)
    (parameter,) = parameters_of([start.astype(np.float16)])
    give([parameter], [gradient])
    optim.Muon([parameter], **options).step()
    expected = by_formula(start.astype(np.float16), [gradient], np.float64, **options)
    assert parameter.dtype == np.float16
    np.testing.assert_allclose(parameter.numpy(), expected, atol=0.01)  # rounded some ten times to 2**-11 of about 1


def test_singular_values_go_through_the_polynomial() -> None:
    rng = np.random.default_rng(3)
    u, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    v, _ = np.linalg.qr(rng.standard_normal((20, 6)))
    values = np.array([3.0, 2.0, 1.0, 0.5, 0.1, 0.0])
    backend = gpucnn.tensor([0.0], device="cpu").backend
    x = ((u * values) @ v.T)[None]
    a, b, c = COEFFICIENTS
    mapped = values / math.sqrt((values**2).sum())
    for _ in range(4):
        mapped = a * mapped + b * mapped**3 + c * mapped**5
    result = orthogonalize(backend, x.copy(), COEFFICIENTS, 4, 1e-7)[0]
    np.testing.assert_allclose(result, (u * mapped) @ v.T, atol=1e-13)
    assert np.all((mapped[:4] > 0.6) & (mapped[:4] < 1.3)) and mapped[5] == 0.0


def test_many_steps_of_the_convergent_cubic_give_an_orthogonal_matrix() -> None:
    backend = gpucnn.tensor([0.0], device="cpu").backend
    x = np.random.default_rng(1).standard_normal((3, 5, 40))
    result = orthogonalize(backend, x, (1.5, -0.5, 0.0), 40, 1e-7)
    for matrix in result:
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(5), atol=1e-13)


def test_on_cpu_one_batch_for_each_shape_and_set_of_options(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = parameters_of(arrays(0))
    backend = parameters[0].backend
    batches: list[tuple[int, ...]] = []
    matmul = type(backend).matmul

    def counted(self: Any, a: Any, b: Any, *args: Any, **options: Any) -> Any:
        batches.append(a.shape)
        return matmul(self, a, b, *args, **options)

    monkeypatch.setattr(type(backend), "matmul", counted)
    give(parameters, arrays(1))
    optim.Muon([{"params": parameters[:3]}, {"params": parameters[3:], "ns_steps": 1}], ns_steps=1).step()
    # (8, 3, 3, 2) twice, but (8, 18) too: one shape to the iteration. (6, 4) and (4, 6) are not: they turn differently.
    assert batches[::3] == [(3, 8, 18), (1, 4, 6), (1, 4, 6), (1, 1, 5), (1, 1, 5), (1, 3, 3)]


def test_groups_of_other_coefficients_go_their_own_way() -> None:
    start, gradients = arrays(0, [(3, 5)] * 2), arrays(1, [(3, 5)] * 2)
    together, alone = parameters_of(start), parameters_of(start)
    groups = [{"params": together[0]}, {"params": together[1], "ns_coefficients": (1.5, -0.5, 0.0)}]
    give(together, gradients)
    give(alone, gradients)
    optim.Muon(groups).step()
    optim.Muon(alone[:1]).step()
    optim.Muon(alone[1:], ns_coefficients=(1.5, -0.5, 0.0)).step()
    for a, b in zip(together, alone, strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_a_filter_has_the_same_bits_in_a_batch_as_alone() -> None:
    values, gradients = arrays(0, [(70, 40, 3, 3)] * 3), arrays(1, [(70, 40, 3, 3)] * 3)
    together, alone = parameters_of(values), parameters_of(values)
    give(together, gradients)
    give(alone, gradients)
    optim.Muon(together, renormalize=True).step()
    for parameter in alone:
        optim.Muon([parameter], renormalize=True).step()
    for a, b in zip(together, alone, strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    from gpucnn.backends.numpy.threads import set_thread_count, thread_count

    before, results = thread_count(), []
    try:
        for threads in (1, 2, 3):
            set_thread_count(threads)
            parameters = parameters_of(arrays(0, [(130, 40, 3, 3)] * 3))
            give(parameters, arrays(1, [(130, 40, 3, 3)] * 3))
            optim.Muon(parameters).step()
            results.append([p.numpy() for p in parameters])
    finally:
        set_thread_count(before)
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_any_memory_order_gives_the_same_update() -> None:
    rng = np.random.default_rng(0)
    value, gradient = rng.standard_normal((6, 4, 3, 2)), rng.standard_normal((6, 4, 3, 2))
    expected = by_formula(value, [gradient] * 2, np.float64)
    orders = [(0, 1, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0), (1, 3, 0, 2)]
    for order in orders:
        for gradient_order in orders:
            inverse, back = np.argsort(order), np.argsort(gradient_order)
            parameter = nn.Parameter(gpucnn.tensor([0.0], device="cpu", dtype=np.float64))
            parameter.data = value.transpose(order).copy().transpose(inverse)
            parameter.grad = gpucnn.Tensor(gradient.transpose(gradient_order).copy().transpose(back), "cpu")
            optimizer = optim.Muon([parameter])
            optimizer.step()
            optimizer.step()
            np.testing.assert_allclose(parameter.numpy(), expected, rtol=1e-12, atol=1e-13)
            assert parameter.data.strides == value.transpose(order).copy().transpose(inverse).strides


def test_renormalized_weights_have_the_norm_of_an_orthogonal_matrix() -> None:
    parameters = parameters_of([v * 7 for v in arrays(0)])
    give(parameters, arrays(1))
    optim.Muon(parameters, lr=0.0, renormalize=True).step()
    for parameter in parameters:
        assert np.linalg.norm(parameter.numpy()) == pytest.approx(math.sqrt(parameter.shape[0]), rel=1e-6)


def test_no_gradient_a_zero_one_and_zero_weights() -> None:
    parameters = parameters_of([np.zeros((3, 4), np.float32), *arrays(0, [(3, 4), (3, 4), (0, 4)])])
    start = [p.numpy() for p in parameters]
    give(parameters, [np.zeros((3, 4), np.float32), np.zeros((3, 4), np.float32), *arrays(1, [(3, 4), (0, 4)])])
    parameters[2].grad = None
    optimizer = optim.Muon(parameters, weight_decay=0.0, renormalize=False)
    optimizer.step()
    for index in range(4):
        assert np.array_equal(parameters[index].numpy(), start[index])
    assert set(optimizer.state) == {parameters[0], parameters[1]}
    parameters[0].grad = None
    parameters[0].grad = gpucnn.tensor(np.ones((3, 4), np.float32), device="cpu")
    optim.Muon([parameters[0]], renormalize=True).step()
    assert np.isfinite(parameters[0].numpy()).all() and parameters[0].numpy().any()


def test_a_step_copies_nothing_to_change_its_memory_order_and_counts_as_a_change() -> None:
    layer = nn.Conv2d(3, 4, 3, device="cpu")
    loss = layer(gpucnn.randn(2, 3, 5, 5, device="cpu")).sum()
    loss.backward(retain_graph=True)
    optimizer = optim.Muon([layer.weight])
    with layout.count_copies() as copies:
        optimizer.step()
    assert copies == [0]
    x = gpucnn.randn(2, 3, 5, 5, device="cpu", requires_grad=True)
    again = layer(x).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified in place"):
        again.backward()


@pytest.mark.parametrize("device", ["cpu", "emulated", CUDA])
def test_a_run_goes_on_from_its_state_bit_for_bit(device: str) -> None:
    options = {"lr": 0.1, "momentum": 0.6, "ns_coefficients": (3.0, -4.0, 2.0), "ns_steps": 2, "renormalize": True}
    straight = parameters_of(arrays(0, SHAPES[:4]), device)
    optimizer = optim.Muon(straight, **options)
    for step in range(2):
        give(straight, arrays(20 + step, SHAPES[:4]))
        optimizer.step()
    state, weights = optimizer.state_dict(), [p.numpy() for p in straight]
    groups = json.loads(json.dumps(state["param_groups"]))  # as a checkpoint keeps them: a tuple comes back as a list
    saved = {i: {"momentum_buffer": entry["momentum_buffer"].numpy()} for i, entry in state["state"].items()}
    give(straight, arrays(30, SHAPES[:4]))
    optimizer.step()

    resumed = parameters_of(weights, device)
    other = optim.Muon(resumed)
    other.load_state_dict({"state": saved, "param_groups": groups})
    give(resumed, arrays(30, SHAPES[:4]))
    other.step()
    for a, b in zip(straight, resumed, strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_momentum_follows_a_module_that_moves() -> None:
    layer = nn.Linear(4, 3, bias=False, device="cpu")
    optimizer = optim.Muon(layer.parameters())
    for dtype in (np.float32, np.float64):
        layer.to(dtype)
        layer.weight.grad = gpucnn.tensor(np.ones((3, 4), dtype), device="cpu")
        optimizer.step()
    assert optimizer.state[layer.weight]["momentum_buffer"].dtype == np.float64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr must be a finite number, not negative, got -1.0"),
        ({"weight_decay": math.nan}, "weight_decay must be"),
        ({"momentum": 1.0}, "momentum must be below 1, got 1.0"),
        ({"eps": -1e-7}, "eps must be"),
        ({"ns_steps": 100}, "ns_steps must be an int from 0 to 99, got 100"),
        ({"ns_steps": 2.0}, "ns_steps must be an int"),
        ({"ns_steps": True}, "ns_steps must be an int"),
        ({"ns_coefficients": (1.0, 2.0)}, r"ns_coefficients must be three finite numbers, got \(1.0, 2.0\)"),
        ({"ns_coefficients": (1.0, 2.0, math.inf)}, "ns_coefficients must be three finite numbers"),
        ({"ns_coefficients": 3.0}, "ns_coefficients must be three finite numbers"),
        ({"adjust_lr_fn": "rms"}, "adjust_lr_fn must be None, 'original' or 'match_rms_adamw', got 'rms'"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"Muon: {message}"):
        optim.Muon(parameters_of(arrays(0)), **options)


def test_biases_want_another_optimizer() -> None:
    with pytest.raises(ValueError, match=r"Muon: parameters must have two axes or more .* got shape \(4,\)"):
        optim.Muon(nn.Linear(3, 4, device="cpu").parameters())
