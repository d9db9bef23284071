"""fprop, dgrad and wgrad by windows, and the bias gradient, against the formula."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given

from gpucnn.backends.numpy import NumpyBackend, conv2d, methods
from gpucnn.geometry import Conv2dGeometry
from tests.numpy_backend.geometries import convolutions, dtypes, normal, quick, seeds, thorough
from tests.support import reference
from tests.support.tolerance import check

backend = NumpyBackend()


@pytest.fixture(autouse=True)
def general_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """By windows, at the sizes too for which there are ways of their own."""
    for name in ("fprop_method", "dgrad_method", "wgrad_method"):
        monkeypatch.setattr(methods, name, lambda g: methods.WINDOWS)


WAYS = (
    {"LEAST_ROW": 10**9},
    {"LEAST_ROW": 1},
    {"LEAST_ROW": 1, "LARGE_FILTERS": 0, "LEAST_TAP": 10**9},
    {"LARGE_FILTERS": 0, "LEAST_TAP": 0},
)


def check_all(g: Conv2dGeometry, dtype: Any, seed: int) -> None:
    """All operators on one geometry, each way: by whole windows, by rows, by rows as for large filters, by taps."""
    for ways in WAYS:
        with patch.multiple(conv2d, **ways):
            check_operators(g, dtype, seed)


def check_operators(g: Conv2dGeometry, dtype: Any, seed: int) -> None:
    x, w = normal(seed, g.input_shape, dtype), normal(seed + 1, g.weight_shape, dtype)
    dy, bias = normal(seed + 2, g.output_shape, dtype), normal(seed + 3, (g.K,), dtype)
    for b in (bias, None):
        y = backend.conv2d_fprop(x, w, b, g)
        check(y, reference.conv2d_fprop, x, w, b, g)
        assert y.dtype == dtype and y.flags.c_contiguous
    for actual, operator, arguments in (
        (backend.conv2d_dgrad(dy, w, g), reference.conv2d_dgrad, (dy, w, g)),
        (backend.conv2d_wgrad(x, dy, g)[0], reference.conv2d_wgrad, (x, dy, g)),
        (backend.bias_grad(dy), reference.bias_grad, (dy,)),
    ):
        check(actual, operator, *arguments)
        assert actual.dtype == dtype and actual.flags.c_contiguous


@quick
@given(convolutions(), dtypes, seeds)
def test_awkward_geometries(g: Conv2dGeometry, dtype: Any, seed: int) -> None:
    check_all(g, dtype, seed)


@pytest.mark.full
@thorough
@given(convolutions(), dtypes, seeds)
def test_many_awkward_geometries(g: Conv2dGeometry, dtype: Any, seed: int) -> None:
    check_all(g, dtype, seed)


NAMED = {
    "lecture conv1": Conv2dGeometry.of((4, 3, 24, 24), (64, 3, 5, 5), padding="same"),
    "lecture conv2": Conv2dGeometry.of((2, 64, 12, 12), (64, 64, 5, 5), padding="same"),
    "pointwise": Conv2dGeometry.of((5, 24, 7, 9), (40, 24, 1, 1)),
    "pointwise, strided": Conv2dGeometry.of((3, 24, 7, 9), (40, 24, 1, 1), stride=2),
    "pointwise, padded": Conv2dGeometry.of((3, 8, 7, 9), (12, 8, 1, 1), padding=2),
    "depthwise": Conv2dGeometry.of((4, 18, 9, 11), (18, 1, 3, 3), padding=1, groups=18),
    "depthwise with multiplier": Conv2dGeometry.of((4, 6, 9, 11), (18, 1, 3, 3), stride=2, padding=1, groups=6),
    "one image of many rows": Conv2dGeometry.of((1, 16, 150, 61), (8, 16, 3, 3), padding=1),
    "image of one pixel": Conv2dGeometry.of((7, 5, 1, 1), (6, 5, 1, 1)),
    "filter as large as the image": Conv2dGeometry.of((6, 5, 7, 6), (11, 5, 7, 6)),
    "padding wider than the filter": Conv2dGeometry.of((2, 3, 5, 4), (4, 3, 2, 3), padding=((4, 5), (3, 6))),
    "stride beyond the filter": Conv2dGeometry.of((2, 3, 11, 13), (4, 3, 2, 1), stride=(5, 3)),
    "stride and dilation share a factor": Conv2dGeometry.of(
        (2, 3, 14, 15), (4, 3, 3, 3), stride=(4, 2), padding=3, dilation=(2, 4)
    ),
    "no images": Conv2dGeometry.of((0, 3, 8, 8), (4, 3, 3, 3)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMED)
def test_named_geometries(name: str, dtype: Any) -> None:
    check_all(NAMED[name], dtype, 7)


def test_rows_of_large_images_are_cut_into_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cache of nearly nothing every block is one row, and the result is still that of the formula."""
    for name in ("WINDOW_BYTES", "ROWS_BYTES", "LARGE_BLOCK", "TAP_BYTES"):
        monkeypatch.setattr(conv2d, name, 256)
    for stride in (1, (1, 2), (2, 1)):
        g = Conv2dGeometry.of((3, 4, 11, 9), (5, 4, 3, 3), stride, padding=((2, 0), (1, 3)), dilation=(2, 1))
        check_all(g, np.float32, 3)


