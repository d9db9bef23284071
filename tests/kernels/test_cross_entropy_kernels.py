"""Softmax cross-entropy, and labels out of range: at once on the emulator, at the next host read on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn.backends.cuda import faults
from gpucnn.backends.cuda.backend import CudaBackend
from tests.kernels.arrays import exact_ends, host
from tests.numpy_backend.geometries import normal
from tests.support import reference
from tests.support.tolerance import assert_close, check


def check_loss(backend: Any, logits: Any, labels: Any, smoothing: float = 0.0) -> None:
    on_device = backend.from_host(logits), backend.from_host(labels)
    exact = reference.softmax_cross_entropy_forward(logits, labels, smoothing=smoothing)
    plain = reference.softmax_cross_entropy_forward(logits, labels, np.float32, smoothing)
    results = backend.softmax_cross_entropy_forward(*on_device, smoothing)
    for name, actual, e, p in zip(("losses", "log_sum_exp"), results, exact, plain, strict=True):
        assert_close(host(backend, actual), e.value, e.scale, p.value, what=name)
    dlosses = normal(9, (len(labels),), np.float32)
    dlogits = backend.softmax_cross_entropy_backward(backend.from_host(dlosses), *on_device, results[1], smoothing)

    def formula(*arguments: Any, dtype: Any) -> reference.Reference:
        return reference.softmax_cross_entropy_backward(*arguments, dtype=dtype, smoothing=smoothing)

    check(host(backend, dlogits), formula, dlosses, logits, labels)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize(
    ("rows", "classes"), [(1, 1), (3, 2), (9, 10), (128, 10), (5, 31), (8, 32), (7, 33), (2, 1000)]
)
def test_losses_and_gradients(backend: Any, rows: int, classes: int, dtype: Any) -> None:
    labels = np.random.default_rng(1).integers(0, classes, rows).astype(dtype)
    with exact_ends(backend):
        check_loss(backend, 4 * normal(2, (rows, classes), np.float32), labels)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("smoothing", [0.1, 0.2, 1.0])
@pytest.mark.parametrize(("rows", "classes"), [(1, 1), (9, 10), (7, 33), (2, 1000)])
def test_smoothed_labels(backend: Any, rows: int, classes: int, smoothing: float, dtype: Any) -> None:
    labels = np.random.default_rng(1).integers(0, classes, rows).astype(dtype)
    check_loss(backend, 4 * normal(2, (rows, classes), np.float32), labels, smoothing)


def test_no_rows(backend: Any) -> None:
    logits, labels = backend.from_host(np.zeros((0, 10), np.float32)), backend.from_host(np.zeros(0, np.int64))
    losses, log_sum_exp = backend.softmax_cross_entropy_forward(logits, labels)
    assert losses.shape == log_sum_exp.shape == (0,)
    assert backend.softmax_cross_entropy_backward(losses, logits, labels, log_sum_exp).shape == (0, 10)


def test_huge_logits_do_not_overflow(backend: Any) -> None:
    logits = np.array([[1e38, -1e38, 0], [-3e38, -3e38, -3e38], [1e4, 9.9e3, 1e4], [-200, -201, -300]], np.float32)
    check_loss(backend, logits, np.array([0, 2, 1, 1]))


def test_an_impossible_class_takes_no_part(backend: Any) -> None:
    logits, labels = backend.from_host(np.array([[-200, -201, -np.inf]], np.float32)), backend.from_host(np.array([1]))
    losses, log_sum_exp = backend.softmax_cross_entropy_forward(logits, labels)
    np.testing.assert_allclose(host(backend, losses), [1 + np.log1p(np.exp(-1.0))], rtol=1e-6)
    dlogits = backend.softmax_cross_entropy_backward(
        backend.from_host(np.ones(1, np.float32)), logits, labels, log_sum_exp
    )
    softmax = 1 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(host(backend, dlogits), [[softmax, -softmax, 0]], rtol=1e-4)


def test_nan_stays_in_its_row(backend: Any) -> None:
    logits = normal(3, (3, 40), np.float32)
    logits[1, 35] = np.nan
    labels = backend.from_host(np.array([0, 1, 2]))
    losses = host(backend, backend.softmax_cross_entropy_forward(backend.from_host(logits), labels)[0])
    np.testing.assert_array_equal(np.isnan(losses), [False, True, False])


class FindsInKernels(CudaBackend):
    """A backend that leaves wrong labels to the kernel, as on a GPU, also where it runs on the emulator."""

    def __init__(self, backend: Any) -> None:
        super().__init__(backend.engine)
        self.name = "cuda"
        self.context = backend.context  # type: ignore[method-assign]


@pytest.fixture
def recording(backend: Any) -> FindsInKernels:
    return FindsInKernels(backend)


def losses_of(backend: Any, labels: list[int], classes: int = 10, dtype: Any = np.int64) -> Any:
    logits = backend.from_host(normal(4, (len(labels), classes), np.float32))
    return backend.softmax_cross_entropy_forward(logits, backend.from_host(np.array(labels, dtype)))


@pytest.mark.parametrize("label", [10, -1, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_the_emulator_refuses_a_wrong_label_at_the_call(backend: Any, label: int, dtype: Any) -> None:
    if backend.name != "emulated":
        losses_of(backend, [1, 2, 3, label, -5], dtype=dtype)
        with pytest.raises(ValueError, match=f"label {label} at row 3"):
            backend.synchronize()
        return
    with pytest.raises(ValueError, match=rf"^cross_entropy: label {label} at row 3 is outside \[0, 10\)$"):
        losses_of(backend, [1, 2, 3, label, -5], dtype=dtype)


@pytest.mark.parametrize("label", [10, -1, 300, -(2**63), 2**63 - 1, 0x0123456789ABCDEF])
def test_a_kernel_gives_nan_for_a_wrong_label_and_the_next_check_raises(recording: Any, label: int) -> None:
    losses_of(recording, [1, 2])
    logits = recording.from_host(normal(4, (5, 10), np.float32))
    labels = recording.from_host(np.array([1, 2, 3, label, 4]))
    losses, log_sum_exp = recording.softmax_cross_entropy_forward(logits, labels)
    dlogits = recording.softmax_cross_entropy_backward(losses, logits, labels, log_sum_exp)
    to_host = recording.xp.asarray if recording.xp is np else recording.xp.asnumpy
    np.testing.assert_array_equal(np.isnan(to_host(losses)), [False, False, False, True, False])
    np.testing.assert_array_equal(np.isnan(to_host(dlogits)).all(axis=1), [False, False, False, True, False])
    message = (
        rf"^cross_entropy: label {label} at row 3 is outside \[0, 10\) \(in loss number 2 computed on this device\)$"
    )
    with pytest.raises(ValueError, match=message):
        recording.to_host(losses)
    recording.to_host(losses)  # told once
    losses_of(recording, [0, 9])
    recording.synchronize()


def test_the_first_row_of_the_first_launch_is_told(recording: Any) -> None:
    labels = [1] * 700
    for row in (699, 431, 77, 78, 600):
        labels[row] = -row
    losses_of(recording, [4] * 40, classes=5)
    recording.synchronize()
    losses_of(recording, [4] * 40, classes=5)
    losses_of(recording, labels, classes=7)
    losses_of(recording, [99], classes=3)
    with pytest.raises(ValueError, match=r"label -77 at row 77 is outside \[0, 7\) \(in loss number 3 "):
        recording.synchronize()
    losses_of(recording, [5, 2, 4], classes=3, dtype=np.int32)
    with pytest.raises(ValueError, match=r"label 5 at row 0 is outside \[0, 3\) \(in loss number 5 "):
        recording.check_faults()


def test_launches_beyond_the_counter_are_still_told(recording: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "MOST_LAUNCHES", 2)
    for _ in range(5):
        losses_of(recording, [0])
    losses_of(recording, [0, -3])
    with pytest.raises(ValueError, match="label -3 at row 1"):
        recording.check_faults()
    losses_of(recording, [0, 1, 77])
    with pytest.raises(ValueError, match=r"label 77 at row 2 .* number 7 "):  # each check starts to count again
        recording.check_faults()
