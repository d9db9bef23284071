"""The sizes of a convolution and of a pooling, built and checked in one place.

The letters are cuDNN's and CUTLASS's: input N C H W, filters K R S, output P Q. ``C`` counts all input channels; a
filter sees ``C // groups`` of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Pair = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]


def _is_int(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def pair(operator: str, name: str, value: Pair, least: int) -> tuple[int, int]:
    """``value`` as (height, width): an int stands for both. Raises what is wrong, naming operator and argument."""
    if type(value) is int and value >= least:  # as in most calls
        return value, value
    if _is_int(value):
        height = width = int(value)  # type: ignore[arg-type]
    elif isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2 and all(map(_is_int, value)):
        height, width = (int(v) for v in value)
    else:
        raise TypeError(f"{operator}: {name} must be an int or a pair of ints (height, width), got {value!r}")
    if min(height, width) < least:
        kind = "positive" if least == 1 else f"at least {least}"
        raise ValueError(f"{operator}: {name} must be {kind}, got {value!r}")
    return height, width


def _same_padding(size: int, window: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's "SAME": ceil(size / stride) outputs; an odd total pads one more at the end."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + dilation * (window - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def padding_amounts(
    operator: str,
    padding: Padding,
    size: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[tuple[int, int], tuple[int, int]]:
    """``padding`` as ((top, bottom), (left, right)).

    Takes an int, a pair (height, width), ((top, bottom), (left, right)), ``"valid"`` or ``"same"`` in any case.
    "same" follows TensorFlow also for strides above 1: the output has ceil(size / stride) rows.
    """
    if isinstance(padding, str):
        if padding.lower() == "valid":
            return (0, 0), (0, 0)
        if padding.lower() == "same":
            vertical, horizontal = map(_same_padding, size, window, stride, dilation)
            return vertical, horizontal
        raise ValueError(f'{operator}: padding must be "valid", "same", ints or pairs of ints, got {padding!r}')
    if isinstance(padding, Sequence) and len(padding) == 2 and all(isinstance(p, Sequence) for p in padding):
        rows = pair(operator, "padding (top, bottom)", padding[0], 0)  # type: ignore[arg-type]
        columns = pair(operator, "padding (left, right)", padding[1], 0)  # type: ignore[arg-type]
        return rows, columns
    height, width = pair(operator, "padding", padding, 0)  # type: ignore[arg-type]
    return (height, height), (width, width)


@dataclass(frozen=True, slots=True)
class Conv2dGeometry:
    """A 2-D convolution's sizes; build it with :meth:`of`, which checks them.

    The fields stand in the order of ``struct Conv2dGeometry`` in kernels/geometry.cuh.
    """

    N: int
    H: int
    W: int
    C: int
    K: int
    R: int
    S: int
    P: int
    Q: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_bottom: int
    pad_left: int
    pad_right: int
    dilation_h: int
    dilation_w: int
    groups: int

    @classmethod
    def of(
        cls,
        input_shape: tuple[int, ...],
        weight_shape: tuple[int, ...],
        stride: Pair = 1,
        padding: Padding = 0,
        dilation: Pair = 1,
        groups: int = 1,
        operator: str = "conv2d",
    ) -> Conv2dGeometry:
        """The geometry of input (N, C, H, W) under filters (K, C / groups, R, S).

        Raises ValueError (sizes) or TypeError (kinds of argument), naming ``operator`` and the values.
        """
        shapes = f"(input {input_shape}, weight {weight_shape}, groups {groups})"
        if len(input_shape) != 4 or len(weight_shape) != 4:
            raise ValueError(f"{operator}: input must be (N, C, H, W) and weight (K, C/groups, R, S), got {shapes}")
        if not _is_int(groups):
            raise TypeError(f"{operator}: groups must be an int, got {groups!r}")
        if groups < 1:
            raise ValueError(f"{operator}: groups must be positive, got {groups}")
        n, c, h, w = input_shape
        k, c_per_group, r, s = weight_shape
        if k < 1 or c < 1 or r < 1 or s < 1:
            raise ValueError(f"{operator}: channels and filter sizes must be positive {shapes}")
        if c % groups or k % groups:
            raise ValueError(f"{operator}: {c} input and {k} output channels must be divisible by groups {shapes}")
        if c != c_per_group * groups:
            expects = c_per_group * groups
            raise ValueError(f"{operator}: input has {c} channels, weight expects {expects} {shapes}")
        stride_h, stride_w = pair(operator, "stride", stride, 1)
        dilation_h, dilation_w = pair(operator, "dilation", dilation, 1)
        (top, bottom), (left, right) = padding_amounts(
            operator, padding, (h, w), (r, s), (stride_h, stride_w), (dilation_h, dilation_w)
        )
        p, q = _output_sizes(operator, "filter", (h, w), (r, s), (stride_h, stride_w), (dilation_h, dilation_w),
                             (top, bottom), (left, right), ceil_mode=False)  # fmt: skip
        return cls(
            n, h, w, c, k, r, s, p, q, stride_h, stride_w, top, bottom, left, right, dilation_h, dilation_w, groups
        )

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C), the order in memory."""
        return self.N, self.H, self.W, self.C

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(K, R, S, C / groups), the order in memory."""
        return self.K, self.R, self.S, self.C // self.groups

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """(N, P, Q, K), the order in memory."""
        return self.N, self.P, self.Q, self.K

    @property
    def flops(self) -> int:
        """Operations of fprop, dgrad or wgrad: 2 a multiply-add, padding counted as if it were data."""
        return 2 * self.N * self.P * self.Q * self.K * self.R * self.S * (self.C // self.groups)

    def as_struct(self) -> tuple[int, ...]:
        """The fields in order, for the struct of the kernels."""
        return tuple(getattr(self, name) for name in self.__slots__)


@dataclass(frozen=True, slots=True)
class Pool2dGeometry:
    """A 2-D pooling's sizes; build it with :meth:`of`. Windows of R x S over (N, C, H, W) give (N, C, P, Q).

    The fields stand in the order of ``struct Pool2dGeometry`` in kernels/geometry.cuh. With ``ceil_mode`` the last
    window may reach beyond the bottom and right padding; it always starts inside the input or its top or left
    padding, as in PyTorch.
    """

    N: int
    H: int
    W: int
    C: int
    R: int
    S: int
    P: int
    Q: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_bottom: int
    pad_left: int
    pad_right: int
    dilation_h: int
    dilation_w: int

    @classmethod
    def of(
        cls,
        input_shape: tuple[int, ...],
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Padding = 0,
        dilation: Pair = 1,
        ceil_mode: bool = False,
        operator: str = "max_pool2d",
    ) -> Pool2dGeometry:
        """The geometry of pooling input (N, C, H, W); ``stride`` defaults to ``kernel_size``.

        Explicit padding may be at most half the window (PyTorch's rule: every window then sees data).
        """
        if len(input_shape) != 4:
            raise ValueError(f"{operator}: input must be (N, C, H, W), got shape {input_shape}")
        n, c, h, w = input_shape
        if c < 1:
            raise ValueError(f"{operator}: input needs at least one channel, got shape {input_shape}")
        r, s = pair(operator, "kernel_size", kernel_size, 1)
        stride_h, stride_w = (r, s) if stride is None else pair(operator, "stride", stride, 1)
        dilation_h, dilation_w = pair(operator, "dilation", dilation, 1)
        (top, bottom), (left, right) = padding_amounts(
            operator, padding, (h, w), (r, s), (stride_h, stride_w), (dilation_h, dilation_w)
        )
        if not isinstance(padding, str) and (2 * max(top, bottom) > r or 2 * max(left, right) > s):
            raise ValueError(
                f"{operator}: padding must be at most half of the window,"
                f" got padding {padding!r} for kernel_size {(r, s)}"
            )
        p, q = _output_sizes(operator, "window", (h, w), (r, s), (stride_h, stride_w), (dilation_h, dilation_w),
                             (top, bottom), (left, right), ceil_mode)  # fmt: skip
        return cls(n, h, w, c, r, s, p, q, stride_h, stride_w, top, bottom, left, right, dilation_h, dilation_w)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C), the order in memory."""
        return self.N, self.H, self.W, self.C

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """(N, P, Q, C), the order in memory."""
        return self.N, self.P, self.Q, self.C

    def as_struct(self) -> tuple[int, ...]:
        """The fields in order, for the struct of the kernels."""
        return tuple(getattr(self, name) for name in self.__slots__)


@dataclass(frozen=True, slots=True)
class AdaptivePool2dGeometry:
    """The sizes of a pooling that adapts its windows to the wanted P x Q outputs; build it with :meth:`of`.

    Output row p sees the input rows [floor(p H / P), ceil((p + 1) H / P)), PyTorch's windows; so do columns. The fields
    stand in the order of ``struct AdaptivePool2dGeometry`` in kernels/geometry.cuh.
    """

    N: int
    H: int
    W: int
    C: int
    P: int
    Q: int

    @classmethod
    def of(
        cls, input_shape: tuple[int, ...], output_size: int | Sequence[int | None], operator: str
    ) -> AdaptivePool2dGeometry:
        """The geometry of pooling input (N, C, H, W); None in a pair ``output_size`` keeps the input's size."""
        if len(input_shape) != 4:
            raise ValueError(f"{operator}: input must be (N, C, H, W), got shape {input_shape}")
        n, c, h, w = input_shape
        if min(c, h, w) < 1:
            raise ValueError(f"{operator}: input needs channels, rows and columns, got shape {input_shape}")
        check_output_size(operator, output_size)
        rows, columns = output_size if isinstance(output_size, Sequence) else (output_size, output_size)
        p, q = h if rows is None else int(rows), w if columns is None else int(columns)
        return cls(n, h, w, c, p, q)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C), the order in memory."""
        return self.N, self.H, self.W, self.C

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """(N, P, Q, C), the order in memory."""
        return self.N, self.P, self.Q, self.C

    def fixed_window(self) -> Pool2dGeometry | None:
        """The pooling by windows of one size that this is where P divides H and Q divides W, else None."""
        r, s = self.H // self.P, self.W // self.Q
        if (r * self.P, s * self.Q) != (self.H, self.W):
            return None
        return Pool2dGeometry(self.N, self.H, self.W, self.C, r, s, self.P, self.Q, r, s, 0, 0, 0, 0, 1, 1)

    def as_struct(self) -> tuple[int, ...]:
        """The fields in order, for the struct of the kernels."""
        return tuple(getattr(self, name) for name in self.__slots__)


def adaptive_windows(inputs: int, outputs: int) -> list[tuple[int, int]]:
    """The inputs [low, high) that each output of one axis sees; of (outputs, inputs), the outputs over each input."""
    return [(i * inputs // outputs, -(-(i + 1) * inputs // outputs)) for i in range(outputs)]


def check_output_length(operator: str, output_size: object) -> None:
    """Raises what is wrong with a one-dimensional adaptive pooling's output_size, a positive int."""
    if not _is_int(output_size):
        raise TypeError(f"{operator}: output_size must be an int, got {output_size!r}")
    if int(output_size) < 1:  # type: ignore[call-overload]
        raise ValueError(f"{operator}: output_size must be positive, got {output_size!r}")


