"""ReLU and the bias' gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn.backends.cuda import elementwise
from tests.kernels.arrays import exact_ends, host, launches, unaligned
from tests.kernels.halves import half_normal, half_types
from tests.numpy_backend.geometries import normal
from tests.support import reference
from tests.support.tolerance import check

SHAPES = [(0,), (1,), (3,), (4,), (2, 5, 7, 3), (3, 4, 4, 8), (1025,), (2, 0, 4)]
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3.0], np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("aligned", [True, False])
def test_relu(backend: Any, shape: tuple[int, ...], aligned: bool) -> None:
    x, dy = normal(1, shape, np.float32), normal(2, shape, np.float32)
    place = backend.from_host if aligned else lambda array: unaligned(backend, array)
    with launches(backend) as names, exact_ends(backend):
        y = backend.relu_forward(place(x))
        dx = backend.relu_backward(place(dy), place(reference.relu_forward(x)))
    np.testing.assert_array_equal(host(backend, y), reference.relu_forward(x))
    np.testing.assert_array_equal(host(backend, dx), reference.relu_backward(dy, reference.relu_forward(x)))
    suffix = "_vec4" if x.size % 4 == 0 and (aligned or not x.size) else ""
    if x.size or aligned:
        assert names == ["relu_forward" + suffix, "relu_backward" + suffix]


@pytest.mark.parametrize("cut", [0, 1])
def test_relu_keeps_nan_and_its_gradient_at_zero_is_zero(backend: Any, cut: int) -> None:
    x = SPECIAL[cut:]
    y = host(backend, backend.relu_forward(backend.from_host(x)))
    np.testing.assert_array_equal(y, np.array([np.nan, np.inf, 0, 0, 0, 1e-45, 0, 3], np.float32)[cut:])
    dx = host(
        backend,
        backend.relu_backward(backend.from_host(np.arange(1, 1 + x.size, dtype=np.float32)), backend.from_host(y)),
    )
    np.testing.assert_array_equal(dx, np.array([0, 2 - cut, 0, 0, 0, 6 - cut, 0, 8 - cut], np.float32)[cut:])


@pytest.mark.parametrize("shape", [
    (0, 5), (1, 1), (1, 7), (3, 2, 2, 5), (511, 3), (512, 10), (513, 33), (2000, 1), (5, 1, 1, 700), (1030, 64),
])  # fmt: skip
def test_bias_gradient(backend: Any, shape: tuple[int, ...]) -> None:
    dy = normal(3, shape, np.float32)
    with exact_ends(backend):
        db = backend.bias_grad(backend.from_host(dy))
    check(host(backend, db), reference.bias_grad, dy)


@half_types
@pytest.mark.parametrize("shape", [(0, 5), (3, 2, 2, 5), (513, 33), (1030, 64)])
def test_bias_gradient_of_half_types_is_float32(backend: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    dy = half_normal(3, shape, dtype)
    with exact_ends(backend):
        db = host(backend, backend.bias_grad(backend.from_host(dy)))
    assert db.dtype == np.float32
    check(db, reference.bias_grad, dy.astype(np.float32))


def test_bias_gradient_of_many_slabs_is_summed_by_the_last_block(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elementwise, "SLAB_ROWS", 4)
    monkeypatch.setattr(elementwise, "MOST_SLABS", 100)
    dy = normal(4, (1601, 6), np.float32)
    with launches(backend) as names:
        db = backend.bias_grad(backend.from_host(dy))
    check(host(backend, db), reference.bias_grad, dy)
    assert names == ["column_sums"]  # 95 slabs of 17 rows
    again = backend.bias_grad(backend.from_host(dy))  # the counters are back at 0
    np.testing.assert_array_equal(host(backend, again), host(backend, db))
