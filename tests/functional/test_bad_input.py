"""Bad arguments: an error at the call, naming the operator and the values, on every device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpucnn
import gpucnn.functional as F
from gpucnn.functional import pooling


def zeros(*shape: int, dtype: Any = np.float32, device: str = "cpu") -> Any:
    return gpucnn.zeros(*shape, dtype=dtype, device=device)


CASES: dict[str, tuple[Callable[[Callable[..., Any]], Any], type[Exception], str]] = {
    "channels": (
        lambda z: F.conv2d(z(8, 3, 32, 32), z(16, 4, 3, 3)),
        ValueError,
        r"conv2d: input has 3 channels, weight expects 4 \(input \(8, 3, 32, 32\), weight \(16, 4, 3, 3\), groups 1\)",
    ),
    "groups that do not divide": (
        lambda z: F.conv2d(z(1, 6, 5, 5), z(6, 2, 3, 3), groups=4),
        ValueError,
        "6 input and 6 output channels must be divisible",
    ),
    "groups that do not match": (
        lambda z: F.conv2d(z(1, 6, 5, 5), z(6, 2, 3, 3), groups=2),
        ValueError,
        "input has 6 channels, weight expects 4",
    ),
    "no groups": (
        lambda z: F.conv2d(z(1, 6, 5, 5), z(6, 2, 3, 3), groups=0),
        ValueError,
        "groups must be positive, got 0",
    ),
    "large filter": (
        lambda z: F.conv2d(z(1, 1, 4, 4), z(1, 1, 7, 7), padding=1),
        ValueError,
        r"filter \(7, 7\).* is larger than the padded input \(6, 6\)",
    ),
    "dilated filter": (
        lambda z: F.conv2d(z(1, 1, 4, 4), z(1, 1, 3, 3), dilation=2),
        ValueError,
        r"dilated \(5, 5\)\) is larger than .*\(4, 4\)",
    ),
    "zero stride": (
        lambda z: F.conv2d(z(1, 1, 4, 4), z(1, 1, 2, 2), stride=0),
        ValueError,
        "stride must be positive, got 0",
    ),
    "negative stride": (
        lambda z: F.conv2d(z(1, 1, 4, 4), z(1, 1, 2, 2), stride=(1, -2)),
        ValueError,
        r"stride must be positive, got \(1, -2\)",
    ),
    "float stride": (
        lambda z: F.conv2d(z(1, 1, 4, 4), z(1, 1, 2, 2), stride=1.5),
        TypeError,
        "stride must be an int or a pair",
    ),
    "negative padding": (
        lambda z: F.conv2d(z(1, 1, 4, 4), z(1, 1, 2, 2), padding=-1),
        ValueError,
        "padding must be at least 0",
    ),
    "padding by name": (
        lambda z: F.conv2d(z(1, 1, 4, 4), z(1, 1, 2, 2), padding="full"),
        ValueError,
        "padding must be .* got 'full'",
    ),
    "zero dilation": (
        lambda z: F.conv2d(z(1, 1, 4, 4), z(1, 1, 2, 2), dilation=0),
        ValueError,
        "dilation must be positive, got 0",
    ),
    "rank of the input": (lambda z: F.conv2d(z(3, 32, 32), z(4, 3, 3, 3)), ValueError, r"input must be \(N, C, H, W\)"),
    "rank of the weight": (lambda z: F.conv2d(z(1, 3, 8, 8), z(4, 3, 3)), ValueError, r"weight \(4, 3, 3\)"),
    "rank, NHWC": (
        lambda z: F.conv2d(z(3, 8, 8), z(3, 3, 3, 4), data_format="NHWC"),
        ValueError,
        "for NHWC input must be",
    ),
    "bias": (
        lambda z: F.conv2d(z(1, 3, 8, 8), z(4, 3, 3, 3), z(3)),
        ValueError,
        r"bias \(3,\) does not fit 4 output channels",
    ),
    "data format": (
        lambda z: F.conv2d(z(1, 3, 8, 8), z(4, 3, 3, 3), data_format="CHWN"),
        ValueError,
        "'NCHW' or 'NHWC', got 'CHWN'",
    ),
    "integers": (
        lambda z: F.conv2d(z(1, 3, 8, 8, dtype=np.int64), z(4, 3, 3, 3, dtype=np.int64)),
        TypeError,
        "expected float32 or float64",
    ),
    "two dtypes": (
        lambda z: F.conv2d(z(1, 3, 8, 8), z(4, 3, 3, 3, dtype=np.float64)),
        TypeError,
        "tensors of two dtypes: input float32, weight float64",
    ),
    "an array": (
        lambda z: F.conv2d(np.zeros((1, 3, 8, 8)), z(4, 3, 3, 3)),
        TypeError,
        "input must be a tensor, got ndarray",
    ),
    "pool larger than the input": (
        lambda z: F.max_pool2d(z(1, 1, 2, 2), 3),
        ValueError,
        r"max_pool2d: window \(3, 3\).* larger than the padded input \(2, 2\)",
    ),
    "pool padding": (
        lambda z: F.max_pool2d(z(1, 1, 5, 5), 2, padding=2),
        ValueError,
        "at most half of the window, got padding 2",
    ),
    "pool of integers": (
        lambda z: F.max_pool2d(z(1, 1, 4, 4, dtype=np.int64), 2),
        TypeError,
        "max_pool2d: expected float32",
    ),
    "pool rank": (
        lambda z: F.avg_pool2d(z(4, 4), 2),
        ValueError,
        r"avg_pool2d: input must be \(N, C, H, W\), got shape \(4, 4\)",
    ),
    "pool stride": (lambda z: F.avg_pool2d(z(1, 1, 4, 4), 2, 0), ValueError, "avg_pool2d: stride must be positive"),
    "pool divisor": (
        lambda z: F.avg_pool2d(z(1, 1, 4, 4), 2, divisor_override=0),
        ValueError,
        "divisor_override must not be 0",
    ),
    "adaptive pool sizes": (
        lambda z: F.adaptive_avg_pool2d(z(1, 1, 4, 4), 0),
        ValueError,
        "adaptive_avg_pool2d: output_size must be positive, got 0",
    ),
    "adaptive pool, three sizes": (
        lambda z: F.adaptive_max_pool2d(z(1, 1, 4, 4), (1, 2, 3)),
        TypeError,
        r"adaptive_max_pool2d: output_size must be an int or a pair .* got \(1, 2, 3\)",
    ),
    "adaptive pool, float": (
        lambda z: F.adaptive_max_pool2d(z(1, 1, 4, 4), (2.0, 1)),
        TypeError,
        r"output_size must be an int or a pair .* got \(2.0, 1\)",
    ),
    "adaptive pool rank": (
        lambda z: F.adaptive_avg_pool2d(z(4, 4), 1),
        ValueError,
        r"adaptive_avg_pool2d: input must be \(N, C, H, W\), got shape \(4, 4\)",
    ),
    "adaptive pool of nothing": (
        lambda z: F.adaptive_avg_pool2d(z(1, 2, 0, 3), 1),
        ValueError,
        r"adaptive_avg_pool2d: input needs channels, rows and columns, got shape \(1, 2, 0, 3\)",
    ),
    "adaptive pool indices": (
        lambda z: F.adaptive_max_pool2d(z(1, 1, 4, 4), 1, True),
        ValueError,
        "adaptive_max_pool2d: return_indices=True is not supported",
    ),
    "adaptive pool, 1-D rank": (
        lambda z: F.adaptive_avg_pool1d(z(4, 4), 1),
        ValueError,
        r"adaptive_avg_pool1d: input must be \(N, C, L\), got shape \(4, 4\)",
    ),
    "adaptive pool, 1-D size": (
        lambda z: F.adaptive_max_pool1d(z(1, 1, 4), (1, 2)),
        TypeError,
        r"adaptive_max_pool1d: output_size must be an int, got \(1, 2\)",
    ),
    "conv2d's activation": (
        lambda z: F.conv2d(z(1, 1, 4, 4), z(1, 1, 2, 2), activation="gelu"),
        ValueError,
        "conv2d: activation must be None or 'relu', got 'gelu'",
    ),
    "linear's activation": (
        lambda z: F.linear(z(2, 3), z(4, 3), activation=True),
        ValueError,
        "linear: activation must be None or 'relu', got True",
    ),
    "batch norm's activation": (
        lambda z: F.batch_norm(z(4, 3), None, None, training=True, activation="tanh"),
        ValueError,
        "batch_norm: activation must be None or 'relu' or 'gelu' or 'gelu_tanh' or 'silu', got 'tanh'",
    ),
    "a sum's activation": (
        lambda z: gpucnn.add(z(2), z(2), "silu"),
        ValueError,
        "add: activation must be None or 'relu', got 'silu'",
    ),
    "channels of zeros": (
        lambda z: F.pad_channels(z(1, 2, 3, 3), -1),
        ValueError,
        r"pad_channels: expected input \(N, C, H, W\) and added >= 0, got \(1, 2, 3, 3\) and -1",
    ),
    "gelu": (lambda z: F.gelu(z(2), "erf"), ValueError, "gelu: approximate must be 'none' or 'tanh', got 'erf'"),
    "gelu of integers": (lambda z: F.gelu(z(2, dtype=np.int64)), TypeError, "gelu: expected float32 or float64"),
    "silu of integers": (lambda z: F.silu(z(2, dtype=np.int64)), TypeError, "silu: expected float32 or float64"),
    "label smoothing": (
        lambda z: F.cross_entropy(z(3, 4), z(3, dtype=np.int64), label_smoothing=1.5),
        ValueError,
        r"cross_entropy: label_smoothing must be in \[0, 1\], got 1.5",
    ),
    "label smoothing, not a number": (
        lambda z: F.cross_entropy(z(3, 4), z(3, dtype=np.int64), label_smoothing=float("nan")),
        ValueError,
        r"label_smoothing must be in \[0, 1\], got nan",
    ),
    "label smoothing, a string": (
        lambda z: F.cross_entropy(z(3, 4), z(3, dtype=np.int64), label_smoothing="0.1"),
        TypeError,
        "cross_entropy: label_smoothing must be a number, got '0.1'",
    ),
    "linear": (
        lambda z: F.linear(z(2, 3), z(4, 5)),
        ValueError,
        r"linear: input \(2, 3\) does not fit weight \(4, 5\)",
    ),
    "linear without outputs": (lambda z: F.linear(z(2, 3), z(0, 3)), ValueError, r"weight \(0, 3\) has no rows"),
    "linear bias": (
        lambda z: F.linear(z(2, 5), z(4, 5), z(5)),
        ValueError,
        r"bias \(5,\) does not fit weight \(4, 5\)",
    ),
    "matmul": (lambda z: z(2, 3) @ z(4, 5), ValueError, "3 columns meet 4 rows"),
    "matmul batches": (lambda z: z(2, 3, 4) @ z(3, 4, 5), ValueError, "leading axes .* do not broadcast"),
    "lrn size": (lambda z: F.local_response_norm(z(1, 4, 2, 2), 0), ValueError, "size must be a positive int, got 0"),
    "lrn rank": (lambda z: F.local_response_norm(z(1, 4), 3), ValueError, "at least 3 axes"),
    "lrn channels": (lambda z: F.local_response_norm(z(1, 0, 2), 3), ValueError, "at least one channel"),
    "lrn k": (lambda z: F.local_response_norm(z(1, 4, 2), 3, k=0.0), ValueError, "expected k > 0"),
    "batch_norm, one value a channel": (
        lambda z: F.batch_norm(z(1, 3, 1, 1), z(3), z(3), training=True),
        ValueError,
        r"expected more than 1 value per channel when training, got input \(1, 3, 1, 1\)",
    ),
    "batch_norm running_mean": (
        lambda z: F.batch_norm(z(2, 3), z(4), z(4)),
        ValueError,
        r"running_mean should contain 3 elements, .* input \(2, 3\), got shape \(4,\)",
    ),
    "batch_norm weight": (
        lambda z: F.batch_norm(z(2, 3, 2, 2), z(3), z(3), z(2)),
        ValueError,
        r"weight should contain 3 elements, .* got shape \(2,\)",
    ),
    "batch_norm bias of two axes": (
        lambda z: F.batch_norm(z(2, 3), z(3), z(3), z(3), z(1, 3)),
        ValueError,
        r"bias should contain 3 elements, .* got shape \(1, 3\)",
    ),
    "batch_norm, half of the statistics": (
        lambda z: F.batch_norm(z(2, 3), None, z(3), training=True),
        ValueError,
        "must both be given, or both be None",
    ),
    "batch_norm without statistics": (
        lambda z: F.batch_norm(z(2, 3), None, None),
        ValueError,
        r"must be given in evaluation \(training=False\)",
    ),
    "batch_norm rank": (lambda z: F.batch_norm(z(3), None, None, training=True), ValueError, r"got shape \(3,\)"),
    "batch_norm channels": (
        lambda z: F.batch_norm(z(2, 0, 4), None, None, training=True),
        ValueError,
        "at least one channel",
    ),
    "batch_norm eps": (
        lambda z: F.batch_norm(z(2, 3), None, None, training=True, eps=0),
        ValueError,
        "eps must be positive, got 0",
    ),
    "batch_norm eps in evaluation": (
        lambda z: F.batch_norm(z(2, 3), z(3), z(3), eps=-1e-5),
        ValueError,
        "eps must be at least 0, got -1e-05",
    ),
    "batch_norm momentum": (
        lambda z: F.batch_norm(z(2, 3), z(3), z(3), training=True, momentum=None),
        TypeError,
        "momentum and eps must be numbers, got None",
    ),
    "batch_norm dtypes": (
        lambda z: F.batch_norm(z(2, 3), z(3, dtype=np.float64), z(3)),
        TypeError,
        "tensors of two dtypes: input float32, running_mean float64",
    ),
    "dropout": (lambda z: F.dropout(z(2), 1.5), ValueError, "p must be a probability, got 1.5"),
    "cross_entropy shapes": (
        lambda z: F.cross_entropy(z(3, 4), z(2, dtype=np.int64)),
        ValueError,
        r"expected input \(N, C\) and target \(N,\)",
    ),
    "cross_entropy labels": (
        lambda z: F.cross_entropy(z(3, 4), z(3)),
        TypeError,
        "labels must be int32 or int64, got float32",
    ),
    "cross_entropy reduction": (
        lambda z: F.cross_entropy(z(3, 4), z(3, dtype=np.int64), "avg"),
        ValueError,
        "reduction must be one of none, mean, sum",
    ),
    "broadcast": (lambda z: z(2, 3) + z(4), ValueError, r"add: shapes \(2, 3\) and \(4,\) do not broadcast"),
    "operand": (lambda z: z(2) + "a", TypeError, "add: expected tensors and numbers, got str"),
    "reshape": (
        lambda z: z(2, 3).reshape(4, -1),
        ValueError,
        r"reshape: \(2, 3\) has 6 elements and cannot become \(4, -1\)",
    ),
    "permute": (lambda z: z(2, 3).permute(0, 0), ValueError, "is no order of the 2 axes"),
    "dim": (lambda z: z(2, 3).sum(2), IndexError, "sum: dim 2 is out of range for a tensor of 2 axes"),
    "cat": (lambda z: gpucnn.cat([z(2, 3), z(3, 2)]), ValueError, "cat: sizes off dim 0 must agree"),
    "cat of nothing": (lambda z: gpucnn.cat([]), ValueError, "at least one tensor"),
    "stack": (lambda z: gpucnn.stack([z(2), z(3)]), ValueError, "stack: shapes must agree"),
    "split": (lambda z: z(5).split([2, 2]), ValueError, "do not add up to 5"),
    "expand": (lambda z: z(2, 3).expand(4, 3), ValueError, r"expand: \(2, 3\) cannot become \(4, 3\)"),
    "index": (lambda z: z(2, 3)[5], IndexError, r"index of a tensor of shape \(2, 3\)"),
    "max of nothing": (lambda z: z(0).max(), ValueError, "no elements to choose from"),
    "mean of integers": (lambda z: z(2, dtype=np.int64).mean(), TypeError, "mean: expected float32 or float64"),
    "where": (lambda z: gpucnn.where(z(2), z(2), z(2)), TypeError, "condition must be a bool tensor"),
    "softmax": (lambda z: F.softmax(z(2, 2), 3), IndexError, "softmax: dim 3"),
}


@pytest.mark.parametrize("device", ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", CASES)
def test_bad_input(name: str, device: str) -> None:
    call, error, message = CASES[name]
    with pytest.raises(error, match=message):
        call(lambda *shape, dtype=np.float32: zeros(*shape, dtype=dtype, device=device))


def test_two_devices() -> None:
    with pytest.raises(ValueError, match="conv2d: tensors on two devices: input on cpu, weight on emulated"):
        F.conv2d(zeros(1, 1, 4, 4), zeros(1, 1, 2, 2, device="emulated"))


@pytest.mark.parametrize("device", ["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_float64_is_for_the_cpu(device: str) -> None:
    with pytest.raises(TypeError, match="conv2d: float64 works on cpu only"):
        F.conv2d(zeros(1, 1, 4, 4, dtype=np.float64, device=device), zeros(1, 1, 2, 2, dtype=np.float64, device=device))


@pytest.mark.parametrize("device", ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("label", [4, -1, 2**40])
def test_labels_out_of_range(label: int, device: str) -> None:
    """On cuda the next host read raises, and the device is as good as before."""
    logits = gpucnn.randn(3, 4, device=device)
    with pytest.raises(ValueError, match=rf"cross_entropy: label {label} .*outside \[0, 4\)"):
        F.cross_entropy(logits, gpucnn.tensor([0, label, 1], device=device)).item()
    assert np.isfinite(F.cross_entropy(logits, gpucnn.tensor([0, 3, 1], device=device)).item())


def test_no_gpu_is_an_error_with_its_reason() -> None:
    if gpucnn.cuda.is_available():
        pytest.skip("a GPU is here, so cuda works")
    with pytest.raises(RuntimeError, match=r"(?i)driver|cupy|device"):
        gpucnn.zeros(2, device="cuda")


def test_adaptive_max_pooling_refuses_images_whose_places_fit_no_int32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pooling.MOST_PLACES == 2**31
    monkeypatch.setattr(pooling, "MOST_PLACES", 34)
    F.adaptive_max_pool2d(gpucnn.zeros(1, 1, 5, 6, device="cpu"), 4)
    with pytest.raises(ValueError, match="adaptive_max_pool2d: input of 5 x 7 has more than 34 pixels"):
        F.adaptive_max_pool2d(gpucnn.zeros(1, 1, 5, 7, device="cpu"), 4)
