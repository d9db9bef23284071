"""BatchNorm1d and BatchNorm2d: their modes, their buffers, their state and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpucnn
import gpucnn.functional as F
from gpucnn import nn

DEVICES = ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)]


def batch(seed: int, *shape: int, device: str = "cpu") -> gpucnn.Tensor:
    values = 2 + 3 * np.random.default_rng(seed).standard_normal(shape)
    return gpucnn.tensor(values.astype(np.float32), device=device)


def moments(x: gpucnn.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased variance of each channel, in float64."""
    rows = np.moveaxis(x.numpy().astype(np.float64), 1, -1).reshape(-1, x.shape[1])
    return rows.mean(0), rows.var(0, ddof=1)


@pytest.mark.parametrize("device", DEVICES)
def test_training_normalises_by_the_batch_and_evaluation_by_what_was_seen(device: str) -> None:
    layer = nn.BatchNorm2d(3, eps=1e-3, momentum=0.25, device=device)
    first, second = batch(0, 4, 3, 5, 6, device=device), batch(1, 2, 3, 5, 6, device=device)
    y = layer(first).numpy()
    np.testing.assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-6)
    variance = first.numpy().astype(np.float64).var((0, 2, 3))
    np.testing.assert_allclose(y.astype(np.float64).var((0, 2, 3)), variance / (variance + 1e-3), rtol=1e-6)
    layer(second)
    expected = [np.zeros(3), np.ones(3)]
    for seen in (first, second):
        expected = [0.75 * old + 0.25 * new for old, new in zip(expected, moments(seen), strict=True)]
    np.testing.assert_allclose(layer.running_mean.numpy(), expected[0], rtol=1e-6)
    np.testing.assert_allclose(layer.running_var.numpy(), expected[1], rtol=1e-6)
    assert layer.num_batches_tracked.item() == 2
    before = {name: value.numpy().tobytes() for name, value in layer.state_dict().items()}
    z = layer.eval()(first).numpy()
    shape = (1, 3, 1, 1)
    exact = (first.numpy() - expected[0].reshape(shape)) / np.sqrt(expected[1].reshape(shape) + 1e-3)
    np.testing.assert_allclose(z, exact, rtol=1e-5, atol=1e-6)
    assert {name: value.numpy().tobytes() for name, value in layer.state_dict().items()} == before


def test_momentum_none_averages_all_batches() -> None:
    layer = nn.BatchNorm1d(4, momentum=None, device="cpu")
    batches = [batch(seed, 7, 4) for seed in range(5)]
    for x in batches:
        layer(x)
    means, variances = (np.mean([moments(x)[i] for x in batches], axis=0) for i in (0, 1))
    np.testing.assert_allclose(layer.running_mean.numpy(), means, rtol=1e-6)
    np.testing.assert_allclose(layer.running_var.numpy(), variances, rtol=1e-6)
    layer.reset_running_stats()
    assert layer.running_mean.tolist() == [0] * 4 and layer.running_var.tolist() == [1] * 4
    assert layer.num_batches_tracked.item() == 0


def test_rows_sequences_and_images_of_the_same_values_agree() -> None:
    rows = batch(0, 6, 5)
    one, two = nn.BatchNorm1d(5, device="cpu"), nn.BatchNorm2d(5, device="cpu")
    y = one(rows).numpy()
    sequences = rows.numpy().reshape(2, 3, 5).transpose(0, 2, 1)
    z = one(gpucnn.tensor(sequences.copy(), device="cpu")).numpy()
    np.testing.assert_allclose(z.transpose(0, 2, 1).reshape(6, 5), y, rtol=0, atol=1e-6)
    images = two(gpucnn.tensor(sequences.reshape(2, 5, 3, 1), device="cpu")).numpy()
    np.testing.assert_array_equal(images.reshape(2, 5, 3), z)


