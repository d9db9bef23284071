"""Losses."""

from __future__ import annotations

from typing import Any

from gpucnn import layout
from gpucnn.autograd import Function
from gpucnn.functional import checks
from gpucnn.tensor import Tensor


class SoftmaxCrossEntropy(Function):
    """log(sum exp(logits)) - logits[label] of each row, smoothed, then their mean, sum or neither."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, reduction: str, smoothing: float) -> Tensor:
        data = layout.contiguous(logits.data)
        targets = layout.contiguous(labels.data)
        losses, log_sum_exp = logits.backend.softmax_cross_entropy_forward(data, targets, smoothing)
        ctx.save_for_backward(logits, labels)
        ctx.log_sum_exp, ctx.smoothing = log_sum_exp, smoothing
        ctx.factor = 1.0 / len(losses) if reduction == "mean" and len(losses) else 1.0
        if reduction == "none":
            return Tensor(losses, logits.device)
        if reduction == "mean" and not len(losses):
            return Tensor(logits.backend.xp.full((), float("nan"), dtype=logits.dtype), logits.device)
        # The rows add up in the fixed order of the column sum.
        total = logits.backend.bias_grad(losses.reshape(-1, 1)).reshape(())
        return Tensor(logits.backend.xp.asarray(total * ctx.factor, dtype=logits.dtype), logits.device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        logits, labels = ctx.saved_tensors
        xp = grad.backend.xp
        dlosses = layout.contiguous(xp.broadcast_to(grad.data * grad.dtype.type(ctx.factor), labels.shape))
        dlogits = grad.backend.softmax_cross_entropy_backward(
            dlosses, layout.contiguous(logits.data), layout.contiguous(labels.data), ctx.log_sum_exp, ctx.smoothing
        )
        return Tensor(dlogits, grad.device), None, None, None


def cross_entropy(input: Tensor, target: Tensor, reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
    """The cross-entropy of softmax(input) (N, C) against labels ``target`` (N,), in natural units; overflow-safe.

    ``reduction``: "mean", "sum" (both give one number) or "none" (N,). A label outside [0, C) raises ValueError: at
    once on ``cpu`` and ``emulated``, at the next read from the device on ``cuda``.

    ``label_smoothing`` e in [0, 1]: the target of a row is 1 - e at its label plus e / C at each of the C classes, as
    in PyTorch. Source: Szegedy et al., "Rethinking the Inception Architecture", arXiv:1512.00567, section 7.
    """
    checks.floating("cross_entropy", input=input)
    checks.tensors("cross_entropy", input=input, target=target)
    if input.ndim != 2 or target.ndim != 1 or input.shape[0] != target.shape[0]:
        raise ValueError(f"cross_entropy: expected input (N, C) and target (N,), got {input.shape} and {target.shape}")
    if input.shape[1] < 1:
        raise ValueError(f"cross_entropy: expected at least one class, got input {input.shape}")
    if target.dtype.name not in ("int32", "int64"):
        raise TypeError(f"cross_entropy: labels must be int32 or int64, got {target.dtype}")
    checks.reduction("cross_entropy", reduction)
    smoothing = checks.label_smoothing("cross_entropy", label_smoothing)
    return SoftmaxCrossEntropy.apply(input, target, reduction, smoothing)
