"""Operators beside PyTorch's: the same arguments give the same values and gradients, by the project's tolerance rule.

e, the largest error of a plain computation, is PyTorch's own error here; the reference is PyTorch in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpucnn
import gpucnn.functional as F
from gpucnn.geometry import Conv2dGeometry, Pool2dGeometry
from tests.numpy_backend.geometries import convolutions, normal, poolings, seeds
from tests.support import reference, reference_smooth
from tests.support.tolerance import assert_close

pytestmark = pytest.mark.peers

DEVICES = ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)]


def compare(
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    arrays: list[Any],
    device: str,
    seed: int,
    scales: Callable[[Any], list[Any]] | None = None,
) -> None:
    """Forward and backward of ``ours`` (on gpucnn's tensors) and ``theirs`` (on PyTorch's) at float32 arrays.

    ``scales`` gives S of the output and of each gradient from the upstream gradient; by default PyTorch at absolute
    values does.
    """
    import torch

    def run_theirs(dtype: Any, absolute: bool = False) -> list[Any]:
        inputs = [torch.tensor(abs(a) if absolute else a, dtype=dtype, requires_grad=True) for a in arrays]
        y = theirs(*inputs)
        dy = upstream(tuple(y.shape))
        y.backward(torch.tensor(abs(dy) if absolute else dy, dtype=dtype))
        return [y.detach().numpy(), *(x.grad.numpy() for x in inputs)]

    def upstream(shape: tuple[int, ...]) -> Any:
        return normal(seed + 99, shape, np.float32)

    expected, plain = run_theirs(torch.float64), run_theirs(torch.float32)
    scale = scales(upstream(expected[0].shape)) if scales else run_theirs(torch.float64, absolute=True)
    inputs = [gpucnn.tensor(a, device=device, requires_grad=True) for a in arrays]
    y = ours(*inputs)
    y.backward(gpucnn.tensor(upstream(y.shape), device=device))
    results = [y.numpy(), *(x.grad.numpy() for x in inputs)]
    for index, (got, want, other, size) in enumerate(zip(results, expected, plain, scale, strict=True)):
        assert_close(got, want, abs(size), other, what="output" if index == 0 else f"gradient of input {index - 1}")


@pytest.mark.parametrize("device", DEVICES)
@given(convolutions(), seeds)
def test_conv2d(device: str, g: Conv2dGeometry, seed: int) -> None:
    import torch.nn.functional as peer

    stride, dilation = (g.stride_h, g.stride_w), (g.dilation_h, g.dilation_w)
    pads = ((g.pad_top, g.pad_bottom), (g.pad_left, g.pad_right))

    def theirs(x: Any, w: Any, b: Any) -> Any:
        padded = peer.pad(x, (g.pad_left, g.pad_right, g.pad_top, g.pad_bottom))
        return peer.conv2d(padded, w, b, stride, 0, dilation, g.groups)

    shapes = (g.N, g.C, g.H, g.W), (g.K, g.C // g.groups, g.R, g.S), (g.K,)
    arrays = [normal(seed + i, shape, np.float32) for i, shape in enumerate(shapes)]
    compare(lambda x, w, b: F.conv2d(x, w, b, stride, pads, dilation, g.groups), theirs, arrays, device, seed)


@st.composite
def pytorch_poolings(draw: st.DrawFn, dilated: bool) -> tuple[Pool2dGeometry, dict[str, Any]]:
    """Geometries that PyTorch can express (symmetric padding), with their arguments."""
    size = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    arguments: dict[str, Any] = {
        "kernel_size": size,
        "stride": (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        "padding": (draw(st.integers(0, size[0] // 2)), draw(st.integers(0, size[1] // 2))),
        "ceil_mode": draw(st.booleans()),
    }
    spread = (draw(st.integers(1, 3)), draw(st.integers(1, 3))) if dilated else (1, 1)
    if dilated:
        arguments["dilation"] = spread
    h, w = (spread[i] * (size[i] - 1) + 1 + draw(st.integers(0, 8)) for i in range(2))
    shape = draw(st.sampled_from([1, 2, 5])), draw(st.integers(1, 9)), h, w
    return Pool2dGeometry.of(shape, **arguments), arguments


@pytest.mark.parametrize("device", DEVICES)
@given(pytorch_poolings(dilated=True), seeds, st.booleans())
def test_max_pool2d(device: str, pool: tuple[Pool2dGeometry, dict[str, Any]], seed: int, ties: bool) -> None:
    import torch.nn.functional as peer

    g, arguments = pool
    x = normal(seed, (g.N, g.C, g.H, g.W), np.float32)
    if ties:
        x = np.round(x)
    compare(lambda t: F.max_pool2d(t, **arguments), lambda t: peer.max_pool2d(t, **arguments), [x], device, seed)


@pytest.mark.parametrize("device", DEVICES)
@given(pytorch_poolings(dilated=False), seeds, st.booleans(), st.sampled_from([None, None, 3]))
def test_avg_pool2d(
    device: str, pool: tuple[Pool2dGeometry, dict[str, Any]], seed: int, include: bool, divisor: int | None
) -> None:
    import torch.nn.functional as peer

    g, arguments = pool
    arguments = arguments | {"count_include_pad": include, "divisor_override": divisor}
    x = normal(seed, (g.N, g.C, g.H, g.W), np.float32)
    compare(lambda t: F.avg_pool2d(t, **arguments), lambda t: peer.avg_pool2d(t, **arguments), [x], device, seed)


@pytest.mark.parametrize("device", DEVICES)
@given(poolings(), seeds, st.integers(1, 11), st.sampled_from([0.75, 0.5, 1.0, 0.6]))
def test_local_response_norm(device: str, g: Pool2dGeometry, seed: int, size: int, beta: float) -> None:
    import torch.nn.functional as peer

    x = normal(seed, (g.N, g.C, g.H, g.W), np.float32)
    if not x.size:
        return
    compare(
        lambda t: F.local_response_norm(t, size, 0.3, beta, 1.5),
        lambda t: peer.local_response_norm(t, size, 0.3, beta, 1.5),
        [x],
        device,
        seed,
    )


@pytest.mark.parametrize("device", DEVICES)
@given(poolings(), seeds, st.booleans())
def test_batch_norm(device: str, g: Pool2dGeometry, seed: int, training: bool) -> None:
    import torch

    x = normal(seed, (g.N + 1, g.C, g.H, g.W), np.float32)
    weight, bias, mean, var = (normal(seed + i, (g.C,), np.float32) for i in range(1, 5))
    var = abs(var) + np.float32(0.1)

    def ours(*tensors: Any) -> Any:
        a, w, b = tensors
        return F.batch_norm(a, *(gpucnn.tensor(s, device=device) for s in (mean, var)), w, b, training)

    def theirs(*tensors: Any) -> Any:
        a, w, b = tensors
        return torch.nn.functional.batch_norm(a, *(torch.tensor(s, dtype=a.dtype) for s in (mean, var)), w, b, training)

    if training and x.size == g.C:  # neither of the two takes one value a channel
        for function, tensor in ((ours, lambda a: gpucnn.tensor(a, device=device)), (theirs, torch.from_numpy)):
            with pytest.raises(ValueError, match="value"):
                function(*map(tensor, (x, weight, bias)))
        return

    def scales(dy: Any) -> list[Any]:
        rows, given = x.transpose(0, 2, 3, 1), None if training else (mean, var)
        y = reference.batch_norm_forward(rows, given, weight, bias, 1e-5).scale
        dx, dweight, dbias = reference.batch_norm_backward(dy.transpose(0, 2, 3, 1), rows, given, weight, 1e-5)
        return [y.transpose(0, 3, 1, 2), dx.scale.transpose(0, 3, 1, 2), dweight.scale, dbias.scale]

    compare(ours, theirs, [x, weight, bias], device, seed, scales)


@pytest.mark.parametrize("device", DEVICES)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), seeds)
def test_linear_and_relu(device: str, m: int, k: int, n: int, seed: int) -> None:
    import torch

    arrays = [
        normal(seed, (m, k), np.float32),
        normal(seed + 1, (n, k), np.float32),
        normal(seed + 2, (n,), np.float32),
    ]
    compare(F.linear, torch.nn.functional.linear, arrays, device, seed)
    compare(F.relu, torch.nn.functional.relu, arrays[:1], device, seed)


@pytest.mark.parametrize("device", DEVICES)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple), st.sampled_from([0.3, 1.0, 4.0]), seeds)
def test_gelu_and_silu(device: str, shape: tuple[int, ...], spread: float, seed: int) -> None:
    import torch.nn.functional as peer

    x = normal(seed, shape, np.float32) * np.float32(spread)

    def scales(backward: Callable[..., Any]) -> Callable[[Any], list[Any]]:
        # 1 - tanh^2 and 1 - sigmoid cancel: the scale of their rounding errors is not that of absolute inputs.
        return lambda dy: [abs(x), backward(dy, x).scale]

    smooth = [
        (lambda t: F.gelu(t), lambda t: peer.gelu(t), reference_smooth.gelu_backward),
        (
            lambda t: F.gelu(t, "tanh"),
            lambda t: peer.gelu(t, approximate="tanh"),
            lambda dy, x: reference_smooth.gelu_backward(dy, x, True),
        ),
        (F.silu, peer.silu, reference_smooth.silu_backward),
    ]
    for ours, theirs, backward in smooth:
        compare(ours, theirs, [x], device, seed, scales(backward))


extents = st.integers(1, 11)


@pytest.mark.parametrize("device", DEVICES)
@given(
    st.tuples(st.sampled_from([1, 2, 5]), st.integers(1, 9), extents, extents),
    st.one_of(extents, st.tuples(st.one_of(extents, st.none()), st.one_of(extents, st.none()))),
    seeds,
    st.booleans(),
)
def test_adaptive_pooling(device: str, shape: tuple[int, ...], size: Any, seed: int, ties: bool) -> None:
    import torch.nn.functional as peer

    x = normal(seed, shape, np.float32)
    x = np.round(x) if ties else x
    names = {"adaptive_max_pool2d": x, "adaptive_avg_pool2d": x}
    if isinstance(size, int):
        names |= {"adaptive_max_pool1d": x[:, :, 0], "adaptive_avg_pool1d": x[:, :, 0]}
    for name, array in names.items():
        ours, theirs = getattr(F, name), getattr(peer, name)
        compare(lambda t, f=ours: f(t, size), lambda t, f=theirs: f(t, size), [array], device, seed)


@pytest.mark.parametrize("device", DEVICES)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["mean", "sum", "none"]),
    st.sampled_from([0.0, 0.1, 0.2, 1.0]),
    seeds,
)
def test_cross_entropy(device: str, m: int, n: int, reduction: str, smoothing: float, seed: int) -> None:
    import torch

    labels = np.random.default_rng(seed).integers(0, n, m)
    logits = normal(seed, (m, n), np.float32) * 5

    def scales(dy: Any) -> list[Any]:
        # softmax - onehot cancels: the scale of its rounding errors is not that of absolute inputs.
        losses = reference.softmax_cross_entropy_forward(logits, labels, smoothing=smoothing)[0].scale
        dlosses = np.broadcast_to(dy, (m,)) / (m if reduction == "mean" else 1)
        total = {"none": losses, "sum": losses.sum(), "mean": losses.mean()}[reduction]
        return [total, reference.softmax_cross_entropy_backward(dlosses, logits, labels, smoothing=smoothing).scale]

    compare(
        lambda t: F.cross_entropy(t, gpucnn.tensor(labels, device=device), reduction, smoothing),
        lambda t: torch.nn.functional.cross_entropy(
            t, torch.tensor(labels), reduction=reduction, label_smoothing=smoothing
        ),
        [logits],
        device,
        seed,
        scales,
    )
