"""Depthwise convolutions, one filter a channel: sums over taps of long rows, where matrix products would be of size 1.

A row of outputs, all its pixels and channels, is a sum over the filter's places of a row of pixels that starts
elsewhere times the filter's number for each channel, repeated for each pixel. np.einsum multiplies and adds those rows
in one pass each, which stay in L1. At a stride, the columns are sorted by their place modulo the stride first, so
that rows are contiguous again. wgrad is the same sum over the outputs' rows instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from gpucnn.backends.numpy import memory
from gpucnn.backends.numpy.scratch import scratch
from gpucnn.backends.numpy.threads import for_each
from gpucnn.backends.numpy.windows import Axis, Block, axes, blocks, padded, phases
from gpucnn.geometry import Conv2dGeometry

Array = NDArray[Any]

BLOCK_BYTES = 256 << 10  # of a block's outputs
WGRAD_BYTES = 512 << 10  # the same for wgrad, which adds up rows once a block
WGRAD_ROWS = 128  # of them, at most: numbers of one sign that are added one by one lose digits as they get many


def fprop(x: Array, w: Array, bias: Array | None, g: Conv2dGeometry, activation: str | None = None) -> Array:
    """y (N,P,Q,C) of x (N,H,W,C), w (C,R,S,1) and bias (C,)."""
    y = memory.empty(g.output_shape, x.dtype)
    _correlate(x, w[..., 0].transpose(1, 2, 0), bias, y, *axes(g), activation == "relu")
    return y


def dgrad(dy: Array, w: Array, g: Conv2dGeometry) -> Array:
    """dx (N,H,W,C) of dy (N,P,Q,C) and w (C,R,S,1)."""
    dx = memory.empty(g.input_shape, dy.dtype)
    taps = w[..., 0].transpose(1, 2, 0)
    across = list(phases(g.W, g.Q, g.S, g.stride_w, g.pad_left, g.dilation_w))
    for height, row_taps, rows in phases(g.H, g.P, g.R, g.stride_h, g.pad_top, g.dilation_h):
        for width, column_taps, columns in across:
            part = dx[:, height :: g.stride_h, width :: g.stride_w]
            if row_taps and column_taps:
                _correlate(dy, taps[row_taps][:, column_taps], None, part, rows, columns, False)
            else:
                part[...] = 0
    return dx


def _correlate(x: Array, w: Array, bias: Array | None, y: Array, rows: Axis, columns: Axis, relu: bool) -> None:
    """y (N,P,Q,C), any view, of x (N,H,W,C), w (R,S,C) and bias (C,)."""
    q, c = y.shape[2:]
    factors = np.repeat(w[:, :, None], q, axis=2).reshape(*w.shape[:2], q * c)
    bias_row = None if bias is None else np.tile(bias, q)

    def run(block: Block) -> None:
        part = y[block.image : block.image_end, block.row : block.row_end]
        total = scratch("total", (block.images, block.rows, q * c), x.dtype)
        for at, windows in _windows(x, block, rows, columns):
            out = scratch("sum", total.shape, x.dtype) if at.start else total
            np.einsum("nprsx,rsx->npx", windows, factors[:, at], out=out)
            if out is not total:
                np.add(total, out, out=total)
        if bias_row is not None:
            np.add(total, bias_row, out=total)
        if relu:
            np.maximum(total, np.zeros(q * c, x.dtype), out=total)
        np.copyto(part, total.reshape(part.shape))

    for_each(run, blocks(y.shape[0], y.shape[1], q * c * x.itemsize, BLOCK_BYTES))


def _windows(x: Array, block: Block, rows: Axis, columns: Axis) -> list[tuple[slice, Array]]:
    """What a block's outputs read, in parts of the taps of a filter's row: (images, rows, R, taps, Q*C), overlapping.

    All taps are one part at stride 1; at others each is its own.
    """
    c, stride, reach = x.shape[3], columns.stride, (columns.taps - 1) * columns.dilation
    low, high = rows.reads(block.row, block.row_end)
    left = columns.start
    images, parts = x[block.image : block.image_end], []
    width = columns.outputs + reach // stride
    planes = {}
    for f in sorted({s * columns.dilation % stride for s in range(columns.taps)}):
        first = (left + f) // stride  # of the pixels at that place modulo the stride
        pixels = images[:, :, (left + f) % stride :: stride]
        planes[f] = padded(pixels, (low, high), (first, first + width), 0, f"pixels {f}")
    count = columns.taps if stride == 1 else 1
    for s in range(0, columns.taps, count):
        start, f = divmod(s * columns.dilation, stride)
        plane = planes[f]
        image, row, pixel, _ = plane.strides
        shape = (block.images, block.rows, rows.taps, count, columns.outputs * c)
        strides = (image, row * rows.stride, row * rows.dilation, pixel * columns.dilation, x.itemsize)
        parts.append((slice(s, s + count), as_strided(plane[:, :, start:], shape, strides, writeable=False)))
    return parts


def wgrad(x: Array, dy: Array, g: Conv2dGeometry) -> Array:
    """dw (C,R,S,1) of x (N,H,W,C) and dy (N,P,Q,C)."""
    rows, columns = axes(g)
    row = g.Q * g.C
    work = blocks(g.N, g.P, row * x.itemsize, min(WGRAD_BYTES, WGRAD_ROWS * row * x.itemsize))
    partial = np.zeros((len(work), g.R, g.S, g.C), x.dtype)

    def run(index: int) -> None:
        block = work[index]
        gradients = dy[block.image : block.image_end, block.row : block.row_end].reshape(block.images, -1, row)
        for at, windows in _windows(x, block, rows, columns):
            sums = scratch("sums", (g.R, at.stop - at.start, row), x.dtype)
            np.einsum("nprsx,npx->rsx", windows, gradients, out=sums)
            np.sum(sums.reshape(g.R, -1, g.Q, g.C), axis=2, out=partial[index, :, at])

    for_each(run, range(len(work)))
    return np.ascontiguousarray(partial.sum(axis=0).transpose(2, 0, 1))[..., None]
