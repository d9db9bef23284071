"""The linear layer's products on the CPU, of a few rows with many weights too, which go in ways of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gpucnn.backends.numpy import NumpyBackend, linear, threads
from tests.numpy_backend.geometries import normal
from tests.support import reference
from tests.support.tolerance import check

backend = NumpyBackend()

# rows, inputs, outputs: one product in the caller; cut along either side; a few rows, very few, one; none at all; few
# columns
SHAPES = [(7, 11, 5), (130, 333, 201), (409, 309, 67), (16, 517, 511), (5, 901, 1003), (3, 1501, 1003), (2, 2111, 1009),
          (17, 1021, 509), (1, 2111, 1013), (2, 300001, 9), (1, 84, 10), (1, 1, 1), (0, 5, 3), (1, 300001, 3),
          (37, 513, 10), (16, 84, 32), (1003, 1501, 7)]  # fmt: skip


@pytest.fixture(autouse=True)
def _keep_thread_count() -> Iterator[None]:
    count = threads.thread_count()
    yield
    threads.set_thread_count(count)


def _arrays(shape: tuple[int, int, int], dtype: Any = np.float32) -> tuple[Any, ...]:
    m, k, n = shape
    return normal(1, (m, k), dtype), normal(2, (n, k), dtype), normal(3, (n,), dtype), normal(4, (m, n), dtype)


def _all(shape: tuple[int, int, int], dtype: Any = np.float32) -> tuple[Any, ...]:
    x, w, b, dy = _arrays(shape, dtype)
    return (
        backend.linear_forward(x, w, b),
        backend.linear_forward(x, w, b, "relu"),
        backend.linear_dgrad(dy, w),
        backend.linear_dgrad(dy, w, np.maximum(x, 0)),
        *backend.linear_wgrad(x, dy, True),
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_of_a_layer(shape: tuple[int, int, int]) -> None:
    x, w, b, dy = _arrays(shape)
    y, rectified, dx, masked, dw, db = _all(shape)
    check(y, reference.linear_forward, x, w, b)
    check(rectified, reference.linear_forward_relu, x, w, b)
    check(dx, reference.matmul, dy, w)
    check(masked, reference.linear_dgrad_masked, dy, w, np.maximum(x, 0))
    check(dw, reference.matmul, dy, x, True)
    check(db, reference.bias_grad, dy)


@pytest.mark.parametrize("shape", [(5, 901, 1003), (3, 1501, 1003), (1, 211, 101), (409, 309, 67)], ids=str)
def test_products_of_a_layer_in_float64(shape: tuple[int, int, int]) -> None:
    x, w, b, dy = _arrays(shape, np.float64)
    y, _, dx, _, dw, _ = _all(shape, np.float64)
    np.testing.assert_allclose(y, np.einsum("mk,nk->mn", x, w) + b, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(dx, np.einsum("mn,nk->mk", dy, w), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(dw, np.einsum("mn,mk->nk", dy, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "shape", [(130, 333, 201), (16, 517, 511), (3, 1501, 1003), (1, 2111, 1013), (1003, 1501, 7)], ids=str
)
def test_no_bit_of_a_layer_depends_on_the_number_of_threads(shape: tuple[int, int, int]) -> None:
    results = []
    for count in (1, 2, 5):
        threads.set_thread_count(count)
        results.append([array.tobytes() for array in _all(shape)])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("shape", [(9, 33, 21, 17), (3, 170, 180, 190)], ids=str)
def test_a_batch_has_the_bits_of_its_products_alone(shape: tuple[int, int, int, int]) -> None:
    count, m, k, n = shape
    a, b = normal(1, (count, m, k), np.float32), normal(2, (count, n, k), np.float32)
    together = backend.matmul(a, b, transpose_b=True)
    for i in range(count):
        np.testing.assert_array_equal(together[i], backend.matmul(a[i], b[i], transpose_b=True))


def test_an_infinity_stays_in_its_row() -> None:
    x, w, b, _ = _arrays((5, 901, 1003))
    w[7, 3], x[2, 5] = np.inf, np.nan
    with np.errstate(invalid="ignore"):
        y = backend.linear_forward(x, w, b)
    rows = np.arange(5) != 2
    assert np.isnan(y[2]).all() and np.isfinite(np.delete(y[rows], 7, axis=1)).all() and np.isinf(y[rows, 7]).all()


def test_the_sizes_that_go_in_small_products() -> None:
    assert linear._few_rows(2, 25088, 4096) == 10  # VGG-16's first linear layer
    assert linear._few_rows(1, 25088, 4096) == linear._few_rows(128, 2304, 384) == linear._few_rows(2, 84, 10) == 0
