"""Local response normalisation."""

from __future__ import annotations

from typing import Any

from gpucnn import layout
from gpucnn.autograd import Function
from gpucnn.functional import checks
from gpucnn.tensor import Tensor


def _channels_last(array: Any) -> Any:
    """(N, C, ...) as a C-contiguous (N, ..., C) array; a view of channels-last memory, else a copy."""
    return layout.contiguous(array.transpose(0, *range(2, array.ndim), 1))


def _channels_second(array: Any) -> Any:
    last = array.ndim - 1
    return layout.settled(array.transpose(0, last, *range(1, last)))


class LocalResponseNorm(Function):
    """x / (k + alpha / size * window sum of x*x)**beta over neighbouring channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
        ctx.save_for_backward(x)
        y, ctx.scale = x.backend.lrn_forward(_channels_last(x.data), size, alpha, beta, k)
        ctx.constants = size, alpha, beta, k
        return Tensor(_channels_second(y), x.device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        dy, x_data = _channels_last(grad.data), _channels_last(x.data)
        dx = grad.backend.lrn_backward(dy, x_data, ctx.scale, *ctx.constants)
        return Tensor(_channels_second(dx), grad.device), None, None, None, None


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """input (N, C, ...) / (k + alpha / size * sum of squares over ``size`` channels)**beta, PyTorch's form.

    TensorFlow's ``tf.nn.lrn(x, r, bias, alpha, beta)`` is size = 2 r + 1, alpha = size * alpha, k = bias. Source:
    Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks" (2012), section
    3.3.
    """
    checks.floating("local_response_norm", input=input)
    if input.ndim < 3:
        raise ValueError(f"local_response_norm: input must be (N, C, ...) of at least 3 axes, got {input.shape}")
    if input.shape[1] < 1:
        raise ValueError(f"local_response_norm: input needs at least one channel, got shape {input.shape}")
    if not hasattr(size, "__index__") or int(size) < 1:
        raise ValueError(f"local_response_norm: size must be a positive int, got {size!r}")
    if not k > 0 or not alpha >= 0:
        raise ValueError(f"local_response_norm: expected k > 0 and alpha >= 0, got k {k!r}, alpha {alpha!r}")
    constants = int(size), float(alpha), float(beta), float(k)
    return LocalResponseNorm.apply(input, *constants)
