"""Max and average pooling, by windows of a given size and to outputs of a given size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpucnn import layout
from gpucnn.autograd import Function
from gpucnn.functional import checks, deferred
from gpucnn.functional.convolution import image_memory, image_tensor
from gpucnn.functional.deferred import IN_C_ORDER, NORMALISED, POOLED
from gpucnn.functional.rectified import keep, pass_on
from gpucnn.functional.shape import channels_last
from gpucnn.geometry import AdaptivePool2dGeometry, Padding, Pair, Pool2dGeometry, check_output_length
from gpucnn.tensor import Tensor

MOST_PLACES = 2**31  # the place of an adaptive window's maximum in its image is kept as an int32


class MaxPool2d(Function):
    """The maximum of each window; backward sends each gradient to the first maximum of its window."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Pool2dGeometry, data_format: str) -> Tensor:
        y, ctx.index = x.backend.max_pool2d_forward(image_memory(x, data_format), g)
        ctx.g, ctx.data_format = g, data_format
        by_channels = data_format == "NCHW"  # as local response normalisation has them
        ctx.defers = by_channels and deferred.taken(x, POOLED)
        ctx.takes_deferred = (NORMALISED,) * by_channels + (IN_C_ORDER,) * ctx.defers
        return keep(ctx, x, image_tensor(y, x, data_format))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        g, index, data_format, backend = ctx.g, ctx.index, ctx.data_format, grad.backend
        if (normalised := deferred.parts(grad, NORMALISED)) is not None:
            dy, x, size, alpha, beta, k, mask = normalised
            dx_data = backend.max_pool2d_backward_of_lrn(dy, x, size, alpha, beta, k, mask, index, g)
            dx = image_tensor(dx_data, grad, data_format)
        elif ctx.defers:
            flat = deferred.parts(grad, IN_C_ORDER)
            dy = layout.settled(grad.data) if flat is None else flat[0]

            def launch() -> Any:
                return layout.nchw(backend.max_pool2d_backward(layout.nhwc(channels_last(backend, dy)), index, g))

            dx = deferred.Deferred(POOLED, (dy, index, g), launch, grad, (g.N, g.C, g.H, g.W))
        else:
            dx = image_tensor(backend.max_pool2d_backward(image_memory(grad, data_format), index, g), grad, data_format)
        return pass_on(ctx, dx), None, None


class AvgPool2d(Function):
    """The mean of each window."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, g: Pool2dGeometry, count_include_pad: bool, divisor: int | None, data_format: str
    ) -> Tensor:
        ctx.arguments, ctx.data_format = (g, count_include_pad, divisor), data_format
        return image_tensor(x.backend.avg_pool2d_forward(image_memory(x, data_format), *ctx.arguments), x, data_format)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        dx = grad.backend.avg_pool2d_backward(image_memory(grad, ctx.data_format), *ctx.arguments)
        return image_tensor(dx, grad, ctx.data_format), None, None, None, None


class AdaptiveMaxPool2d(Function):
    """The maximum of each window of an adaptive geometry."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: AdaptivePool2dGeometry, data_format: str) -> Tensor:
        y, ctx.index = x.backend.adaptive_max_pool2d_forward(image_memory(x, data_format), g)
        ctx.g, ctx.data_format = g, data_format
        return keep(ctx, x, image_tensor(y, x, data_format))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        dx = grad.backend.adaptive_max_pool2d_backward(image_memory(grad, ctx.data_format), ctx.index, ctx.g)
        return pass_on(ctx, image_tensor(dx, grad, ctx.data_format)), None, None


