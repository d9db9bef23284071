"""How the outputs of a convolution or a pooling meet its inputs, and its cutting into blocks that stay in cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy.scratch import scratch
from gpucnn.geometry import Conv2dGeometry, Pool2dGeometry

Array = NDArray[Any]

LEAST_BLOCKS = 8
WIDE_PIXEL = 512  # bytes above which a pixel's channels are copied as fast one by one


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

    def meeting(self, tap: int, first: int, last: int) -> tuple[int, int]:
        """The part [first, last) of those outputs that reads an input, no padding, at a tap; first = last for none."""
        at = self.start + tap * self.dilation
        low = min(max(first, -(at // self.stride)), last)
        return low, max(low, min(last, -((at - self.inputs) // self.stride)))

    def met(self, tap: int, first: int, last: int) -> slice:
        """The inputs that the outputs [first, last) read at a tap; there must be some, and none of them padding."""
        at = self.start + tap * self.dilation
        return slice(at + first * self.stride, at + (last - 1) * self.stride + 1, self.stride)

    def is_input(self) -> Array:
        """(outputs, taps): whether the place is an input, not padding."""
        at = self.start + np.arange(self.outputs)[:, None] * self.stride + np.arange(self.taps) * self.dilation
        return np.asarray((at >= 0) & (at < self.inputs))


def axes(g: Conv2dGeometry | Pool2dGeometry) -> tuple[Axis, Axis]:
    """(rows, columns) of a forward convolution or pooling."""
    return (
        Axis(g.H, g.P, g.R, g.stride_h, -g.pad_top, g.dilation_h),
        Axis(g.W, g.Q, g.S, g.stride_w, -g.pad_left, g.dilation_w),
    )


def in_step(g: Pool2dGeometry) -> bool:
    """Whether windows start at every stride-th input and reach no further than into the next one: as nearly all do."""
    down, across = g.stride_h, g.stride_w
    sizes = (g.P * down, g.Q * across) == (g.H, g.W) and down <= g.R <= 2 * down and across <= g.S <= 2 * across
    return sizes and g.pad_top == g.pad_left == 0 and g.dilation_h == g.dilation_w == 1


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


def blocks(images: int, rows: int, row_bytes: int, budget: int, least: int = LEAST_BLOCKS) -> list[Block]:
    """Cuts (images, rows) into blocks of about equal size, at most ``budget`` bytes at ``row_bytes`` an output row.

    Whole images where at least one fits, else runs of rows of one image. Where the budget alone would give fewer
    than ``least``, they are made smaller, down to a quarter of the budget, so that threads have something to share.
    """
    if images == 0 or rows == 0:
        return []
    total = images * rows * row_bytes
    target = min(budget, max(budget // 4, total // least))
    fitting = target // max(rows * row_bytes, 1)
    if fitting >= 1:
        return [Block(a, b, 0, rows) for a, b in spans(images, fitting)]
    cuts = spans(rows, max(target // max(row_bytes, 1), 1))
    return [Block(n, n + 1, a, b) for n in range(images) for a, b in cuts]


def spans(count: int, size: int) -> list[tuple[int, int]]:
    """[0, count) in pieces of at most ``size`` whose lengths differ by one at most."""
    pieces = -(-count // size)
    return [(i * count // pieces, (i + 1) * count // pieces) for i in range(pieces)]


def window_view(x: Array, block: Block, rows: Axis, columns: Axis, fill: float = 0) -> Array:
    """A block's windows as a view (images, rows, Q, R, S, C), of ``x`` or, with padding, of this thread's copy.

    x is (N, H, W, C), C-contiguous. The copy lasts until this thread's next call.
    """
    low, high = rows.reads(block.row, block.row_end)
    left, right = columns.reads(0, columns.outputs)
    if low >= 0 and high <= rows.inputs and left >= 0 and right <= columns.inputs:
        source, offset = x, block.image * x.strides[0] + low * x.strides[1] + left * x.strides[2]
    else:
        source, offset = padded(x[block.image : block.image_end], (low, high), (left, right), fill), 0
    n, h, w, c = source.strides
    shape = (block.images, block.rows, columns.outputs, rows.taps, columns.taps, x.shape[3])
    strides = (n, h * rows.stride, w * columns.stride, h * rows.dilation, w * columns.dilation, c)
    return np.ndarray(shape, x.dtype, source, offset, strides)


def padded(x: Array, rows: tuple[int, int], columns: tuple[int, int], fill: float = 0, name: str = "padded") -> Array:
    """Rows [low, high) and columns [left, right) of images (N, H, W, C), ``fill`` outside; in buffer ``name``."""
    (low, high), (left, right) = rows, columns
    copy = scratch(name, (x.shape[0], high - low, right - left, x.shape[3]), x.dtype)
    _fill_plane(x, copy, low, left, fill)
    return copy


def copy_pixels(source: Array, target: Array) -> None:
    """target = source, views (..., C) with pixels of contiguous channels, each copied as one item."""
    if source.shape[-1] * source.itemsize > WIDE_PIXEL:
        np.copyto(target, source)
        return
    pixel = np.dtype((np.void, source.shape[-1] * source.itemsize))
    np.copyto(target.view(pixel)[..., 0], source.view(pixel)[..., 0])


def _fill_plane(x: Array, plane: Array, low: int, left: int, fill: float) -> None:
    """plane = rows from ``low`` on and columns from ``left`` on of x, ``fill`` where they are outside it."""
    height, width = plane.shape[1:3]
    top, bottom = min(max(-low, 0), height), min(max(x.shape[1] - low, 0), height)
    first, last = min(max(-left, 0), width), min(max(x.shape[2] - left, 0), width)
    if top >= bottom or first >= last:
        plane.fill(fill)
        return
    plane[:, :top] = fill
    plane[:, bottom:] = fill
    inside = plane[:, top:bottom]
    inside[:, :, :first] = fill
    inside[:, :, last:] = fill
    inside[:, :, first:last] = x[:, low + top : low + bottom, left + first : left + last]


def phases(
    inputs: int, outputs: int, taps: int, stride: int, pad: int, dilation: int
) -> Iterator[tuple[int, list[int], Axis]]:
    """How inputs gather what outputs send them, along one image axis of a convolution or pooling.

    Inputs that are equal modulo the stride form a phase and meet the same taps. For each phase: its first
    input, its taps in the order of the outputs over which they come, and how its inputs read the outputs, a
    window of one output a tap. Input i meets output o over tap t where i + pad = o * stride + t * dilation.
    """
    step = stride // math.gcd(stride, dilation)  # between the taps of one phase
    for phase in range(min(stride, inputs)):
        meeting = [t for t in range(taps) if (phase + pad - t * dilation) % stride == 0][::-1]
        count = -(-(inputs - phase) // stride)
        start = (phase + pad - meeting[0] * dilation) // stride if meeting else 0
        yield phase, meeting, Axis(outputs, count, len(meeting), 1, start, step * dilation // stride)
