"""How the outputs of a convolution or a pooling meet its inputs, and its cutting into blocks that stay in cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy.scratch import scratch
from gpucnn.geometry import Conv2dGeometry, Pool2dGeometry

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Axis:
    """One image axis: output i reads the inputs start + i * stride + t * dilation for the taps t = 0 .. taps - 1.

    Inputs outside [0, inputs) are padding.
    """

    inputs: int
    outputs: int
    taps: int
    stride: int
    start: int
    dilation: int

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """The range [low, high) of inputs that the outputs [first, last) read, padding included."""
        low = self.start + first * self.stride
        return low, self.start + (last - 1) * self.stride + (self.taps - 1) * self.dilation + 1


def axes(g: Conv2dGeometry | Pool2dGeometry) -> tuple[Axis, Axis]:
    """(rows, columns) of a forward convolution or pooling."""
    return (
        Axis(g.H, g.P, g.R, g.stride_h, -g.pad_top, g.dilation_h),
        Axis(g.W, g.Q, g.S, g.stride_w, -g.pad_left, g.dilation_w),
    )


@dataclass(frozen=True, slots=True)
class Block:
    """The output rows [row, row_end) of the images [image, image_end)."""

    image: int
    image_end: int
    row: int
    row_end: int

    @property
    def images(self) -> int:
        return self.image_end - self.image

    @property
    def rows(self) -> int:
        return self.row_end - self.row


def blocks(images: int, rows: int, row_bytes: int, budget: int) -> list[Block]:
    """Cuts (images, rows) into blocks of at most ``budget`` bytes, ``row_bytes`` to an output row, that differ little in size.

    Whole images where at least one fits, else runs of rows of one image. Where the budget alone would give few blocks, they are made
    smaller, down to a quarter of the budget, so that threads have something to share.
    """
    if images == 0 or rows == 0:
        return []
    total = images * rows * row_bytes
    target = min(budget, max(budget // 4, total // LEAST_BLOCKS))
    fitting = target // max(rows * row_bytes, 1)
    if fitting >= 1:
        return [Block(a, b, 0, rows) for a, b in spans(images, fitting)]
    cuts = spans(rows, max(target // max(row_bytes, 1), 1))
    return [Block(n, n + 1, a, b) for n in range(images) for a, b in cuts]


LEAST_BLOCKS = 8


def spans(count: int, size: int) -> list[tuple[int, int]]:
    """[0, count) in pieces of at most ``size`` whose lengths differ by one at most."""
    pieces = -(-count // size)
    return [(i * count // pieces, (i + 1) * count // pieces) for i in range(pieces)]


def window_view(x: Array, block: Block, rows: Axis, columns: Axis, fill: float = 0) -> Array:
    """The windows of a block of outputs as a view (images, rows, Q, R, S, C), of ``x`` or, with padding, of this thread's copy.

    x is (N, H, W, C), C-contiguous.
    """
    low, high = rows.reads(block.row, block.row_end)
    left, right = columns.reads(0, columns.outputs)
    if low >= 0 and high <= rows.inputs and left >= 0 and right <= columns.inputs:
        source, offset = x, block.image * x.strides[0] + low * x.strides[1] + left * x.strides[2]
    else:
        source, offset = _padded(x, block, low, high, left, right, fill), 0
    n, h, w, c = source.strides
    shape = (block.images, block.rows, columns.outputs, rows.taps, columns.taps, x.shape[3])
    strides = (n, h * rows.stride, w * columns.stride, h * rows.dilation, w * columns.dilation, c)
    return np.ndarray(shape, x.dtype, source, offset, strides)


def _padded(x: Array, block: Block, low: int, high: int, left: int, right: int, fill: float) -> Array:
    """Rows [low, high) and columns [left, right) of the block's images, ``fill`` where there is no input."""
    padded = scratch("padded", (block.images, high - low, right - left, x.shape[3]), x.dtype)
    top, bottom = min(max(-low, 0), high - low), max(min(x.shape[1], high) - low, 0)
    first, last = min(max(-left, 0), right - left), max(min(x.shape[2], right) - left, 0)
    if top >= bottom or first >= last:
        padded.fill(fill)
        return padded
    padded[:, :top] = fill
    padded[:, bottom:] = fill
    inside = padded[:, top:bottom]
    inside[:, :, :first] = fill
    inside[:, :, last:] = fill
    inside[:, :, first:last] = x[block.image : block.image_end, low + top : low + bottom, left + first : left + last]
    return padded