class AdaptiveAvgPool2d(Function):
    """The mean of each window of an adaptive geometry."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: AdaptivePool2dGeometry, data_format: str) -> Tensor:
        ctx.g, ctx.data_format = g, data_format
        return image_tensor(x.backend.adaptive_avg_pool2d_forward(image_memory(x, data_format), g), x, data_format)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        dx = grad.backend.adaptive_avg_pool2d_backward(image_memory(grad, ctx.data_format), ctx.g)
        return image_tensor(dx, grad, ctx.data_format), None, None


def _channels_first(operator: str, input: Tensor, data_format: str) -> tuple[int, ...]:
    checks.floating(operator, input=input)
    checks.data_format(operator, data_format)
    if data_format == "NHWC" and input.ndim == 4:
        n, h, w, c = input.shape
        return n, c, h, w
    return input.shape


def max_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    data_format: str = "NCHW",
) -> Tensor:
    """The maximum over windows of ``input`` (N, C, H, W): (N, C, P, Q). Among equals the first wins; NaN wins over all.

    ``stride`` defaults to ``kernel_size``; ``padding`` (an int, a pair, ((top, bottom), (left, right)), "valid",
    "same") never wins; ``ceil_mode`` keeps a last window that reaches beyond the padded input. Sizes as in PyTorch;
    raises ValueError where they do not fit.
    """
    shape = _channels_first("max_pool2d", input, data_format)
    g = Pool2dGeometry.of(shape, kernel_size, stride, padding, dilation, ceil_mode)
    return MaxPool2d.apply(input, g, data_format)


def avg_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    data_format: str = "NCHW",
) -> Tensor:
    """The mean over windows of ``input`` (N, C, H, W): (N, C, P, Q). Arguments and divisor as in PyTorch.

    A window counts the padding unless ``count_include_pad`` is false; ``divisor_override`` replaces the count.
    """
    shape = _channels_first("avg_pool2d", input, data_format)
    if divisor_override is not None and not hasattr(divisor_override, "__index__"):
        raise TypeError(f"avg_pool2d: divisor_override must be an int, got {divisor_override!r}")
    if divisor_override is not None and divisor_override == 0:
        raise ValueError("avg_pool2d: divisor_override must not be 0")
    g = Pool2dGeometry.of(shape, kernel_size, stride, padding, 1, ceil_mode, operator="avg_pool2d")
    return AvgPool2d.apply(input, g, bool(count_include_pad), divisor_override, data_format)


def adaptive_max_pool2d(
    input: Tensor,
    output_size: int | Sequence[int | None],
    return_indices: bool = False,
    data_format: str = "NCHW",
) -> Tensor:
    """The maximum over windows of ``input`` (N, C, H, W) such that (N, C, P, Q) come out, (P, Q) = ``output_size``.

    Output row p sees the rows [floor(p H / P), ceil((p + 1) H / P)), and columns alike, as in PyTorch; None in a pair
    keeps the input's size. Among equals the first wins; NaN wins over all. Indices are not returned. Raises TypeError
    or ValueError for sizes that are not positive ints.
    """
    return _adaptive("adaptive_max_pool2d", input, output_size, return_indices, data_format)


def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None], data_format: str = "NCHW") -> Tensor:
    """The mean over windows of ``input`` (N, C, H, W), the windows of :func:`adaptive_max_pool2d`: (N, C, P, Q)."""
    return _adaptive("adaptive_avg_pool2d", input, output_size, False, data_format)


def adaptive_max_pool1d(input: Tensor, output_size: int, return_indices: bool = False) -> Tensor:
    """:func:`adaptive_max_pool2d` along the last axis of ``input`` (N, C, L): (N, C, ``output_size``)."""
    return _adaptive_1d("adaptive_max_pool1d", input, output_size, return_indices)


def adaptive_avg_pool1d(input: Tensor, output_size: int) -> Tensor:
    """:func:`adaptive_avg_pool2d` along the last axis of ``input`` (N, C, L): (N, C, ``output_size``)."""
    return _adaptive_1d("adaptive_avg_pool1d", input, output_size, False)


def _adaptive(operator: str, input: Tensor, output_size: Any, return_indices: bool, data_format: str) -> Tensor:
    shape = _channels_first(operator, input, data_format)
    if return_indices:
        raise ValueError(f"{operator}: return_indices=True is not supported")
    g = AdaptivePool2dGeometry.of(shape, output_size, operator)
    fixed = g.fixed_window()
    if "max" in operator:
        if fixed is not None:
            return MaxPool2d.apply(input, fixed, data_format)
        if g.H * g.W > MOST_PLACES:
            raise ValueError(f"{operator}: input of {g.H} x {g.W} has more than {MOST_PLACES} pixels")
        return AdaptiveMaxPool2d.apply(input, g, data_format)
    if fixed is not None:
        return AvgPool2d.apply(input, fixed, True, None, data_format)
    return AdaptiveAvgPool2d.apply(input, g, data_format)


def _adaptive_1d(operator: str, input: Tensor, output_size: Any, return_indices: bool) -> Tensor:
    checks.floating(operator, input=input)
    if input.ndim != 3:
        raise ValueError(f"{operator}: input must be (N, C, L), got shape {input.shape}")
    check_output_length(operator, output_size)
    n, c, length = input.shape
    image = input.reshape(n, c, 1, length)
    return _adaptive(operator, image, (1, output_size), return_indices, "NCHW").reshape(n, c, int(output_size))
