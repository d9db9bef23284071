"""The fully connected layer, and two modules that only pass on or reshape."""

from __future__ import annotations

import math
from typing import Any

from gpucnn import functional as F
from gpucnn.creation import empty
from gpucnn.functional import checks
from gpucnn.nn import init
from gpucnn.nn.module import Module
from gpucnn.nn.parameter import Parameter
from gpucnn.tensor import Tensor


class Linear(Module):
    """y (..., out_features) = x (..., in_features) times ``weight`` (out_features, in_features) transposed, plus
    ``bias``.

    ``activation="relu"`` gives max(y, 0) in the same pass. Initial values are PyTorch's: uniform in
    +- 1 / sqrt(in_features). Raises ValueError for features below 1.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"Linear: {name} must be a positive int, got {value!r}")
        checks.activation("Linear", activation, ("relu",))
        self.in_features, self.out_features, self.activation = in_features, out_features, activation
        self.weight = Parameter(empty(out_features, in_features, dtype=dtype, device=device))
        self.bias: Any  # a Parameter, or None
        self.register_parameter("bias", Parameter(empty(out_features, dtype=dtype, device=device)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias again, as PyTorch does."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5.0))
        if self.bias is not None:
            bound = 1.0 / math.sqrt(self.in_features)
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias, self.activation)

    def extra_repr(self) -> str:
        parts = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return parts if self.activation is None else f"{parts}, activation={self.activation!r}"


class Flatten(Module):
    """Axes ``start_dim`` to ``end_dim`` as one; (N, C, H, W) becomes (N, C * H * W) in PyTorch's order C, H, W."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """Gives back its input; takes and ignores any arguments, so that it can stand in for another layer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input
