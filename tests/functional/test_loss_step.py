"""The loss of a training step: value, gradient and the count of right rows from one launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gpucnn
import gpucnn.functional as F
from gpucnn import Tensor, backends
from gpucnn.device import device as named
from tests.kernels.halves import HALVES
from tests.support import reference
from tests.support.tolerance import assert_close, check

Array = NDArray[Any]
DEVICES = ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)]


def check_loss(actual: Tensor, logits: Array, labels: Array, smoothing: float, factor: float) -> None:
    """``factor`` times the sum of the rows' losses."""
    wide, plain = (
        reference.softmax_cross_entropy_forward(logits, labels, t, smoothing)[0] for t in (np.float64, np.float32)
    )
    assert wide.scale is not None
    total, scale = factor * wide.value.sum(), factor * wide.scale.sum()
    assert_close(actual.numpy(), total, scale, np.float32(factor) * plain.value.sum(), what="loss")


def check_gradient(x: Tensor, logits: Array, labels: Array, smoothing: float, factor: float) -> None:
    """The gradient of that."""

    def formula(*arguments: Any, dtype: Any) -> reference.Reference:
        return reference.softmax_cross_entropy_backward(*arguments, dtype=dtype, smoothing=smoothing)

    check(x.grad.numpy(), formula, np.full(len(labels), factor), logits, labels, what="gradient")


def draw(rows: int, classes: int, dtype: Any = np.float32) -> tuple[Array, Array]:
    rng = np.random.default_rng(rows + classes)
    return (3 * rng.normal(size=(rows, classes))).astype(dtype), rng.integers(0, classes, rows)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(("rows", "classes"), [(1, 1), (3, 10), (37, 5), (70, 33)])
def test_against_the_formula(device: str, reduction: str, smoothing: float, rows: int, classes: int) -> None:
    logits, labels = draw(rows, classes)
    x = gpucnn.tensor(logits, device=device, requires_grad=True)
    target = gpucnn.tensor(labels, device=device)
    loss, correct = F.cross_entropy_with_correct(x, target, reduction, smoothing)
    factor = 1 / rows if reduction == "mean" else 1.0
    check_loss(loss, logits, labels, smoothing, factor)
    assert correct.dtype == np.int32 and correct.shape == () and not correct.requires_grad
    assert int(correct) == int((logits.argmax(1) == labels).sum())
    loss.backward()
    check_gradient(x, logits, labels, smoothing, factor)
    plain = gpucnn.tensor(logits, device=device, requires_grad=True)
    F.cross_entropy(plain, target, reduction, smoothing).backward()
    np.testing.assert_array_equal(plain.grad.numpy(), x.grad.numpy())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "weighted",
    [
        lambda loss: (loss * 0.375).backward(),
        lambda loss: loss.backward(gpucnn.tensor(np.float32(0.375), device=loss.device)),
        lambda loss: (loss / 2 - loss * 0.125).backward(),
    ],
)
def test_another_upstream_gradient_multiplies(device: str, weighted: Callable[[Tensor], None]) -> None:
    logits, labels = draw(6, 4)
    x = gpucnn.tensor(logits, device=device, requires_grad=True)
    weighted(F.cross_entropy(x, gpucnn.tensor(labels, device=device)))
    check_gradient(x, logits, labels, 0.0, 0.375 / 6)


@pytest.mark.parametrize("device", DEVICES)
def test_backward_twice_and_sums_of_losses(device: str) -> None:
    logits, labels = draw(6, 4)
    x, target = gpucnn.tensor(logits, device=device, requires_grad=True), gpucnn.tensor(labels, device=device)
    loss = F.cross_entropy(x, target)
    loss.backward(retain_graph=True)
    once = x.grad.numpy()
    loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * once)
    with pytest.raises(RuntimeError, match="backward a second time"):
        loss.backward()
    x.grad = None
    (F.cross_entropy(x, target) + F.cross_entropy(x, target, "sum")).backward()
    check_gradient(x, logits, labels, 0.0, 1 / 6 + 1)


