"""Convolution, ReLU and 2x2 max pooling in one pass against the formulas of the three."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given

import gpucnn
from gpucnn import backends, nn
from gpucnn import functional as F
from gpucnn.backends.numpy import conv2d, methods, pool2d, threads, toeplitz_pool
from gpucnn.geometry import Conv2dGeometry, Pool2dGeometry
from tests.numpy_backend.geometries import convolutions, dtypes, normal, quick, seeds
from tests.support import reference
from tests.support.tolerance import check


def _plain(g: Conv2dGeometry) -> Conv2dGeometry:
    """The same sizes at stride 1, with the padding that two rows and columns of outputs take."""
    padding = ((g.pad_top, max(g.pad_bottom, g.R + 1 - g.H - g.pad_top)),
               (g.pad_left, max(g.pad_right, g.S + 1 - g.W - g.pad_left)))  # fmt: skip
    return Conv2dGeometry.of((g.N, g.C, g.H, g.W), (g.K, g.C, g.R, g.S), 1, padding)


plain = convolutions().map(_plain)
LENET = Conv2dGeometry.of((40, 1, 28, 28), (6, 1, 5, 5), padding=2)


def pooling(g: Conv2dGeometry) -> Pool2dGeometry:
    return Pool2dGeometry.of((g.N, g.K, g.P, g.Q), 2)


def direct(x: Any, w: Any, bias: Any, g: Conv2dGeometry) -> tuple[Any, Any]:
    return pool2d.max_forward(conv2d.windows_fprop(x, w, bias, g, "relu"), pooling(g))


def fprop(x: Any, w: Any, bias: Any, g: Conv2dGeometry) -> tuple[Any, Any]:
    return toeplitz_pool.fprop(x, w, bias, g, direct)


def pooled(x: Any, w: Any, bias: Any, g: Conv2dGeometry, dtype: Any = np.float64) -> reference.Reference:
    """The largest of what may come of each place, and the largest scale among them."""
    y = reference.conv2d_fprop_relu(x, w, bias, g, dtype)
    largest = [reference.max_pool2d_forward(values, pooling(g))[0] for values in (y.value, y.scale)]
    return reference.Reference(*largest)


def check_operators(g: Conv2dGeometry, dtype: Any, seed: int) -> None:
    x, w = normal(seed, g.input_shape, dtype), normal(seed + 1, g.weight_shape, dtype)
    bias = normal(seed + 3, (g.K,), dtype)
    for b in (bias, None):
        y, index = fprop(x, w, b, g)
        check(y, pooled, x, w, b, g)
        # What it chose is a largest one, whatever rounding made of equals.
        places = np.zeros((g.N, g.P, g.Q, g.K), dtype)
        at = np.stack(np.divmod(index.astype(int), 2))
        n, p, q, k = np.indices(index.shape)
        chosen = reference.conv2d_fprop_relu(x, w, b, g, np.float64).value[n, 2 * p + at[0], 2 * q + at[1], k]
        check(chosen.astype(dtype), pooled, x, w, b, g)
    dy = np.where(y > 0, normal(seed + 2, y.shape, dtype), 0).astype(dtype)
    places = pool2d.max_backward(dy, index, pooling(g))
    check(toeplitz_pool.wgrad(x, dy, index, g), reference.conv2d_wgrad, x, places, g)


@quick
@given(plain, dtypes, seeds)
def test_awkward_geometries(g: Conv2dGeometry, dtype: Any, seed: int) -> None:
    """Odd sizes too, whose last row or column no window holds."""
    check_operators(g, dtype, seed)


@pytest.mark.parametrize("size", [4, 4096, 10**6])
def test_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Single rows of an image, single images, products of one image."""
    monkeypatch.setattr(toeplitz_pool, "PRODUCTS_BYTES", size)
    monkeypatch.setattr(toeplitz_pool, "UNPACKED", size)
    check_operators(Conv2dGeometry.of((5, 2, 11, 9), (5, 2, 3, 3), 1, ((2, 0), (1, 3))), np.float32, 3)
    check_operators(LENET, np.float32, 4)


