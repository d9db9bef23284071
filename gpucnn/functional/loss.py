"""Losses."""

from __future__ import annotations

from typing import Any

from gpucnn import layout
from gpucnn.autograd import Function
from gpucnn.functional import checks
from gpucnn.tensor import Tensor, int32, int64


class SoftmaxCrossEntropy(Function):
    """log(sum exp(logits)) - logits[label] of each row, smoothed: one loss a row."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        data, targets = _memory(logits, labels)
        losses, log_sum_exp = logits.backend.softmax_cross_entropy_forward(data, targets, smoothing)
        ctx.save_for_backward(logits, labels)
        ctx.log_sum_exp, ctx.smoothing = log_sum_exp, smoothing
        return Tensor(losses, logits.device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        data, targets = _memory(*ctx.saved_tensors)
        dlogits = grad.backend.softmax_cross_entropy_backward(
            layout.contiguous(grad.data), data, targets, ctx.log_sum_exp, ctx.smoothing
        )
        return Tensor(dlogits, grad.device), None, None


class SoftmaxCrossEntropyStep(Function):
    """The mean or the sum of the rows' losses and how many rows are right, with the gradient in the same pass.

    The gradient is computed for an upstream gradient of 1, which is what a loss's own backward begins with; another one
    multiplies it. That of float16 logits is float32 until then, so that a loss scale comes before the rounding.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, smoothing: float, factor: float) -> tuple[Tensor, Tensor]:
        data, targets = _memory(logits, labels)
        loss, dlogits, correct = logits.backend.softmax_cross_entropy_step(data, targets, smoothing, factor)
        if ctx.needs_input_grad[0]:
            ctx.dlogits, ctx.dtype = Tensor(dlogits, logits.device), logits.dtype
        outputs = Tensor(loss.reshape(()), logits.device), Tensor(correct.reshape(()), logits.device)
        ctx.mark_non_differentiable(outputs[1])
        return outputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Any:
        ctx.alive()
        dlogits: Tensor = ctx.dlogits
        unit = grad.unit and not grad.version.count  # else a function's backward has changed it
        if not unit or dlogits.dtype != ctx.dtype:
            by = None if unit else grad.data.reshape(1)
            dlogits = Tensor(grad.backend.scale(dlogits.data, 1.0, by, ctx.dtype), grad.device)
        return dlogits, None, None, None


def _memory(logits: Tensor, labels: Tensor) -> tuple[Any, Any]:
    """The arrays of both, C-contiguous."""
    return layout.contiguous(logits.data), layout.contiguous(labels.data)


def cross_entropy(input: Tensor, target: Tensor, reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
    """The cross-entropy of softmax(input) (N, C) against labels ``target`` (N,), in natural units; overflow-safe.

    ``reduction``: "mean", "sum" (both give one number) or "none" (N,). A label outside [0, C) raises ValueError: at
    once on ``cpu`` and ``emulated``, at the next read from the device on ``cuda``. For an input of a half type the loss
    is float32.

    ``label_smoothing`` e in [0, 1]: the target of a row is 1 - e at its label plus e / C at each of the C classes, as
    in PyTorch. Source: Szegedy et al., "Rethinking the Inception Architecture", arXiv:1512.00567, section 7.
    """
    smoothing = _checked("cross_entropy", input, target, reduction, label_smoothing)
    if reduction == "none":
        return SoftmaxCrossEntropy.apply(input, target, smoothing)
    return _reduced(input, target, reduction, smoothing)[0]


def cross_entropy_with_correct(
    input: Tensor, target: Tensor, reduction: str = "mean", label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """:func:`cross_entropy` and, from the same pass, in how many rows the largest logit is the label's (int32).

    Of equal logits the first counts, NaN above all, as in argmax. ``reduction``: "mean" or "sum".
    """
    smoothing = _checked("cross_entropy_with_correct", input, target, reduction, label_smoothing)
    if reduction == "none":
        raise ValueError("cross_entropy_with_correct: reduction must be 'mean' or 'sum', got 'none'")
    return _reduced(input, target, reduction, smoothing)


def _reduced(input: Tensor, target: Tensor, reduction: str, smoothing: float) -> tuple[Tensor, Tensor]:
    rows = input.shape[0]
    if not rows:  # the gradient of nothing is nothing
        loss = SoftmaxCrossEntropy.apply(input, target, smoothing).sum()
        correct = Tensor(input.backend.xp.zeros((), dtype=int32), input.device)
        return (loss * float("nan") if reduction == "mean" else loss), correct
    loss, correct = SoftmaxCrossEntropyStep.apply(input, target, smoothing, 1.0 / rows if reduction == "mean" else 1.0)
    return loss, correct


def _checked(operator: str, input: Any, target: Any, reduction: Any, label_smoothing: Any) -> float:
    checks.floating(operator, input=input)
    checks.tensors(operator, input=input, target=target)
    shape, labels = input.shape, target.shape
    if len(shape) != 2 or len(labels) != 1 or shape[0] != labels[0]:
        raise ValueError(f"{operator}: expected input (N, C) and target (N,), got {shape} and {labels}")
    if shape[1] < 1:
        raise ValueError(f"{operator}: expected at least one class, got input {shape}")
    if target.dtype not in (int32, int64):
        raise TypeError(f"{operator}: labels must be int32 or int64, got {target.dtype}")
    checks.reduction(operator, reduction)
    return checks.label_smoothing(operator, label_smoothing)
