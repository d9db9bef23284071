"""3x3 convolutions at stride 1 by Winograd's F(2x2, 3x3): fprop and dgrad with 16 products for 36.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), after Winograd, "Arithmetic Complexity
of Computations" (1980). Of each tile d of 4 x 4 inputs and each filter g,

    Y = A' [ (G g G') * (B' d B) ] A        2 x 2 outputs; * element by element, summed over the input channels

and the sums over channels are 16 matrix products (tiles, C) x (C, K), 4/9 of the multiplications. B has only 0, 1
and -1, G halves besides, so rounding errors stay those of the direct sum.

A block of tiles stays in cache from its pixels to its outputs. The columns are transformed first, all of them; then
for each of the four rows of the tile the rows are transformed, multiplied and, along the columns, transformed back,
so that only a quarter of the 16 products is alive at a time. dgrad is the convolution of dy with the filters turned
by half a turn and C and K swapped: the turned filter's transform is the filter's with places 0 and 3 swapped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import memory
from gpucnn.backends.numpy.elementwise import pieces, zeros
from gpucnn.backends.numpy.scratch import scratch, short_buffers
from gpucnn.backends.numpy.threads import for_each, single_blas_thread
from gpucnn.backends.numpy.tiles import gather, scatter, tile_blocks
from gpucnn.backends.numpy.windows import Block, spans
from gpucnn.geometry import Conv2dGeometry

Array = NDArray[Any]

TILES = 384  # of a block
CHANNELS_OF_TILES = 1 << 18  # tiles of a block times the greater of C and K, at most
LEAST_PART = 256  # filters, at least, where two threads share a block by its filters
SMALL_PRODUCT = 10**6  # multiplications up to which OpenBLAS multiplies without packing its operands first
LEAST_ROWS = 24  # of such a product for it to win
COPY_FROM = 2048  # tiles from which the time of a transposing copy of the filters comes back
FILTERS = 1 << 15  # elements, about, of the filters that are transformed at a time
_TURN = [3, 1, 2, 0]  # the places of a filter turned by half a turn


def transform_columns(pixels: Array, name: str = "transformed") -> Array:
    """B' along the columns: (4, 2, rows + 1, columns, images, C) of gathered pixels."""
    a, t, _, u, *rest = pixels.shape
    out = scratch(name, (4, a, t, u - 1, *rest), pixels.dtype)
    even, odd, even_next, odd_next = (pixels[:, :, b, at] for at in (slice(-1), slice(1, None)) for b in (0, 1))
    np.subtract(even, even_next, out=out[0])
    np.add(odd, even_next, out=out[1])
    np.subtract(even_next, odd, out=out[2])
    np.subtract(odd, odd_next, out=out[3])
    return out


def transform_row(columns: Array, i: int, out: Array) -> None:
    """Row i of B' along the rows: (4, rows, columns, images, C) of what :func:`transform_columns` gave."""
    even, odd, even_next, odd_next = (columns[:, a, at] for at in (slice(-1), slice(1, None)) for a in (0, 1))
    if i == 0:
        np.subtract(even, even_next, out=out)
    elif i == 1:
        np.add(odd, even_next, out=out)
    elif i == 2:
        np.subtract(even_next, odd, out=out)
    else:
        np.subtract(odd, odd_next, out=out)


# G kron G: from a filter's 9 taps to its 16 places.
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
FILTER_PLACES = np.kron(_G, _G)


