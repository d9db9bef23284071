"""2-D convolution (cross-correlation, as all deep-learning frameworks have it) and its gradients."""

from __future__ import annotations

from typing import Any

from gpucnn import layout
from gpucnn.autograd import Function
from gpucnn.functional import checks
from gpucnn.functional.half_weights import operand, parameter, rounded
from gpucnn.functional.rectified import is_rectified, masked, rectify
from gpucnn.geometry import Conv2dGeometry, Padding, Pair
from gpucnn.precision import uses_tf32
from gpucnn.tensor import Tensor


def image_memory(x: Tensor, data_format: str) -> Any:
    """The (N, H, W, C) array of a tensor of either format: a view where its memory is in that order, else a copy."""
    return layout.nhwc(x.data) if data_format == "NCHW" else layout.contiguous(x.data)


def image_tensor(array: Any, like: Tensor, data_format: str) -> Tensor:
    """An (N, H, W, C) array as a tensor of either format; always a view."""
    return Tensor(layout.nchw(array) if data_format == "NCHW" else array, like.device)


def filter_memory(weight: Tensor, data_format: str, half: Any = None) -> Any:
    """The (K, R, S, C/groups) array of filters (K, C/groups, R, S), or of (R, S, C/groups, K) for NHWC.

    ``half``: the weight's rounded copy, which stands in its place.
    """
    array = weight.data if half is None else half
    return layout.nhwc(array) if data_format == "NCHW" else layout.contiguous(array.transpose(3, 0, 1, 2))


def filter_tensor(array: Any, like: Tensor, data_format: str) -> Tensor:
    """The gradient of filters as a tensor in their format, a view."""
    return Tensor(layout.nchw(array) if data_format == "NCHW" else array.transpose(1, 2, 3, 0), like.device)


class Conv2d(Function):
    """y = f(x * w + bias) over the geometry g, f the identity or ReLU; backward is dgrad for x, wgrad for w and bias.

    In half types x and w are rounded first (the weight's copy is kept), and the gradients of w and bias are float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        g: Conv2dGeometry,
        data_format: str,
        activation: str | None,
    ) -> Tensor:
        need_x, need_weight, *_ = ctx.needs_input_grad
        x, half = operand("conv2d", x)
        ctx.half_weight = None if half is None else rounded(weight, half)
        ctx.mask, ctx.tf32 = need_x and is_rectified(x), uses_tf32(x.device)
        ctx.g, ctx.data_format, ctx.activation = g, data_format, activation
        x_data, w_data = image_memory(x, data_format), filter_memory(weight, data_format, ctx.half_weight)
        y = image_tensor(
            x.backend.conv2d_fprop(x_data, w_data, parameter(bias), g, activation, ctx.tf32), x, data_format
        )
        ctx.save_for_backward(
            x if need_weight or ctx.mask else None, weight if need_x else None, y if activation else None
        )
        return rectify(ctx, y) if activation else y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, y = ctx.saved_tensors
        g, data_format, backend = ctx.g, ctx.data_format, grad.backend
        need_x, need_weight, need_bias, *_ = ctx.needs_input_grad
        dy = image_memory(grad, data_format)
        if y is not None and not ctx.received_masked:
            dy = backend.relu_backward(dy, image_memory(y, data_format))
        dx = dw = db = None
        if need_x:
            filters = filter_memory(weight, data_format, ctx.half_weight)
            mask = image_memory(x, data_format) if ctx.mask else None
            dx = image_tensor(backend.conv2d_dgrad(dy, filters, g, mask, ctx.tf32), grad, data_format)
            dx = masked(dx) if ctx.mask else dx
        if need_weight:
            dw_data, db_data = backend.conv2d_wgrad(image_memory(x, data_format), dy, g, need_bias, ctx.tf32)
            dw = filter_tensor(dw_data, grad, data_format)
            db = Tensor(db_data, grad.device) if need_bias else None
        elif need_bias:
            db = Tensor(backend.bias_grad(dy), grad.device)
        return dx, dw, db, None, None, None


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    data_format: str = "NCHW",
    activation: str | None = None,
    max_pool: Pair | None = None,
) -> Tensor:
    """Convolves ``input`` (N, C, H, W) with ``weight`` (K, C/groups, R, S) and adds ``bias`` (K,): (N, K, P, Q).

    P = (H + top + bottom - dilation (R - 1) - 1) // stride + 1, Q likewise. ``padding`` is an int, a pair, ((top,
    bottom), (left, right)), "valid" or "same" (TensorFlow's, for any stride). With ``data_format="NHWC"`` the input
    is (N, H, W, C), the weight (R, S, C/groups, K) and the result (N, P, Q, K), as in TensorFlow. ``activation="relu"``
    gives max(y, 0) in the same pass; ``max_pool=2`` (or a pair) then gives ``max_pool2d(y, max_pool)``, its windows
    side by side, in one pass with it where the device gains by that. The dtype computed in is that of
    :func:`gpucnn.precision`, else the input's; beside an input of a half type weight and bias may be float32.

    Raises ValueError for sizes that do not fit, TypeError for other than one real dtype. Method: implicit GEMM on
    GPUs, as in CUTLASS (https://docs.nvidia.com/cutlass/latest/media/docs/cpp/implicit_gemm_convolution.html).
    """
    checks.mixed("conv2d", input, weight=weight, bias=bias)
    checks.activation("conv2d", activation, ("relu",))
    checks.data_format("conv2d", data_format)
    input_shape, weight_shape = input.shape, weight.shape
    if data_format == "NHWC":
        if input.ndim != 4 or weight.ndim != 4:
            raise ValueError(
                "conv2d: for NHWC input must be (N, H, W, C) and weight (R, S, C/groups, K),"
                f" got input {input_shape}, weight {weight_shape}"
            )
        (n, h, w, c), (r, s, depth, k) = input_shape, weight_shape
        input_shape, weight_shape = (n, c, h, w), (k, depth, r, s)
    g = Conv2dGeometry.of(input_shape, weight_shape, stride, padding, dilation, groups)
    if bias is not None and bias.shape != (g.K,):
        raise ValueError(f"conv2d: bias {bias.shape} does not fit {g.K} output channels (weight {weight.shape})")
    if max_pool is not None:
        from gpucnn.functional.pooled_convolution import conv2d_max_pool  # which builds on this module

        return conv2d_max_pool(input, weight, bias, g, data_format, activation, max_pool)
    return Conv2d.apply(input, weight, bias, g, data_format, activation)
