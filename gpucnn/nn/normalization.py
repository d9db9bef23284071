"""Normalisation layers."""

from __future__ import annotations

from gpucnn import functional as F
from gpucnn.nn.module import Module
from gpucnn.tensor import Tensor


class LocalResponseNorm(Module):
    """x / (k + alpha / size * (sum of squares over ``size`` neighbouring channels)) ** beta, as
    ``torch.nn.LocalResponseNorm``.

    Krizhevsky, Sutskever, Hinton, NIPS 2012, with PyTorch's division of alpha by ``size``. Raises ValueError for a size
    below 1.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"LocalResponseNorm: size must be a positive int, got {size!r}")
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
