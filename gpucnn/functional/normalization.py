"""Local response normalisation and batch normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

from gpucnn import dtypes, layout
from gpucnn.autograd import Function
from gpucnn.functional import checks, deferred
from gpucnn.functional.activation import gelu, relu, silu
from gpucnn.functional.deferred import NORMALISED, POOLED
from gpucnn.functional.rectified import is_rectified, masked
from gpucnn.tensor import Tensor, float32

ACTIVATIONS: dict[Any, Any] = {  # that batch_norm applies itself
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": lambda x: gelu(x, "tanh"),
    "silu": silu,
}


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
        keep = ctx.needs_input_grad[0]
        ctx.mask = keep and is_rectified(x)
        y, ctx.kept = x.backend.lrn_forward(_channels_last(x.data), size, alpha, beta, k, keep)
        ctx.constants = size, alpha, beta, k
        ctx.defers = x.ndim == 4 and deferred.taken(x, NORMALISED)
        ctx.takes_deferred = (POOLED,) if x.ndim == 4 else ()
        return Tensor(_channels_second(y), x.device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        x_data, kept, mask, backend = _channels_last(x.data), ctx.kept, ctx.mask, grad.backend
        size, alpha, beta, k = ctx.constants
        if (pooled := deferred.parts(grad, POOLED)) is not None:
            dy, index, g = pooled
            dx = backend.lrn_backward_of_pooled(dy.transpose(0, 2, 3, 1), index, g, x_data, size, alpha, beta, k, mask)
            gradient = Tensor(_channels_second(dx), grad.device)
        elif ctx.defers:
            dy = _channels_last(grad.data)

            def launch() -> Any:
                return _channels_second(backend.lrn_backward(dy, x_data, kept, size, alpha, beta, k, mask))

            gradient = deferred.Deferred(NORMALISED, (dy, x_data, size, alpha, beta, k, mask), launch, x)
        else:
            dx = backend.lrn_backward(_channels_last(grad.data), x_data, kept, size, alpha, beta, k, mask)
            gradient = Tensor(_channels_second(dx), grad.device)
        return masked(gradient) if ctx.mask else gradient, None, None, None, None


class BatchNorm(Function):
    """f((x - mean) / sqrt(var + eps) * weight + bias) by channel, mean and variance x's own where ``training``.

    f is the identity or an activation, whose backward computes what it was given anew from x.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        training: bool,
        momentum: float,
        eps: float,
        activation: str | None,
        batches: Tensor | None,
    ) -> Tensor:
        running = running_mean, running_var
        data = _channels_last(x.data)
        if training:
            means, variances = _array(running_mean), _array(running_var)
            count = None if batches is None else batches.data.reshape(1)
            ctx.statistics = x.backend.batch_norm_statistics(data, means, variances, momentum, count)
            if batches is not None:
                batches.modified()
            for tensor, array in zip(running, (means, variances), strict=True):
                if tensor is not None:
                    if array is not tensor.data:
                        tensor.data[...] = array
                    tensor.modified()
        ctx.save_for_backward(x, weight, bias if activation else None, *((None, None) if training else running))
        ctx.training, ctx.eps, ctx.activation = training, eps, activation
        y = x.backend.batch_norm_forward(data, _statistics(ctx, running), _array(weight), _array(bias), eps, activation)
        return Tensor(_channels_second(y), x.device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, bias, *running = ctx.saved_tensors
        given = grad.backend.batch_norm_backward(
            _channels_last(grad.data),
            _channels_last(x.data),
            _statistics(ctx, running),
            _array(weight),
            ctx.eps,
            ctx.training,
            ctx.needs_input_grad[:3],
            _array(bias),
            ctx.activation,
        )
        dx, dweight, dbias = given
        grads = (None if dx is None else _channels_second(dx), dweight, dbias)
        return *(None if g is None else Tensor(g, grad.device) for g in grads), *(None,) * 7


def _statistics(ctx: Any, running: Sequence[Tensor | None]) -> Any:
    """What the primitives normalise with: those of this batch, or the running ones."""
    return ctx.statistics if ctx.training else (_array(running[0]), None, _array(running[1]))


def _array(tensor: Tensor | None) -> Any:
    """The array of a parameter or a statistic (C,), in float32 beside half types."""
    if tensor is None:
        return None
    return layout.contiguous(tensor.to(dtype=float32).data if dtypes.is_half(tensor.dtype) else tensor.data)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
) -> Tensor:
    """(input - mean) / sqrt(var + eps) * weight + bias for each channel of an input (N, C) or (N, C, ...).

    While ``training``, mean and variance are those of the input over all axes but the channels', and the running ones
    (C,), where given, are updated in place: running = (1 - momentum) * running + momentum * new, with the unbiased
    variance. Else the running ones are used. An input without elements leaves them as they are. ``activation`` ("relu",
    "gelu", "gelu_tanh" or "silu") is applied to the result in the same pass. Beside an input of a half type all others
    may be float32. Source: Ioffe, Szegedy, "Batch normalization: accelerating deep network training by reducing
    internal covariate shift" (2015).

    Raises ValueError for one value a channel while training, for sizes that disagree, for running statistics that are
    missing in evaluation or of which one is given, and for eps <= 0 (< 0 in evaluation).
    """
    return counted_batch_norm(None, input, running_mean, running_var, weight, bias, training, momentum, eps, activation)


def counted_batch_norm(
    batches: Tensor | None,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    activation: str | None,
) -> Tensor:
    """:func:`batch_norm` that adds 1 to ``batches``, int64 with one element, in the same pass while ``training``."""
    optional = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    given = {name: tensor for name, tensor in optional.items() if tensor is not None}
    checks.mixed("batch_norm", input, **given)
    checks.activation("batch_norm", activation, tuple(ACTIVATIONS))
    if input.ndim < 2:
        raise ValueError(f"batch_norm: input must be (N, C) or (N, C, ...), got shape {input.shape}")
    channels = input.shape[1]
    if not channels:
        raise ValueError(f"batch_norm: input needs at least one channel, got shape {input.shape}")
    for name, tensor in given.items():
        if tensor.shape != (channels,):
            raise ValueError(
                f"batch_norm: {name} should contain {channels} elements, one for each channel of input {input.shape},"
                f" got shape {tensor.shape}"
            )
    if (running_mean is None) != (running_var is None):
        raise ValueError("batch_norm: running_mean and running_var must both be given, or both be None")
    if running_mean is None and not training:
        raise ValueError("batch_norm: running_mean and running_var must be given in evaluation (training=False)")
    if not isinstance(momentum, Real) or not isinstance(eps, Real):
        raise TypeError(f"batch_norm: momentum and eps must be numbers, got {momentum!r} and {eps!r}")
    if eps < 0 or (training and eps == 0):
        raise ValueError(f"batch_norm: eps must be {'positive' if training else 'at least 0'}, got {eps!r}")
    size = input.numel()
    if training and size and size == channels:
        raise ValueError(f"batch_norm: expected more than 1 value per channel when training, got input {input.shape}")
    statistics = (None, None) if training and not size else (running_mean, running_var)
    numbers = float(momentum), float(eps)
    fused = activation if input.backend.recomputes else None  # else the activation keeps what its backward wants
    result = BatchNorm.apply(input, weight, bias, *statistics, bool(training), *numbers, fused, batches)
    return result if activation == fused else ACTIVATIONS[activation](result)


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
