"""Winograd's convolutions against the formula, in every way that their blocks, tiles and borders can fall."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucnn.backends.numpy import NumpyBackend, conv2d, methods, threads, winograd
from gpucnn.geometry import Conv2dGeometry
from tests.numpy_backend.geometries import dtypes, normal, quick, seeds
from tests.support import reference
from tests.support.tolerance import check

backend = NumpyBackend()


@st.composite
def three_by_three(draw: st.DrawFn) -> Conv2dGeometry:
    """Any 3x3 convolution of up to 5 small images at stride 1."""
    pads = st.integers(0, 4)
    padding: Any = draw(st.one_of(st.tuples(st.tuples(pads, pads), st.tuples(pads, pads)), st.just("same")))
    n, h, w = draw(st.sampled_from([0, 1, 2, 5])), draw(st.integers(3, 12)), draw(st.integers(3, 12))
    c, k = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    return Conv2dGeometry.of((n, c, h, w), (k, c, 3, 3), padding=padding)


def blocks_of(tiles: int) -> Any:
    """Blocks of so many tiles instead of those that go fastest."""
    return patch.object(winograd, "tiles_of_block", lambda c, k: tiles)


def fprop(x: Any, w: Any, bias: Any, g: Conv2dGeometry, activation: str | None = None) -> Any:
    with np.errstate(all="ignore"):  # as on the tape
        return winograd.fprop(x, w, bias, g, activation, conv2d.windows_fprop)


def dgrad(dy: Any, w: Any, g: Conv2dGeometry) -> Any:
    with np.errstate(all="ignore"):
        return winograd.dgrad(dy, w, g, conv2d.windows_dgrad)


def arrays(g: Conv2dGeometry, dtype: Any, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """x, w, bias and dy."""
    shapes = (g.input_shape, g.weight_shape, (g.K,), g.output_shape)
    return tuple(normal(seed + i, shape, dtype) for i, shape in enumerate(shapes))  # type: ignore[return-value]


def check_both(g: Conv2dGeometry, dtype: Any, seed: int = 0) -> None:
    x, w, bias, dy = arrays(g, dtype, seed)
    for b in (bias, None):
        y = fprop(x, w, b, g)
        check(y, reference.conv2d_fprop, x, w, b, g)
        assert y.dtype == dtype and y.flags.c_contiguous
    dx = dgrad(dy, w, g)
    check(dx, reference.conv2d_dgrad, dy, w, g)
    assert dx.dtype == dtype and dx.flags.c_contiguous


@quick
@given(three_by_three(), dtypes, seeds, st.sampled_from([1, 4, 30, 256]))
def test_awkward_geometries(g: Conv2dGeometry, dtype: Any, seed: int, tiles: int) -> None:
    """Blocks of parts of an image, of one and of several; products whole and in pieces."""
    with blocks_of(tiles):
        check_both(g, dtype, seed)


NAMED = {
    "whole tiles": Conv2dGeometry.of((2, 64, 12, 16), (64, 64, 3, 3), padding=1),
    "odd, more outputs than inputs": Conv2dGeometry.of((4, 48, 9, 11), (80, 48, 3, 3), padding=2),
    "no padding": Conv2dGeometry.of((3, 72, 13, 14), (56, 72, 3, 3)),
    "padding of one side": Conv2dGeometry.of((3, 56, 12, 13), (64, 56, 3, 3), padding=((2, 0), (0, 2))),
    "many filters": Conv2dGeometry.of((4, 224, 10, 10), (256, 224, 3, 3), padding=1),
    "one wide image": Conv2dGeometry.of((1, 64, 6, 130), (64, 64, 3, 3), padding=1),
    "filters copied": Conv2dGeometry.of((32, 216, 16, 16), (224, 216, 3, 3), padding=1),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMED)
def test_sizes_that_are_computed_so(name: str, dtype: Any) -> None:
    g = NAMED[name]
    if "filters" in name and dtype == np.float64:
        pytest.skip("slow, and the same code")
    assert methods.fprop_method(g) == methods.dgrad_method(g) == methods.WINOGRAD
    x, w, bias, dy = arrays(g, dtype)
    check(backend.conv2d_fprop(x, w, bias, g), reference.conv2d_fprop, x, w, bias, g)
    check(backend.conv2d_dgrad(dy, w, g), reference.conv2d_dgrad, dy, w, g)


def test_relu_keeps_nan_and_is_applied_after_the_bias() -> None:
    g = NAMED["no padding"]
    x, w, bias, _ = arrays(g, np.float32)
    np.testing.assert_array_equal(fprop(x, w, bias, g, "relu"), np.maximum(fprop(x, w, bias, g), 0))
    bias[3] = np.nan
    y = fprop(x, w, bias, g, "relu")
    assert np.isnan(y[..., 3]).all() and np.isfinite(np.delete(y, 3, axis=3)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_a_value_that_is_not_finite_spoils_no_neighbour(value: float, activation: str | None) -> None:
    """Nine outputs read a pixel; the other outputs of their tiles stay what they were."""
    g = Conv2dGeometry.of((3, 6, 10, 9), (5, 6, 3, 3), padding=1)
    x, w, bias, dy = arrays(g, np.float32)
    x[1, 4, 5, 2] = dy[2, 3, 3, 1] = value
    for tiles in (4, 256):
        with blocks_of(tiles), np.errstate(all="ignore"):
            for actual, expected in (
                (fprop(x, w, bias, g, activation), conv2d.windows_fprop(x, w, bias, g, activation)),
                (dgrad(dy, w, g), conv2d.windows_dgrad(dy, w, g)),
            ):
                np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)  # the same NaN and infinities


def test_a_value_that_is_not_finite_spoils_no_other_block() -> None:
    """Blocks of another shape use the same memory, also that of the rows that fill up a block's last product."""
    g = Conv2dGeometry.of((10, 6, 10, 10), (6, 6, 3, 3), padding=1)
    x, w, bias, _ = arrays(g, np.float32)
    before = threads.thread_count()
    threads.set_thread_count(1)
    try:
        with blocks_of(75), patch.object(winograd, "SMALL_PRODUCT", 24 * 36), patch.object(winograd, "LEAST_ROWS", 1):
            blocks = [task[0].images for task in winograd._tasks(10, 5, 5, 6, 6)]
            expected = fprop(x, w, bias, g)
            x[4] = np.nan
            y = fprop(x, w, bias, g)
    finally:
        threads.set_thread_count(before)
    assert blocks == [2, 3, 2, 3]
    others = [0, 1, 5, 6, 7, 8, 9]
    np.testing.assert_array_equal(y[others], expected[others])