def test_equals_go_to_the_first() -> None:
    g = Conv2dGeometry.of((2, 1, 6, 6), (3, 1, 1, 1))
    x = np.ones(g.input_shape, np.float32)
    _, index = fprop(x, np.ones(g.weight_shape, np.float32), None, g)
    assert not index.any()
    for place in range(1, 4):
        later = x.copy()
        later[:, place // 2 :: 2, place % 2 :: 2] = 2
        later[:, 1::2, 1::2] = 2  # and the last, which comes after it
        assert (fprop(later, np.ones(g.weight_shape, np.float32), None, g)[1] == place).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@np.errstate(invalid="ignore")
def test_nan_and_infinity_stay_where_they_belong(value: float) -> None:
    x, w = normal(0, LENET.input_shape, np.float32), normal(1, LENET.weight_shape, np.float32)
    x[7, 4, 5, 0] = value
    (y, index), (expected, places) = fprop(x, w, None, LENET), direct(x, w, None, LENET)
    assert not np.isfinite(y).all() or value == -np.inf
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(index[7], places[7])


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    x, w, bias = (normal(i, s, np.float32) for i, s in enumerate((LENET.input_shape, LENET.weight_shape, (LENET.K,))))
    before, results = threads.thread_count(), []
    try:
        for count in (1, 2, 3):
            threads.set_thread_count(count)
            y, index = fprop(x, w, bias, LENET)
            results.append((y, index, toeplitz_pool.wgrad(x, y, index, LENET)))
    finally:
        threads.set_thread_count(before)
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_no_images() -> None:
    check_operators(Conv2dGeometry.of((0, 1, 8, 8), (4, 1, 3, 3)), np.float32, 1)


def tensors(seed: int, layout: str, *shapes: tuple[int, ...]) -> list[gpucnn.Tensor]:
    made = [normal(seed + i, shape, np.float32) for i, shape in enumerate(shapes)]
    if layout == "NHWC":
        made[0], made[1] = made[0].transpose(0, 2, 3, 1), made[1].transpose(2, 3, 1, 0)
    return [gpucnn.tensor(array, device="cpu", requires_grad=True) for array in made]


@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
@pytest.mark.parametrize("of_images", [False, True])
@pytest.mark.parametrize("k", [6, 40])
def test_the_layer_is_convolution_and_pooling(data_format: str, of_images: bool, k: int) -> None:
    """6 filters in one pass, 40 not; gradients of everything, behind a ReLU of its own that masks."""
    results = []
    g = Conv2dGeometry.of((3, 1, 9, 12), (k, 1, 3, 3), padding=1)
    assert backends.get(gpucnn.device("cpu")).pools_convolution(g) == methods.pools(g) == (k == 6)
    for fused in (False, True):
        x, w, b = tensors(5, data_format, (3, 1, 9, 12), (k, 1, 3, 3), (k,))
        images = F.relu(x) if of_images else x.detach()
        how: dict[str, Any] = {"padding": 1, "data_format": data_format, "activation": "relu"}
        if fused:
            y = F.conv2d(images, w, b, max_pool=2, **how)
        else:
            y = F.max_pool2d(F.conv2d(images, w, b, **how), 2, data_format=data_format)
        (y * gpucnn.tensor(normal(9, y.shape, np.float32), device="cpu")).sum().backward()
        results.append([t.numpy() for t in (y, w.grad, b.grad, *([x.grad] if of_images else []))])
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=2e-4)


def test_without_relu_or_of_other_windows_it_is_two_calls() -> None:
    (x, w, b) = tensors(1, "NCHW", (2, 1, 12, 12), (4, 1, 3, 3), (4,))
    for window, activation in ((2, None), (3, "relu"), ((1, 2), "relu")):
        y = F.conv2d(x, w, b, activation=activation, max_pool=window)
        two = F.max_pool2d(F.conv2d(x, w, b, activation=activation), window)
        np.testing.assert_array_equal(y.numpy(), two.numpy())


def test_gradients_by_differences() -> None:
    x, w, b = (gpucnn.tensor(normal(i, s, np.float64), device="cpu", requires_grad=True) for i, s in
               enumerate(((2, 1, 7, 8), (3, 1, 3, 3), (3,))))  # fmt: skip
    assert gpucnn.gradcheck(lambda *t: F.conv2d(*t, padding=1, activation="relu", max_pool=2), (x, w, b))
    fixed = x.detach()
    assert gpucnn.gradcheck(lambda *t: F.conv2d(fixed, *t, padding=1, activation="relu", max_pool=2), (w, b))


def test_the_layer_says_so_and_refuses_what_does_not_fit() -> None:
    layer = nn.Conv2d(1, 6, 5, padding=2, activation="relu", max_pool=2, device="cpu")
    assert "max_pool=(2, 2)" in repr(layer)
    assert layer(gpucnn.zeros(2, 1, 28, 28, device="cpu")).shape == (2, 6, 14, 14)
    with pytest.raises(ValueError, match="Conv2d: max_pool must be positive, got 0"):
        nn.Conv2d(1, 6, 5, max_pool=0, device="cpu")
    with pytest.raises(ValueError, match="max_pool2d: window"):
        F.conv2d(gpucnn.zeros(1, 1, 5, 5, device="cpu"), gpucnn.zeros(2, 1, 5, 5, device="cpu"), max_pool=2)
