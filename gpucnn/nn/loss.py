"""Losses."""

from __future__ import annotations

from gpucnn import functional as F
from gpucnn.functional import checks
from gpucnn.nn.module import Module
from gpucnn.tensor import Tensor


class CrossEntropyLoss(Module):
    """Cross-entropy of softmax(logits (N, C)) against labels (N,), integers in [0, C), as
    ``torch.nn.CrossEntropyLoss``.

    ``reduction`` is "mean", "sum" or "none" (a loss per example). Class weights, ignored labels and label smoothing are
    not offered.
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__()
        checks.reduction("CrossEntropyLoss", reduction)
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(input, target, reduction=self.reduction)
