"""Local response normalisation: the usual windows by vectors, any other one by one, in float32 and in half types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpucnn import backends
from gpucnn.backends.cuda import lrn
from gpucnn.device import device
from tests.kernels.arrays import exact_ends, host, launches, unaligned
from tests.kernels.halves import half_normal, half_types, same_values
from tests.numpy_backend.geometries import normal, seeds
from tests.support import reference
from tests.support.tolerance import check

LECTURE = (9, 9 * 0.001 / 9.0, 0.75, 1.0)  # size, alpha, beta, k of the lecture network


def check_lrn(
    backend: Any, shape: tuple[int, ...], size: int, alpha: float, beta: float, k: float, seed: int = 0,
    dtype: Any = np.float32, spread: float = 3.0,
) -> None:  # fmt: skip
    x, dy = half_normal(seed, shape, dtype, spread), half_normal(seed + 1, shape, dtype)
    on_device = backend.from_host(x)
    y, kept = backend.lrn_forward(on_device, size, alpha, beta, k, True)
    check(host(backend, y), lambda *a, dtype: reference.lrn_forward(*a, dtype=dtype)[0], x, size, alpha, beta, k)
    dx = host(backend, backend.lrn_backward(backend.from_host(dy), on_device, kept, size, alpha, beta, k))
    check(dx, reference.lrn_backward, dy, x, None, size, alpha, beta, k)
    masked = host(backend, backend.lrn_backward(backend.from_host(dy), on_device, kept, size, alpha, beta, k, True))
    same_values(masked, np.where(x > 0, dx, dx.dtype.type(0)))


@pytest.mark.parametrize("shape", [(2, 5, 3, 64), (3, 1), (2, 2, 2, 3), (4, 5), (7, 9), (5, 130), (0, 4), (2, 1500)])
@pytest.mark.parametrize("size", [1, 4, 5, 9])
def test_lrn(backend: Any, shape: tuple[int, ...], size: int) -> None:
    with exact_ends(backend):
        check_lrn(backend, shape, size, 0.3, 0.75, 1.0)


@half_types
@pytest.mark.parametrize("shape", [(2, 5, 3, 64), (3, 8), (7, 24), (5, 30), (0, 8), (2, 1048)])
@pytest.mark.parametrize("size", [4, 5, 9])
def test_half_types(backend: Any, dtype: Any, shape: tuple[int, ...], size: int) -> None:
    with exact_ends(backend):
        check_lrn(backend, shape, size, 0.3, 0.75, 1.0, dtype=dtype)


@pytest.mark.parametrize(
    ("shape", "size", "beta", "dtype", "instance"),
    [
        ((3, 64), 9, 0.75, np.float32, "_9_vec4"), ((3, 96), 5, 0.75, np.float32, "_5_vec4"),
        ((3, 64), 9, 0.5, np.float32, ""), ((3, 64), 7, 0.75, np.float32, ""), ((3, 6), 9, 0.75, np.float32, ""),
        ((2, 1028), 9, 0.75, np.float32, ""), ((3, 64), 9, 0.75, np.float16, "_9_float16x8"),
        ((3, 8), 5, 0.75, np.float16, "_5_float16x8"), ((3, 12), 9, 0.75, np.float16, "_float16"),
    ],
)  # fmt: skip
def test_which_instance_runs(
    backend: Any, shape: tuple[int, ...], size: int, beta: float, dtype: Any, instance: str
) -> None:
    """One launch forward, one backward, the mask included."""
    x = backend.from_host(np.ones(shape, dtype))
    with launches(backend) as names:
        _, kept = backend.lrn_forward(x, size, 0.3, beta, 1.0, True)
        backend.lrn_backward(x, x, kept, size, 0.3, beta, 1.0, True)
    assert kept is None and names == ["lrn_forward" + instance, "lrn_backward" + instance]


def test_slices_off_16_bytes(backend: Any) -> None:
    x = normal(1, (3, 64), np.float32)
    y = host(backend, backend.lrn_forward(unaligned(backend, x), *LECTURE, False)[0])
    check(y, lambda *a, dtype: reference.lrn_forward(*a, dtype=dtype)[0], x, *LECTURE)


@pytest.mark.parametrize("spread", [1e-20, 1e6, 1e14, 1e17])
@pytest.mark.parametrize("channels", [16, 18])
def test_scales_of_any_magnitude(backend: Any, channels: int, spread: float) -> None:
    check_lrn(backend, (5, channels), 9, 0.9, 0.75, 1.0, spread=spread)


def test_a_window_whose_sum_overflows_takes_its_channels_to_zero(backend: Any) -> None:
    x = np.ones((2, 32), np.float32)
    x[0, 4] = 3e30
    y = host(backend, backend.lrn_forward(backend.from_host(x), 9, 1.0, 0.75, 1.0, False)[0])
    assert (y[0, :9] == 0).all() and (y[0, 9:] > 0.5).all() and (y[1] > 0.5).all()


@pytest.mark.parametrize(
    ("size", "alpha", "beta", "k"), [LECTURE, (5, 1e-4, 0.75, 2.0), (3, 0.7, 0.5, 1.5), (4, 2.0, 1.3, 0.1)]
)
def test_constants(backend: Any, size: int, alpha: float, beta: float, k: float) -> None:
    check_lrn(backend, (2, 3, 3, 17), size, alpha, beta, k)


def test_a_window_far_wider_than_the_row(backend: Any) -> None:
    x, size = normal(1, (4, 6), np.float32), 2**31 - 1
    y, kept = backend.lrn_forward(backend.from_host(x), size, size, 0.75, 1.0, True)  # every channel sees the row
    row = (11, 11, 0.75, 1.0)  # the least window that holds it from every channel, and the same factor alpha / size
    check(host(backend, y), lambda *a, dtype: reference.lrn_forward(*a, dtype=dtype)[0], x, *row)
    dx = backend.lrn_backward(backend.from_host(x), backend.from_host(x), kept, size, size, 0.75, 1.0)
    check(host(backend, dx), reference.lrn_backward, x, x, None, *row)


def test_rows_beyond_shared_memory(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lrn, "MOST_SHARED", 20)
    check_lrn(backend, (5, 21), 4, 0.5, 0.75, 1.0)
    check_lrn(backend, (5, 20), 4, 0.5, 0.6, 1.0)


def test_a_block_walks_over_many_groups_of_rows(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lrn, "GROUP_ELEMENTS", 24)
    monkeypatch.setattr(lrn, "MAX_BLOCKS", 2)
    check_lrn(backend, (31, 12), 5, 0.5, 0.75, 1.0)


def test_values_that_are_not_finite_stay_in_their_windows(backend: Any) -> None:
    for channels, size in ((9, 3), (16, 5)):
        x = np.ones((1, channels), np.float32)
        x[0, 4] = np.nan
        y = host(backend, backend.lrn_forward(backend.from_host(x), size, 1.0, 0.75, 1.0, True)[0])
        np.testing.assert_array_equal(np.isnan(y[0]), abs(np.arange(channels) - 4) <= size // 2)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 9), st.integers(1, 40), st.integers(1, 12), st.floats(0, 2), st.sampled_from([0.5, 0.75, 1.0]),
    st.floats(0.5, 3), seeds,
)  # fmt: skip
def test_any_row(rows: int, channels: int, size: int, alpha: float, beta: float, k: float, seed: int) -> None:
    check_lrn(backends.get(device("emulated")), (rows, channels), size, alpha, beta, k, seed)
