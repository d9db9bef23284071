"""Sums, products with a number, casts and copies in another order: exact up to one rounding."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.kernels.arrays import exact_ends, host, launches, unaligned
from tests.kernels.halves import half_types, same_values
from tests.numpy_backend.geometries import normal

TYPES = [np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
types = pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: dtype.name)
ODD = [np.nan, np.inf, -np.inf, 0.0, -0.0, 65504.0, 65520.0, 1e-7, 5.9604645e-8, 2.9e-8, 3.4e38, -1.00048828125, 1.001]


@types
@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (3, 5, 2, 8), (1027,)])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_add(backend: Any, dtype: Any, shape: tuple[int, ...], aligned: bool, activation: str | None) -> None:
    x, y = (normal(seed, shape, np.float32).astype(dtype) for seed in (1, 2))
    place = backend.from_host if aligned else lambda array: unaligned(backend, array)
    with launches(backend) as names, exact_ends(backend):
        z = backend.add(place(x), place(y), activation)
    total = x.astype(np.float32) + y.astype(np.float32)
    same_values(host(backend, z), (np.maximum(total, 0) if activation else total).astype(dtype))
    assert not x.size or names[0].endswith("_vec") == (aligned and x.size % (16 // dtype.itemsize) == 0)


@types
def test_relu_of_a_sum_keeps_nan(backend: Any, dtype: Any) -> None:
    x, y = (np.array(v, np.float32).astype(dtype) for v in ([np.nan, np.inf, -1, -0.0], [1, -np.inf, 1, -0.0]))
    z = host(backend, backend.add(backend.from_host(x), backend.from_host(y), "relu"))
    same_values(z, np.array([np.nan, np.nan, 0, 0], np.float32).astype(dtype))


@types
@pytest.mark.parametrize("shape", [(0,), (7,), (3, 5, 2, 8)])
def test_scale(backend: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    x = normal(1, shape, np.float32).astype(dtype)
    by = np.array([-1.5], np.float32)
    with exact_ends(backend):
        y = backend.scale(backend.from_host(x), 0.3)
        z = backend.scale(backend.from_host(x), 0.3, backend.from_host(by))
    wide = x.astype(np.float32)
    same_values(host(backend, y), (wide * np.float32(0.3)).astype(dtype))
    same_values(host(backend, z), (wide * (np.float32(0.3) * by[0])).astype(dtype))


@half_types
def test_scale_into_a_half_type_rounds_once(backend: Any, dtype: Any) -> None:
    x = normal(1, (513,), np.float32) * np.float32(1e-6)  # far below float16's smallest normal number
    by = np.array([2.0**16], np.float32)
    y = backend.scale(backend.from_host(x), 1.0, backend.from_host(by), dtype)
    same_values(host(backend, y), (x * by[0]).astype(dtype))


@half_types
def test_casts_round_to_nearest_even(backend: Any, dtype: Any) -> None:
    x = np.concatenate([np.array(ODD, np.float32), normal(1, (1000,), np.float32)])
    with np.errstate(over="ignore"), exact_ends(backend):
        down = backend.cast(backend.from_host(x), dtype)
        same_values(host(backend, down), x.astype(dtype))
    bits = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    up = host(backend, backend.cast(backend.from_host(bits), np.dtype(np.float32)))
    np.testing.assert_array_equal(up, bits.astype(np.float32))


@half_types
def test_all_of_a_list_in_one_launch(backend: Any, dtype: Any) -> None:
    shapes = [(1,), (3, 7), (0, 4), (2049,), (64, 3, 3, 8)]
    arrays = [normal(seed, shape, np.float32) for seed, shape in enumerate(shapes)]
    outs = [backend.empty(shape, dtype) for shape in shapes]
    with launches(backend) as names:
        backend.cast_all([unaligned(backend, array) for array in arrays], outs)
    assert names == [f"cast_all_{dtype.name}"]
    for array, out in zip(arrays, outs, strict=True):
        same_values(host(backend, out), array.astype(dtype))


@types
@pytest.mark.parametrize("shape", [(0, 3, 4), (1, 1, 1), (2, 36, 5), (3, 33, 65), (1, 64, 96), (5, 1, 7)])
def test_transpose(backend: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    x = normal(1, shape, np.float32).astype(dtype)
    with exact_ends(backend):
        y = backend.transpose(unaligned(backend, x))
    same_values(host(backend, y), np.ascontiguousarray(x.swapaxes(1, 2)))


@types
@pytest.mark.parametrize(("channels", "wanted"), [(3, 7), (7, 3), (5, 5), (1, 16), (8, 0)])
def test_resize_rows(backend: Any, dtype: Any, channels: int, wanted: int) -> None:
    x = normal(1, (2, 3, 5, channels), np.float32).astype(dtype)
    with exact_ends(backend):
        y = host(backend, backend.resize_rows(backend.from_host(x), wanted))
    expected = np.zeros((2, 3, 5, wanted), np.float32).astype(dtype)
    expected[..., : min(channels, wanted)] = x[..., : min(channels, wanted)]
    same_values(y, expected)
