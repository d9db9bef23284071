"""ReLU, GELU, SiLU, softmax and its logarithm."""

from __future__ import annotations

from typing import Any

from gpucnn import dtypes, layout
from gpucnn.autograd import Function
from gpucnn.functional import checks
from gpucnn.functional.rectified import rectify
from gpucnn.functional.shape import to
from gpucnn.tensor import Tensor, float32


def _on_memory(x: Tensor, primitive: Any, *others: Tensor) -> Tensor:
    """An elementwise primitive over the memory of tensors of one shape, their memory brought into one order."""
    first = layout.settled(x.data)
    view = layout.memory_view(first)
    result = primitive(view, *[layout.memory_view(layout.like(other.data, first)) for other in others])
    return Tensor(result if view is first else layout.nchw(result), x.device)


def _smooth(ctx: Any, x: Tensor, primitive: Any) -> Tensor:
    """The value of a smooth activation over the memory of ``x``; what its backward needs is saved."""
    first = layout.settled(x.data)
    view = layout.memory_view(first)
    y, kept = primitive(view, ctx.needs_input_grad[0])

    def tensor(result: Any) -> Tensor:
        return Tensor(result if view is first else layout.nchw(result), x.device)

    if kept is not None:
        ctx.save_for_backward(x if kept is view else tensor(kept))
    return tensor(y)


class ReLU(Function):
    """max(x, 0); the gradient at 0 is 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = _on_memory(x, x.backend.relu_forward)
        ctx.save_for_backward(y)
        return rectify(ctx, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        if ctx.received_masked:
            return grad
        return _on_memory(y, lambda y_data, dy: grad.backend.relu_backward(dy, y_data), grad)


class GELU(Function):
    """x Phi(x), Phi the normal distribution function, or its approximation by tanh."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tanh: bool) -> Tensor:
        ctx.tanh = tanh
        return _smooth(ctx, x, lambda view, keep: x.backend.gelu_forward(view, tanh, keep))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (kept,) = ctx.saved_tensors
        return _on_memory(kept, lambda k, dy: grad.backend.gelu_backward(dy, k, ctx.tanh), grad), None


class SiLU(Function):
    """x / (1 + exp(-x))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _smooth(ctx, x, x.backend.silu_forward)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (kept,) = ctx.saved_tensors
        return _on_memory(kept, lambda k, dy: grad.backend.silu_backward(dy, k), grad)


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


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """input * Phi(input), elementwise, with Phi the distribution function of the standard normal distribution.

    ``approximate="tanh"`` gives x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 instead. Source: Hendrycks and
    Gimpel, "Gaussian Error Linear Units", arXiv:1606.08415. Raises ValueError for another ``approximate``.
    """
    checks.floating("gelu", input=input)
    checks.gelu_approximation("gelu", approximate)
    return GELU.apply(input, approximate == "tanh")


def silu(input: Tensor) -> Tensor:
    """input / (1 + exp(-input)), elementwise, also called swish. Source: Elfwing et al., arXiv:1702.03118."""
    checks.floating("silu", input=input)
    return SiLU.apply(input)


def softmax(input: Tensor, dim: int) -> Tensor:
    """exp(input) / sum exp(input) along ``dim``, for inputs of any size."""
    checks.real("softmax", input=input)
    axis = checks.axis("softmax", dim, input.ndim)
    if dtypes.is_half(input.dtype):
        return to(Softmax.apply(to(input, dtype=float32), axis), dtype=input.dtype)
    return Softmax.apply(input, axis)


def log_softmax(input: Tensor, dim: int) -> Tensor:
    """The logarithm of :func:`softmax`, computed without it."""
    checks.real("log_softmax", input=input)
    axis = checks.axis("log_softmax", dim, input.ndim)
    if dtypes.is_half(input.dtype):
        return to(LogSoftmax.apply(to(input, dtype=float32), axis), dtype=input.dtype)
    return LogSoftmax.apply(input, axis)