def test_a_function_that_changes_its_gradient_in_place_changes_no_other_backward() -> None:
    class Doubling(gpucnn.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad.mul_(2.0)

    for _ in range(2):
        x = gpucnn.tensor(3.0, device="cpu", requires_grad=True)
        Doubling.apply(x).backward()
        assert x.grad.item() == 2.0
    y = gpucnn.tensor(3.0, device="cpu", requires_grad=True)
    (y * 1.0).backward()
    assert y.grad.item() == 1.0


@pytest.mark.parametrize("dtype", HALVES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("scale", [1.0, 2.0**14])
def test_half_logits_have_a_float32_loss_and_a_scale_comes_before_the_rounding(dtype: Any, scale: float) -> None:
    logits, labels = draw(900, 10, dtype)
    x = gpucnn.tensor(logits, device="emulated", requires_grad=True)
    loss, correct = F.cross_entropy_with_correct(x, gpucnn.tensor(labels, device="emulated"))
    wide = logits.astype(np.float32)
    assert loss.dtype == np.float32 and int(correct) == int((wide.argmax(1) == labels).sum())
    check_loss(loss, wide, labels, 0.0, 1 / 900)
    loss.backward(None if scale == 1.0 else gpucnn.tensor(np.float32(scale), device="emulated"))
    assert x.grad.dtype == dtype
    if dtype == np.float16 or scale == 1.0:
        check_gradient(x, wide, labels, 0.0, scale / 900)
    if dtype == np.float16 and scale > 1:
        unscaled = reference.softmax_cross_entropy_backward(np.full(900, 1 / 900), wide, labels).value
        lost = unscaled.astype(np.float16) == 0
        assert lost.any() and (x.grad.numpy()[lost] != 0).any()  # what float16 alone would have lost is there


@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_no_rows(device: str) -> None:
    x = gpucnn.zeros(0, 3, device=device, requires_grad=True)
    target = gpucnn.zeros(0, dtype=np.int64, device=device)
    mean, correct = F.cross_entropy_with_correct(x, target)
    assert np.isnan(mean.item()) and int(correct) == 0 and F.cross_entropy(x, target, "sum").item() == 0.0
    F.cross_entropy(x, target, "sum").backward()
    assert x.grad.shape == (0, 3)


def test_one_launch() -> None:
    logits, labels = draw(700, 10)
    x, target = gpucnn.tensor(logits, device="emulated", requires_grad=True), gpucnn.tensor(labels, device="emulated")
    engine: Any = backends.get(named("emulated")).engine  # type: ignore[attr-defined]
    with engine.record() as launches:
        loss, _ = F.cross_entropy_with_correct(x, target)
        loss.backward()
    assert [launch.kernel for launch in launches] == ["cross_entropy_step_long"]


@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_bad_input(device: str) -> None:
    x, target = gpucnn.zeros(2, 3, device=device), gpucnn.tensor([0, 3], device=device)
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'sum', got 'none'"):
        F.cross_entropy_with_correct(x, target, "none")
    with pytest.raises(ValueError, match="3"):
        F.cross_entropy_with_correct(x, target)
    with pytest.raises(ValueError, match="cross_entropy_with_correct: expected input"):
        F.cross_entropy_with_correct(x, target[:1])


class Trebled(gpucnn.Function):
    """3 x, whose backward writes over the gradient that it was given, and fails if it is to."""

    fails = False

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 3.0

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad.mul_(3.0)
        if Trebled.fails:
            raise ArithmeticError
        return grad


@pytest.mark.parametrize("device", DEVICES)
def test_a_gradient_of_1_that_was_changed_in_place_is_no_longer_1(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = draw(6, 4)
    target = gpucnn.tensor(labels, device=device)
    for fails in (False, True):
        monkeypatch.setattr(Trebled, "fails", fails)
        x = gpucnn.tensor(logits, device=device, requires_grad=True)
        loss = Trebled.apply(F.cross_entropy(x, target))
        if fails:
            with pytest.raises(ArithmeticError):
                loss.backward()
        else:
            loss.backward()
            check_gradient(x, logits, labels, 0.0, 0.5)
        one = gpucnn.tensor(np.float32(2), device=device, requires_grad=True)
        (one * 1.0).backward()
        assert one.grad.item() == 1.0
