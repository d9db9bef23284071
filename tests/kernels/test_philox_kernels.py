"""The random streams on the device, bit for bit those of gpucnn/random.py; dropout, which draws from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn import random
from tests.kernels.arrays import exact_ends, host, launches, unaligned

KEYS = [(0, 0, 0), (2026, 3, 1), (2**64 - 1, 2**64 - 2, 2**16 - 1), (0x0123456789ABCDEF, 2**32 + 7, 1024)]
SIZES = [1, 2, 3, 4, 5, 1023, 4099]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("size", SIZES)
def test_words_and_uniforms(backend: Any, key: random.Key, size: int) -> None:
    words, values = backend.empty((size,), np.uint32), backend.empty((size,), np.float32)
    with exact_ends(backend):
        backend.launch("philox.cu", "philox_bits", 3, 256, words, size, *key)
        backend.launch("philox.cu", "philox_uniform", 3, 256, values, size, *key)
    np.testing.assert_array_equal(host(backend, words), random.bits(size, key))
    np.testing.assert_array_equal(host(backend, values), random.uniform(size, key))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("n", [1, 2, 5, 63, 64, 65, 1000, 4096])
def test_permutations(backend: Any, key: random.Key, n: int) -> None:
    order = backend.empty((n,), np.int64)
    width = max(n.bit_length(), random.FEISTEL_LEAST_WIDTH)
    backend.launch("philox.cu", "philox_permutation", 2, 256, order, n, width, *key)
    np.testing.assert_array_equal(host(backend, order), random.permutation(n, key))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("shape", [(0,), (1,), (5, 3), (2, 3, 4), (7, 1029)])
@pytest.mark.parametrize("aligned", [True, False])
def test_dropout_is_the_keep_mask_in_memory_order(
    backend: Any, p: float, shape: tuple[int, ...], aligned: bool
) -> None:
    key = KEYS[1]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    with launches(backend) as names:
        y = host(backend, backend.dropout(backend.from_host(x) if aligned else unaligned(backend, x), p, key))
    keep = random.keep_mask(x.size, p, key).reshape(shape)
    np.testing.assert_array_equal(y != 0, keep & (x != 0))
    np.testing.assert_allclose(y, x.astype(np.float64) * keep / (1 - p), rtol=2**-22)
    assert names == ["dropout_vec4" if x.size % 4 == 0 and (aligned or not x.size) else "dropout"]


@pytest.mark.parametrize("size", [8, 9])
def test_a_word_equal_to_the_threshold_is_kept(backend: Any, size: int) -> None:
    p = int(random.bits(8, KEYS[1])[5]) / 2**32  # exact in float64
    y = host(backend, backend.dropout(backend.from_host(np.ones(size, np.float32)), p, KEYS[1]))
    keep = random.keep_mask(size, p, KEYS[1])
    assert keep[5]
    np.testing.assert_array_equal(y != 0, keep)


def test_dropout_of_values_that_are_not_finite_is_their_product_with_the_mask(backend: Any) -> None:
    x = np.array([np.nan, np.inf] * 8, np.float32)
    y = host(backend, backend.dropout(backend.from_host(x), 0.5, KEYS[1]))
    keep = random.keep_mask(x.size, 0.5, KEYS[1])
    assert 0 < keep.sum() < x.size
    np.testing.assert_array_equal(y, np.where(keep & np.isinf(x), np.inf, np.nan))
