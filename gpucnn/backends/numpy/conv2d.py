"""Convolution as matrix products over blocks of images: fprop, dgrad and wgrad.

A block's windows are laid side by side (im2col) into a buffer that stays in cache, and one product with the filters gives its
outputs. As GEMMs, of a block with M outputs (n, p, q) and for each group:

    fprop   y (M, K)       = windows (M, RSC) x filters (RSC, K)
    wgrad   dw (K, RSC)    = dy (M, K) transposed x windows (M, RSC), added up over the blocks in a fixed order
    dgrad   dx (M', C)     = windows of dy (M', R'S'K) x filters (R'S'K, C)

dgrad gathers as fprop does: the inputs of one phase, those that are equal modulo the stride, meet the same taps of the filter, and their
gradient is a convolution of dy with those taps, reversed, at stride 1. Stride 1 has one phase; nothing is ever scattered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy.scratch import scratch
from gpucnn.backends.numpy.threads import for_each, single_blas_thread
from gpucnn.backends.numpy.windows import Axis, Block, axes, blocks, spans, window_view
from gpucnn.geometry import Conv2dGeometry

Array = NDArray[Any]

WINDOW_BYTES = 2 << 20  # of one block's windows: about a core's L2 cache
WGRAD_SUMS = 8  # running sums of dw, each over its own run of blocks


def fprop(x: Array, w: Array, bias: Array | None, g: Conv2dGeometry) -> Array:
    """y (N,P,Q,K) of x (N,H,W,C), w (K,R,S,C/groups) and bias (K,)."""
    y = np.empty(g.output_shape, x.dtype)
    rows, columns = axes(g)
    _correlate(x, w, bias, y, rows, columns, g.groups)
    return y


def dgrad(dy: Array, w: Array, g: Conv2dGeometry) -> Array:
    """dx (N,H,W,C) of dy (N,P,Q,K) and w (K,R,S,C/groups)."""
    dx = np.empty(g.input_shape, dy.dtype)
    row_phases = list(_phases(g.H, g.P, g.R, g.stride_h, g.pad_top, g.dilation_h))
    column_phases = list(_phases(g.W, g.Q, g.S, g.stride_w, g.pad_left, g.dilation_w))
    for height, row_taps, rows in row_phases:
        for width, column_taps, columns in column_phases:
            part = dx[:, height :: g.stride_h, width :: g.stride_w]
            if row_taps and column_taps:
                taps = w[:, row_taps][:, :, column_taps]
                _correlate(dy, _swapped(taps, g.groups), None, part, rows, columns, g.groups)
            else:
                part[...] = 0
    return dx


def wgrad(x: Array, dy: Array, g: Conv2dGeometry) -> Array:
    """dw (K,R,S,C/groups) of x (N,H,W,C) and dy (N,P,Q,K)."""
    rows, columns = axes(g)
    m, k, depth = g.P * g.Q, g.K // g.groups, g.R * g.S * (g.C // g.groups)
    work = _blocks(g.N, rows, columns, g.C, x.itemsize)
    runs = spans(len(work), -(-len(work) // WGRAD_SUMS)) if work else []
    sums = np.empty((len(runs), g.groups, k, depth), x.dtype)

    def run(index: int) -> None:
        first, last = runs[index]
        for block in work[first:last]:
            windows = _im2col(x, block, rows, columns, g.groups)
            gradients = _by_group(dy[block.image : block.image_end, block.row : block.row_end], g.groups)
            if block is work[first]:
                np.matmul(gradients.transpose(0, 2, 1), windows, out=sums[index])
            else:
                product = scratch("product", sums.shape[1:], x.dtype)
                np.matmul(gradients.transpose(0, 2, 1), windows, out=product)
                np.add(sums[index], product, out=sums[index])

    with single_blas_thread:
        for_each(run, range(len(runs)))
    if not runs or not m:
        return np.zeros(g.weight_shape, x.dtype)
    total = sums[0]
    for other in sums[1:]:
        total += other
    return total.reshape(g.weight_shape).copy() if len(runs) > 1 else total.reshape(g.weight_shape)


def bias_grad(dy: Array) -> Array:
    """db (K,): the sum of dy (..., K) over all axes but the last."""
    k = dy.shape[-1]
    rows = dy.reshape(-1, k)
    work = spans(len(rows), max(1, SUM_BYTES // (k * dy.itemsize))) if len(rows) else []
    partial = np.zeros((len(work), k), dy.dtype)

    def run(index: int) -> None:
        partial[index] = _column_sums(rows[slice(*work[index])])

    for_each(run, range(len(work)))
    return _column_sums(partial)


def _column_sums(rows: Array) -> Array:
    """(k,): the sums of ``rows`` (m, k) over m, no running sum of more than FOLD terms and with long additions for short rows."""
    k = rows.shape[1]
    total = np.zeros(k, rows.dtype)
    while len(rows) > FOLD:
        whole = len(rows) // FOLD * FOLD
        total += rows[whole:].sum(axis=0)
        rows = rows[:whole].reshape(FOLD, -1).sum(axis=0).reshape(-1, k)
    total += rows.sum(axis=0)
    return total


FOLD = 32
SUM_BYTES = 256 << 10


def _phases(
    inputs: int, outputs: int, taps: int, stride: int, pad: int, dilation: int
) -> Iterator[tuple[int, list[int], Axis]]:
    """For each phase of one image axis: its first input, the taps that meet it, reversed, and how its inputs read dy.

    Input i reaches output o over tap t where i + pad = o * stride + t * dilation.
    """
    step = stride // math.gcd(stride, dilation)  # between the taps of one phase
    for phase in range(min(stride, inputs)):
        meeting = [t for t in range(taps) if (phase + pad - t * dilation) % stride == 0][::-1]
        count = -(-(inputs - phase) // stride)
        start = (phase + pad - meeting[0] * dilation) // stride if meeting else 0
        yield phase, meeting, Axis(outputs, count, len(meeting), 1, start, step * dilation // stride)


def _swapped(w: Array, groups: int) -> Array:
    """Filters (K,R,S,C/groups) with input and output channels swapped: (C,R,S,K/groups)."""
    k, r, s, c = w.shape
    return w.reshape(groups, k // groups, r, s, c).transpose(0, 4, 2, 3, 1).reshape(groups * c, r, s, k // groups)


def _blocks(images: int, rows: Axis, columns: Axis, channels: int, itemsize: int) -> list[Block]:
    row_bytes = columns.outputs * rows.taps * columns.taps * channels * itemsize
    return blocks(images, rows.outputs, row_bytes, WINDOW_BYTES)


def _im2col(x: Array, block: Block, rows: Axis, columns: Axis, groups: int) -> Array:
    """A block's windows, (groups, M, R*S*C/groups): in this thread's buffer, or ``x`` itself where a window is a pixel."""
    windows = window_view(x, block, rows, columns)
    b, p, q, r, s, c = windows.shape
    if r * s * groups == 1 and windows.flags.c_contiguous:
        return windows.reshape(1, b * p * q, c)
    columns_of = scratch("windows", (groups, b, p, q, r, s, c // groups), x.dtype)
    np.copyto(columns_of, windows.reshape(b, p, q, r, s, groups, c // groups).transpose(5, 0, 1, 2, 3, 4, 6)
              if groups > 1 else windows[None])  # fmt: skip
    return columns_of.reshape(groups, b * p * q, r * s * (c // groups))


def _by_group(y: Array, groups: int) -> Array:
    """Outputs (B,P,Q,K) as (groups, M, K/groups), a view where a view will do."""
    b, p, q, k = y.shape
    return y.reshape(b * p * q, groups, k // groups).transpose(1, 0, 2)


def _correlate(
    x: Array, w: Array, bias: Array | None, y: Array, rows: Axis, columns: Axis, groups: int
) -> None:
    """y (N,P,Q,K) = windows of x (N,H,W,C) times filters (K,R',S',C/groups), plus bias; y may be any view."""
    k = w.shape[0] // groups
    filters = w.reshape(groups, k, -1).transpose(0, 2, 1)

    def run(block: Block) -> None:
        windows = _im2col(x, block, rows, columns, groups)
        part = y[block.image : block.image_end, block.row : block.row_end]
        in_place = groups == 1 and part.flags.c_contiguous
        m = windows.shape[1]
        product = part.reshape(1, m, k) if in_place else scratch("product", (groups, m, k), x.dtype)
        np.matmul(windows, filters, out=product)
        if not in_place:
            part.reshape(part.shape[:3] + (groups, k))[...] = product.transpose(1, 0, 2).reshape(
                part.shape[:3] + (groups, k)
            )
        if bias is not None:
            np.add(part, bias, out=part)

    with single_blas_thread:
        for_each(run, _blocks(x.shape[0], rows, columns, x.shape[3], x.itemsize))