def test_large_filters_take_their_own_way() -> None:
    """The sizes at which the ways change, at their real limits: taps, and rows without padding."""
    for c, k, h in ((256, 256, 4), (64, 256, 5)):
        g = Conv2dGeometry.of((3, c, h, h), (k, c, 3, 3), padding=1)
        assert np.prod(g.weight_shape) * 4 > conv2d.LARGE_FILTERS
        check_operators(g, np.float32, 11)


def test_infinite_weights_do_not_meet_padding_of_large_filters() -> None:
    """Where rows of padding are left out, infinity times zero does not arise."""
    g = Conv2dGeometry.of((1, 1, 2, 2), (1, 1, 3, 1), padding=(1, 0))
    w = np.array([np.inf, 1, np.inf], np.float32).reshape(g.weight_shape)
    with patch.multiple(conv2d, LEAST_ROW=1, LARGE_FILTERS=0):
        y = backend.conv2d_fprop(np.ones(g.input_shape, np.float32), w, None, g)
    assert (y == np.inf).all()


def test_bias_gradient_of_many_rows_keeps_its_digits() -> None:
    """A plain running sum of a million equal terms loses them."""
    dy = np.full((1 << 20, 3), 0.1, np.float32)
    expected = dy.astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(backend.bias_grad(dy), expected, rtol=1e-6)


def test_nan_and_infinity_stay_where_they_belong() -> None:
    """Padding is zero, not a neighbour's value, also after a block with a NaN went through the same buffers."""
    g = Conv2dGeometry.of((1, 1, 4, 4), (1, 1, 3, 3), padding=1)
    w = np.ones(g.weight_shape, np.float32)
    backend.conv2d_fprop(np.full(g.input_shape, np.nan, np.float32), w, None, g)
    y = backend.conv2d_fprop(np.ones(g.input_shape, np.float32), w, None, g)
    np.testing.assert_array_equal(y[0, :, :, 0], [[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]])


def test_activation_mask_and_bias_gradient_are_those_of_the_separate_primitives() -> None:
    g = Conv2dGeometry.of((2, 6, 7, 5), (4, 3, 3, 2), stride=(2, 1), padding=1, groups=2)
    x, w, bias = (normal(i, shape, np.float32) for i, shape in enumerate((g.input_shape, g.weight_shape, (g.K,))))
    dy = normal(3, g.output_shape, np.float32)
    y, dx = backend.conv2d_fprop(x, w, bias, g), backend.conv2d_dgrad(dy, w, g)
    np.testing.assert_array_equal(backend.conv2d_fprop(x, w, bias, g, activation="relu"), np.maximum(y, 0))
    np.testing.assert_array_equal(backend.conv2d_dgrad(dy, w, g, mask=x), np.where(x > 0, dx, 0))
    dw, db = backend.conv2d_wgrad(x, dy, g, bias=True)
    np.testing.assert_array_equal(dw, backend.conv2d_wgrad(x, dy, g)[0])
    np.testing.assert_array_equal(db, backend.bias_grad(dy))


def test_linear_gradients() -> None:
    x, w, bias = normal(0, (7, 5), np.float64), normal(1, (3, 5), np.float64), normal(2, (3,), np.float64)
    dy = normal(3, (7, 3), np.float64)
    y = np.maximum(x @ w.T + bias, 0)
    np.testing.assert_allclose(backend.linear_forward(x, w, bias, activation="relu"), y, rtol=1e-13)
    np.testing.assert_allclose(backend.linear_dgrad(dy, w), dy @ w, rtol=1e-12)
    np.testing.assert_allclose(backend.linear_dgrad(dy, w, mask=x), np.where(x > 0, dy @ w, 0), rtol=1e-12)
    dw, db = backend.linear_wgrad(x, dy, bias=True)
    np.testing.assert_allclose(dw, dy.T @ x, rtol=1e-12)
    np.testing.assert_allclose(db, dy.sum(axis=0), rtol=1e-12)
    assert backend.linear_wgrad(x, dy)[1] is None
