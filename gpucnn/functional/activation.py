"""ReLU, softmax and its logarithm."""

from __future__ import annotations

from typing import Any

from gpucnn import layout
from gpucnn.autograd import Function
from gpucnn.functional import checks
from gpucnn.tensor import Tensor


def _on_memory(x: Tensor, primitive: Any, *others: Tensor) -> Tensor:
    """An elementwise primitive over the memory of tensors of one shape, their memory brought into one order."""
    first = layout.settled(x.data)
    arrays = [layout.memory_view(layout.like(other.data, first)) for other in others]
    view = layout.memory_view(first)
    result = primitive(view, *arrays)
    return Tensor(result if view is first else layout.nchw(result), x.device)


class ReLU(Function):
    """max(x, 0); the gradient at 0 is 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = _on_memory(x, x.backend.relu_forward)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return _on_memory(y, lambda y_data, dy: grad.backend.relu_backward(dy, y_data), grad)


def _stable_shift(x: Any, axis: int) -> Any:
    if not x.size:
        return x.copy()  # an empty axis has no maximum
    return layout.elementwise(lambda a, top: a - top, x, x.max(axis=axis, keepdims=True))


class Softmax(Function):
    """exp(x) / sum exp(x) along an axis; overflow-safe."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: int) -> Tensor:
        powers = layout.elementwise(x.backend.xp.exp, _stable_shift(x.data, axis))
        y = Tensor(
            layout.elementwise(lambda a, total: a / total, powers, powers.sum(axis=axis, keepdims=True)), x.device
        )
        ctx.axis = axis
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        weighted = grad * y
        total = weighted.data.sum(axis=ctx.axis, keepdims=True)
        return weighted - y * Tensor(total, grad.device), None


class LogSoftmax(Function):
    """x - log(sum exp(x)) along an axis; overflow-safe."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: int) -> Tensor:
        xp = x.backend.xp
        shifted = _stable_shift(x.data, axis)
        total = layout.elementwise(xp.exp, shifted).sum(axis=axis, keepdims=True)
        y = Tensor(layout.elementwise(lambda a, s: a - s, shifted, xp.log(total)), x.device)
        ctx.axis = axis
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        total = Tensor(grad.data.sum(axis=ctx.axis, keepdims=True), grad.device)
        return grad - y.exp() * total, None


def relu(input: Tensor) -> Tensor:
    """max(input, 0), elementwise; NaN stays NaN, the gradient at 0 is 0."""
    checks.floating("relu", input=input)
    return ReLU.apply(input)


def softmax(input: Tensor, dim: int) -> Tensor:
    """exp(input) / sum exp(input) along ``dim``, for inputs of any size."""
    checks.floating("softmax", input=input)
    return Softmax.apply(input, checks.axis("softmax", dim, input.ndim))


def log_softmax(input: Tensor, dim: int) -> Tensor:
    """The logarithm of :func:`softmax`, computed without it."""
    checks.floating("log_softmax", input=input)
    return LogSoftmax.apply(input, checks.axis("log_softmax", dim, input.ndim))
