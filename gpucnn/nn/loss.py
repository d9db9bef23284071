"""Losses."""

from __future__ import annotations

from gpucnn import functional as F
from gpucnn.functional import checks
from gpucnn.nn.module import Module
from gpucnn.tensor import Tensor


class CrossEntropyLoss(Module):
    """Cross-entropy of softmax(logits (N, C)) against labels (N,), integers in [0, C), as
    ``torch.nn.CrossEntropyLoss``.

    ``reduction`` is "mean", "sum" or "none" (a loss per example). ``label_smoothing`` e in [0, 1] takes the target
    1 - e at the label plus e / C at each class. Class weights and ignored labels are not offered.
    """

    def __init__(self, *, reduction: str = "mean", label_smoothing: float = 0.0) -> None:
        super().__init__()
        checks.reduction("CrossEntropyLoss", reduction)
        self.reduction = reduction
        self.label_smoothing = checks.label_smoothing("CrossEntropyLoss", label_smoothing)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(input, target, reduction=self.reduction, label_smoothing=self.label_smoothing)
