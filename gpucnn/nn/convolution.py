"""Convolution layers."""

from __future__ import annotations

import math
from typing import Any

from gpucnn import functional as F
from gpucnn.creation import empty
from gpucnn.functional import checks
from gpucnn.geometry import Padding, Pair, padding_amounts, pair
from gpucnn.nn import init
from gpucnn.nn.module import Module
from gpucnn.nn.parameter import Parameter
from gpucnn.tensor import Tensor


class Conv2d(Module):
    """2-D convolution of (N, in_channels, H, W) into (N, out_channels, P, Q), as ``torch.nn.Conv2d``.

    ``weight`` is (out_channels, in_channels / groups, R, S) and ``bias`` (out_channels,). With ``data_format="NHWC"``
    images are (N, H, W, C) and ``weight`` is (R, S, in_channels / groups, out_channels), as in TensorFlow; one seed
    draws the same filters for both. ``padding`` takes what :func:`gpucnn.functional.conv2d` takes: an int, a pair,
    ((top, bottom), (left, right)), "valid" or "same". ``activation="relu"`` gives max(y, 0) in the same pass,
    ``max_pool=2`` (or a pair) its maxima over windows of that size, side by side.

    Initial values are PyTorch's: uniform in +- 1 / sqrt(fan_in) for filters and bias. Raises ValueError for channels
    that the groups do not divide, sizes below 1 and for a ``padding_mode`` other than "zeros".
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Padding = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        data_format: str = "NCHW",
        activation: str | None = None,
        max_pool: Pair | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"Conv2d: {name} must be a positive int, got {value!r}")
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"Conv2d: in_channels (={in_channels}) and out_channels (={out_channels}) must be divisible by"
                f" groups (={groups})"
            )
        if padding_mode != "zeros":
            raise ValueError(f"Conv2d: padding_mode must be 'zeros', got {padding_mode!r}")
        checks.data_format("Conv2d", data_format)
        checks.activation("Conv2d", activation, ("relu",))
        self.activation = activation
        self.max_pool = None if max_pool is None else pair("Conv2d", "max_pool", max_pool, 1)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size, 1)
        self.stride = pair("Conv2d", "stride", stride, 1)
        self.dilation = pair("Conv2d", "dilation", dilation, 1)
        # The size of an image is not known yet; any one serves to check the kind and the signs of the padding.
        padding_amounts("Conv2d", padding, self.kernel_size, self.kernel_size, self.stride, self.dilation)
        self.padding = (padding, padding) if isinstance(padding, int) else padding
        self.padding_mode, self.data_format = padding_mode, data_format
        filters = empty(out_channels, in_channels // groups, *self.kernel_size, dtype=dtype, device=device)
        self.weight = Parameter(filters if data_format == "NCHW" else filters.permute(2, 3, 1, 0))
        self.bias: Any  # a Parameter, or None
        self.register_parameter("bias", Parameter(empty(out_channels, dtype=dtype, device=device)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws filters and bias again, as PyTorch does."""
        filters = self.filters()
        init.kaiming_uniform_(filters, a=math.sqrt(5.0))
        if self.bias is not None:
            bound = 1.0 / math.sqrt(init.fans(filters)[0])
            init.uniform_(self.bias, -bound, bound)

    def filters(self) -> Tensor:
        """The weights as (K, C / groups, R, S) whatever the data format: the same memory, outside the tape."""
        detached = self.weight.detach()
        return detached if self.data_format == "NCHW" else detached.permute(3, 2, 0, 1)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            data_format=self.data_format,
            activation=self.activation,
            max_pool=self.max_pool,
        )

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}", f"kernel_size={self.kernel_size}", f"stride={self.stride}"]
        if self.padding != (0, 0):
            parts.append(f"padding={self.padding}")
        if self.dilation != (1, 1):
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.data_format != "NCHW":
            parts.append(f"data_format={self.data_format}")
        if self.activation is not None:
            parts.append(f"activation={self.activation!r}")
        if self.max_pool is not None:
            parts.append(f"max_pool={self.max_pool}")
        return ", ".join(parts)
