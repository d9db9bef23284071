"""GELU, SiLU, adaptive pooling and the smoothed loss as layers: what they are made with, refuse and compute."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gpucnn
import gpucnn.functional as F
from gpucnn import nn


def tensor(values: object) -> gpucnn.Tensor:
    return gpucnn.tensor(np.asarray(values, dtype=np.float32), device="cpu")


def test_activations_by_hand() -> None:
    x = [-1.5, 0.0, 0.5, 2.0]
    exact = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]
    rough = [v * 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) for v in x]
    sigmoid = [v / (1 + math.exp(-v)) for v in x]
    for layer, expected in ((nn.GELU(), exact), (nn.GELU("tanh"), rough), (nn.SiLU(), sigmoid)):
        np.testing.assert_allclose(layer(tensor(x)).numpy(), expected, rtol=1e-6, atol=1e-7)
    assert abs(exact[0] - rough[0]) > 1e-5  # so that one would not pass for the other


def test_adaptive_pooling_by_hand() -> None:
    x = tensor(np.arange(10).reshape(1, 1, 2, 5))
    # Of five columns three windows: 0..1, 1..3, 3..4.
    np.testing.assert_array_equal(nn.AdaptiveAvgPool2d((None, 3))(x).numpy()[0, 0], [[0.5, 2, 3.5], [5.5, 7, 8.5]])
    np.testing.assert_array_equal(nn.AdaptiveMaxPool2d((1, 3))(x).numpy()[0, 0], [[6, 8, 9]])
    assert nn.AdaptiveAvgPool2d(1)(x).item() == 4.5
    np.testing.assert_array_equal(nn.AdaptiveAvgPool1d(3)(x[:, :, 1]).numpy()[0, 0], [5.5, 7, 8.5])
    np.testing.assert_array_equal(nn.AdaptiveMaxPool1d(2)(x[:, :, 0]).numpy()[0, 0], [2, 4])
    nhwc = gpucnn.Tensor(np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1)), "cpu")
    assert nn.AdaptiveMaxPool2d(1, data_format="NHWC")(nhwc).shape == (1, 1, 1, 1)


def test_where_windows_are_equal_the_fixed_pooling_gives_the_same_bits() -> None:
    x = gpucnn.randn(2, 3, 6, 8, device="cpu")
    np.testing.assert_array_equal(nn.AdaptiveAvgPool2d((3, 2))(x).numpy(), nn.AvgPool2d((2, 4))(x).numpy())
    np.testing.assert_array_equal(nn.AdaptiveMaxPool2d((3, 2))(x).numpy(), nn.MaxPool2d((2, 4))(x).numpy())


def test_smoothed_loss_by_hand() -> None:
    logits, labels = [[1.0, 2.0, 4.0], [0.5, -1.0, 0.0]], [2, 1]
    losses = []
    for row, label in zip(logits, labels, strict=True):
        logs = [v - math.log(sum(map(math.exp, row))) for v in row]
        targets = [0.1 / 3 + (0.9 if c == label else 0) for c in range(3)]
        losses.append(-sum(t * v for t, v in zip(targets, logs, strict=True)))
    target = gpucnn.tensor(np.array(labels), device="cpu")
    for reduction, expected in (("none", losses), ("sum", sum(losses)), ("mean", sum(losses) / 2)):
        loss = nn.CrossEntropyLoss(reduction=reduction, label_smoothing=0.1)(tensor(logits), target)
        np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-6)


def test_no_smoothing_leaves_the_bits_and_impossible_classes_as_they_are() -> None:
    logits = tensor([[-200, -201, -math.inf]])
    target = gpucnn.tensor(np.array([1]), device="cpu")
    assert abs(nn.CrossEntropyLoss(label_smoothing=0.0)(logits, target).item() - 1.3132617) < 1e-6


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.GELU("erf"), ValueError, "GELU: approximate must be 'none' or 'tanh', got 'erf'"),
        (
            lambda: nn.CrossEntropyLoss(label_smoothing=-0.1),
            ValueError,
            r"CrossEntropyLoss: label_smoothing must be in",
        ),
        (lambda: nn.CrossEntropyLoss(label_smoothing=None), TypeError, "label_smoothing must be a number, got None"),
        (lambda: nn.AdaptiveAvgPool2d(0), ValueError, "AdaptiveAvgPool2d: output_size must be positive, got 0"),
        (lambda: nn.AdaptiveAvgPool2d((3,)), TypeError, "AdaptiveAvgPool2d: output_size must be an int or a pair"),
        (lambda: nn.AdaptiveMaxPool2d(None), TypeError, "AdaptiveMaxPool2d: output_size must be an int or a pair"),
        (lambda: nn.AdaptiveMaxPool2d((2, -1)), ValueError, r"output_size must be positive, got \(2, -1\)"),
        (lambda: nn.AdaptiveMaxPool2d(2, True), ValueError, "AdaptiveMaxPool2d: return_indices=True is not supported"),
        (lambda: nn.AdaptiveAvgPool2d(1, data_format="CHWN"), ValueError, "data_format must be 'NCHW' or 'NHWC'"),
        (lambda: nn.AdaptiveMaxPool1d(1, True), ValueError, "AdaptiveMaxPool1d: return_indices=True is not supported"),
        (lambda: nn.AdaptiveAvgPool1d(0), ValueError, "AdaptiveAvgPool1d: output_size must be positive"),
        (lambda: nn.AdaptiveAvgPool1d((1, 2)), TypeError, "AdaptiveAvgPool1d: output_size must be an int"),
        (lambda: nn.AdaptiveMaxPool1d(None), TypeError, "AdaptiveMaxPool1d: output_size must be an int"),
    ],
)
def test_refused_at_construction(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_representations() -> None:
    assert repr(nn.GELU()) == "GELU(approximate='none')" and repr(nn.SiLU()) == "SiLU()"
    assert repr(nn.AdaptiveAvgPool2d((None, 3))) == "AdaptiveAvgPool2d(output_size=(None, 3))"
    assert repr(nn.AdaptiveMaxPool1d(3)) == "AdaptiveMaxPool1d(output_size=3)"


@pytest.mark.parametrize("device", ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_an_input_changed_in_place_does_not_change_the_gradient_unnoticed(name: str, device: str) -> None:
    """On cpu the derivative is kept; elsewhere the input, and then backward raises."""
    function = getattr(F, name)
    x, other = (gpucnn.tensor([0.5, -1.0, 2.0], device=device, requires_grad=True) for _ in range(2))
    function(other).sum().backward()
    y = function(x).sum()
    with gpucnn.no_grad():
        x.add_(1.0)
    if device == "cpu":
        y.backward()
        np.testing.assert_array_equal(x.grad.numpy(), other.grad.numpy())
    else:
        with pytest.raises(RuntimeError, match="modified in place"):
            y.backward()
