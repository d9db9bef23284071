"""Nonlinearities."""

from __future__ import annotations

from gpucnn import functional as F
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
