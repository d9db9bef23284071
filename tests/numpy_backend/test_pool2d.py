"""Max- and average-pooling of the NumPy backend against the formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucnn.backends.numpy import NumpyBackend, max_pool2d, pool2d, pool_gradient, pool_gradient_in_step
from gpucnn.geometry import Pool2dGeometry
from tests.numpy_backend.geometries import dtypes, normal, poolings, quick, seeds, thorough
from tests.support import reference
from tests.support.tolerance import check

backend = NumpyBackend()


def check_max(g: Pool2dGeometry, dtype: Any, seed: int, levels: int | None) -> None:
    """Forward and backward; ``levels`` rounds the input to few values, so that windows hold ties."""
    x, dy = normal(seed, g.input_shape, dtype), normal(seed + 1, g.output_shape, dtype)
    if levels:
        x = np.round(x * levels).astype(dtype) / dtype(levels)
    y, index = backend.max_pool2d_forward(x, g)
    expected, place = reference.max_pool2d_forward(x, g)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(index, place)
    assert index.dtype == (np.uint8 if g.R * g.S <= 256 else np.int32) and y.dtype == dtype
    dx = backend.max_pool2d_backward(dy, index, g)
    check(dx, reference.max_pool2d_backward, dy, place, g)
    assert dx.dtype == dtype and dx.flags.c_contiguous


def check_avg(g: Pool2dGeometry, dtype: Any, seed: int, count_include_pad: bool, divisor: int | None) -> None:
    x, dy = normal(seed, g.input_shape, dtype), normal(seed + 1, g.output_shape, dtype)
    y = backend.avg_pool2d_forward(x, g, count_include_pad, divisor)
    check(y, reference.avg_pool2d_forward, x, g, count_include_pad, divisor)
    dx = backend.avg_pool2d_backward(dy, g, count_include_pad, divisor)
    check(dx, reference.avg_pool2d_backward, dy, g, count_include_pad, divisor)
    assert y.dtype == dx.dtype == dtype and dx.flags.c_contiguous


levels = st.sampled_from([None, 1, 3])
divisors = st.sampled_from([None, None, 1, 7, -3])


@quick
@given(poolings(), dtypes, seeds, levels)
def test_max_pool(g: Pool2dGeometry, dtype: Any, seed: int, levels: int | None) -> None:
    check_max(g, dtype, seed, levels)


@pytest.mark.full
@thorough
@given(poolings(), dtypes, seeds, levels)
def test_max_pool_many_geometries(g: Pool2dGeometry, dtype: Any, seed: int, levels: int | None) -> None:
    check_max(g, dtype, seed, levels)


@quick
@given(poolings(dilated=False), dtypes, seeds, st.booleans(), divisors)
def test_avg_pool(g: Pool2dGeometry, dtype: Any, seed: int, count_include_pad: bool, divisor: int | None) -> None:
    check_avg(g, dtype, seed, count_include_pad, divisor)


@pytest.mark.full
@thorough
@given(poolings(dilated=False), dtypes, seeds, st.booleans(), divisors)
def test_avg_pool_many_geometries(
    g: Pool2dGeometry, dtype: Any, seed: int, count_include_pad: bool, divisor: int | None
) -> None:
    check_avg(g, dtype, seed, count_include_pad, divisor)


NAMED = {
    "lecture pool1": Pool2dGeometry.of((9, 64, 24, 24), 3, 2, "same"),
    "lecture pool2": Pool2dGeometry.of((9, 64, 12, 12), 3, 2, "same"),
    "window of 289 places": Pool2dGeometry.of((2, 3, 18, 20), 17, 1),
    "window of 256 places": Pool2dGeometry.of((2, 3, 18, 20), 16, 1),
    "two by two": Pool2dGeometry.of((5, 7, 9, 13), 2),
    "stride beyond the window": Pool2dGeometry.of((5, 7, 9, 13), 2, 3),
    "windows of padding alone": Pool2dGeometry.of((2, 3, 2, 2), 2, 1, 1, 3),
    "one tall image": Pool2dGeometry.of((1, 40, 200, 31), (3, 2), 2, 1),
    "ceil mode": Pool2dGeometry.of((2, 3, 8, 7), 3, 2, 1, ceil_mode=True),
    "in step": Pool2dGeometry.of((5, 40, 8, 12), 2),
    "in step, narrow": Pool2dGeometry.of((5, 6, 8, 12), (2, 3)),
    "in step, sixteen channels": Pool2dGeometry.of((5, 16, 10, 12), 2),
    "in step, many channels": Pool2dGeometry.of((3, 260, 6, 4), 2),
    "in step, overlapping": Pool2dGeometry.of((5, 40, 8, 12), (4, 3), 2, ((0, 2), (0, 1))),
    "in step, overlapping by one axis": Pool2dGeometry.of((5, 6, 8, 12), (2, 5), (2, 3), ((0, 0), (0, 2))),
    "in step, at every pixel": Pool2dGeometry.of((2, 5, 6, 7), 2, 1, ((0, 1), (0, 1))),
    "whole images": Pool2dGeometry.of((5, 40, 4, 4), 4),
    "whole images, many channels": Pool2dGeometry.of((5, 130, 4, 3), (4, 3)),
    "no images in step": Pool2dGeometry.of((0, 3, 8, 6), 2),
    "no images": Pool2dGeometry.of((0, 3, 8, 7), 3),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMED)
def test_named_geometries(name: str, dtype: Any) -> None:
    check_max(NAMED[name], dtype, 5, None)
    check_max(NAMED[name], dtype, 5, 2)
    check_avg(NAMED[name], dtype, 5, True, None)


@quick
@given(poolings(), dtypes, seeds, st.sampled_from([(np.nan,), (-np.inf,), (np.inf,), (np.nan, np.inf, -np.inf)]))
def test_max_pool_of_values_that_are_not_finite(
    g: Pool2dGeometry, dtype: Any, seed: int, values: tuple[float, ...]
) -> None:
    """The first NaN wins over everything; -inf in the image wins over padding; a gradient goes to the winner alone."""
    rng = np.random.default_rng(seed)
    x = normal(seed, g.input_shape, dtype)
    x = np.where(rng.random(x.shape) < 0.3, rng.choice(values, x.shape), x).astype(dtype)
    y, index = backend.max_pool2d_forward(x, g)
    expected, place = reference.max_pool2d_forward(x, g)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(index, place)


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf])
@pytest.mark.parametrize(
    "name", ["in step", "in step, sixteen channels", "in step, overlapping", "whole images, many channels"]
)
def test_values_that_are_not_finite_in_usual_windows(name: str, value: float) -> None:
    g = NAMED[name]
    x = normal(3, g.input_shape, np.float32)
    x[np.random.default_rng(3).random(x.shape) < 0.3] = value
    y, index = backend.max_pool2d_forward(x, g)
    expected, place = reference.max_pool2d_forward(x, g)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(index, place)


def test_max_pool_of_nothing_but_minus_infinity_takes_the_first_input() -> None:
    g = Pool2dGeometry.of((1, 1, 3, 3), 3, 2, 1)
    _, index = backend.max_pool2d_forward(np.full((1, 3, 3, 1), -np.inf, np.float32), g)
    np.testing.assert_array_equal(index[0, :, :, 0], [[4, 3], [1, 0]])


def test_an_infinite_gradient_reaches_its_winner_alone() -> None:
    g = Pool2dGeometry.of((1, 1, 2, 4), 2)
    x = np.array([[1, 2, 0, 9], [3, 0, 5, 1]], np.float32).reshape(1, 2, 4, 1)
    _, index = backend.max_pool2d_forward(x, g)
    dx = backend.max_pool2d_backward(np.array([np.inf, np.nan], np.float32).reshape(1, 1, 2, 1), index, g)
    np.testing.assert_array_equal(dx[0, :, :, 0], [[0, 0, 0, np.nan], [np.inf, 0, 0, 0]])


def test_rows_of_large_images_are_cut_into_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pool2d, max_pool2d, pool_gradient, pool_gradient_in_step):
        monkeypatch.setattr(module, "BLOCK_BYTES", 64)
    for name in ("NARROW_BLOCK", "OVERLAPPING_BLOCK"):
        monkeypatch.setattr(pool_gradient_in_step, name, 64)
    for window, stride in ((3, 2), (2, 3), (3, 1), (1, 4)):
        g = Pool2dGeometry.of((3, 5, 11, 9), window, stride, "same")
        check_max(g, np.float32, 1, 2)
        check_avg(g, np.float32, 1, False, None)
    for name in NAMED:
        if "in step" in name:
            check_max(NAMED[name], np.float32, 1, 2)
