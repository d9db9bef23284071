"""Norms of gradients, and their clipping, against plain NumPy in float64 and PyTorch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import nn
from gpucnn.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm
from tests.support.tolerance import assert_close

SHAPES = [(5, 3, 3, 2), (4, 7), (1,), (0, 3), (3, 2049), (), (2, 1, 3, 1)]
ORDERS = [1, 2.0, math.inf, 3.0, 0.5, 2.5]
EVERYWHERE = pytest.mark.parametrize("device", ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)])


def draw(seed: int = 0, dtype: Any = np.float32, device: str = "cpu") -> list[np.ndarray]:
    """Of these shapes, and one that is larger than a piece of work on the CPU."""
    rng = np.random.default_rng(seed)
    shapes = [*SHAPES, (140001,) if device == "cpu" else (4097,)]
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def with_gradients(gradients: list[np.ndarray], device: str = "cpu") -> list[nn.Parameter]:
    """Parameters with these gradients, and one in front of them that has none."""
    parameters = [nn.Parameter(gpucnn.zeros(2, device=device))]
    for gradient in gradients:
        parameters.append(nn.Parameter(gpucnn.tensor(np.zeros_like(gradient), device=device)))
        parameters[-1].grad = gpucnn.tensor(gradient, device=device)
    return parameters


def norm_of(arrays: list[np.ndarray], order: float, real: Any = np.float64) -> Any:
    """All elements in a row, by numpy.linalg.norm's formula in ``real``."""
    values = np.abs(np.concatenate([np.ravel(a) for a in arrays])).astype(real)
    return values.max() if math.isinf(order) else np.sum(values ** real(order)) ** real(1 / order)


@EVERYWHERE
@pytest.mark.parametrize("order", ORDERS)
def test_the_norm_and_the_clipped_gradients(order: float, device: str) -> None:
    gradients = draw(device=device)
    exact = norm_of(gradients, order)
    for share in (0.25, 3.0):
        parameters = with_gradients(gradients, device)
        norm = clip_grad_norm_(parameters, share * exact, order)
        assert norm.shape == () and norm.device == parameters[0].device and norm.dtype == np.float32
        assert_close(
            norm.numpy(), np.asarray(exact), np.asarray(exact), np.asarray(norm_of(gradients, order, np.float32))
        )
        factor = min(1.0, share * exact / (exact + 1e-6))
        assert parameters[0].grad is None
        for parameter, gradient in zip(parameters[1:], gradients, strict=True):
            if factor == 1:
                assert np.array_equal(parameter.grad.numpy(), gradient)
            else:
                np.testing.assert_allclose(parameter.grad.numpy(), factor * gradient.astype(np.float64), rtol=2e-6)


@EVERYWHERE
def test_values_are_clamped(device: str) -> None:
    gradients = draw(device=device)
    gradients[1][0, :4] = [math.nan, math.inf, -math.inf, 0.5]
    parameters = with_gradients(gradients, device)
    clip_grad_value_(parameters, 0.5)
    for parameter, gradient in zip(parameters[1:], gradients, strict=True):
        np.testing.assert_array_equal(parameter.grad.numpy(), np.clip(gradient, -0.5, 0.5))


