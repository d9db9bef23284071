"""float16, bfloat16 and tf32 in tests."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.numpy_backend.geometries import normal

Array = NDArray[Any]

HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
half_types = pytest.mark.parametrize("dtype", HALVES, ids=lambda dtype: dtype.name)


def half_normal(seed: int, shape: tuple[int, ...], dtype: Any, spread: float = 1.0, mean: float = 0.0) -> Array:
    """Normal variates rounded to ``dtype``: they are what the kernel and its reference are given alike."""
    return (np.float32(spread) * normal(seed, shape, np.float32) + np.float32(mean)).astype(dtype)


def same_values(actual: Array, expected: Array) -> None:
    """Equal element by element, NaN to NaN; NumPy's own comparison does not know bfloat16's NaN."""
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual.astype(np.float32), expected.astype(np.float32))


def tensor_core_values(array: Array) -> Array:
    """What the tensor cores see of an array: float32 loses 13 mantissa bits, to nearest, ties away from zero."""
    if array.dtype != np.float32:
        return array
    bits = array.view(np.uint32).astype(np.uint64)
    return ((bits + 0x1000) & 0xFFFFE000).astype(np.uint32).view(np.float32)