def transform_filters(w: Array, tiles: int, turned: bool) -> Array:
    """G g G' of filters (K,3,3,C) as (16, C, K), or for dgrad, turned by half a turn, as (16, K, C).

    A view where products of ``tiles`` rows with it are not worth the time of a copy.
    """
    k, _, _, c = w.shape
    u = memory.empty((k, 16, c), w.dtype)
    taps, places = w.reshape(k, 9, c), FILTER_PLACES.astype(w.dtype)
    if turned:
        places = np.ascontiguousarray(places.reshape(4, 4, 9)[_TURN][:, _TURN].reshape(16, 9))
    view = u.transpose(1, 0, 2) if turned else u.transpose(1, 2, 0)
    copying = _rows_of_small(c * k) >= LEAST_ROWS or (tiles >= COPY_FROM and not turned)
    copy = memory.empty(view.shape, w.dtype) if copying else view

    def run(slab: tuple[int, int]) -> None:
        part = slice(*slab)
        np.matmul(places, taps[part], out=u[part])
        if copying:
            at = (slice(None), part) if turned else (slice(None), slice(None), part)
            np.copyto(copy[at], view[at])

    with single_blas_thread:
        for_each(run, spans(k, max(32, FILTERS // c)))
    return copy


def _rows_of_small(size: int) -> int:
    """Rows that a product with ``size`` numbers may have to be multiplied without packing."""
    return SMALL_PRODUCT // size


def correlate(
    x: Array, u: Array, bias: Array | None, y: Array, pad: tuple[int, int], relu: bool
) -> list[tuple[int, int]]:
    """y (N,P,Q,K) of x (N,H,W,C), transformed filters (16, C, K), ``pad`` rows above and columns before, and bias (K,).

    Returns the images [first, last) of the blocks whose results are not all finite: there a tile's four outputs
    have spoilt each other.
    """
    columns = -(-y.shape[2] // 2)
    nothing = np.zeros(y.shape[3], y.dtype)
    spoilt: list[tuple[int, int]] = []

    def run(task: tuple[Block, slice]) -> None:
        with short_buffers():
            compute(*task)

    def compute(block: Block, part: slice) -> None:
        k = part.stop - part.start
        pixels = gather(x, block, columns, (-pad[0], -pad[1]), 2, 1, "pixels")
        transformed = transform_columns(pixels)
        shape = (block.rows, columns, block.images)
        count = math.prod(shape)
        v = scratch("tiles", (4, *shape, x.shape[3]), x.dtype)
        sums = scratch("products", (8, count, k), y.dtype)
        for i in range(4):
            transform_row(transformed, i, v)
            m = sums[2 * min(i, 2) :][:4]
            multiply(v.reshape(4, count, -1), u[4 * i : 4 * i + 4, :, part], m)
            if i == 1 and bias is not None:
                np.add(m[1], bias[part], out=m[1])  # place (1, 1) goes into all four outputs, with factor 1
            np.add(m[0], m[1], out=m[0])
            np.add(m[0], m[2], out=m[0])
            np.subtract(m[1], m[2], out=m[1])
            np.subtract(m[1], m[3], out=m[1])
            if i in (1, 2):
                np.add(sums[:2], m[:2], out=sums[:2])
            if i >= 2:
                np.subtract(sums[2:4], m[:2], out=sums[2:4])
        outputs = sums[:4]
        if not np.isfinite(outputs.reshape(-1, k) @ nothing[part]).all():
            spoilt.append((block.image, block.image_end))
        if relu:
            flat = outputs.reshape(-1)
            for piece in pieces(flat.size):
                np.maximum(flat[piece], zeros(y.dtype)[: piece.stop - piece.start], out=flat[piece])
        scatter(outputs.reshape(2, 2, *shape, k), y[..., part], block)

    with single_blas_thread:
        for_each(run, _tasks(x.shape[0], -(-y.shape[1] // 2), columns, x.shape[3], y.shape[3]))
    return sorted(set(spoilt))


def _tasks(images: int, rows: int, columns: int, c: int, k: int) -> list[tuple[Block, slice]]:
    """Blocks of tiles, and of which filters; as a few threads can share them evenly."""
    most = max(1, min(TILES, CHANNELS_OF_TILES // max(c, k)))
    work = tile_blocks(images, rows, columns, most)
    if len(work) == 1 and k >= 2 * LEAST_PART:
        half = k // 32 * 16
        return [(work[0], slice(0, half)), (work[0], slice(half, k))]
    if len(work) % 2 and len(work) < 8:
        work = tile_blocks(images, rows, columns, -(-images * rows * columns // (len(work) + 1)))
    return [(block, slice(0, k)) for block in work]


def multiply(v: Array, u: Array, out: Array) -> None:
    """out (n, M, K) = v (n, M, C) times u (n, C, K), in as many rows at a time as go fastest."""
    count = v.shape[1]
    rows = _rows_of_small(u.shape[1] * u.shape[2])
    if rows < LEAST_ROWS:
        np.matmul(v, u, out=out)
        return
    for a, b in spans(count, rows):
        np.matmul(v[:, a:b], u, out=out[:, a:b])


def fprop(
    x: Array, w: Array, bias: Array | None, g: Conv2dGeometry, activation: str | None, direct: Callable[..., Array]
) -> Array:
    """y (N,P,Q,K) of x (N,H,W,C), w (K,3,3,C) and bias (K,); ``direct``, of the same arguments, is another way to
    compute it, for images with values that are not finite."""
    y = memory.empty(g.output_shape, x.dtype)
    u = transform_filters(w, _tiles(g.N, g.P, g.Q), turned=False)
    for a, b in correlate(x, u, bias, y, (g.pad_top, g.pad_left), activation == "relu"):
        y[a:b] = direct(x[a:b], w, bias, replace(g, N=b - a), activation)
    return y


def dgrad(dy: Array, w: Array, g: Conv2dGeometry, direct: Callable[..., Array]) -> Array:
    """dx (N,H,W,C) of dy (N,P,Q,K) and w (K,3,3,C), ``direct`` as in :func:`fprop`."""
    dx = memory.empty(g.input_shape, dy.dtype)
    u = transform_filters(w, _tiles(g.N, g.H, g.W), turned=True)
    for a, b in correlate(dy, u, None, dx, (2 - g.pad_top, 2 - g.pad_left), False):
        dx[a:b] = direct(dy[a:b], w, replace(g, N=b - a))
    return dx


def _tiles(images: int, rows: int, columns: int) -> int:
    return images * -(-rows // 2) * -(-columns // 2)
