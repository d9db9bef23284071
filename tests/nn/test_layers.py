"""Layers: what they are made with and refuse, and what they compute, on small cases by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpucnn
from gpucnn import nn


def tensor(values: object) -> gpucnn.Tensor:
    return gpucnn.tensor(np.asarray(values, dtype=np.float32), device="cpu")


def convolved(x: np.ndarray, w: np.ndarray, b: np.ndarray, stride: tuple[int, int], groups: int) -> np.ndarray:
    """Valid convolution by its formula, float64: x (N, C, H, W), w (K, C / groups, R, S)."""
    n, _, h, width = x.shape
    k, c, r, s = w.shape
    p, q = (h - r) // stride[0] + 1, (width - s) // stride[1] + 1
    y = np.empty((n, k, p, q))
    for out in range(k):
        first = out // (k // groups) * c
        for i in range(p):
            for j in range(q):
                top, left = i * stride[0], j * stride[1]
                window = x[:, first : first + c, top : top + r, left : left + s].astype(np.float64)
                y[:, out, i, j] = np.einsum("ncrs,crs->n", window, w[out].astype(np.float64)) + b[out]
    return y


def test_conv2d_convolves_with_its_weights() -> None:
    rng = np.random.default_rng(1)
    layer = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), groups=2, device="cpu")
    x = rng.standard_normal((2, 4, 7, 5)).astype(np.float32)
    expected = convolved(x, layer.weight.numpy(), layer.bias.numpy(), (2, 1), 2)
    assert layer(tensor(x)).shape == (2, 6, 3, 4)
    np.testing.assert_allclose(layer(tensor(x)).numpy(), expected, rtol=0, atol=12 * 2**-23 * 8)


def test_conv2d_in_nhwc_is_the_same_layer_with_axes_moved() -> None:
    gpucnn.manual_seed(3)
    nchw = nn.Conv2d(4, 6, (3, 2), padding=((1, 0), (2, 1)), device="cpu")
    gpucnn.manual_seed(3)
    nhwc = nn.Conv2d(4, 6, (3, 2), padding=((1, 0), (2, 1)), device="cpu", data_format="NHWC")
    assert nhwc.weight.shape == (3, 2, 4, 6)
    assert np.array_equal(nhwc.weight.numpy().transpose(3, 2, 0, 1), nchw.weight.numpy())
    x = np.random.default_rng(2).standard_normal((2, 4, 5, 6)).astype(np.float32)
    y = nhwc(tensor(x.transpose(0, 2, 3, 1)))
    np.testing.assert_array_equal(y.numpy().transpose(0, 3, 1, 2), nchw(tensor(x)).numpy())
    y.sum().backward()
    assert nhwc.weight.grad is not None and nhwc.weight.grad.shape == (3, 2, 4, 6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"in_channels": 0}, ValueError, "in_channels must be a positive int, got 0"),
        ({"groups": 2}, ValueError, r"in_channels \(=3\) and out_channels \(=4\) must be divisible by groups \(=2\)"),
        ({"kernel_size": (3, 0)}, ValueError, "kernel_size must be positive"),
        ({"stride": 0}, ValueError, "stride must be positive"),
        ({"padding": "full"}, ValueError, "padding must be"),
        ({"padding": -1}, ValueError, "padding"),
        ({"dilation": (1, 2, 3)}, TypeError, "dilation must be an int or a pair"),
        ({"padding_mode": "reflect"}, ValueError, "padding_mode must be 'zeros', got 'reflect'"),
        ({"data_format": "CHWN"}, ValueError, "data_format must be 'NCHW' or 'NHWC', got 'CHWN'"),
    ],
)
def test_conv2d_refuses_at_construction(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"Conv2d: {message}"):
        nn.Conv2d(**{"in_channels": 3, "out_channels": 4, "kernel_size": 3, "device": "cpu", **options})


def test_conv2d_without_bias_has_none() -> None:
    layer = nn.Conv2d(1, 1, 1, bias=False, device="cpu")
    assert layer.bias is None and list(layer.state_dict()) == ["weight"]
    x = tensor([[[[2.0, 3.0]]]])
    w = layer.weight.item()
    np.testing.assert_allclose(layer(x).numpy(), [[[[2 * w, 3 * w]]]], rtol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_conv2d_and_linear_start_as_in_pytorch(seed: int) -> None:
    """Uniform in +- 1 / sqrt(fan_in), for weight and bias: bounds kept and reached, mean 0, variance bound**2 / 3."""
    gpucnn.manual_seed(seed)
    conv = nn.Conv2d(32, 64, 3, groups=2, device="cpu")
    linear = nn.Linear(300, 200, device="cpu")
    for values, fan_in in ((conv.weight, 16 * 9), (linear.weight, 300), (linear.bias, 300), (conv.bias, 16 * 9)):
        bound = 1 / math.sqrt(fan_in)
        flat = values.numpy().astype(np.float64).ravel()
        assert np.abs(flat).max() <= bound * (1 + 1e-6)
        assert np.abs(flat).max() > bound * (1 - 20 / flat.size)
        assert abs(flat.mean()) < 5 * bound / math.sqrt(3 * flat.size)
        spread = math.sqrt(4 / 45 / flat.size) * bound**2  # standard error of the mean square
        assert abs((flat**2).mean() - bound**2 / 3) < 5 * spread


def test_a_seed_gives_the_same_layer_again_and_no_other() -> None:
    layers = []
    for seed in (5, 5, 6):
        gpucnn.manual_seed(seed)
        layers.append(nn.Linear(7, 5, device="cpu").weight.numpy())
    assert np.array_equal(layers[0], layers[1]) and not np.array_equal(layers[0], layers[2])
    assert not np.array_equal(nn.Linear(7, 5, device="cpu").weight.numpy(), layers[2])


def test_a_seed_gives_the_same_layer_on_the_emulated_device() -> None:
    weights = []
    for device in ("cpu", "emulated"):
        gpucnn.manual_seed(4)
        weights.append(nn.Conv2d(3, 5, 3, device=device).weight.numpy())
    assert np.array_equal(*weights)


def test_linear_multiplies_by_the_transposed_weight() -> None:
    layer = nn.Linear(3, 2, device="cpu")
    layer.load_state_dict({"weight": np.array([[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]]), "bias": np.array([10.0, 20.0])})
    assert layer(tensor([[1.0, 1.0, 1.0], [2.0, 0.0, 4.0]])).numpy().tolist() == [[16.0, 19.5], [24.0, 22.0]]
    plain = nn.Linear(3, 2, bias=False, device="cpu")
    assert plain.bias is None and "bias=False" in repr(plain)
    with pytest.raises(ValueError, match="out_features must be a positive int"):
        nn.Linear(3, -1)


def test_pooling_layers_pool() -> None:
    x = tensor(np.arange(16).reshape(1, 1, 4, 4))
    assert nn.MaxPool2d(2)(x).numpy().tolist() == [[[[5, 7], [13, 15]]]]
    assert nn.MaxPool2d(3, stride=2, padding="same")(x).numpy().tolist() == [[[[10, 11], [14, 15]]]]
    assert nn.MaxPool2d(3, stride=3, ceil_mode=True)(x).numpy().tolist() == [[[[10, 11], [14, 15]]]]
    assert nn.AvgPool2d(2)(x).numpy().tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    assert nn.AvgPool2d(2, padding=1, count_include_pad=False)(x).numpy()[0, 0, 0].tolist() == [0.0, 1.5, 3.0]
    assert nn.AvgPool2d(2, divisor_override=1)(x).numpy()[0, 0, 0].tolist() == [10.0, 18.0]
    channels_last = tensor(np.arange(16).reshape(1, 4, 4, 1))
    assert nn.MaxPool2d(2, data_format="NHWC")(channels_last).shape == (1, 2, 2, 1)
    assert nn.AvgPool2d(2, data_format="NHWC")(channels_last).numpy().ravel().tolist() == [2.5, 4.5, 10.5, 12.5]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.MaxPool2d(0), "MaxPool2d: kernel_size must be positive"),
        (lambda: nn.MaxPool2d(2, return_indices=True), "return_indices"),
        (lambda: nn.AvgPool2d(2, stride=-1), "AvgPool2d: stride must be positive"),
        (lambda: nn.AvgPool2d(2, divisor_override=0), "divisor_override"),
        (lambda: nn.AvgPool2d(2, data_format="nchw"), "data_format"),
        (lambda: nn.Dropout(1.5), "p must be between 0 and 1, got 1.5"),
        (lambda: nn.LocalResponseNorm(0), "size must be a positive int, got 0"),
        (lambda: nn.CrossEntropyLoss(reduction="avg"), "reduction must be"),
    ],
)
def test_layers_refuse_at_construction(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_dropout_follows_the_mode() -> None:
    gpucnn.manual_seed(0)
    layer = nn.Dropout(0.25)
    x = gpucnn.ones(4000, device="cpu")
    y = layer(x).numpy()
    assert set(np.unique(y)) == {np.float32(0.0), np.float32(1.0) / np.float32(0.75)}
    assert abs((y == 0).mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 4000)
    assert np.array_equal(layer.eval()(x).numpy(), x.numpy())


def test_small_layers_pass_on_what_they_say() -> None:
    x = tensor([[-1.0, 2.0], [3.0, -4.0]])
    assert nn.ReLU()(x).numpy().tolist() == [[0.0, 2.0], [3.0, 0.0]]
    assert nn.Identity(3, anything=True)(x) is x
    images = tensor(np.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2))
    assert np.array_equal(nn.Flatten()(images).numpy(), np.arange(24).reshape(2, 12))
    assert nn.Flatten(0, 1)(images).shape == (6, 2, 2)


def test_local_response_norm_follows_its_formula() -> None:
    x = np.random.default_rng(0).standard_normal((2, 7, 3, 2)).astype(np.float32)
    y = nn.LocalResponseNorm(4, alpha=0.5, beta=0.6, k=1.5)(tensor(x)).numpy()
    expected = np.empty(x.shape)
    for c in range(7):
        window = x[:, max(0, c - 2) : c + 2].astype(np.float64)  # PyTorch: size // 2 before, (size - 1) // 2 after
        expected[:, c] = x[:, c] / (1.5 + 0.5 / 4 * (window**2).sum(axis=1)) ** 0.6
    np.testing.assert_allclose(y, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_loss(reduction: str) -> None:
    logits = np.random.default_rng(0).standard_normal((5, 3))
    labels = np.array([0, 2, 1, 1, 2])
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(5), labels]
    expected = {"mean": losses.mean(), "sum": losses.sum(), "none": losses}[reduction]
    loss = nn.CrossEntropyLoss(reduction=reduction)(tensor(logits), gpucnn.tensor(labels, device="cpu"))
    np.testing.assert_allclose(loss.numpy(), expected, rtol=2e-6)
