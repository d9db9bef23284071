"""Dropout."""

from __future__ import annotations

from gpucnn import functional as F
from gpucnn.nn.module import Module
from gpucnn.tensor import Tensor


class Dropout(Module):
    """Zeroes elements with probability ``p`` and divides the rest by 1 - p while training; the identity in evaluation.

    Srivastava et al., JMLR 2014. ``inplace`` is taken for PyTorch's sake and changes nothing. Raises ValueError unless
    0 <= p <= 1.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"Dropout: p must be between 0 and 1, got {p}")
        self.p, self.inplace = p, inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"
