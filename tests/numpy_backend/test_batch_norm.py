"""Batch normalisation of the NumPy backend: float32 and float64, one piece and many, against the formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucnn.backends.numpy import NumpyBackend, wide_rows
from tests.numpy_backend.geometries import dtypes, normal, quick, seeds
from tests.support.batch_norm import EPS, check_batch_norm, check_statistics

backend = NumpyBackend()

shapes = st.tuples(st.integers(2, 400), st.integers(1, 70)) | st.sampled_from(
    [(9, 31, 33, 24), (4, 3, 5, 1500), (70000, 3), (2, 1), (1, 2, 1, 5)]
)


@quick
@given(shapes, dtypes, seeds, st.booleans(), st.booleans(), st.booleans(), st.floats(-30, 30))
def test_batch_norm(
    shape: tuple[int, ...], dtype: Any, seed: int, weight: bool, bias: bool, training: bool, mean: float
) -> None:
    options = {"weight": weight, "bias": bias, "training": training, "dtype": dtype, "mean": mean}
    check_batch_norm(backend, shape, seed, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_pieces(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide_rows, "PIECE_BYTES", 4096)
    monkeypatch.setattr(wide_rows, "SUM_BYTES", 2048)
    monkeypatch.setattr(wide_rows, "WIDTH", 64)
    check_batch_norm(backend, (5, 17, 13, 7), dtype=dtype)


@pytest.mark.parametrize("offset", [1e4, -1e6])
def test_variance_of_what_is_far_from_zero(offset: float) -> None:
    x = (offset + normal(0, (4, 50, 51, 6), np.float64)).astype(np.float32)
    statistics = backend.batch_norm_statistics(x, None, None, 0.1)
    check_statistics(backend, statistics, x)
    y = backend.batch_norm_forward(x, statistics, None, None, EPS)
    wide, axes = x.astype(np.float64), (0, 1, 2)
    inverse = 1 / np.sqrt(wide.var(axes) + EPS)
    z = (wide - wide.mean(axes)) * inverse
    np.testing.assert_allclose(y, z, rtol=2e-6, atol=2e-6)
    dy = (1 + z + 0.5 * normal(1, x.shape, np.float64)).astype(np.float32)
    dx, dweight, _ = backend.batch_norm_backward(dy, x, statistics, None, EPS, True, (True, True, False))
    assert dx is not None and dweight is not None
    np.testing.assert_allclose(dweight, (dy * z).sum(axes), rtol=2e-6)
    np.testing.assert_allclose(dx, inverse * (dy - dy.mean(axes) - z * (dy * z).mean(axes)), atol=4e-6)


def test_pieces_that_are_far_from_zero_are_joined_without_loss() -> None:
    """In float64 too, where the pieces' means are no wider than x is."""
    x = 1e4 + normal(1, (5000, 64), np.float64)
    check_statistics(backend, backend.batch_norm_statistics(x, None, None, 0.1), x)


def test_a_piece_whose_sample_is_far_from_its_mean() -> None:
    """The shift is taken from every 16th wide row; these are set far apart from all others."""
    x = normal(0, (64 * 40, 16), np.float32)
    x.reshape(-1, 64, 16)[::16] += 1e5
    check_statistics(backend, backend.batch_norm_statistics(x, None, None, 0.1), x)


def test_running_statistics_are_updated_in_place() -> None:
    x = normal(0, (500, 3), np.float32)
    mean, var = np.zeros(3, np.float32), np.ones(3, np.float32)
    backend.batch_norm_statistics(x, mean, var, 0.25)
    np.testing.assert_allclose(mean, 0.25 * x.astype(np.float64).mean(0), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(var, 0.75 + 0.25 * x.astype(np.float64).var(0, ddof=1), rtol=1e-6)


def test_no_rows_leave_the_running_statistics_alone() -> None:
    running = np.full(3, 2, np.float32)
    statistics = backend.batch_norm_statistics(np.zeros((0, 3), np.float32), running, running, 0.1)
    assert (running == 2).all() and all(part is not None and not part.any() for part in statistics)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("needs", [(True, False, False), (False, True, False), (False, False, True), (False,) * 3])
def test_only_what_is_needed_is_given(training: bool, needs: tuple[bool, bool, bool]) -> None:
    x, dy, weight = normal(0, (50, 3), np.float32), normal(1, (50, 3), np.float32), normal(2, (3,), np.float32)
    statistics = backend.batch_norm_statistics(x, None, None, 0.1)
    every = backend.batch_norm_backward(dy, x, statistics, weight, EPS, training, (True, True, True))
    some = backend.batch_norm_backward(dy, x, statistics, weight, EPS, training, needs)
    for needed, result, expected in zip(needs, some, every, strict=True):
        assert np.array_equal(result, expected) if needed else result is None


def test_values_that_are_not_finite_stay_in_their_channels() -> None:
    x = normal(0, (3000, 5), np.float32)
    x[7, 1], x[2999, 4] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        statistics = backend.batch_norm_statistics(x, None, None, 0.1)
        y = backend.batch_norm_forward(x, statistics, None, None, EPS)
    assert np.isnan(y[:, [1, 4]]).all() and np.isfinite(y[:, [0, 2, 3]]).all()


@pytest.mark.parametrize("mean", [0.3, -40.0])
@pytest.mark.parametrize("training", [True, False])
def test_a_gradient_goes_back_where_the_relu_behind_was_positive(mean: float, training: bool) -> None:
    x = normal(0, (700, 37), np.float32) + np.float32(mean)
    x[:, 5] = mean  # its output is the bias
    w, b = normal(1, (37,), np.float32), normal(2, (37,), np.float32)
    b[5], b[6] = 0, -1e-30
    statistics = backend.batch_norm_statistics(x, None, None, 0.1)
    y = backend.batch_norm_forward(x, statistics, w, b, EPS, "relu")
    assert np.array_equal(y, np.maximum(backend.batch_norm_forward(x, statistics, w, b, EPS), 0))
    dy = normal(3, x.shape, np.float32)
    dy[:40, 4] = np.inf
    masked = np.where(y > 0, dy, np.float32(0))
    for needs in ((True, True, True), (False, True, True)):
        with np.errstate(invalid="ignore"):
            ours = backend.batch_norm_backward(dy, x, statistics, w, EPS, training, needs, b, "relu")
            plain = backend.batch_norm_backward(masked, x, statistics, w, EPS, training, needs)
        for got, expected in zip(ours, plain, strict=True):
            assert (got is None and expected is None) or np.array_equal(got, expected, equal_nan=True)


def test_a_sample_that_says_nothing_of_the_rest() -> None:
    """Every row of the sample of all of x is near zero, and all others are far from it."""
    rows = np.arange(64 * 40 * 16)
    x = (normal(0, (len(rows), 128), np.float32) + np.float32(300)).astype(np.float32)
    x.reshape(-1, 16, 128)[::40] -= 300
    check_statistics(backend, backend.batch_norm_statistics(x, None, None, 0.1), x)


def test_more_channels_than_a_piece_has_elements() -> None:
    check_batch_norm(backend, (3, 70_001))
