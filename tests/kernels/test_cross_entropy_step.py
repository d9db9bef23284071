"""A training step's loss, gradient and count of right rows in one launch, and the loss of half logits."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gpucnn.backends.cuda import cross_entropy
from tests.kernels.arrays import exact_ends, host, launches
from tests.kernels.halves import half_normal, half_types
from tests.kernels.test_cross_entropy_kernels import FindsInKernels
from tests.numpy_backend.geometries import normal
from tests.support import reference
from tests.support.tolerance import assert_close, check

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def check_step(backend: Any, logits: Any, labels: Any, smoothing: float = 0.0, factor: float = 1.0) -> None:
    loss, dlogits, correct = backend.softmax_cross_entropy_step(
        backend.from_host(logits), backend.from_host(labels), smoothing, factor
    )
    wide, plain = (reference.softmax_cross_entropy_forward(logits, labels, t, smoothing)[0] for t in
                   (np.float64, np.float32))  # fmt: skip
    total = np.array([factor * wide.value.sum()])
    assert_close(host(backend, loss), total, np.array([abs(factor) * wide.scale.sum()]),
                 np.array([np.float32(factor) * plain.value.sum()]), what="loss")  # fmt: skip

    def formula(*arguments: Any, dtype: Any) -> reference.Reference:
        return reference.softmax_cross_entropy_backward(*arguments, dtype=dtype, smoothing=smoothing)

    check(host(backend, dlogits), formula, np.full(len(labels), factor, np.float32), logits, labels)
    assert dlogits.dtype == (BFLOAT16 if logits.dtype == BFLOAT16 else np.float32) and loss.dtype == np.float32
    right = np.argmax(logits.astype(np.float32), axis=1) == labels
    assert correct.dtype == np.int32 and host(backend, correct).tolist() == [right.sum()]


@pytest.mark.parametrize("label_type", [np.int32, np.int64])
@pytest.mark.parametrize(("rows", "classes"), [(1, 1), (3, 2), (8, 10), (9, 10), (100, 10), (6, 33), (2, 1000)])
def test_loss_gradient_and_count(backend: Any, rows: int, classes: int, label_type: Any) -> None:
    labels = np.random.default_rng(1).integers(0, classes, rows).astype(label_type)
    with exact_ends(backend):
        check_step(backend, 4 * normal(2, (rows, classes), np.float32), labels, factor=1 / rows)


@pytest.mark.parametrize("smoothing", [0.1, 1.0])
@pytest.mark.parametrize(("rows", "classes"), [(1, 1), (37, 10), (2, 300)])
def test_smoothed_labels(backend: Any, rows: int, classes: int, smoothing: float) -> None:
    labels = np.random.default_rng(1).integers(0, classes, rows)
    check_step(backend, 4 * normal(2, (rows, classes), np.float32), labels, smoothing, -0.7)


@half_types
@pytest.mark.parametrize("label_type", [np.int32, np.int64])
@pytest.mark.parametrize(("rows", "classes"), [(3, 10), (21, 10), (2, 70)])
def test_half_logits(backend: Any, dtype: Any, rows: int, classes: int, label_type: Any) -> None:
    labels = np.random.default_rng(1).integers(0, classes, rows).astype(label_type)
    logits = half_normal(2, (rows, classes), dtype, 4.0)
    with exact_ends(backend):
        check_step(backend, logits, labels, 0.1, 1 / rows)
        on_device = backend.from_host(logits), backend.from_host(labels)
        results = backend.softmax_cross_entropy_forward(*on_device, 0.1)
        dlosses = normal(9, (rows,), np.float32)
        dlogits = backend.softmax_cross_entropy_backward(backend.from_host(dlosses), *on_device, results[1], 0.1)
    exact = reference.softmax_cross_entropy_forward(logits, labels, smoothing=0.1)
    plain = reference.softmax_cross_entropy_forward(logits, labels, np.float32, 0.1)
    for actual, e, p in zip(results, exact, plain, strict=True):
        assert_close(host(backend, actual), e.value, e.scale, p.value)

    def formula(*arguments: Any, dtype: Any) -> reference.Reference:
        return reference.softmax_cross_entropy_backward(*arguments, dtype=dtype, smoothing=0.1)

    assert dlogits.dtype == dtype
    check(host(backend, dlogits), formula, dlosses, logits, labels)


def test_a_tiny_gradient_of_float16_logits_is_not_lost(backend: Any) -> None:
    """1e-4 of a row among 4,096 would be 0 in float16; a loss scale multiplies it first."""
    logits = np.zeros((1, 2), np.float16)
    logits[0, 0] = 9
    given = backend.from_host(logits), backend.from_host(np.zeros(1, np.int64))
    dlogits = backend.softmax_cross_entropy_step(*given, 0.0, 2.0**-12)[1]
    np.testing.assert_allclose(host(backend, dlogits), [[-3.0127e-8, 3.0127e-8]], rtol=1e-3)


def test_one_launch(backend: Any) -> None:
    logits = backend.from_host(normal(0, (40, 10), np.float32))
    with launches(backend) as names:
        backend.softmax_cross_entropy_step(logits, backend.from_host(np.zeros(40, np.int64)), 0.0, 1.0)
        backend.softmax_cross_entropy_step(logits[:3], backend.from_host(np.zeros(3, np.int32)), 0.0, 1.0)
    assert names == ["cross_entropy_step_long", "cross_entropy_step_int"]


@pytest.mark.parametrize("most", [1, 3, 40])
def test_blocks_walk_over_rows_and_the_last_adds_them_up(
    backend: Any, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "MOST_STEP_BLOCKS", most)
    labels = np.random.default_rng(3).integers(0, 5, 331)
    for _ in range(2):  # the counter is back at zero
        check_step(backend, normal(2, (331, 5), np.float32), labels, 0.1, 0.25)


def test_no_rows(backend: Any) -> None:
    logits, labels = backend.from_host(np.zeros((0, 10), np.float32)), backend.from_host(np.zeros(0, np.int64))
    loss, dlogits, correct = backend.softmax_cross_entropy_step(logits, labels, 0.0, 1.0)
    assert host(backend, loss).tolist() == [0] and dlogits.shape == (0, 10) and host(backend, correct).tolist() == [0]


def test_the_largest_logit_is_argmax(backend: Any) -> None:
    """The first of equals, the first NaN above all; a row of nothing but -inf has its first class."""
    rows = np.full((6, 70), -np.inf, np.float32)
    rows[0, [40, 66]] = 3
    rows[1, [2, 50, 69]] = np.nan, np.nan, 9
    rows[3, [33, 1]] = np.inf, np.inf
    rows[4] = np.arange(70)
    rows[5] = 0
    for right in (True, False):
        labels = rows.argmax(axis=1) + (0 if right else -1)
        labels[labels < 0] = 5
        given = backend.from_host(rows), backend.from_host(labels)
        correct = backend.softmax_cross_entropy_step(*given, 0.0, 1.0)[2]
        assert host(backend, correct).tolist() == [6 if right else 0]


def test_huge_logits_and_an_impossible_class(backend: Any) -> None:
    logits = np.array([[1e38, -1e38, 0], [-3e38, -3e38, -3e38], [1e4, 9.9e3, 1e4], [-200, -201, -300]], np.float32)
    check_step(backend, logits, np.array([0, 2, 1, 1]))
    given = backend.from_host(np.array([[-200, -201, -np.inf]], np.float32)), backend.from_host(np.array([1]))
    loss, dlogits, _ = backend.softmax_cross_entropy_step(*given, 0.0, 1.0)
    np.testing.assert_allclose(host(backend, loss), [1 + np.log1p(np.exp(-1.0))], rtol=1e-6)
    softmax = 1 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(host(backend, dlogits), [[softmax, -softmax, 0]], rtol=1e-6)


@pytest.mark.parametrize("label", [10, -1, 2**63 - 1])
def test_a_wrong_label(backend: Any, label: int) -> None:
    labels = np.array([1, 2, 3, label, 4] * 3)
    labels[8:] = 0
    logits = normal(4, (15, 10), np.float32)
    if backend.name == "emulated":
        with pytest.raises(ValueError, match=rf"^cross_entropy: label {label} at row 3 is outside \[0, 10\)$"):
            backend.softmax_cross_entropy_step(backend.from_host(logits), labels, 0.0, 1.0)
    recording = FindsInKernels(backend)
    given = recording.from_host(logits), recording.from_host(labels)
    loss, dlogits, correct = recording.softmax_cross_entropy_step(*given, 0.0, 1.0)
    to_host = recording.xp.asarray if recording.xp is np else recording.xp.asnumpy
    assert np.isnan(to_host(loss)).all()
    np.testing.assert_array_equal(np.isnan(to_host(dlogits)).all(axis=1), np.arange(15) == 3)
    known = np.arange(15) != 3
    assert to_host(correct).tolist() == [(logits.argmax(axis=1) == labels)[known].sum()]
    with pytest.raises(ValueError, match=f"label {label} at row 3"):
        recording.to_host(loss)
