"""Every operator, forward and backward, on random awkward geometries, elementwise against float64 by the formula.

The hypothesis profile says how many: a dozen in `make test`, 200 an operator and device in `make test-full`. Here the
public operators are called, in both data formats; the primitives beneath have tests of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import gpucnn
import gpucnn.functional as F
from gpucnn import optim
from gpucnn.geometry import AdaptivePool2dGeometry, Conv2dGeometry, Pool2dGeometry
from gpucnn.random import keep_mask
from tests.numpy_backend.geometries import convolutions, normal, poolings, seeds
from tests.support import reference, reference_smooth
from tests.support.tolerance import assert_close, check

Array = NDArray[np.float32]

pytestmark = pytest.mark.parametrize("device", ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)])

formats = st.sampled_from(["NCHW", "NHWC"])
sizes = st.integers(1, 33)
SHAPES = st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple)


def draw(seed: int, *shape: int) -> Array:
    return normal(seed, shape, np.float32)


def forward_and_backward(function: Callable[..., Any], arrays: list[Array], dy: Array, device: str) -> list[Array]:
    """The value of ``function`` at ``arrays`` and, for the upstream gradient ``dy``, the gradient of each."""
    inputs = [gpucnn.tensor(a, device=device, requires_grad=True) for a in arrays]
    y = function(*inputs)
    y.backward(gpucnn.tensor(dy, device=device))
    return [y.numpy(), *(x.grad.numpy() for x in inputs)]


def images(array: Array, data_format: str) -> Array:
    """(N, H, W, C) in the format of an operator's argument."""
    return array.transpose(0, 3, 1, 2) if data_format == "NCHW" else array


def memory(array: Array, data_format: str) -> Array:
    """An operator's images as (N, H, W, C)."""
    return array.transpose(0, 2, 3, 1) if data_format == "NCHW" else array


@given(g=convolutions(), data_format=formats, bias=st.booleans(), seed=seeds)
def test_conv2d(device: str, g: Conv2dGeometry, data_format: str, bias: bool, seed: int) -> None:
    x, w, dy = draw(seed, *g.input_shape), draw(seed + 1, *g.weight_shape), draw(seed + 2, *g.output_shape)
    b = draw(seed + 3, g.K)
    options = {
        "stride": (g.stride_h, g.stride_w),
        "padding": ((g.pad_top, g.pad_bottom), (g.pad_left, g.pad_right)),
        "dilation": (g.dilation_h, g.dilation_w),
        "groups": g.groups,
        "data_format": data_format,
    }
    filters = w.transpose(0, 3, 1, 2) if data_format == "NCHW" else w.transpose(1, 2, 3, 0)
    arrays = [images(x, data_format), filters, *([b] if bias else [])]
    y, dx, dw, *db = forward_and_backward(
        lambda *tensors: F.conv2d(*tensors, **options), arrays, images(dy, data_format), device
    )
    check(memory(y, data_format), reference.conv2d_fprop, x, w, b if bias else None, g)
    check(memory(dx, data_format), reference.conv2d_dgrad, dy, w, g)
    dw = dw.transpose(0, 2, 3, 1) if data_format == "NCHW" else dw.transpose(3, 0, 1, 2)
    check(dw, reference.conv2d_wgrad, x, dy, g)
    if bias:
        check(db[0], reference.bias_grad, dy)


def pool_options(g: Pool2dGeometry, data_format: str) -> dict[str, Any]:
    # Explicit amounts cannot say ceil_mode's or "same"'s outputs in all cases, so the geometry is handed in below.
    return {"kernel_size": (g.R, g.S), "data_format": data_format}


@given(g=poolings(), data_format=formats, ties=st.booleans(), seed=seeds)
def test_max_pool2d(device: str, g: Pool2dGeometry, data_format: str, ties: bool, seed: int) -> None:
    x, dy = draw(seed, *g.input_shape), draw(seed + 1, *g.output_shape)
    if ties:
        x = np.round(x)
    with given_geometry(g):
        y, dx = forward_and_backward(
            lambda t: F.max_pool2d(t, **pool_options(g, data_format)),
            [images(x, data_format)],
            images(dy, data_format),
            device,
        )
    value, index = reference.max_pool2d_forward(x, g)
    np.testing.assert_array_equal(memory(y, data_format), value)
    check(memory(dx, data_format), reference.max_pool2d_backward, dy, index, g)


