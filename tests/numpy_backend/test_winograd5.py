"""The nested Winograd form of 5x5 convolutions against the formula, however blocks, tiles and borders fall."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucnn.backends.numpy import NumpyBackend, conv2d, methods, threads, winograd5
from gpucnn.geometry import Conv2dGeometry
from tests.numpy_backend.geometries import dtypes, normal, quick, seeds
from tests.support import reference
from tests.support.tolerance import check

backend = NumpyBackend()


@st.composite
def five_by_five(draw: st.DrawFn) -> Conv2dGeometry:
    """Any 5x5 convolution of up to 5 small images at stride 1."""
    pads = st.integers(0, 6)
    padding: Any = draw(st.one_of(st.tuples(st.tuples(pads, pads), st.tuples(pads, pads)), st.just("same")))
    n, h, w = draw(st.sampled_from([0, 1, 2, 5])), draw(st.integers(5, 13)), draw(st.integers(5, 13))
    c, k = draw(st.integers(12, 18)), draw(st.integers(12, 18))  # fewer are not computed so
    return Conv2dGeometry.of((n, c, h, w), (k, c, 5, 5), padding=padding)


def fprop(x: Any, w: Any, bias: Any, g: Conv2dGeometry, activation: str | None = None) -> Any:
    with np.errstate(all="ignore"):  # as on the tape
        return winograd5.fprop(x, w, bias, g, activation, conv2d.windows_fprop)


def dgrad(dy: Any, w: Any, g: Conv2dGeometry) -> Any:
    with np.errstate(all="ignore"):
        return winograd5.dgrad(dy, w, g, conv2d.windows_dgrad)


def wgrad(x: Any, dy: Any, g: Conv2dGeometry) -> Any:
    with np.errstate(all="ignore"):
        return winograd5.wgrad(x, dy, g, conv2d.windows_wgrad)


def arrays(g: Conv2dGeometry, dtype: Any, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """x, w, bias and dy."""
    shapes = (g.input_shape, g.weight_shape, (g.K,), g.output_shape)
    return tuple(normal(seed + i, shape, dtype) for i, shape in enumerate(shapes))  # type: ignore[return-value]


@quick
@given(five_by_five(), dtypes, seeds, st.sampled_from([1, 5, 30, 256]))
def test_awkward_geometries(g: Conv2dGeometry, dtype: Any, seed: int, tiles: int) -> None:
    """Blocks of parts of an image, of one and of several."""
    x, w, bias, dy = arrays(g, dtype, seed)
    with patch.multiple(winograd5, TILES_TIMES_CHANNELS=0, LEAST_TILES=tiles):
        y, y_without, dx, dw = fprop(x, w, bias, g), fprop(x, w, None, g), dgrad(dy, w, g), wgrad(x, dy, g)
    check(y, reference.conv2d_fprop, x, w, bias, g)
    check(y_without, reference.conv2d_fprop, x, w, None, g)
    check(dx, reference.conv2d_dgrad, dy, w, g)
    check(dw, reference.conv2d_wgrad, x, dy, g)
    for result in (y, dx, dw):
        assert result.dtype == dtype and result.flags.c_contiguous


NAMED = {
    "the lecture network's second layer": Conv2dGeometry.of((19, 64, 12, 12), (64, 64, 5, 5), padding=2),
    "few channels": Conv2dGeometry.of((18, 21, 12, 12), (24, 21, 5, 5), padding=2),
    "no padding, parts of tiles": Conv2dGeometry.of((41, 20, 11, 10), (50, 20, 5, 5)),
    "many channels": Conv2dGeometry.of((11, 160, 14, 13), (136, 160, 5, 5), padding=2),
    "one large image": Conv2dGeometry.of((1, 32, 61, 50), (24, 32, 5, 5), padding=((4, 0), (1, 3))),
}


@pytest.mark.parametrize("name", NAMED)
def test_sizes_that_are_computed_so(name: str) -> None:
    g = NAMED[name]
    assert methods.fprop_method(g) == methods.dgrad_method(g) == methods.wgrad_method(g) == methods.WINOGRAD5
    x, w, bias, dy = arrays(g, np.float32)
    check(backend.conv2d_fprop(x, w, bias, g), reference.conv2d_fprop, x, w, bias, g)
    check(backend.conv2d_dgrad(dy, w, g), reference.conv2d_dgrad, dy, w, g)
    check(backend.conv2d_wgrad(x, dy, g)[0], reference.conv2d_wgrad, x, dy, g)


def test_images_of_one_sign() -> None:
    """After a ReLU the pixels cancel in the transforms."""
    g = NAMED["no padding, parts of tiles"]
    x, w, bias, dy = arrays(g, np.float32)
    x = np.maximum(x, 0)
    check(fprop(x, w, bias, g), reference.conv2d_fprop, x, w, bias, g)
    check(wgrad(x, dy, g), reference.conv2d_wgrad, x, dy, g)


def test_relu_keeps_nan_and_is_applied_after_the_bias() -> None:
    g = Conv2dGeometry.of((2, 7, 9, 8), (5, 7, 5, 5), padding=1)
    x, w, bias, _ = arrays(g, np.float32)
    np.testing.assert_array_equal(fprop(x, w, bias, g, "relu"), np.maximum(fprop(x, w, bias, g), 0))
    bias[3] = np.nan
    y = fprop(x, w, bias, g, "relu")
    assert np.isnan(y[..., 3]).all() and np.isfinite(np.delete(y, 3, axis=3)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tiles", [3, 256])
def test_a_value_that_is_not_finite_spoils_no_neighbour(value: float, tiles: int) -> None:
    """25 outputs read a pixel; the others stay what they were."""
    g = Conv2dGeometry.of((3, 6, 10, 9), (5, 6, 5, 5), padding=2)
    x, w, bias, dy = arrays(g, np.float32)
    x[1, 9, 5, 2] = dy[2, 3, 0, 1] = value
    with patch.multiple(winograd5, TILES_TIMES_CHANNELS=0, LEAST_TILES=tiles), np.errstate(all="ignore"):
        for actual, expected in (
            (fprop(x, w, bias, g), conv2d.windows_fprop(x, w, bias, g)),
            (fprop(x, w, bias, g, "relu"), conv2d.windows_fprop(x, w, bias, g, "relu")),
            (dgrad(dy, w, g), conv2d.windows_dgrad(dy, w, g)),
            (wgrad(x, dy, g), conv2d.windows_wgrad(x, dy, g)),
        ):
            assert not np.isfinite(actual).all() and np.isfinite(actual).any()
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)  # the same NaN and infinities


def test_overflow_of_a_transform_only() -> None:
    """Sums of pixels may overflow where no output does."""
    g = Conv2dGeometry.of((1, 1, 5, 5), (1, 1, 5, 5), padding=2)
    x = np.full(g.input_shape, np.finfo(np.float32).max * np.float32(0.75))
    w = np.zeros(g.weight_shape, np.float32)
    w[0, 2, 2, 0] = 1
    np.testing.assert_array_equal(fprop(x, w, None, g), x)
    np.testing.assert_array_equal(dgrad(x, w, g), x)


def test_bits_do_not_depend_on_threads() -> None:
    g = Conv2dGeometry.of((5, 12, 13, 10), (9, 12, 5, 5), padding=2)
    x, w, bias, dy = arrays(g, np.float32)
    before, results = threads.thread_count(), []
    try:
        for count in (1, 2, 3):
            threads.set_thread_count(count)
            with patch.multiple(winograd5, TILES_TIMES_CHANNELS=0, LEAST_TILES=7):
                results.append([part.tobytes() for part in (fprop(x, w, bias, g), dgrad(dy, w, g), wgrad(x, dy, g))])
    finally:
        threads.set_thread_count(before)
    assert results[0] == results[1] == results[2]


def of(n: int, c: int, h: int, k: int, r: int = 5, s: int = 5, **options: Any) -> Conv2dGeometry:
    return Conv2dGeometry.of((n, c, h, h), (k, c // options.get("groups", 1), r, s), **options)


OTHERS = {
    "one channel": of(64, 1, 28, 6, padding=2),
    "strided": of(32, 64, 12, 64, padding=2, stride=2),
    "dilated": of(32, 64, 16, 64, padding=4, dilation=2),
    "grouped": of(32, 128, 12, 128, padding=2, groups=2),
    "5x3": of(32, 64, 12, 64, s=3),
    "few tiles": of(4, 64, 12, 64, padding=2),
    "5x5 outputs": of(64, 64, 5, 64, padding=2),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_computed_another_way(name: str) -> None:
    g = OTHERS[name]
    assert methods.WINOGRAD5 not in (methods.fprop_method(g), methods.dgrad_method(g), methods.wgrad_method(g))
