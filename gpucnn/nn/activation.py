"""Nonlinearities."""

from __future__ import annotations

from gpucnn import functional as F
from gpucnn.functional import checks
from gpucnn.nn.module import Module
from gpucnn.tensor import Tensor


class ReLU(Module):
    """max(x, 0). ``inplace`` is taken for PyTorch's sake and changes nothing: the result is always a new tensor."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class GELU(Module):
    """x Phi(x), Phi the normal distribution function, as ``torch.nn.GELU``; ``approximate="tanh"`` approximates it."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        checks.gelu_approximation("GELU", approximate)
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """x / (1 + exp(-x)). ``inplace`` is taken for PyTorch's sake and changes nothing."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""
