"""Convolution and max pooling behind it in one call, and in one pass on a device that gains by it."""

from __future__ import annotations

from typing import Any

from gpucnn import dtypes
from gpucnn.autograd import Function
from gpucnn.functional.convolution import Conv2d, filter_memory, filter_tensor, image_memory, image_tensor
from gpucnn.functional.pooling import MaxPool2d
from gpucnn.functional.rectified import is_rectified, masked, rectify
from gpucnn.geometry import Conv2dGeometry, Pair, Pool2dGeometry
from gpucnn.tensor import Tensor


class Conv2dMaxPool(Function):
    """The maxima over the windows of the geometry ``pool`` of max(x * w + bias, 0), without the map between them.

    Where x needs no gradient backward goes in one pass as well; where it does, it is pooling's and then convolution's.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        g: Conv2dGeometry,
        pool: Pool2dGeometry,
        data_format: str,
    ) -> Tensor:
        need_x, need_weight, *_ = ctx.needs_input_grad
        ctx.mask = need_x and is_rectified(x)
        ctx.g, ctx.pool, ctx.data_format = g, pool, data_format
        filters = filter_memory(weight, data_format)
        y_data, ctx.index = x.backend.conv2d_max_pool_fprop(
            image_memory(x, data_format), filters, None if bias is None else bias.data, g
        )
        y = image_tensor(y_data, x, data_format)
        ctx.save_for_backward(x if need_weight or ctx.mask else None, weight if need_x else None, y)
        return rectify(ctx, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, y = ctx.saved_tensors
        g, data_format, backend = ctx.g, ctx.data_format, grad.backend
        need_x, need_weight, need_bias, *_ = ctx.needs_input_grad
        dy = image_memory(grad, data_format)
        if not ctx.received_masked:
            dy = backend.relu_backward(dy, image_memory(y, data_format))
        dx = dw_data = db_data = None
        if need_x:
            of_map = backend.max_pool2d_backward(dy, ctx.index, ctx.pool)
            mask = image_memory(x, data_format) if ctx.mask else None
            dx = image_tensor(backend.conv2d_dgrad(of_map, filter_memory(weight, data_format), g, mask),
                              grad, data_format)  # fmt: skip
            dx = masked(dx) if ctx.mask else dx
            if need_weight:
                dw_data, _ = backend.conv2d_wgrad(image_memory(x, data_format), of_map, g)
        elif need_weight:
            dw_data = backend.conv2d_max_pool_wgrad(image_memory(x, data_format), dy, ctx.index, g)
        if need_bias:
            db_data = backend.bias_grad(dy)
        dw = None if dw_data is None else filter_tensor(dw_data, grad, data_format)
        db = None if db_data is None else Tensor(db_data, grad.device)
        return dx, dw, db, None, None, None


def conv2d_max_pool(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Conv2dGeometry,
    data_format: str,
    activation: str | None,
    window: Pair,
) -> Tensor:
    """What :func:`gpucnn.functional.conv2d` gives with ``max_pool=window``, its other arguments checked."""
    pool = Pool2dGeometry.of((g.N, g.K, g.P, g.Q), window, None, 0, 1, False)
    usual = activation == "relu" and (pool.R, pool.S) == (2, 2) and not dtypes.is_half(input.dtype)
    if usual and input.backend.pools_convolution(g):
        return Conv2dMaxPool.apply(input, weight, bias, g, pool, data_format)
    y = Conv2d.apply(input, weight, bias, g, data_format, activation)
    return MaxPool2d.apply(y, pool, data_format)
