"""Convolutions by banded filters against the formula, whatever the sizes at which they are chosen."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucnn.backends.numpy import conv2d, methods, threads, toeplitz
from gpucnn.backends.numpy.windows import axes
from gpucnn.geometry import Conv2dGeometry
from tests.numpy_backend.geometries import convolutions, dtypes, normal, quick, seeds, thorough
from tests.support import reference
from tests.support.tolerance import check

fprop = partial(toeplitz.fprop, direct=conv2d.windows_fprop)
dgrad = partial(toeplitz.dgrad, direct=conv2d.windows_dgrad)

plain = convolutions().filter(lambda g: (g.dilation_h, g.dilation_w, g.groups) == (1, 1, 1))


def check_operators(g: Conv2dGeometry, dtype: Any, seed: int) -> None:
    x, w = normal(seed, g.input_shape, dtype), normal(seed + 1, g.weight_shape, dtype)
    dy, bias = normal(seed + 2, g.output_shape, dtype), normal(seed + 3, (g.K,), dtype)
    y = fprop(x, w, bias, g, None)
    check(y, reference.conv2d_fprop, x, w, bias, g)
    check(fprop(x, w, None, g, None), reference.conv2d_fprop, x, w, None, g)
    np.testing.assert_array_equal(fprop(x, w, bias, g, "relu"), np.maximum(y, 0))
    check(dgrad(dy, w, g), reference.conv2d_dgrad, dy, w, g)
    check(toeplitz.wgrad(x, dy, g), reference.conv2d_wgrad, x, dy, g)
    dw, db = toeplitz.wgrad_and_bias(x, dy, g)
    check(dw, reference.conv2d_wgrad, x, dy, g)
    check(db, reference.bias_grad, dy)


@quick
@given(plain, dtypes, seeds, st.sampled_from([1, 40, 10**4]))
def test_awkward_geometries(g: Conv2dGeometry, dtype: Any, seed: int, columns: int) -> None:
    """One output at once, as many as pay, and whole rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toeplitz, "LEAST_COLUMNS", columns)
        patch.setattr(toeplitz, "LEAST_PIXELS", columns)
        check_operators(g, dtype, seed)


@pytest.mark.full
@thorough
@given(plain, dtypes, seeds, st.sampled_from([1, 40, 10**4]))
def test_many_awkward_geometries(g: Conv2dGeometry, dtype: Any, seed: int, columns: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toeplitz, "LEAST_COLUMNS", columns)
        patch.setattr(toeplitz, "LEAST_PIXELS", columns)
        check_operators(g, dtype, seed)


NAMED = {
    "lecture conv1": (Conv2dGeometry.of((9, 3, 24, 24), (64, 3, 5, 5), padding=2), 1),
    "LeNet-5 conv1": (Conv2dGeometry.of((9, 1, 28, 28), (6, 1, 5, 5), padding=2), 7),
    "LeNet-5 conv2": (Conv2dGeometry.of((9, 6, 14, 14), (16, 6, 5, 5)), 2),
    "VGG-16 conv1_1": (Conv2dGeometry.of((1, 3, 40, 224), (64, 3, 3, 3), padding=1), 1),
    "no outputs to share": (Conv2dGeometry.of((3, 1, 8, 31), (3, 1, 3, 3), padding=1), 31),
    "strided": (Conv2dGeometry.of((5, 3, 31, 32), (8, 3, 7, 7), stride=2, padding=3), 4),
    "rows skipped": (Conv2dGeometry.of((2, 3, 17, 13), (4, 3, 2, 2), stride=(5, 3)), 2),
}


@pytest.mark.parametrize("name", NAMED)
def test_named_geometries(name: str) -> None:
    g, t = NAMED[name]
    assert toeplitz.Strips.of(*axes(g), g.C, g.K).t == t
    assert methods.fprop_method(g) == methods.wgrad_method(g) == methods.TOEPLITZ
    check_operators(g, np.float32, 5)


def test_small_blocks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cache of nearly nothing: single images, single rows, products added up one by one."""
    for name in ("BLOCK_BYTES", "WGRAD_BYTES", "SUMS_BYTES", "UNPACKED"):
        monkeypatch.setattr(toeplitz, name, 64)
    for stride in (1, (1, 2), (2, 1)):
        check_operators(Conv2dGeometry.of((3, 2, 11, 9), (5, 2, 3, 3), stride, ((2, 0), (1, 3))), np.float32, 3)


def test_weight_gradients_of_parts_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of whole images, and of an even part of their rows where all would have to be packed."""
    g = Conv2dGeometry.of((21, 3, 12, 13), (16, 3, 3, 3), padding=1)
    for least, unpacked in ((1, 10**6), (1, 13 * 9 * 16 * 5), (10**6, 10**6)):
        monkeypatch.setattr(toeplitz, "LEAST_COLUMNS", 1)
        monkeypatch.setattr(toeplitz, "LEAST_PIXELS", least)
        monkeypatch.setattr(toeplitz, "UNPACKED", unpacked)
        check_operators(g, np.float32, 8)


def test_no_images() -> None:
    g = Conv2dGeometry.of((0, 3, 8, 8), (4, 3, 3, 3))
    check_operators(g, np.float32, 1)


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    g = Conv2dGeometry.of((40, 6, 14, 14), (16, 6, 5, 5))
    x, w, dy = (normal(i, s, np.float32) for i, s in enumerate((g.input_shape, g.weight_shape, g.output_shape)))
    before, results = threads.thread_count(), []
    try:
        for count in (1, 2, 3):
            threads.set_thread_count(count)
            results.append((fprop(x, w, None, g, None), dgrad(dy, w, g), *toeplitz.wgrad_and_bias(x, dy, g)))
    finally:
        threads.set_thread_count(before)
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@np.errstate(invalid="ignore")
def test_nan_and_infinity_stay_where_they_belong(value: float) -> None:
    """A zero of the band meets them, and must not spread them to the outputs beside."""
    g = Conv2dGeometry.of((40, 1, 9, 12), (3, 1, 3, 3), padding=1)
    x, w, dy = (normal(i, s, np.float32) for i, s in enumerate((g.input_shape, g.weight_shape, g.output_shape)))
    bad = x.copy()
    bad[7, 4, 5, 0] = value
    y = fprop(bad, w, None, g, None)
    met = np.zeros(g.output_shape, bool)
    met[7, 3:6, 4:7] = True
    np.testing.assert_array_equal(np.isfinite(y), ~met)
    clean = fprop(x, w, None, g, None)
    np.testing.assert_allclose(y[~met], clean[~met], rtol=0, atol=1e-5)
    dy[3, 2, 2, 1] = value
    dx = dgrad(dy, w, g)
    met = np.zeros(g.input_shape, bool)
    met[3, 1:4, 1:4] = True
    np.testing.assert_array_equal(np.isfinite(dx), ~met)
    dw = toeplitz.wgrad(x, dy, g)
    np.testing.assert_array_equal(np.isfinite(dw).all(axis=(1, 2, 3)), [True, False, True])


def test_infinite_weights() -> None:
    g = Conv2dGeometry.of((2, 1, 6, 8), (2, 1, 1, 2))
    w = np.array([[1, np.inf], [1, 1]], np.float32).reshape(g.weight_shape)
    y = fprop(np.ones(g.input_shape, np.float32), w, None, g, None)
    np.testing.assert_array_equal(y[..., 0], np.inf)
    np.testing.assert_array_equal(y[..., 1], 2)
