"""Batch normalisation: columns of one channel and of four, one slab and many, all that may be left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpucnn import backends
from gpucnn.backends.cuda import batch_norm
from gpucnn.device import device
from tests.kernels.arrays import exact_ends, host, launches, unaligned
from tests.numpy_backend.geometries import normal, seeds
from tests.support.batch_norm import EPS, check_batch_norm, check_statistics

SHAPES = [(2, 3, 3, 64), (5, 1), (2, 4), (3, 2, 5, 3), (7, 12), (40, 36), (3, 130), (2, 140), (300, 2)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm(backend: Any, shape: tuple[int, ...], training: bool) -> None:
    with exact_ends(backend):
        check_batch_norm(backend, shape, training=training)


@pytest.mark.parametrize(("weight", "bias"), [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("training", [True, False])
def test_scale_and_shift_may_be_left_out(backend: Any, weight: bool, bias: bool, training: bool) -> None:
    check_batch_norm(backend, (9, 8), 3, weight=weight, bias=bias, training=training)


@pytest.mark.parametrize("shape", [(83, 5), (90, 12), (61, 140)])
def test_long_slabs_and_long_grids(backend: Any, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_norm, "ROWS_PER_THREAD", 1)
    for most in (3, 70):
        monkeypatch.setattr(batch_norm, "MOST_SLABS", most)
        monkeypatch.setattr(batch_norm, "MAX_BLOCKS", most)
        monkeypatch.setattr(batch_norm, "THREADS", 64)
        check_batch_norm(backend, shape, 5)


@pytest.mark.parametrize("shape", [(199, 37), (211, 140)])
def test_more_slabs_than_the_last_block_has_rows(
    backend: Any, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_norm, "ROWS_PER_THREAD", 1)
    monkeypatch.setattr(batch_norm, "THREADS", 64)
    plan = batch_norm._Plan.of(*shape, backend.empty(shape))
    assert plan.slabs()[0] > 2 * plan.block[1]
    check_batch_norm(backend, shape, 5)


def test_slices_off_16_bytes_take_the_scalar_kernels(backend: Any) -> None:
    with launches(backend) as names:
        check_batch_norm(backend, (6, 8), to_device=lambda array: unaligned(backend, array))
    assert names == [
        "batch_norm_statistics", "batch_norm_forward", "batch_norm_sums", "batch_norm_backward",
    ]  # fmt: skip


def test_how_many_launches_a_call_makes(backend: Any) -> None:
    """Two forward and two back in training, one each in evaluation; what nobody needs is not computed."""
    x, ones = backend.from_host(normal(0, (6, 8), np.float32)), backend.from_host(np.ones(8, np.float32))
    with launches(backend) as names:
        statistics = backend.batch_norm_statistics(x, None, None, 0.1)
        backend.batch_norm_forward(x, statistics, ones, ones, EPS)
    assert names == ["batch_norm_statistics_vec4", "batch_norm_forward_vec4"]
    sums = ["batch_norm_sums_vec4"]
    for training, needs, expected in [
        (True, (True, False, False), [*sums, "batch_norm_backward_vec4"]),
        (True, (False, True, False), sums),
        (True, (False, False, True), ["column_sums"]),
        (False, (True, False, False), ["batch_norm_forward_vec4"]),
        (False, (True, False, True), ["column_sums", "batch_norm_forward_vec4"]),
        (False, (True, True, True), [*sums, "batch_norm_forward_vec4"]),
        (False, (False, False, False), []),
    ]:
        with launches(backend) as names:
            given = backend.batch_norm_backward(x, x, statistics, ones, EPS, training, needs)
        assert names == expected and tuple(g is not None for g in given) == needs


def test_running_statistics(backend: Any) -> None:
    x = normal(0, (50, 6), np.float32) + 3
    mean, var = normal(1, (6,), np.float32), abs(normal(2, (6,), np.float32))
    for wanted in ((True, True), (True, False), (False, True)):
        running = [backend.from_host(a) if w else None for a, w in zip((mean, var), wanted, strict=True)]
        backend.batch_norm_statistics(backend.from_host(x), *running, 0.3)
        wide = x.astype(np.float64)
        for array, before, value in zip(running, (mean, var), (wide.mean(0), wide.var(0, ddof=1)), strict=True):
            if array is not None:
                np.testing.assert_allclose(host(backend, array), 0.7 * before + 0.3 * value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "x",
    [
        1e4 + normal(0, (999, 3), np.float64),
        1e6 + normal(1, (100, 8), np.float64),
        np.concatenate([np.full((1, 4), 1e4), normal(2, (300, 4), np.float64)]),
        np.full((77, 5), 0.1),
    ],
    ids=["mean of 10,000 deviations", "mean of a million deviations", "outlier first", "constant"],
)
def test_variance_of_what_is_far_from_zero(backend: Any, x: Any) -> None:
    x = x.astype(np.float32)
    statistics = backend.batch_norm_statistics(backend.from_host(x), None, None, 0.1)
    check_statistics(backend, statistics, x)
    # The mean's remainder counts: without it, y would be off by half a unit of 1e6's last place, 0.03.
    y = host(backend, backend.batch_norm_forward(backend.from_host(x), statistics, None, None, EPS))
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + EPS)
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)
    dy = (1 + expected + 0.5 * normal(9, x.shape, np.float64)).astype(np.float32)
    arguments = backend.from_host(dy), backend.from_host(x), statistics, None, EPS, True, (True, True, False)
    dx, dweight = (host(backend, part) for part in backend.batch_norm_backward(*arguments)[:2])
    np.testing.assert_allclose(dweight, (dy * expected).sum(axis=0), rtol=2e-5, atol=2e-4)
    inverse = 1 / np.sqrt(wide.var(0) + EPS)
    exact = inverse * (dy - dy.mean(0, dtype=np.float64) - expected * (dy * expected).mean(0))
    np.testing.assert_allclose(dx, exact, atol=1e-5 * inverse.max())


def test_no_rows(backend: Any) -> None:
    x, running = backend.from_host(np.zeros((0, 3), np.float32)), backend.from_host(np.ones(3, np.float32))
    statistics = backend.batch_norm_statistics(x, running, running, 0.1)
    assert (host(backend, running) == 1).all() and not any(host(backend, part).any() for part in statistics)
    assert backend.batch_norm_forward(x, statistics, running, None, EPS).shape == (0, 3)
    dx, dweight, dbias = backend.batch_norm_backward(x, x, statistics, running, EPS, True, (True, True, True))
    assert dx.shape == (0, 3) and not host(backend, dweight).any() and not host(backend, dbias).any()


def test_values_that_are_not_finite_stay_in_their_channels(backend: Any) -> None:
    x = normal(0, (20, 5), np.float32)
    x[7, 1], x[3, 4] = np.nan, np.inf
    on_device = backend.from_host(x)
    statistics = backend.batch_norm_statistics(on_device, None, None, 0.1)
    y = host(backend, backend.batch_norm_forward(on_device, statistics, None, None, EPS))
    assert np.isnan(y[:, [1, 4]]).all() and np.isfinite(y[:, [0, 2, 3]]).all()


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(2, 60), st.integers(1, 40), st.booleans(), st.floats(-30, 30), seeds)
def test_any_sizes(rows: int, channels: int, training: bool, mean: float, seed: int) -> None:
    check_batch_norm(backends.get(device("emulated")), (rows, channels), seed, training=training, mean=mean)
