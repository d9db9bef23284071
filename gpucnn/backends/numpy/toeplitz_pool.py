"""Convolution, ReLU and max pooling over 2 x 2 windows in one pass, for few channels.

A window of four outputs reads R+1 by S+1 pixels, and each of its four places is a filter of that size: R by S with a
row and a column of zeros. So the places are 4K filters at stride 2, for the banded products of toeplitz.py, and the
full map never exists: a block's products are turned into four arrays, one for each place, and one half of them is
compared with the other, twice. Backward spreads a block's gradients over the four places by the index, and multiplies
the same windows with them; what falls on the zeros is left out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import memory
from gpucnn.backends.numpy.elementwise import select
from gpucnn.backends.numpy.scratch import scratch, short_buffers
from gpucnn.backends.numpy.threads import for_each, single_blas_thread
from gpucnn.backends.numpy.toeplitz import UNPACKED, Strips
from gpucnn.backends.numpy.windows import Axis, Block, blocks, spans
from gpucnn.geometry import Conv2dGeometry

Array = NDArray[Any]
Direct = Callable[..., tuple[Array, Array]]

PLACES = ((0, 0), (1, 0), (0, 1), (1, 1))  # (r, s) in the order of the products: the first half meets the second
NUMBERS = np.array([2 * r + s for r, s in PLACES], np.uint8)
PRODUCTS_BYTES = 5 << 18  # of one block's products: large, because threads wait for one another between operations
LEAST_BLOCKS = 2


def fprop(x: Array, w: Array, bias: Array | None, g: Conv2dGeometry, direct: Direct) -> tuple[Array, Array]:
    """y (N,P//2,Q//2,K), the maxima of ReLU's outputs, and index, their places 2*r + s: the first of equals, of what
    ReLU was given.

    x (N,H,W,C), w (K,R,S,C), bias (K,); ``direct``, of the same arguments, is another way to compute both, for images
    with values that are not finite.
    """
    strips = _strips(g)
    shape = g.N, strips.rows.outputs, strips.columns.outputs, g.K
    y, index = memory.empty(shape, x.dtype), memory.empty(shape, np.uint8)
    band = _by_place(strips.band(_filters_by_place(w)), strips)
    work = _blocks(strips, g, x.itemsize)
    largest = max((block.images * block.rows for block in work), default=0) * shape[2]
    nothing = np.zeros(largest * g.K, x.dtype)  # as long as a block: short operands are slow
    biases = None if bias is None else np.tile(bias, largest)
    spoilt = set()

    def run(block: Block) -> None:
        windows = strips.windows(x, block)
        products = scratch("products", (block.rows, block.images, strips.count, band.shape[1]), x.dtype)
        for first, last in _parts(block, strips):
            out = products[:, first:last].reshape(block.rows, -1, band.shape[1])
            np.matmul(_matrices(windows[first:last]), band, out=out)
        places = scratch("places", (4, products.size // 4), x.dtype)
        np.copyto(_items(places, strips), _items(products, strips).reshape(-1, 4).T)
        later, last_half = scratch("later", (2, places.shape[1]), np.uint8), scratch("half", places.shape[1:], np.uint8)
        np.greater(places[2:], places[:2], out=later.view(np.bool_))
        pairs, best = places[:2], places[0]
        np.maximum(pairs, places[2:], out=pairs)
        np.greater(pairs[1], best, out=last_half.view(np.bool_))
        np.maximum(best, pairs[1], out=best)
        if biases is not None:
            np.add(best, biases[: best.size], out=best)
        np.maximum(best, nothing[: best.size], out=best)
        np.add(later[1], np.uint8(2), out=later[1])
        np.multiply(later[1], last_half, out=last_half)
        np.maximum(later[0], last_half, out=last_half)
        np.copyto(_rows_first(y, block), best.reshape(block.rows, block.images, -1))
        np.copyto(_rows_first(index, block), last_half.reshape(block.rows, block.images, -1))
        low, high = strips.rows.reads(block.row, block.row_end)
        if not np.isfinite(x[block.image : block.image_end, max(low, 0) : max(high, 0)].sum()):
            spoilt.add((block.image, block.image_end))  # a zero of the band has met it

    with single_blas_thread:
        for_each(run, work, 4 * y.size * strips.inner // 32)
    for n, end in sorted(spoilt):
        y[n:end], index[n:end] = direct(x[n:end], w, bias, replace(g, N=end - n))
    return y, index


def wgrad(x: Array, dy: Array, index: Array, g: Conv2dGeometry) -> Array:
    """dw (K,R,S,C) of x (N,H,W,C), dy (N,P//2,Q//2,K), which is 0 where y is not positive, and index."""
    strips = _strips(g)
    work = _blocks(strips, g, x.itemsize)
    shape = strips.inner, 4 * strips.t * g.K
    sums = np.zeros((max(len(work), 1), *shape), dy.dtype)

    def run(number: int) -> None:
        block = work[number]
        windows = strips.windows(x, block)
        gradients = scratch("gradients", (block.rows, block.images, dy.shape[2] * g.K), dy.dtype)
        np.copyto(gradients, _rows_first(dy, block))
        chosen = scratch("half", gradients.shape, np.uint8)
        np.copyto(chosen, _rows_first(index, block))
        wins = scratch("wins", (4, gradients.size), np.bool_)
        np.equal(chosen.reshape(-1), NUMBERS[:, None], out=wins)
        places = scratch("places", wins.shape, dy.dtype)
        with short_buffers():
            select(gradients.reshape(-1), wins, places)
        shares = scratch("products", (block.rows, block.images, strips.count, shape[1]), dy.dtype)
        np.copyto(_items(shares, strips).reshape(-1, 4), _items(places, strips).T)
        for first, last in _parts(block, strips):
            products = scratch("gradients of the band", (block.rows, *shape), dy.dtype)
            part = shares[:, first:last].reshape(block.rows, -1, shape[1])
            np.matmul(_matrices(windows[first:last]).transpose(0, 2, 1), part, out=products)
            sums[number] += np.add.reduce(products, axis=0)

    with single_blas_thread:
        for_each(run, range(len(work)), 4 * dy.size * strips.inner // 32)
    band = functools.reduce(np.add, sums).reshape(strips.inner, 4, strips.t, g.K).transpose(0, 2, 1, 3)
    places = strips.filters(band.reshape(shape)).reshape(4, g.K, g.R + 1, g.S + 1, g.C)
    parts = [places[i, :, r : r + g.R, s : s + g.S] for i, (r, s) in enumerate(PLACES)]
    return np.ascontiguousarray(functools.reduce(np.add, parts))


def _strips(g: Conv2dGeometry) -> Strips:
    """Of stride 1: a pair of rows and columns is one output of 4K channels."""
    rows = Axis(g.H, g.P // 2, g.R + 1, 2, -g.pad_top, 1)
    columns = Axis(g.W, g.Q // 2, g.S + 1, 2, -g.pad_left, 1)
    return Strips.of(rows, columns, g.C, 4 * g.K)


def _blocks(strips: Strips, g: Conv2dGeometry, itemsize: int) -> list[Block]:
    row_bytes = strips.columns.outputs * 4 * g.K * itemsize
    return blocks(g.N, strips.rows.outputs, row_bytes, PRODUCTS_BYTES, LEAST_BLOCKS)


def _parts(block: Block, strips: Strips) -> list[tuple[int, int]]:
    """A block's images in parts whose products BLAS need not pack."""
    return spans(block.images, max(UNPACKED // (strips.inner * strips.t * strips.k * strips.count), 1))


def _matrices(windows: Array) -> Array:
    """Windows (b, rows, strips, inner) as (rows, M, inner), the same memory."""
    b, rows, count, inner = windows.shape
    return windows.transpose(1, 0, 2, 3).reshape(rows, b * count, inner)


def _rows_first(y: Array, block: Block) -> Array:
    """A block of y (N,P',Q',K) as (rows, images, Q'*K), a view."""
    part = y[block.image : block.image_end, block.row : block.row_end]
    return part.reshape(block.images, block.rows, -1).transpose(1, 0, 2)


def _items(array: Array, strips: Strips) -> Array:
    """Runs of t*K numbers along the last axis of an array as one item each, which are copied at once."""
    item = np.dtype((np.void, strips.t * strips.k // 4 * array.itemsize))
    return array.view(item)


def _filters_by_place(w: Array) -> Array:
    """w (K,R,S,C) at the four places of a window: (4K,R+1,S+1,C)."""
    k, r, s, c = w.shape
    places = np.zeros((4, k, r + 1, s + 1, c), w.dtype)
    for i, (down, across) in enumerate(PLACES):
        places[i, :, down : down + r, across : across + s] = w
    return places.reshape(4 * k, r + 1, s + 1, c)


def _by_place(band: Array, strips: Strips) -> Array:
    """The columns (t, 4, K) of a band in the order (4, t, K)."""
    columns = band.reshape(strips.inner, strips.t, 4, -1).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(columns).reshape(band.shape)