def test_overflow_of_a_transform_only() -> None:
    """Sums of two or four pixels may overflow where no output does."""
    g = Conv2dGeometry.of((1, 1, 4, 4), (1, 1, 3, 3), padding=1)
    x = np.full(g.input_shape, np.finfo(np.float32).max * np.float32(0.75))
    w = np.zeros(g.weight_shape, np.float32)
    w[0, 1, 1, 0] = 1
    np.testing.assert_array_equal(fprop(x, w, None, g), x)
    np.testing.assert_array_equal(dgrad(x, w, g), x)


def test_bits_do_not_depend_on_threads() -> None:
    g = NAMED["odd, more outputs than inputs"]
    x, w, bias, dy = arrays(g, np.float32)
    before, results = threads.thread_count(), []
    try:
        for count in (1, 2, 3):
            threads.set_thread_count(count)
            with blocks_of(16):
                results.append((fprop(x, w, bias, g).tobytes(), dgrad(dy, w, g).tobytes()))
    finally:
        threads.set_thread_count(before)
    assert results[0] == results[1] == results[2]
    assert np.isfinite(x).all()


OTHERS = {
    "few channels": Conv2dGeometry.of((64, 3, 32, 32), (64, 3, 3, 3), padding=1),
    "few filters": Conv2dGeometry.of((64, 64, 16, 16), (16, 64, 3, 3), padding=1),
    "strided": Conv2dGeometry.of((8, 64, 16, 16), (64, 64, 3, 3), padding=1, stride=2),
    "dilated": Conv2dGeometry.of((8, 64, 16, 16), (64, 64, 3, 3), padding=2, dilation=2),
    "grouped": Conv2dGeometry.of((8, 128, 16, 16), (128, 64, 3, 3), padding=1, groups=2),
    "3x1": Conv2dGeometry.of((8, 64, 16, 16), (64, 64, 3, 1)),
    "few tiles": Conv2dGeometry.of((1, 256, 8, 8), (256, 256, 3, 3), padding=1),
    "a very wide image": Conv2dGeometry.of((1, 64, 4, 8194), (64, 64, 3, 3), padding=1),
    "3x3 images": Conv2dGeometry.of((256, 256, 3, 3), (256, 256, 3, 3), padding=1),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_computed_another_way(name: str) -> None:
    assert methods.fprop_method(OTHERS[name]) != methods.WINOGRAD != methods.dgrad_method(OTHERS[name])


@pytest.mark.parametrize("way, of_3x3, of_5x5", [
    ("off", methods.WINDOWS, methods.WINDOWS),
    ("2x2", methods.WINOGRAD, methods.WINOGRAD5),
    ("4x4", methods.WINOGRAD4, methods.WINOGRAD5),
])  # fmt: skip
def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch, way: str, of_3x3: str, of_5x5: str) -> None:
    monkeypatch.setenv("GPUCNN_WINOGRAD", way)
    g = NAMED["filters copied"]
    assert methods.fprop_method(g) == methods.dgrad_method(g) == of_3x3
    assert (methods.wgrad_method(g) == methods.WINDOWS) is (way == "off")
    g = Conv2dGeometry.of((128, 64, 12, 12), (64, 64, 5, 5), padding=2)
    assert methods.fprop_method(g) == methods.dgrad_method(g) == of_5x5
    monkeypatch.setenv("GPUCNN_WINOGRAD", "3x3")
    with pytest.raises(ValueError, match="GPUCNN_WINOGRAD"):
        methods.fprop_method(NAMED["filters copied"])


