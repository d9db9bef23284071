"""Convolutions with few channels: products with a banded matrix of filters, over windows that are never laid out.

im2col copies every pixel R*S times, in pieces as short as the channels are few. Here an image is copied into
*strips*, for each group of t outputs of a row the columns that they read, (strips, rows, reach*C): S/t times the
image and a little. In a strip the R rows of a window follow one another in memory, so that the windows of one
output row, over all strips and images, already are a matrix (M, R*reach*C), whose rows overlap in memory only
with those of other output rows. One product with the filters, repeated t times along a diagonal as in a Toeplitz
matrix, gives t outputs of K channels at once. As GEMMs, for each output row p:

    fprop   y_p (M, t*K)            = windows (M, R*reach*C) x band (R*reach*C, t*K)
    wgrad   band (R*reach*C, t*K)  += windows transposed x dy_p (M, t*K); dw is the sum along its diagonals, and the
            bias' gradient one more row, from windows that end with a one
    dgrad   fprop of dy, phase by phase, with reversed filters; with few channels in x, for each row h of dx
            row_h (M, reach*C)     = windows (M, R*t*K) x band (R*t*K, reach*C): what t columns of dy give to the
            columns of dx that they reach, and the strips' rows are added where they overlap

Where t = 1, wgrad need not copy dy row by row: as many products as a filter has rows, each over all the pixels of an
image, give the gradients of those rows of the band.

t = 1 where K columns keep BLAS busy; nothing but the filters is multiplied then. With fewer, t outputs at once
cost multiplications by zeros, and are still faster than a narrow product. Products are kept as small as OpenBLAS
takes without packing its operands first, which makes them a third faster.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import memory
from gpucnn.backends.numpy.scratch import scratch
from gpucnn.backends.numpy.threads import for_each, single_blas_thread
from gpucnn.backends.numpy.windows import Axis, Block, axes, padded, phases, spans
from gpucnn.geometry import Conv2dGeometry

Array = NDArray[Any]
Direct = Callable[..., Array]

UNPACKED = 10**6  # M*N*K of a product up to which OpenBLAS reads its operands where they are
LEAST_COLUMNS = 40  # of a product: with fewer it takes as long
LEAST_INNER = 24  # its inner size, likewise
LEAST_ROWS = 128  # of a product where that is a matter of choice
STRAIGHT = 16  # rows of a product from which it writes into y itself
BLOCK_BYTES = 1 << 20  # of one block's outputs, which stay in cache until ReLU is done
WGRAD_BYTES = 1 << 20  # of one block's output gradients: fewer calls, in which two threads wait less
IMAGE_BYTES = 4 << 20  # the same where they stay where they are
LEAST_PIXELS = 128  # of an output image that is a product's inner size
SUMS_BYTES = 1 << 20  # of the products of several output rows, which are then added up
RUNS = 8  # running sums of wgrad, each over its own blocks


@dataclass(frozen=True, slots=True)
class Strips:
    """How images (N, H, W, C) are cut into strips for filters of K outputs."""

    rows: Axis
    columns: Axis
    channels: int
    k: int
    t: int  # outputs of a row that are computed at once: divides columns.outputs
    ones: int = 0  # 1: each strip's row ends with a one, which the bias is multiplied by

    @classmethod
    def of(cls, rows: Axis, columns: Axis, channels: int, k: int, ones: int = 0) -> Strips:
        """With the t that multiplies least."""
        divisors = [t for t in range(1, columns.outputs + 1) if columns.outputs % t == 0]
        every = [cls(rows, columns, channels, k, t, ones) for t in divisors]
        return min(every, key=lambda s: max(s.inner, LEAST_INNER) * max(s.t * k, LEAST_COLUMNS) / s.t)

    @property
    def count(self) -> int:
        return self.columns.outputs // self.t

    @property
    def length(self) -> int:
        """Of a strip's row: reach*C, or one more."""
        return ((self.t - 1) * self.columns.stride + self.columns.taps) * self.channels + self.ones

    @property
    def inner(self) -> int:
        return self.rows.taps * self.length

    def blocks(self, images: int, budget: int) -> list[Block]:
        """Images and output rows of about ``budget`` outputs, of enough images to give a product its rows, and not so
        many that it would have to be packed."""
        if not images:
            return []
        row = self.columns.outputs * self.k
        most = UNPACKED // (self.inner * self.t * self.k * self.count)
        together = max(min(max(-(-LEAST_ROWS // self.count), budget // (row * self.rows.outputs)), most), 1)
        groups = spans(images, -(-images // (2 * -(-images // (2 * together)))))  # an even number, for two threads
        cuts = spans(self.rows.outputs, max(budget // (row * (groups[-1][1] - groups[-1][0])), 1))
        return [Block(n, end, first, last) for n, end in groups for first, last in cuts]

    def windows(self, x: Array, block: Block) -> Array:
        """A block's windows (b, rows, strips, inner) of images x (C-contiguous), in this thread's copy of strips."""
        strips = self._copied(x, block, "strips")
        image, strip, row, item = strips.strides
        shape = block.images, block.rows, self.count, self.inner
        return np.ndarray(shape, x.dtype, strips, 0, (image, self.rows.stride * row, strip, item))

    def rows_of_windows(self, x: Array, block: Block) -> Array:
        """A block's strips row by row, (b, image rows, strips, length), in this thread's copy."""
        return self._copied(x, block, "rows of windows").transpose(0, 2, 1, 3)

    def _copied(self, x: Array, block: Block, order: str) -> Array:
        """A copy of a block's strips, (b, strips, image rows, length); in memory with strips or rows outside."""
        low, high = self.rows.reads(block.row, block.row_end)
        left, right = self.columns.reads(0, self.columns.outputs)
        if low >= 0 and left >= 0 and high <= self.rows.inputs and right <= self.columns.inputs:
            source = x
            offset = block.image * x.strides[0] + low * x.strides[1] + left * x.strides[2]
        else:
            source, offset = padded(x[block.image : block.image_end], (low, high), (left, right)), 0
        b, height = block.images, high - low
        if order == "strips":
            strips = scratch(order, (b, self.count, height, self.length), x.dtype)
        else:
            strips = scratch(order, (b, height, self.count, self.length), x.dtype).transpose(0, 2, 1, 3)
        # Copied at once: runs of a few floats would take twice as long.
        item = np.dtype((np.void, (self.length - self.ones) * x.itemsize))
        n, h, w = source.strides[:3]
        strides = n, self.t * self.columns.stride * w, h
        target = strips[..., : self.length - self.ones].view(item)[..., 0]
        np.copyto(target, np.ndarray(target.shape, item, source, offset, strides))
        if self.ones:
            strips[..., -1] = 1
        return strips

    def band(self, w: Array, bias: Array | None = None) -> Array:
        """Filters (K,R,S,C), t times along a diagonal, and a row of the bias: (R*reach*C, t*K)."""
        k, r, s, c = w.shape
        band = np.zeros((r, self.length, self.t, k), w.dtype)
        taps = w.transpose(1, 2, 3, 0).reshape(r, s * c, k)
        for i in range(self.t):
            at = i * self.columns.stride * c
            band[:, at : at + s * c, i] = taps
        if bias is not None:
            band[0, -1] = bias
        return band.reshape(self.inner, self.t * k)

    def filters(self, band: Array) -> Array:
        """The sum along the diagonals of ``band``, without the bias' row: (K,R,S,C)."""
        s, c = self.columns.taps, self.channels
        band = band.reshape(self.rows.taps, self.length, self.t, self.k)[:, : self.length - self.ones]
        band = band.reshape(self.rows.taps, -1, c, self.t, self.k)
        total = band[:, :s, :, 0].copy()
        for i in range(1, self.t):
            at = i * self.columns.stride
            total += band[:, at : at + s, :, i]
        return np.ascontiguousarray(total.transpose(3, 0, 1, 2))


def fprop(x: Array, w: Array, bias: Array | None, g: Conv2dGeometry, activation: str | None, direct: Direct) -> Array:
    """y (N,P,Q,K) of x (N,H,W,C), w (K,R,S,C) and bias (K,); ``direct``, of the same arguments, is another way to
    compute it, for images with values that are not finite."""
    y = memory.empty(g.output_shape, x.dtype)
    for n, end in _correlate(x, w, bias, y, *axes(g), activation == "relu"):
        y[n:end] = direct(x[n:end], w, bias, replace(g, N=end - n), activation)
    return y


def dgrad(dy: Array, w: Array, g: Conv2dGeometry, direct: Direct) -> Array:
    """dx (N,H,W,C) of dy (N,P,Q,K) and w (K,R,S,C), ``direct`` as in :func:`fprop`."""
    dx = memory.empty(g.input_shape, dy.dtype)
    spoilt: set[tuple[int, int]] = set()
    if g.C < LEAST_COLUMNS:
        for height, row_taps, rows in phases(g.H, g.P, g.R, g.stride_h, g.pad_top, g.dilation_h):
            part = dx[:, height :: g.stride_h]
            if row_taps:
                spoilt.update(_overlapping(dy, w[:, row_taps], part, rows, g))
            else:
                part[...] = 0
        return _again(dx, dy, w, g, spoilt, direct)
    for height, row_taps, rows in phases(g.H, g.P, g.R, g.stride_h, g.pad_top, g.dilation_h):
        for width, column_taps, columns in phases(g.W, g.Q, g.S, g.stride_w, g.pad_left, g.dilation_w):
            part = dx[:, height :: g.stride_h, width :: g.stride_w]
            if row_taps and column_taps:
                taps = w[:, row_taps][:, :, column_taps].transpose(3, 1, 2, 0)
                spoilt.update(_correlate(dy, taps, None, part, rows, columns, False))
            else:
                part[...] = 0
    return _again(dx, dy, w, g, spoilt, direct)


def _again(dx: Array, dy: Array, w: Array, g: Conv2dGeometry, spoilt: set[tuple[int, int]], direct: Direct) -> Array:
    """dx, with the ``spoilt`` images computed the direct way."""
    for n, end in sorted(spoilt):
        dx[n:end] = direct(dy[n:end], w, replace(g, N=end - n))
    return dx


def _overlapping(dy: Array, w: Array, dx: Array, rows: Axis, g: Conv2dGeometry) -> list[tuple[int, int]]:
    """dx (N,H',W,C), the rows of one phase, of dy (N,P,Q,K) and that phase's filters (K,R',S,C); returns as
    :func:`_correlate`."""
    k, r, s, c = w.shape
    single = Axis(g.Q, g.Q, 1, 1, 0, 1)
    every = []
    for t in (t for t in range(1, g.Q + 1) if g.Q % t == 0):
        reach = ((t - 1) * g.stride_w + s) * c
        strips = Strips(rows, single, k, -(-reach // t), t)
        every.append((max(strips.inner, LEAST_INNER) * max(reach, LEAST_COLUMNS) / t, -t, reach, strips))
    _, _, reach, strips = min(every, key=lambda e: e[:2])
    t, step = strips.t, g.stride_w * c
    band = np.zeros((r, t, k, reach), w.dtype)
    for i in range(t):
        band[:, i, :, i * step : i * step + s * c] = w.transpose(1, 0, 2, 3).reshape(r, k, s * c)
    band = band.reshape(strips.inner, reach)
    width = max((g.Q - 1) * step + s * c, (g.pad_left + g.W) * c)
    turns = -(-reach // (t * step))  # of strips that do not overlap with one another
    spoilt = set()

    def run(block: Block) -> None:
        windows = strips.windows(dy, block)
        products = scratch("products", (block.rows, block.images, strips.count, reach), dy.dtype)
        np.matmul(_together(windows), band, out=products.reshape(block.rows, -1, reach))
        if t > 1 and not _finite(dy, rows, block):
            spoilt.add((block.image, block.image_end))
        sums = scratch("sums", (block.rows, block.images, width), dy.dtype)
        sums.fill(0)
        for turn in range(min(turns, strips.count)):
            terms = products[:, :, turn::turns]
            stride = *sums.strides[:2], turns * t * step * dy.itemsize, dy.itemsize
            target = np.ndarray(terms.shape, dy.dtype, sums, turn * t * step * dy.itemsize, stride)
            np.add(target, terms, out=target)
        inside = sums[:, :, g.pad_left * c : (g.pad_left + g.W) * c].transpose(1, 0, 2)
        np.copyto(dx[block.image : block.image_end, block.row : block.row_end].reshape(inside.shape), inside)

    with single_blas_thread:
        for_each(run, strips.blocks(dy.shape[0], BLOCK_BYTES // dy.itemsize), dx.size * strips.inner // 16)
    return sorted(spoilt)


def _correlate(
    x: Array, w: Array, bias: Array | None, y: Array, rows: Axis, columns: Axis, relu: bool
) -> list[tuple[int, int]]:
    """y (N,P,Q,K), any view, of x (N,H,W,C) and filters (K,R,S,C).

    Returns the images [first, last) of the blocks where a value that is not finite has met a zero of the band.
    """
    k = y.shape[3]
    strips = Strips.of(rows, columns, x.shape[3], k, 0 if bias is None else 1)
    band = strips.band(w, bias)
    nothing = np.zeros((columns.outputs, k), y.dtype)  # as long as a row: short ones are slow to compare
    straight = strips.count >= STRAIGHT and y.flags.c_contiguous
    spoilt = set()

    def run(block: Block) -> None:
        windows = strips.windows(x, block)
        out = y[block.image : block.image_end, block.row : block.row_end]
        if straight:
            products = out
            np.matmul(windows, band, out=products.reshape(*windows.shape[:3], -1))
        else:
            products = scratch("products", (block.rows, block.images, *nothing.shape), y.dtype)
            np.matmul(_together(windows), band, out=products.reshape(block.rows, -1, band.shape[1]))
        if strips.t > 1 and not _finite(x, rows, block):
            spoilt.add((block.image, block.image_end))
        if relu:
            np.maximum(products, nothing, out=products)
        if not straight:
            np.copyto(out, products.transpose(1, 0, 2, 3))

    with single_blas_thread:
        for_each(run, strips.blocks(x.shape[0], BLOCK_BYTES // y.itemsize), y.size * strips.inner // 32)
    return sorted(spoilt)


def wgrad(x: Array, dy: Array, g: Conv2dGeometry) -> Array:
    """dw (K,R,S,C) of x (N,H,W,C) and dy (N,P,Q,K)."""
    strips = Strips.of(*axes(g), g.C, g.K)
    return strips.filters(_band_gradient(x, dy, strips, g.N))


def wgrad_and_bias(x: Array, dy: Array, g: Conv2dGeometry) -> tuple[Array, Array]:
    """:func:`wgrad`, and the bias' gradient (K,) from the same products: dy is read once."""
    strips = Strips.of(*axes(g), g.C, g.K, ones=1)
    band = _band_gradient(x, dy, strips, g.N)
    return strips.filters(band), band[strips.length - 1].reshape(strips.t, g.K).sum(axis=0)


def _band_gradient(x: Array, dy: Array, strips: Strips, images: int) -> Array:
    """The gradient of the band (inner, t*K)."""
    pixels = strips.rows.outputs * strips.count
    together = IMAGE_BYTES // max(pixels * strips.k * dy.itemsize, 1)
    whole = strips.t == strips.rows.stride == 1 and pixels >= LEAST_PIXELS and together > 0
    if whole:
        count = RUNS * max(-(-images // (RUNS * together)), 1)  # as many for every sum, so that threads share evenly
        work = [Block(n, end, 0, strips.rows.outputs) for n, end in spans(images, max(-(-images // count), 1))]
    else:
        work = strips.blocks(images, WGRAD_BYTES // dy.itemsize)
    runs = spans(len(work), -(-len(work) // RUNS)) if work else []
    shape = strips.inner, strips.t * strips.k
    sums = np.zeros((len(runs), *shape), dy.dtype)
    add = _add_by_images if whole else _add_by_rows

    def run(index: int) -> None:
        for block in work[slice(*runs[index])]:
            add(x, dy[block.image : block.image_end, block.row : block.row_end], strips, block, sums[index])

    with single_blas_thread:
        for_each(run, range(len(runs)), dy.size * strips.inner // 32)
    return functools.reduce(np.add, sums) if runs else np.zeros(shape, dy.dtype)


def _add_by_rows(x: Array, dy: Array, strips: Strips, block: Block, total: Array) -> None:
    """total (inner, t*K) += what a block's dy gives, by a product for each output row."""
    windows, gradients = _together(strips.windows(x, block)), _by_rows(dy, strips.t)
    for first, last in spans(block.rows, max(SUMS_BYTES // total.nbytes, 1)):
        products = scratch("products", (last - first, *total.shape), dy.dtype)
        np.matmul(windows[first:last].transpose(0, 2, 1), gradients[first:last], out=products)
        part = scratch("total", total.shape, dy.dtype)
        np.add.reduce(products, axis=0, out=part)
        np.add(total, part, out=total)


def _add_by_images(x: Array, dy: Array, strips: Strips, block: Block, total: Array) -> None:
    """The same for t = 1, by R products for each image or, if they would have to be packed, an even part of it."""
    b, p, q, k = dy.shape
    taps, length = strips.rows.taps, strips.length
    most = max(UNPACKED // (q * length * k), 1)
    rows = max(d for d in range(1, p + 1) if p % d == 0 and d <= most)
    lines = strips.rows_of_windows(x, block)
    image, row, pixel, item = lines.strides
    shape = b, p // rows, taps, length, rows * q
    windows = np.ndarray(shape, x.dtype, lines, 0, (image, rows * row, row, item, pixel))
    products = scratch("products", (b, p // rows, taps, length, k), dy.dtype)
    np.matmul(windows, dy.reshape(b, p // rows, 1, rows * q, k), out=products)
    part = scratch("total", (taps, length, k), dy.dtype)
    np.add.reduce(products.reshape(-1, *part.shape), axis=0, out=part)
    np.add(total, part.reshape(total.shape), out=total)


def _finite(x: Array, rows: Axis, block: Block) -> bool:
    """Whether all values that a block reads of x are finite (and their sum: a few huge ones cost a detour only)."""
    low, high = rows.reads(block.row, block.row_end)
    return bool(np.isfinite(x[block.image : block.image_end, max(low, 0) : max(high, 0)].sum()))


def _together(windows: Array) -> Array:
    """Windows (b, rows, strips, inner) as (rows, M, inner), the same memory."""
    b, rows, count, inner = windows.shape
    return windows.transpose(1, 0, 2, 3).reshape(rows, b * count, inner)


def _by_rows(dy: Array, t: int) -> Array:
    """Gradients (b, rows, Q, K) as (rows, M, t*K): in this thread's buffer, unless they are one image's."""
    b, rows, q, k = dy.shape
    if b > 1:
        copy = scratch("gradients", (rows, b, q, k), dy.dtype)
        np.copyto(copy, dy.transpose(1, 0, 2, 3))
        dy = copy
    return dy.reshape(rows, b * (q // t), t * k)
