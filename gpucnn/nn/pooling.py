"""Pooling layers."""

from __future__ import annotations

from collections.abc import Sequence

from gpucnn import functional as F
from gpucnn.functional import checks
from gpucnn.geometry import Padding, Pair, check_output_length, check_output_size, pair
from gpucnn.nn.module import Module
from gpucnn.tensor import Tensor


class MaxPool2d(Module):
    """The maximum of each window of (N, C, H, W), as ``torch.nn.MaxPool2d``; ``stride`` defaults to ``kernel_size``.

    ``padding`` may also be ((top, bottom), (left, right)), "valid" or "same" (TensorFlow's rule).
    ``data_format="NHWC"`` takes (N, H, W, C). Indices are not returned.
    """

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Padding = 0,
        dilation: Pair = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        data_format: str = "NCHW",
    ) -> None:
        super().__init__()
        if return_indices:
            raise ValueError("MaxPool2d: return_indices=True is not supported")
        _check("MaxPool2d", kernel_size, stride, dilation, data_format)
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation, self.ceil_mode, self.data_format = padding, dilation, ceil_mode, data_format

    def forward(self, input: Tensor) -> Tensor:
        return F.max_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            data_format=self.data_format,
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation},"
            f" ceil_mode={self.ceil_mode}" + _format(self.data_format)
        )


class AvgPool2d(Module):
    """The mean of each window of (N, C, H, W), as ``torch.nn.AvgPool2d``; ``stride`` defaults to ``kernel_size``.

    ``count_include_pad`` counts padding among the elements of a window; ``divisor_override`` divides by that number
    instead.
    """

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        *,
        data_format: str = "NCHW",
    ) -> None:
        super().__init__()
        _check("AvgPool2d", kernel_size, stride, 1, data_format)
        if divisor_override is not None and (not isinstance(divisor_override, int) or divisor_override == 0):
            raise ValueError(f"AvgPool2d: divisor_override must be an int other than 0, got {divisor_override!r}")
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode, self.count_include_pad = padding, ceil_mode, count_include_pad
        self.divisor_override, self.data_format = divisor_override, data_format

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
            data_format=self.data_format,
        )

    def extra_repr(self) -> str:
        sizes = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return sizes + _format(self.data_format)


class AdaptiveMaxPool2d(Module):
    """The maximum over windows of (N, C, H, W) chosen so that (N, C, P, Q) come out, as ``torch.nn.AdaptiveMaxPool2d``.

    ``output_size`` is (P, Q), or an int for both; None in the pair keeps the input's size. Indices are not returned.
    """

    def __init__(
        self, output_size: int | Sequence[int | None], return_indices: bool = False, *, data_format: str = "NCHW"
    ) -> None:
        super().__init__()
        if return_indices:
            raise ValueError("AdaptiveMaxPool2d: return_indices=True is not supported")
        check_output_size("AdaptiveMaxPool2d", output_size)
        checks.data_format("AdaptiveMaxPool2d", data_format)
        self.output_size, self.data_format = output_size, data_format

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_max_pool2d(input, self.output_size, data_format=self.data_format)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}" + _format(self.data_format)


class AdaptiveAvgPool2d(Module):
    """The mean over windows of (N, C, H, W) chosen so that (N, C, P, Q) come out, as ``torch.nn.AdaptiveAvgPool2d``.

    ``output_size`` is (P, Q), or an int for both; None in the pair keeps the input's size. 1 is global average pooling.
    """

    def __init__(self, output_size: int | Sequence[int | None], *, data_format: str = "NCHW") -> None:
        super().__init__()
        check_output_size("AdaptiveAvgPool2d", output_size)
        checks.data_format("AdaptiveAvgPool2d", data_format)
        self.output_size, self.data_format = output_size, data_format

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(input, self.output_size, data_format=self.data_format)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}" + _format(self.data_format)


class AdaptiveMaxPool1d(Module):
    """The maximum over windows of (N, C, L): (N, C, ``output_size``), as ``torch.nn.AdaptiveMaxPool1d``."""

    def __init__(self, output_size: int, return_indices: bool = False) -> None:
        super().__init__()
        if return_indices:
            raise ValueError("AdaptiveMaxPool1d: return_indices=True is not supported")
        check_output_length("AdaptiveMaxPool1d", output_size)
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_max_pool1d(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(Module):
    """The mean over windows of (N, C, L): (N, C, ``output_size``), as ``torch.nn.AdaptiveAvgPool1d``."""

    def __init__(self, output_size: int) -> None:
        super().__init__()
        check_output_length("AdaptiveAvgPool1d", output_size)
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool1d(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


def _check(layer: str, kernel_size: Pair, stride: Pair | None, dilation: Pair, data_format: str) -> None:
    pair(layer, "kernel_size", kernel_size, 1)
    if stride is not None:
        pair(layer, "stride", stride, 1)
    pair(layer, "dilation", dilation, 1)
    checks.data_format(layer, data_format)


def _format(data_format: str) -> str:
    return "" if data_format == "NCHW" else f", data_format={data_format}"