@given(
    g=poolings(dilated=False),
    data_format=formats,
    include=st.booleans(),
    divisor=st.sampled_from([None, None, 5]),
    seed=seeds,
)
def test_avg_pool2d(
    device: str, g: Pool2dGeometry, data_format: str, include: bool, divisor: int | None, seed: int
) -> None:
    x, dy = draw(seed, *g.input_shape), draw(seed + 1, *g.output_shape)
    options = {"count_include_pad": include, "divisor_override": divisor}
    with given_geometry(g):
        y, dx = forward_and_backward(
            lambda t: F.avg_pool2d(t, **pool_options(g, data_format), **options),
            [images(x, data_format)],
            images(dy, data_format),
            device,
        )
    check(memory(y, data_format), reference.avg_pool2d_forward, x, g, include, divisor)
    check(memory(dx, data_format), reference.avg_pool2d_backward, dy, g, include, divisor)


class given_geometry:
    """Within it Pool2dGeometry.of gives ``g``: how arguments become a geometry is tested with the geometry."""

    def __init__(self, g: Pool2dGeometry) -> None:
        self.g, self.patch = g, pytest.MonkeyPatch()

    def __enter__(self) -> None:
        self.patch.setattr(Pool2dGeometry, "of", classmethod(lambda *_, **__: self.g))

    def __exit__(self, *exception: object) -> None:
        self.patch.undo()


@given(shape=SHAPES, seed=seeds)
def test_relu(device: str, shape: tuple[int, ...], seed: int) -> None:
    x, dy = np.round(draw(seed, *shape), 1), draw(seed + 1, *shape)
    y, dx = forward_and_backward(F.relu, [x], dy, device)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(dx, np.where(x > 0, dy, 0))


@given(shape=SHAPES, spread=st.sampled_from([0.3, 1.0, 4.0]), seed=seeds)
def test_gelu_and_silu(device: str, shape: tuple[int, ...], spread: float, seed: int) -> None:
    x, dy = draw(seed, *shape) * np.float32(spread), draw(seed + 1, *shape)
    for tanh in (False, True):
        approximate = "tanh" if tanh else "none"
        y, dx = forward_and_backward(lambda t, a=approximate: F.gelu(t, a), [x], dy, device)
        check(y, reference_smooth.gelu_forward, x, tanh)
        check(dx, reference_smooth.gelu_backward, dy, x, tanh)
    y, dx = forward_and_backward(F.silu, [x], dy, device)
    check(y, reference_smooth.silu_forward, x)
    check(dx, reference_smooth.silu_backward, dy, x)


extents = st.integers(1, 11)


@given(
    shape=st.tuples(st.integers(0, 3), st.integers(1, 9), extents, extents),
    size=st.tuples(st.one_of(extents, st.none()), extents),
    data_format=formats,
    ties=st.booleans(),
    seed=seeds,
)
def test_adaptive_pooling(
    device: str, shape: tuple[int, ...], size: tuple[int | None, int], data_format: str, ties: bool, seed: int
) -> None:
    g = AdaptivePool2dGeometry.of(shape, size, "adaptive_max_pool2d")
    x, dy = draw(seed, *g.input_shape), draw(seed + 1, *g.output_shape)
    x = np.round(x) if ties else x
    value, index = reference_smooth.adaptive_max_pool2d_forward(x, g)
    arrays, upstream = [images(x, data_format)], images(dy, data_format)
    y, dx = forward_and_backward(
        lambda t: F.adaptive_max_pool2d(t, size, data_format=data_format), arrays, upstream, device
    )
    np.testing.assert_array_equal(memory(y, data_format), value)
    check(memory(dx, data_format), reference_smooth.adaptive_max_pool2d_backward, dy, index, g)
    y, dx = forward_and_backward(lambda t: F.adaptive_avg_pool2d(t, size, data_format), arrays, upstream, device)
    check(memory(y, data_format), reference_smooth.adaptive_avg_pool2d_forward, x, g)
    check(memory(dx, data_format), reference_smooth.adaptive_avg_pool2d_backward, dy, g)


@given(rows=st.lists(sizes, min_size=1, max_size=2), k=sizes, n=sizes, bias=st.booleans(), seed=seeds)
def test_linear(device: str, rows: list[int], k: int, n: int, bias: bool, seed: int) -> None:
    x, w, b, dy = draw(seed, *rows, k), draw(seed + 1, n, k), draw(seed + 2, n), draw(seed + 3, *rows, n)
    y, dx, dw, *db = forward_and_backward(F.linear, [x, w, *([b] if bias else [])], dy, device)
    flat_x, flat_dy = x.reshape(-1, k), dy.reshape(-1, n)
    check(y.reshape(-1, n), reference.linear_forward, flat_x, w, b if bias else None)
    check(dx.reshape(-1, k), reference.matmul, flat_dy, w)
    check(dw, reference.matmul, np.ascontiguousarray(flat_dy.T), flat_x)
    if bias:
        check(db[0], reference.bias_grad, flat_dy)


