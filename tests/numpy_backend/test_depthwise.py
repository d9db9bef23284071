"""Depthwise convolutions, one filter a channel, against the formula."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucnn.backends.numpy import NumpyBackend, depthwise, methods, threads
from gpucnn.geometry import Conv2dGeometry
from tests.numpy_backend.geometries import dtypes, normal, quick, seeds
from tests.support import reference
from tests.support.tolerance import check

backend = NumpyBackend()


@st.composite
def geometries(draw: st.DrawFn) -> Conv2dGeometry:
    """Any depthwise convolution of up to 5 small images."""
    r, s, c = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(2, 9))
    pads, few = st.integers(0, 5), st.integers(1, 3)
    padding: Any = draw(st.one_of(st.tuples(st.tuples(pads, pads), st.tuples(pads, pads)), st.just("same")))
    dilation, stride = (draw(few), draw(few)), (draw(few), draw(few))
    h, w = draw(st.integers(dilation[0] * (r - 1) + 1, 14)), draw(st.integers(dilation[1] * (s - 1) + 1, 14))
    shape = (draw(st.sampled_from([0, 1, 2, 5])), c, h, w)
    return Conv2dGeometry.of(shape, (c, 1, r, s), stride, padding, dilation, groups=c)


def arrays(g: Conv2dGeometry, dtype: Any, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """x, w, bias and dy."""
    shapes = (g.input_shape, g.weight_shape, (g.K,), g.output_shape)
    return tuple(normal(seed + i, shape, dtype) for i, shape in enumerate(shapes))  # type: ignore[return-value]


@quick
@given(geometries(), dtypes, seeds, st.sampled_from([1, 300, 1 << 18]))
def test_awkward_geometries(g: Conv2dGeometry, dtype: Any, seed: int, size: int) -> None:
    """Blocks of single rows and of several images."""
    assert methods.fprop_method(g) == methods.dgrad_method(g) == methods.wgrad_method(g) == methods.DEPTHWISE
    x, w, bias, dy = arrays(g, dtype, seed)
    with patch.multiple(depthwise, BLOCK_BYTES=size, WGRAD_BYTES=size):
        y, dx = backend.conv2d_fprop(x, w, bias, g), backend.conv2d_dgrad(dy, w, g)
        dw = depthwise.wgrad(x, dy, g)
    check(y, reference.conv2d_fprop, x, w, bias, g)
    check(dx, reference.conv2d_dgrad, dy, w, g)
    check(dw, reference.conv2d_wgrad, x, dy, g)
    for result in (y, dx, dw):
        assert result.dtype == dtype and result.flags.c_contiguous


@pytest.mark.parametrize("stride", [1, 2])
def test_a_layer(stride: int) -> None:
    """Several blocks; no bit depends on the number of threads; ReLU comes after the bias and keeps NaN."""
    g = Conv2dGeometry.of((6, 40, 33, 31), (40, 1, 3, 3), stride, 1, groups=40)
    x, w, bias, dy = arrays(g, np.float32)
    bias[3] = np.nan
    before, results = threads.thread_count(), []
    try:
        for count in (1, 3):
            threads.set_thread_count(count)
            results.append(
                (depthwise.fprop(x, w, bias, g, "relu"), depthwise.dgrad(dy, w, g), depthwise.wgrad(x, dy, g))
            )
    finally:
        threads.set_thread_count(before)
    for one, several in zip(*results, strict=True):
        np.testing.assert_array_equal(one, several)
    y, dx, dw = results[0]
    assert np.isnan(y[..., 3]).all()
    bias[3] = 0
    expected = depthwise.fprop(x, w, bias, g)
    check(expected, reference.conv2d_fprop, x, w, bias, g)
    np.testing.assert_array_equal(np.delete(y, 3, 3), np.delete(np.maximum(expected, 0), 3, 3))
    check(dx, reference.conv2d_dgrad, dy, w, g)
    check(dw, reference.conv2d_wgrad, x, dy, g)


def test_several_filters_a_channel_are_grouped_convolutions() -> None:
    g = Conv2dGeometry.of((2, 4, 6, 6), (8, 1, 3, 3), padding=1, groups=4)
    assert methods.DEPTHWISE not in (methods.fprop_method(g), methods.dgrad_method(g), methods.wgrad_method(g))


@pytest.mark.parametrize("shape", [(64, 2, 64, 4), (8, 2, 512, 2)])
def test_many_gradients_of_one_sign_lose_no_digits(shape: tuple[int, ...]) -> None:
    """The sums of many short rows: added one by one, they would miss by twice what is allowed."""
    g = Conv2dGeometry.of(shape, (2, 1, 3, 3), padding=1, groups=2)
    rng = np.random.default_rng(0)
    x, dy = (rng.random(shape, np.float32) for shape in (g.input_shape, g.output_shape))
    check(depthwise.wgrad(x, dy, g), reference.conv2d_wgrad, x, dy, g)