def check_output_size(operator: str, output_size: object) -> None:
    """Raises what is wrong with an adaptive pooling's output_size, a positive int or a pair of those or None."""
    pair_given = isinstance(output_size, Sequence) and not isinstance(output_size, str) and len(output_size) == 2
    sizes = output_size if pair_given else [output_size]
    if not all(_is_int(size) or (pair_given and size is None) for size in sizes):  # type: ignore[attr-defined]
        raise TypeError(
            f"{operator}: output_size must be an int or a pair (height, width) of ints or None, got {output_size!r}"
        )
    if any(size is not None and int(size) < 1 for size in sizes):  # type: ignore[attr-defined]
        raise ValueError(f"{operator}: output_size must be positive, got {output_size!r}")


def _output_sizes(
    operator: str,
    window_name: str,
    size: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    rows: tuple[int, int],
    columns: tuple[int, int],
    ceil_mode: bool,
) -> tuple[int, int]:
    outputs = []
    for extent, taps, step, spread, (before, after) in zip(
        size, window, stride, dilation, (rows, columns), strict=True
    ):
        padded = extent + before + after
        reach = spread * (taps - 1) + 1
        if reach > padded or extent < 1:
            padded_size = (size[0] + sum(rows), size[1] + sum(columns))
            reaches = tuple(d * (t - 1) + 1 for t, d in zip(window, dilation, strict=True))
            raise ValueError(
                f"{operator}: {window_name} {window} (dilated {reaches}) is larger than the padded input {padded_size}"
                f" (input {size}, padding {rows}, {columns})"
            )
        count = (padded - reach) // step + 1
        if ceil_mode and (padded - reach) % step and count * step < extent + before:
            count += 1
        outputs.append(count)
    return outputs[0], outputs[1]