@given(batch=st.integers(0, 3), m=sizes, k=sizes, n=sizes, seed=seeds)
def test_matmul(device: str, batch: int, m: int, k: int, n: int, seed: int) -> None:
    """batch 0 stands for two plain matrices."""
    lead = (batch,) if batch else ()
    a, b, dy = draw(seed, *lead, m, k), draw(seed + 1, *lead, k, n), draw(seed + 2, *lead, m, n)
    y, da, db = forward_and_backward(gpucnn.matmul, [a, b], dy, device)
    check(y, reference.matmul, a, b)
    check(da, reference.matmul, dy, np.ascontiguousarray(b.swapaxes(-1, -2)))
    check(db, reference.matmul, np.ascontiguousarray(a.swapaxes(-1, -2)), dy)


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(1, 24)),
    size=st.integers(1, 13),
    alpha=st.sampled_from([1e-3, 0.3, 2.0]),
    beta=st.sampled_from([0.75, 0.5, 1.0, 0.6]),
    k=st.sampled_from([1.0, 2.5]),
    seed=seeds,
)
def test_local_response_norm(
    device: str, shape: tuple[int, ...], size: int, alpha: float, beta: float, k: float, seed: int
) -> None:
    x, dy = draw(seed, *shape), draw(seed + 1, *shape)
    constants = size, alpha, beta, k
    y, dx = forward_and_backward(
        lambda t: F.local_response_norm(t, *constants), [images(x, "NCHW")], images(dy, "NCHW"), device
    )
    forward = [reference.lrn_forward(x, *constants, dtype=dtype) for dtype in (np.float64, np.float32)]
    assert_close(memory(y, "NCHW"), forward[0][0].value, forward[0][0].scale, forward[1][0].value, what="output")

    def backward(dtype: Any) -> reference.Reference:
        scale = reference.lrn_forward(x, *constants, dtype=dtype)[1].value
        return reference.lrn_backward(dy, x, scale, *constants, dtype=dtype)

    exact, plain = backward(np.float64), backward(np.float32)
    assert_close(memory(dx, "NCHW"), exact.value, exact.scale, plain.value, what="gradient")


@given(
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple),
    channels=st.integers(1, 24),
    weight=st.booleans(),
    training=st.booleans(),
    eps=st.sampled_from([1e-5, 1e-3]),
    mean=st.sampled_from([0.0, 20.0]),
    seed=seeds,
)
def test_batch_norm(
    device: str, shape: tuple[int, ...], channels: int, weight: bool, training: bool, eps: float, mean: float, seed: int
) -> None:
    """(N, C), (N, C, L) and (N, C, H, W); with one of weight and bias."""
    shape = (shape[0] + 1, channels, *shape[2:])  # two values a channel at least

    def channels_last(array: Array) -> Array:
        return np.moveaxis(array, 1, -1)

    x, dy, parameter = mean + draw(seed, *shape), draw(seed + 1, *shape), draw(seed + 2, channels)
    running = draw(seed + 3, channels), np.abs(draw(seed + 4, channels)) + np.float32(0.1)
    buffers = [gpucnn.tensor(a, device=device) for a in running]

    def normalized(t: gpucnn.Tensor, p: gpucnn.Tensor) -> gpucnn.Tensor:
        w, b = (p, None) if weight else (None, p)
        return F.batch_norm(t, *buffers, w, b, training, 0.3, eps)

    y, dx, dparameter = forward_and_backward(normalized, [x, parameter], dy, device)
    w, b = (parameter, None) if weight else (None, parameter)
    given = None if training else running
    rows, drows = channels_last(x), channels_last(dy)
    check(channels_last(y), reference.batch_norm_forward, rows, given, w, b, eps)
    exact, plain = (reference.batch_norm_backward(drows, rows, given, w, eps, t) for t in (np.float64, np.float32))
    assert_close(channels_last(dx), exact[0].value, exact[0].scale, plain[0].value, what="dx")
    one = 1 if weight else 2
    assert_close(dparameter, exact[one].value, exact[one].scale, plain[one].value, what="parameter")
    count = x.size // channels
    moments = [part.value for part in reference.batch_norm_statistics(rows)]
    for buffer, before, new in zip(buffers, running, (moments[0], moments[1] * count / (count - 1)), strict=True):
        after = 0.7 * before.astype(np.float64) + 0.3 * new if training else before.astype(np.float64)
        assert_close(buffer.numpy(), after, np.abs(before) + np.abs(new) + (mean if training else 0), what="running")


