"""Accumulating repeated indices in their order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.kernels.arrays import exact_ends, host
from tests.support import reference


@pytest.mark.parametrize(
    ("size", "count"), [(1, 1), (1, 700), (5, 3), (7, 1000), (1000, 300), (300, 5000), (4, 0), (2**40, 0)]
)
def test_the_sum_is_that_of_the_plain_loop(backend: Any, size: int, count: int) -> None:
    size = min(size, 4096)
    rng = np.random.default_rng(count)
    positions = rng.integers(0, size, count)
    values = (rng.standard_normal(count) * 10.0 ** rng.integers(-6, 7, count)).astype(np.float32)
    with exact_ends(backend):
        out = backend.scatter_add(size, backend.from_host(positions), backend.from_host(values))
    assert out.dtype == np.float32
    np.testing.assert_array_equal(host(backend, out), reference.scatter_add(size, positions, values))


def test_order_matters_and_is_kept(backend: Any) -> None:
    values = np.array([1e8, 1, -1e8, 1, 7], np.float32)
    positions = np.array([2, 2, 2, 2, 0])
    out = host(backend, backend.scatter_add(3, backend.from_host(positions), backend.from_host(values)))
    np.testing.assert_array_equal(out, [7, 0, 1])  # 1 is lost beside 1e8, not after it


def test_too_many_for_one_sort(backend: Any) -> None:
    one = backend.from_host(np.zeros(1, np.int64))
    with pytest.raises((ValueError, MemoryError)):
        backend.scatter_add(2**62, one, backend.from_host(np.ones(1, np.float32)))
