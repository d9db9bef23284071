"""A tensor that a module owns and an optimizer changes."""

from __future__ import annotations

from typing import Any

from gpucnn.creation import tensor
from gpucnn.tensor import Tensor


class Parameter(Tensor):
    """A :class:`gpucnn.Tensor` that registers itself as a parameter when it is assigned to an attribute of a module.

    ``data`` is a Tensor (its array is shared, as in PyTorch) or whatever :func:`gpucnn.tensor` takes.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        source = data if isinstance(data, Tensor) else tensor(data)
        super().__init__(source.data, source.device, requires_grad, source.version)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"
