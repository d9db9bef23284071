"""Dropout."""

from __future__ import annotations

from typing import Any

from gpucnn import layout, random
from gpucnn.autograd import Function
from gpucnn.backends.base import RandomKey
from gpucnn.functional import checks
from gpucnn.functional.rectified import keep, pass_on
from gpucnn.tensor import Tensor


class Dropout(Function):
    """x times a mask of zeros and 1 / (1 - p); backward draws the mask again from its key."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, key: RandomKey) -> Tensor:
        ctx.p, ctx.key = p, key
        return keep(ctx, x, _dropped(x, p, key))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return pass_on(ctx, _dropped(grad, ctx.p, ctx.key)), None, None


def _dropped(x: Tensor, p: float, key: RandomKey) -> Tensor:
    array = layout.canonical(x.data)
    memory = layout.memory_view(array)
    result = x.backend.dropout(memory, p, key)
    return Tensor(result if memory is array else layout.nchw(result), x.device)


def dropout(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Each element 0 with probability ``p``, else divided by 1 - p; the input itself unless ``training``.

    The mask comes from the global stream (:func:`gpucnn.manual_seed`) and is bit-identical on every device. Source:
    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting" (2014), in its inverted
    form.
    """
    checks.floating("dropout", input=input)
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must be a probability, got {p!r}")
    if not training or p == 0:
        return input
    if p == 1:
        return input * 0.0
    key = random.default_generator.next_key(random.Purpose.DROPOUT)
    return Dropout.apply(input, float(p), key)
