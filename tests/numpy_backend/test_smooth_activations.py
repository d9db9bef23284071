"""GELU, SiLU, adaptive pooling and the smoothed loss of the NumPy backend, in float32 and float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucnn.backends.numpy import NumpyBackend, threads
from gpucnn.geometry import AdaptivePool2dGeometry
from tests.numpy_backend.geometries import dtypes, normal, quick, seeds
from tests.support import reference, reference_smooth
from tests.support.tolerance import check

backend = NumpyBackend()
names = st.sampled_from(["gelu", "gelu_tanh", "silu"])
extents = st.integers(1, 12)


def run(name: str, x: Any, dy: Any) -> tuple[Any, Any]:
    if name == "silu":
        y, kept = backend.silu_forward(x, True)
        return y, backend.silu_backward(dy, kept)
    y, kept = backend.gelu_forward(x, name == "gelu_tanh", True)
    return y, backend.gelu_backward(dy, kept, name == "gelu_tanh")


def check_activation(name: str, x: Any, dy: Any) -> None:
    y, dx = run(name, x, dy)
    extra = () if name == "silu" else (name == "gelu_tanh",)
    family = name.removesuffix("_tanh")
    check(y, getattr(reference_smooth, f"{family}_forward"), x, *extra)
    check(dx, getattr(reference_smooth, f"{family}_backward"), dy, x, *extra)
    assert y.dtype == dx.dtype == x.dtype and y.shape == dx.shape == x.shape


@quick
@given(
    names,
    st.lists(st.integers(0, 7), max_size=4).map(tuple),
    dtypes,
    seeds,
    st.sampled_from([0.1, 1.0, 4.0]),
)
def test_activations(name: str, shape: tuple[int, ...], dtype: Any, seed: int, spread: float) -> None:
    check_activation(name, normal(seed, shape, dtype) * dtype(spread), normal(seed + 1, shape, dtype))


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_whole_range(name: str, dtype: Any) -> None:
    far = np.geomspace(1e-30, 1e9, 300)
    x = np.concatenate([np.linspace(-12, 12, 4001), far, -far]).astype(dtype)
    if name == "gelu_tanh":
        x = x[abs(x) < 1e6]
    with np.errstate(all="ignore"):  # as operators run; the polynomial overflows where tanh is 1 long since
        check_activation(name, x, normal(3, x.shape, dtype))


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_out_the_slope_is_one_or_zero(name: str, dtype: Any) -> None:
    """The tolerance rule allows more there: its scale grows with the terms that cancel."""
    x = np.geomspace(20, 1e18, 60).astype(dtype)
    for sign, slope in ((1, 1), (-1, 0)):
        with np.errstate(all="ignore"):
            y, dx = run(name, sign * x, np.full_like(x, 2))
        np.testing.assert_allclose(y, slope * x, atol=1e-6)
        np.testing.assert_allclose(dx, 2 * slope, atol=1e-6)


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu"])
def test_values_that_are_not_finite(name: str) -> None:
    x = np.array([np.nan, np.inf, 0.0, -0.0, 1e-45, 3e38, -3e38], np.float32)
    with np.errstate(all="ignore"):
        y, _ = run(name, x, np.ones_like(x))
    np.testing.assert_array_equal(y, np.array([np.nan, np.inf, 0, 0, y[4], 3e38, 0], np.float32))
    assert 0 <= y[4] <= 1e-45


def test_nothing_is_kept_that_nobody_wants() -> None:
    x = normal(1, (5,), np.float32)
    assert backend.gelu_forward(x, False, False)[1] is None and backend.silu_forward(x, False)[1] is None


def bits_by_threads(function: Callable[[], tuple[Any, ...]]) -> None:
    count = threads.thread_count()
    try:
        results = []
        for number in (1, 2, 3):
            threads.set_thread_count(number)
            results.append(function())
    finally:
        threads.set_thread_count(count)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu"])
def test_activations_have_the_same_bits_for_any_number_of_threads(name: str) -> None:
    x, dy = normal(1, (200_001,), np.float32), normal(2, (200_001,), np.float32)
    bits_by_threads(lambda: run(name, x, dy))


def adaptive(g: AdaptivePool2dGeometry, x: Any, dy: Any) -> tuple[Any, ...]:
    y, index = backend.adaptive_max_pool2d_forward(x, g)
    return (
        y,
        index,
        backend.adaptive_max_pool2d_backward(dy, index, g),
        backend.adaptive_avg_pool2d_forward(x, g),
        backend.adaptive_avg_pool2d_backward(dy, g),
    )


@quick
@given(
    st.tuples(st.integers(0, 4), st.integers(1, 9), extents, extents),
    st.tuples(extents, extents),
    dtypes,
    seeds,
    st.booleans(),
)
def test_adaptive_pooling(shape: tuple[int, ...], size: tuple[int, int], dtype: Any, seed: int, ties: bool) -> None:
    g = AdaptivePool2dGeometry.of(shape, size, "adaptive_avg_pool2d")
    x, dy = normal(seed, g.input_shape, dtype), normal(seed + 1, g.output_shape, dtype)
    x = np.round(x) if ties else x
    y, index, dx_max, mean, dx_mean = adaptive(g, x, dy)
    expected, where = reference_smooth.adaptive_max_pool2d_forward(x, g)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(index, where)
    check(dx_max, reference_smooth.adaptive_max_pool2d_backward, dy, where, g)
    check(mean, reference_smooth.adaptive_avg_pool2d_forward, x, g)
    check(dx_mean, reference_smooth.adaptive_avg_pool2d_backward, dy, g)
    assert index.dtype == np.int32 and {a.dtype for a in (y, dx_max, mean, dx_mean)} == {np.dtype(dtype)}


def test_adaptive_maximum_of_values_that_are_not_finite() -> None:
    g = AdaptivePool2dGeometry.of((3, 5, 7, 6), (3, 4), "adaptive_max_pool2d")
    rng = np.random.default_rng(7)
    x = rng.choice([np.nan, np.inf, -np.inf, 1.0], g.input_shape).astype(np.float32)
    x[0, :, :, 0] = -np.inf
    y, index = backend.adaptive_max_pool2d_forward(x, g)
    expected, where = reference_smooth.adaptive_max_pool2d_forward(x, g)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(index, where)


def test_adaptive_pooling_has_the_same_bits_for_any_number_of_threads() -> None:
    g = AdaptivePool2dGeometry.of((9, 33, 37, 31), (5, 8), "adaptive_avg_pool2d")
    x, dy = normal(1, g.input_shape, np.float32), normal(2, g.output_shape, np.float32)
    bits_by_threads(lambda: adaptive(g, x, dy))


@quick
@given(
    st.integers(0, 40),
    st.integers(1, 30),
    dtypes,
    seeds,
    st.sampled_from([0.1, 1.0, 30.0, 1000.0]),
    st.sampled_from([0.0, 0.1, 0.2, 1.0]),
)
def test_smoothed_cross_entropy(n: int, classes: int, dtype: Any, seed: int, spread: float, smoothing: float) -> None:
    logits, dlosses = normal(seed, (n, classes), dtype) * dtype(spread), normal(seed + 1, (n,), dtype)
    labels = np.random.default_rng(seed).integers(0, classes, n)
    losses, log_sum_exp = backend.softmax_cross_entropy_forward(logits, labels, smoothing)
    dlogits = backend.softmax_cross_entropy_backward(dlosses, logits, labels, log_sum_exp, smoothing)
    forward, backward = reference.softmax_cross_entropy_forward, reference.softmax_cross_entropy_backward
    check(losses, lambda *a, dtype: forward(*a, dtype=dtype, smoothing=smoothing)[0], logits, labels, what="losses")
    check(dlogits, lambda *a, dtype: backward(*a, dtype=dtype, smoothing=smoothing), dlosses, logits, labels)