LARGER_TILES = (
    Conv2dGeometry.of((8, 40, 24, 27), (40, 40, 3, 3), padding=1),
    Conv2dGeometry.of((9, 72, 19, 22), (56, 72, 3, 3), padding=((2, 0), (0, 1))),
)


@pytest.mark.parametrize("g", LARGER_TILES)
def test_tiles_of_4x4_are_within_32_eps(monkeypatch: pytest.MonkeyPatch, g: Conv2dGeometry) -> None:
    """|y - y64| <= 32 eps S."""
    monkeypatch.setenv("GPUCNN_WINOGRAD", "4x4")
    assert methods.fprop_method(g) == methods.dgrad_method(g) == methods.WINOGRAD4
    x, w, bias, dy = arrays(g, np.float32)
    for actual, expected in (
        (backend.conv2d_fprop(x, w, bias, g), reference.conv2d_fprop(x, w, bias, g)),
        (backend.conv2d_dgrad(dy, w, g), reference.conv2d_dgrad(dy, w, g)),
    ):
        assert expected.scale is not None
        assert (abs(actual - expected.value) <= 32 * np.finfo(np.float32).eps * expected.scale).all()
    exact = backend.conv2d_dgrad(dy.astype(np.float64), w.astype(np.float64), g)
    np.testing.assert_allclose(exact, reference.conv2d_dgrad(dy, w, g).value, rtol=0, atol=1e-11)