@EVERYWHERE
@pytest.mark.parametrize("order", [1.0, 2.0, math.inf, 3.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_norms_that_are_not_finite(order: float, bad: float, device: str) -> None:
    gradients = draw(device=device)
    gradients[4][1, 700] = bad
    parameters = with_gradients(gradients, device)
    with pytest.raises(RuntimeError, match=f"clip_grad_norm_: the norm of order {order} of the gradients is {bad}"):
        clip_grad_norm_(parameters, 1.0, order, error_if_nonfinite=True)
    for parameter, gradient in zip(parameters[1:], gradients, strict=True):
        np.testing.assert_array_equal(parameter.grad.numpy(), gradient)
    norm = clip_grad_norm_(parameters, 1.0, order).item()
    assert math.isnan(norm) if math.isnan(bad) else norm == math.inf
    for parameter in parameters[1:]:
        assert not parameter.grad.numpy().any() or math.isnan(bad) or parameter.grad.shape == (3, 2049)


def test_one_launch_for_the_gradients_of_a_device() -> None:
    parameters = with_gradients(draw(device="emulated"), "emulated")
    clip_grad_norm_(parameters, 1.0)
    with parameters[0].backend.engine.record() as launches:
        clip_grad_norm_(parameters, 1.0)
        clip_grad_value_(parameters, 1.0)
    assert [launch.kernel for launch in launches] == ["total_norm", "clip_all", "clamp_all"]


def test_clipping_is_captured_with_its_step() -> None:
    """Nothing of it is read on the host."""

    def run(captured: bool) -> list[np.ndarray]:
        parameter = gpucnn.tensor(np.linspace(-1, 3, 11, dtype=np.float32), device="emulated", requires_grad=True)

        def step() -> gpucnn.Tensor:
            parameter.grad = None
            (parameter * parameter).sum().backward()
            norm = clip_grad_norm_([parameter], 0.5)
            optimizer.step()
            return norm

        optimizer = gpucnn.optim.SGD([parameter], lr=0.1)
        call = step
        if captured:
            call = gpucnn.cuda.graph(step, device="emulated")
        else:
            call()
        norms = [call().numpy() for _ in range(2)]
        return [*norms, parameter.numpy()]

    for left, right in zip(run(True), run(False), strict=True):
        np.testing.assert_array_equal(left, right)


def test_the_bits_do_not_depend_on_the_number_of_threads() -> None:
    from gpucnn.backends.numpy.threads import set_thread_count, thread_count

    before, norms = thread_count(), set()
    try:
        for count in (1, 2, 5):
            set_thread_count(count)
            norms |= {clip_grad_norm_(with_gradients(draw()), 1.0, order).item() for order in (2.0, 3.0)}
    finally:
        set_thread_count(before)
    assert len(norms) == 2


def test_float64_and_several_devices_together() -> None:
    gradients = draw()
    parameters = with_gradients(gradients[:2]) + with_gradients(gradients[2:4], "emulated")
    parameters += with_gradients([g.astype(np.float64) for g in gradients[4:]])
    for order in ORDERS:
        exact = norm_of(gradients, order)
        assert get_total_norm([p.grad for p in parameters if p.grad is not None], order).item() == pytest.approx(exact)
    exact = norm_of(gradients, 2)
    assert clip_grad_norm_(parameters, 0.5).item() == pytest.approx(exact)
    for parameter, gradient in zip([p for p in parameters if p.grad is not None], gradients, strict=True):
        np.testing.assert_allclose(parameter.grad.numpy(), gradient * (0.5 / exact), rtol=1e-5)
    double = with_gradients([np.array([3.0, 4.0])])
    norm = clip_grad_norm_(double, 1.0)
    assert norm.dtype == np.float64 and norm.item() == 5.0
    np.testing.assert_allclose(double[1].grad.numpy(), np.array([3.0, 4.0]) / 5.000001, rtol=1e-15)


@EVERYWHERE
def test_gradients_in_any_memory_order(device: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 2, 4, 5)).astype(np.float32)
    backend = gpucnn.zeros(1, device=device).backend
    with backend.context():
        arrays = [
            backend.xp.array(values),
            backend.xp.array(values.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0),
            backend.xp.broadcast_to(backend.xp.array(values[:, :1]), (3, 2, 4, 5)),
            backend.xp.array(np.repeat(values, 2, axis=3))[:, :, :, ::2],
        ]
    parameters = []
    for array in arrays:
        parameters.append(nn.Parameter(gpucnn.zeros(3, 2, 4, 5, device=device)))
        parameters[-1].grad = gpucnn.Tensor(array, device)
    before = [p.grad.numpy() for p in parameters]
    norm = clip_grad_norm_(parameters, 1.0).item()
    assert norm == pytest.approx(norm_of(before, 2), rel=1e-6)
    clip_grad_value_(parameters, 0.05)
    for parameter, gradient in zip(parameters, before, strict=True):
        wanted = np.clip(gradient / (norm + 1e-6), -0.05, 0.05)
        np.testing.assert_allclose(parameter.grad.numpy(), wanted, rtol=1e-5)


def test_no_gradients_have_no_norm() -> None:
    empty = nn.Parameter(gpucnn.zeros(3, device="cpu"))
    assert clip_grad_norm_([empty], 1.0).item() == clip_grad_norm_([], 1.0).item() == 0.0
    assert clip_grad_norm_(with_gradients([np.zeros((0, 3), np.float32)], "emulated"), 1.0, 3).item() == 0.0
    assert get_total_norm([]).shape == ()
    zeros = with_gradients([np.zeros(3, np.float32)])
    assert clip_grad_norm_(zeros, 0.0).item() == 0.0 and not zeros[1].grad.numpy().any()


def test_the_largest_may_be_asked_for_by_its_name() -> None:
    parameters = with_gradients([np.array([3.0, -4.0], np.float32)])
    assert clip_grad_norm_(parameters, 2.0, "inf").item() == 4.0
    assert parameters[1].grad.tolist() == pytest.approx([1.5, -2.0])


def test_an_infinite_limit_only_measures() -> None:
    parameters = with_gradients([np.array([math.inf, 1.0], np.float32)])
    assert clip_grad_norm_(iter(parameters), math.inf).item() == math.inf
    assert parameters[1].grad.tolist() == [math.inf, 1.0]


def test_one_parameter_goes_without_a_list() -> None:
    parameter = with_gradients([np.array([3.0, 4.0], np.float32)])[1]
    assert clip_grad_norm_(parameter, 1.0).item() == 5.0
    clip_grad_value_(parameter, 0.7)
    np.testing.assert_allclose(parameter.grad.numpy(), [0.6, 0.7], rtol=1e-6)


def test_clipping_counts_as_a_change_in_place() -> None:
    parameter = with_gradients([np.array([3.0, 4.0], np.float32)])[1]
    for clip in (lambda: clip_grad_norm_(parameter, 1.0), lambda: clip_grad_value_(parameter, 1.0)):
        before = parameter.grad.version.count
        clip()
        assert parameter.grad.version.count == before + 1


def test_wrong_arguments() -> None:
    parameters = with_gradients(draw())
    for limit in (-1.0, math.nan, "1"):
        with pytest.raises(ValueError, match="clip_grad_norm_: max_norm must be a number, not negative"):
            clip_grad_norm_(parameters, limit)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="clip_grad_value_: clip_value must be a number, not negative"):
            clip_grad_value_(parameters, limit)  # type: ignore[arg-type]
    for order in (0, -math.inf, math.nan, "fro"):
        with pytest.raises(ValueError, match="norm_type must be a number above 0"):
            clip_grad_norm_(parameters, 1.0, order)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="clip_grad_norm_: expected tensors, got ndarray"):
        clip_grad_norm_([np.zeros(3)], 1.0)  # type: ignore[list-item]


@pytest.mark.peers
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("limit", [0.0, 0.3, 1e9])
def test_clipping_is_pytorchs(order: float, limit: float) -> None:
    import torch

    gradients = draw(dtype=np.float64)
    own = with_gradients(gradients)
    peer = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.float64)) for g in gradients]
    for p, gradient in zip(peer, gradients, strict=True):
        p.grad = torch.from_numpy(gradient.copy())
    # PyTorch has no infinity norm of an empty tensor.
    kept = [p for p in peer if p.numel()]
    norm = clip_grad_norm_(own, limit, order)
    assert norm.item() == pytest.approx(torch.nn.utils.clip_grad_norm_(kept, limit, order).item(), rel=1e-12)
    for a, b in zip(own[1:], peer, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-12)
    clip_grad_value_(own, 1e-3)
    torch.nn.utils.clip_grad_value_(peer, 1e-3)
    for a, b in zip(own[1:], peer, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-12)