@given(n=sizes, classes=st.integers(2, 33), large=st.booleans(), smoothing=st.sampled_from([0.0, 0.0, 0.2]), seed=seeds)
def test_cross_entropy(device: str, n: int, classes: int, large: bool, smoothing: float, seed: int) -> None:
    logits = draw(seed, n, classes) * (1000 if large else 3)
    labels = np.random.default_rng(seed).integers(0, classes, n)
    exact, plain = (
        reference.softmax_cross_entropy_forward(logits, labels, t, smoothing)[0] for t in (np.float64, np.float32)
    )
    assert exact.scale is not None
    for reduction, reduce in (("mean", np.mean), ("sum", np.sum), ("none", np.asarray)):
        dy = np.asarray(draw(seed + 1, *((n,) if reduction == "none" else ())))

        def loss(t: gpucnn.Tensor, reduction: str = reduction) -> gpucnn.Tensor:
            return F.cross_entropy(t, gpucnn.tensor(labels, device=device), reduction, smoothing)

        y, dlogits = forward_and_backward(loss, [logits], dy, device)
        assert_close(y, *(np.asarray(reduce(part)) for part in (exact.value, exact.scale, plain.value)))
        dlosses = np.broadcast_to(dy, (n,)) / np.float32(n if reduction == "mean" else 1)

        def gradient(*arguments: Any, dtype: Any) -> reference.Reference:
            return reference.softmax_cross_entropy_backward(*arguments, dtype=dtype, smoothing=smoothing)

        check(dlogits, gradient, dlosses, logits, labels)


@given(shape=SHAPES, p=st.sampled_from([0.1, 0.5, 0.9]), seed=seeds)
def test_dropout(device: str, shape: tuple[int, ...], p: float, seed: int) -> None:
    """The mask is that of the global stream, in the order of memory; what is kept is exact to a rounding."""
    x, dy = draw(seed, *shape), draw(seed + 1, *shape)
    gpucnn.manual_seed(seed)
    key = gpucnn.random.default_generator.next_key(gpucnn.random.Purpose.DROPOUT)
    in_memory = keep_mask(x.size, p, key)
    keep = (
        images(in_memory.reshape([shape[i] for i in (0, 2, 3, 1)]), "NCHW") if x.ndim == 4 else in_memory.reshape(shape)
    )
    gpucnn.manual_seed(seed)
    y, dx = forward_and_backward(lambda t: F.dropout(t, p), [x], dy, device)
    for got, source in ((y, x), (dx, dy)):
        np.testing.assert_allclose(got, np.where(keep, source.astype(np.float64) / (1 - p), 0), rtol=1e-6)


@given(shape=st.tuples(*[st.integers(1, 6)] * 4), start=st.integers(0, 3), seed=seeds)
def test_flatten(device: str, shape: tuple[int, ...], start: int, seed: int) -> None:
    x = draw(seed, *shape)
    flat = x.reshape(*shape[:start], -1)
    dy = draw(seed + 1, *flat.shape)
    y, dx = forward_and_backward(lambda t: F.flatten(t, start), [x], dy, device)
    np.testing.assert_array_equal(y, flat)
    np.testing.assert_array_equal(dx, dy.reshape(shape))


@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=5),
    momentum=st.sampled_from([0.0, 0.9]),
    dampening=st.sampled_from([0.0, 0.3]),
    nesterov=st.booleans(),
    seed=seeds,
)
def test_sgd_and_moving_average(
    device: str, shapes: list[tuple[int, ...]], momentum: float, dampening: float, nesterov: bool, seed: int
) -> None:
    nesterov = nesterov and momentum > 0 and dampening == 0
    decays = [0.1 * (i % 3) for i in range(len(shapes))]
    start = [draw(seed + i, *shape) for i, shape in enumerate(shapes)]
    parameters = [gpucnn.tensor(a, device=device, requires_grad=True) for a in start]
    groups = [{"params": [p], "weight_decay": d} for p, d in zip(parameters, decays, strict=True)]
    optimizer = optim.SGD(groups, lr=0.1, momentum=momentum, dampening=dampening, nesterov=nesterov)
    average = optim.MovingAverage(parameters, 0.9)
    buffers: list[Any] = [None] * len(shapes)
    for step in range(2):
        before = [p.numpy() for p in parameters]
        averages = [a.numpy() for a in average.averages]
        gradients = [draw(seed + 10 * step + i + 5, *shape) for i, shape in enumerate(shapes)]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gpucnn.tensor(gradient, device=device)
        optimizer.step()
        average.update()
        for i, (p, g, decay) in enumerate(zip(before, gradients, decays, strict=True)):
            options = (0.1, momentum, dampening, decay, nesterov, step == 0)
            arguments = (
                p,
                g,
                (buffers[i] if buffers[i] is not None else np.zeros_like(p)) if momentum else None,
                *options,
            )
            exact, plain = (reference.sgd_step(*arguments, dtype=t) for t in (np.float64, np.float32))
            assert_close(parameters[i].numpy(), exact[0].value, exact[0].scale, plain[0].value, what="parameter")
            if momentum:
                buffers[i] = optimizer.state[parameters[i]]["momentum_buffer"].numpy()
            check(average.averages[i].numpy(), reference.moving_average_step, averages[i], parameters[i].numpy(), 0.9)
