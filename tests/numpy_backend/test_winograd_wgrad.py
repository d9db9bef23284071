"""Winograd's weight gradients against the formula, in every way that their blocks, runs and borders can fall."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucnn.backends.numpy import NumpyBackend, conv2d, methods, threads, winograd_wgrad
from gpucnn.geometry import Conv2dGeometry
from tests.numpy_backend.geometries import dtypes, normal, quick, seeds
from tests.support import reference
from tests.support.tolerance import check

backend = NumpyBackend()

TILES = 30  # at least: with a few only, errors of neighbours would show in sums of next to nothing


@st.composite
def three_by_three(draw: st.DrawFn) -> Conv2dGeometry:
    """Any 3x3 convolution of a few small images at stride 1 of TILES tiles at least."""
    pads = st.integers(0, 4)
    padding: Any = draw(st.one_of(st.tuples(st.tuples(pads, pads), st.tuples(pads, pads)), st.just("same")))
    h, w = draw(st.integers(3, 12)), draw(st.integers(3, 12))
    c, k = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    one = Conv2dGeometry.of((1, c, h, w), (k, c, 3, 3), padding=padding)
    least = -(-TILES // (-(-one.P // 2) * -(-one.Q // 2)))
    n = draw(st.integers(least, least + 2))
    return Conv2dGeometry.of((n, c, h, w), (k, c, 3, 3), padding=padding)


def wgrad(x: Any, dy: Any, g: Conv2dGeometry) -> Any:
    with np.errstate(all="ignore"):  # as on the tape
        return winograd_wgrad.wgrad(x, dy, g, conv2d.windows_wgrad)


def arrays(g: Conv2dGeometry, dtype: Any, seed: int = 0) -> tuple[Any, Any]:
    """x and dy."""
    return normal(seed, g.input_shape, dtype), normal(seed + 1, g.output_shape, dtype)


def blocks_of(tiles: int, runs: int) -> Any:
    """Blocks of about so many tiles, in so many runs."""
    return patch.multiple(winograd_wgrad, TILES=tiles, RUNS=runs)


@quick
@given(three_by_three(), dtypes, seeds, st.sampled_from([1, 4, 30, 256]), st.sampled_from([1, 3, 8]))
def test_awkward_geometries(g: Conv2dGeometry, dtype: Any, seed: int, tiles: int, runs: int) -> None:
    """Blocks of parts of an image, of one and of several; runs of one block and of several, few and many."""
    x, dy = arrays(g, dtype, seed)
    with blocks_of(tiles, runs):
        dw = wgrad(x, dy, g)
    check(dw, reference.conv2d_wgrad, x, dy, g)
    assert dw.dtype == dtype and dw.flags.c_contiguous


NAMED = {
    "whole tiles": Conv2dGeometry.of((2, 64, 12, 16), (64, 64, 3, 3), padding=1),
    "odd, more outputs than inputs": Conv2dGeometry.of((3, 48, 9, 11), (80, 48, 3, 3), padding=2),
    "no padding": Conv2dGeometry.of((3, 72, 13, 14), (56, 72, 3, 3)),
    "padding of one side": Conv2dGeometry.of((3, 56, 12, 13), (64, 56, 3, 3), padding=((2, 0), (0, 2))),
    "many filters": Conv2dGeometry.of((4, 224, 10, 10), (256, 224, 3, 3), padding=1),
    "one wide image": Conv2dGeometry.of((1, 64, 6, 130), (64, 64, 3, 3), padding=1),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMED)
def test_sizes_that_are_computed_so(name: str, dtype: Any) -> None:
    g = NAMED[name]
    assert methods.wgrad_method(g) == methods.WINOGRAD
    x, dy = arrays(g, dtype)
    check(backend.conv2d_wgrad(x, dy, g)[0], reference.conv2d_wgrad, x, dy, g)


def test_large_filters_have_few_runs() -> None:
    """Sums of 16 places are 16/9 of dw each: memory bounds how many there are."""
    g = NAMED["many filters"]
    bound = 4 << 20
    assert bound < 2 * 16 * g.C * g.K * 4
    x, dy = arrays(g, np.float32)
    with blocks_of(10, 8), patch.multiple(winograd_wgrad, SUMS_BYTES=bound):
        check(wgrad(x, dy, g), reference.conv2d_wgrad, x, dy, g)


def test_no_images() -> None:
    g = Conv2dGeometry.of((0, 64, 8, 8), (64, 64, 3, 3), padding=1)
    dw = wgrad(*arrays(g, np.float32), g)
    assert dw.shape == g.weight_shape and not dw.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["x", "dy"])
def test_a_value_that_is_not_finite_spoils_only_the_taps_that_meet_it(value: float, where: str) -> None:
    """A pixel in the corner meets one tap of the filters; the sums of the others stay what they were."""
    g = Conv2dGeometry.of((3, 6, 10, 9), (5, 6, 3, 3))
    x, dy = arrays(g, np.float32)
    (x if where == "x" else dy)[1, 0, 0, 2] = value
    with np.errstate(all="ignore"):
        expected = conv2d.windows_wgrad(x, dy, g)
    assert np.isfinite(expected).any() and not np.isfinite(expected).all()
    np.testing.assert_allclose(wgrad(x, dy, g), expected, rtol=1e-5, atol=1e-4)  # the same NaN and infinities


def test_overflow_of_a_transform_only() -> None:
    """Sums of two or four pixels may overflow where no gradient does."""
    g = Conv2dGeometry.of((1, 1, 4, 4), (1, 1, 3, 3), padding=1)
    x = np.full(g.input_shape, np.finfo(np.float32).max * np.float32(0.75))
    dy = np.zeros(g.output_shape, np.float32)
    dy[0, 1, 1, 0] = 1
    np.testing.assert_array_equal(wgrad(x, dy, g), np.full(g.weight_shape, x[0, 0, 0, 0]))


def test_bits_do_not_depend_on_threads() -> None:
    g = NAMED["odd, more outputs than inputs"]
    x, dy = arrays(g, np.float32)
    before = threads.thread_count()
    for runs in (2, 8):  # rows of places as tasks of their own, and all in one
        results = []
        try:
            for count in (1, 2, 3):
                threads.set_thread_count(count)
                with blocks_of(16, runs):
                    results.append(wgrad(x, dy, g).tobytes())
        finally:
            threads.set_thread_count(before)
        assert results[0] == results[1] == results[2]


OTHERS = {
    "stride": Conv2dGeometry.of((4, 64, 17, 17), (64, 64, 3, 3), stride=2),
    "dilation": Conv2dGeometry.of((4, 64, 17, 17), (64, 64, 3, 3), dilation=2),
    "groups": Conv2dGeometry.of((4, 64, 16, 16), (64, 32, 3, 3), groups=2),
    "few channels": Conv2dGeometry.of((4, 3, 32, 32), (64, 3, 3, 3)),
    "few tiles": Conv2dGeometry.of((1, 256, 7, 7), (256, 256, 3, 3), padding=1),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_sizes_take_other_ways(name: str) -> None:
    assert methods.wgrad_method(OTHERS[name]) != methods.WINOGRAD