def test_without_tracking_the_batch_serves_in_evaluation_too() -> None:
    layer, x = nn.BatchNorm1d(3, track_running_stats=False, device="cpu"), batch(0, 8, 3)
    y = layer(x).numpy()
    assert layer.running_mean is layer.running_var is layer.num_batches_tracked is None
    assert np.array_equal(layer.eval()(x).numpy(), y)
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_tracking_turned_off_later_leaves_the_buffers_alone() -> None:
    layer, x = nn.BatchNorm1d(3, device="cpu"), batch(0, 8, 3)
    layer(x)
    layer.track_running_stats = False
    kept = layer.running_mean.numpy()
    layer(batch(1, 8, 3))
    assert np.array_equal(layer.running_mean.numpy(), kept) and layer.num_batches_tracked.item() == 1
    expected = (x.numpy() - kept) / np.sqrt(layer.running_var.numpy() + 1e-5)
    np.testing.assert_allclose(layer.eval()(x).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_affine_and_bias() -> None:
    assert [n for n, _ in nn.BatchNorm2d(2, device="cpu").named_parameters()] == ["weight", "bias"]
    assert [n for n, _ in nn.BatchNorm2d(2, bias=False, device="cpu").named_parameters()] == ["weight"]
    plain = nn.BatchNorm2d(2, affine=False, device="cpu")
    assert list(plain.parameters()) == [] and plain.weight is plain.bias is None
    x = batch(0, 3, 2, 4, 4)
    assert np.array_equal(plain(x).numpy(), nn.BatchNorm2d(2, device="cpu")(x).numpy())


@pytest.mark.parametrize("device", DEVICES)
def test_a_frozen_scale_gets_no_gradient_and_does_not_move_the_others(device: str) -> None:
    """With the input frozen too, only the shift's sums are computed."""
    free, frozen = nn.BatchNorm1d(6, device=device), nn.BatchNorm1d(6, device=device)
    frozen.weight.requires_grad_(False)
    upstream = batch(1, 9, 6, device=device)
    gradients = []
    for layer in (free, frozen):
        x = batch(0, 9, 6, device=device).requires_grad_()
        layer(x).backward(upstream)
        gradients.append((x.grad.numpy(), layer.bias.grad.numpy()))
    assert frozen.weight.grad is None and free.weight.grad is not None
    assert all(np.array_equal(a, b) for a, b in zip(*gradients, strict=True))
    if device == "emulated":
        backend = upstream.backend
        y = frozen(batch(0, 9, 6, device=device))
        with backend.engine.record() as launches:  # type: ignore[attr-defined]
            y.backward(upstream)
        assert {launch.kernel for launch in launches} == {"column_sums"}


def test_backward_notices_running_statistics_that_changed_since() -> None:
    layer, x = nn.BatchNorm1d(3, device="cpu").eval(), batch(0, 8, 3)
    y = layer(x)
    layer.train()(x)
    with pytest.raises(RuntimeError, match="modified in place"):
        y.sum().backward()


@pytest.mark.parametrize("device", DEVICES)
def test_running_statistics_may_be_slices_of_a_larger_tensor(device: str) -> None:
    both = gpucnn.tensor([0.0, 1.0] * 3, device=device)
    x = batch(0, 8, 3, device=device)
    F.batch_norm(x, both[::2], both[1::2], training=True, momentum=0.25)
    expected = np.stack([0.25 * moments(x)[0], 0.75 + 0.25 * moments(x)[1]], axis=1).reshape(-1)
    np.testing.assert_allclose(both.numpy(), expected, rtol=1e-6)


def test_training_does_not_hold_on_to_the_running_statistics() -> None:
    """Two forward passes before their backward ones, as where one network sees two batches in a step."""
    layer = nn.BatchNorm1d(3, device="cpu")
    total = layer(batch(0, 8, 3)).sum() + layer(batch(1, 8, 3)).sum()
    total.backward()
    np.testing.assert_allclose(layer.bias.grad.numpy(), 16, rtol=1e-6)


def test_state_goes_round() -> None:
    layer, other = nn.BatchNorm2d(3, device="cpu"), nn.BatchNorm2d(3, device="cpu")
    layer(batch(0, 2, 3, 4, 4))
    state = layer.state_dict()
    assert list(state) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert state["num_batches_tracked"].dtype == np.int64 and state["num_batches_tracked"].shape == ()
    other.load_state_dict(state)
    x = batch(1, 2, 3, 4, 4)
    assert np.array_equal(layer.eval()(x).numpy(), other.eval()(x).numpy())
    assert other.num_batches_tracked.item() == 1


def test_moving_to_float64_moves_the_buffers_but_not_the_count() -> None:
    layer = nn.BatchNorm1d(3, device="cpu").to(np.float64)
    assert layer.running_var.dtype == layer.weight.dtype == np.float64
    assert layer.num_batches_tracked.dtype == np.int64
    assert layer(batch(0, 4, 3).double()).dtype == np.float64


def test_without_recording_the_statistics_still_move() -> None:
    layer = nn.BatchNorm1d(3, device="cpu")
    with gpucnn.no_grad():
        layer(batch(0, 8, 3))
    assert layer.num_batches_tracked.item() == 1 and layer.running_mean.numpy().any()


@pytest.mark.parametrize("device", DEVICES)
def test_an_empty_batch_leaves_the_statistics_alone(device: str) -> None:
    layer = nn.BatchNorm2d(3, device=device)
    x = gpucnn.zeros(0, 3, 4, 4, device=device, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.shape == (0, 3, 4, 4) and layer.weight.grad.tolist() == layer.bias.grad.tolist() == [0, 0, 0]
    assert layer.running_mean.tolist() == [0, 0, 0] and layer.running_var.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("name", "arguments", "shape", "message"),
    [
        ("BatchNorm2d", {"num_features": 0}, None, "BatchNorm2d: num_features must be a positive int, got 0"),
        ("BatchNorm1d", {"num_features": 3.0}, None, "BatchNorm1d: num_features must be a positive int, got 3.0"),
        ("BatchNorm1d", {"num_features": 3, "eps": -1.0}, None, "eps must be at least 0, got -1.0"),
        ("BatchNorm1d", {}, (2, 3, 4, 4), r"BatchNorm1d: expected 2-D or 3-D input, got shape \(2, 3, 4, 4\)"),
        ("BatchNorm2d", {}, (2, 3), r"BatchNorm2d: expected 4-D input, got shape \(2, 3\)"),
        ("BatchNorm2d", {}, (2, 4, 5, 5), r"should contain 4 elements, .* got shape \(3,\)"),
        ("BatchNorm2d", {}, (1, 3, 1, 1), r"more than 1 value per channel .* \(1, 3, 1, 1\)"),
    ],
)
def test_what_is_refused(name: str, arguments: dict[str, Any], shape: tuple[int, ...] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer = getattr(nn, name)(**{"num_features": 3, "device": "cpu", **arguments})
        layer(gpucnn.zeros(*(shape or (1,)), device="cpu"))


def test_a_refused_batch_is_not_counted() -> None:
    layer = nn.BatchNorm1d(3, device="cpu")
    with pytest.raises(ValueError, match="more than 1 value"):
        layer(gpucnn.zeros(1, 3, device="cpu"))
    assert layer.num_batches_tracked.item() == 0
    assert layer.eval()(gpucnn.zeros(1, 3, device="cpu")).shape == (1, 3)


def test_repr_is_pytorchs() -> None:
    assert repr(nn.BatchNorm2d(3, momentum=None, device="cpu")) == (  # printed by PyTorch 2.13
        "BatchNorm2d(3, eps=1e-05, momentum=None, affine=True, bias=True, track_running_stats=True)"
    )
