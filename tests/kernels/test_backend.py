"""What CudaBackend does without kernels: copies between host and device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn.backends.base import Backend

NHWC = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)


@pytest.mark.parametrize(
    "array",
    [NHWC, NHWC.transpose(0, 3, 1, 2), NHWC.T, NHWC[0, 0].T, NHWC[:0], np.float32(3).reshape(()), NHWC[:, :1]],
    ids=["C order", "channels-last", "Fortran order", "transposed matrix", "empty", "no axes", "an axis of one"],
)
def test_copies_keep_values_and_memory_order(backend: Any, array: Any) -> None:
    there = backend.from_host(array)
    back = backend.to_host(there)
    for copy in (there, back):
        assert copy.shape == array.shape and copy.dtype == array.dtype
        if array.size > 1:
            order = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
            assert copy.transpose(order).flags.c_contiguous
    assert isinstance(back, np.ndarray)
    np.testing.assert_array_equal(back, array)


def test_copies_share_no_memory(backend: Any) -> None:
    array = NHWC.copy()
    there = backend.from_host(array)
    array[...] = 0
    back = backend.to_host(there)
    back[0, 0, 0, 0] = -1
    np.testing.assert_array_equal(backend.to_host(there), NHWC)


def test_every_primitive_is_there(backend: Any) -> None:
    assert isinstance(backend, Backend)
    assert backend.name in ("cuda", "emulated")
    assert not type(backend).__abstractmethods__
    assert not backend.computes(np.dtype(np.float64))
    backend.synchronize()
