"""3x3 convolutions at stride 1 by Winograd's F(2x2, 3x3): fprop and dgrad with 16 products for 36.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), after Winograd, "Arithmetic Complexity
of Computations" (1980). Of each tile d of 4 x 4 inputs and each filter g,

    Y = A' [ (G g G') * (B' d B) ] A        2 x 2 outputs; * element by element, summed over the input channels

and the sums over channels are 16 matrix products (tiles, C) x (C, K), 4/9 of the multiplications. B has only 0, 1
and -1, G halves besides, so rounding errors stay those of the direct sum.

A block of tiles stays in cache from its pixels to its outputs. Two of a tile's four columns at a time are
transformed, then their rows, multiplied and transformed back along the rows, so that only half of the 16 products
is alive at a time. The calls are few and large, because threads that take turns with the interpreter lose more time
at a call than a thousand numbers take. dgrad is the convolution of dy with the filters turned by half a turn and C
and K swapped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import memory
from gpucnn.backends.numpy.elementwise import pieces, zeros
from gpucnn.backends.numpy.scratch import scratch, short_buffers
from gpucnn.backends.numpy.threads import for_each, single_blas_thread
from gpucnn.backends.numpy.tiles import fill, scatter, tile_blocks
from gpucnn.backends.numpy.windows import Block, spans
from gpucnn.geometry import Conv2dGeometry

Array = NDArray[Any]

CHANNELS_OF_TILES = 3 << 15  # tiles of a block times C + K: more of them leave the L2 cache,
LEAST_TILES = 384  # of a block, but with fewer a product reads the filters too often,
MOST_TILES = 1 << 18  # and times the greater of C and K, at most
LEAST_SHARED = 256  # tiles from which one block is cut in two
LEAST_PART = 256  # filters, at least, where two threads share a block by its filters
SMALL_PRODUCT = 10**6  # multiplications up to which OpenBLAS multiplies without packing its operands first
LEAST_ROWS = 24  # of such a product for it to win
COPY_FROM = 2048  # tiles from which the time of a transposing copy of the filters comes back
FILTERS = 1 << 15  # elements, about, of the filters that are transformed at a time

# The halves in which a tile's columns are computed, and the order in which its rows lie, so that what is left of a
# half's products, the sums in the first two rows, leaves the rest of their memory to the next half.
HALVES = ((0, 3), (1, 2))
ROWS = (0, 3, 1, 2)

# From a filter's 9 taps to its 16 places, by half, row and column. Place 3 has its sign changed, so that products
# with it are added and not subtracted: A' is ((1, 1, 1, 0), (0, 1, -1, 1)).
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, -1]])
FILTER_PLACES = np.array([np.kron(_G[i], _G[j]) for half in HALVES for i in ROWS for j in half])


Step = tuple[Callable[..., Any], Array, Array, Array]  # an operation, its operands and where its result goes


def transform_step(pixels: Array, axis: int, place: int, out: Array) -> Step:
    """One place of B' along an image axis of gathered pixels: ``axis`` is modulo 2, the next one counts the tiles."""
    before = (slice(None),) * axis
    even, odd, even_next, odd_next = (
        pixels[(*before, parity, tiles)] for tiles in (slice(-1), slice(1, None)) for parity in (0, 1)
    )
    return (
        (np.subtract, even, even_next, out),
        (np.add, odd, even_next, out),
        (np.subtract, even_next, odd, out),
        (np.subtract, odd, odd_next, out),
    )[place]


def transform_filters(w: Array, tiles: int, turned: bool) -> Array:
    """G g G' of filters (K,3,3,C) as (16, C, K), or for dgrad, turned by half a turn, as (16, K, C).

    A view where products of ``tiles`` rows with it are not worth the time of a copy.
    """
    k, _, _, c = w.shape
    u = memory.empty((k, 16, c), w.dtype)
    taps, places = w.reshape(k, 9, c), FILTER_PLACES[:, :: -1 if turned else 1].astype(w.dtype, order="C")
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


class _Space:
    """One thread's buffers for blocks of one shape, and the steps from ``pixels`` to ``outputs``.

    The views are made once for many blocks: making them would take as long as a tenth of the work, and nothing else
    runs meanwhile.
    """

    def __init__(self, block: Block, columns: int, u: Array, bias: Array | None) -> None:
        c, k = u.shape[1:]
        at = (block.rows, columns, block.images)
        count = block.rows * columns * block.images
        parts, rows = _parts(count, c, k)
        self.pixels = scratch("pixels", (2, block.rows + 1, 2, columns + 1, block.images, c), u.dtype)
        along = scratch("columns", (2, 2, block.rows + 1, *at[1:], c), u.dtype)
        tiles = scratch("tiles", (4, 2, parts * rows, c), u.dtype)
        sums = scratch("products", (6, 2, parts * rows, k), u.dtype)
        self.rest = tiles[:, :, count:]  # there may be some rows more than tiles
        self.steps: list[Step] = []
        add = self.steps.append
        for half, columns_of in enumerate(HALVES):
            for at_column, j in enumerate(columns_of):
                add(transform_step(self.pixels, 2, j, along[at_column]))
            for at_row, i in enumerate(ROWS):
                add(transform_step(along, 1, i, tiles[at_row, :, :count].reshape(2, *at, c)))
            m = sums[2 * half : 2 * half + 4]  # (rows, columns, tiles, k)
            filters = u[8 * half : 8 * half + 8, None]
            add((np.matmul, tiles.reshape(8, parts, rows, c), filters, m.reshape(8, parts, rows, k)))
            if half == 1 and bias is not None:
                add((np.add, m[2, 0], bias, m[2, 0]))  # place (1, 1) goes into all outputs, times 1
            add((np.add, m[:2], m[2], m[:2]))
            add((np.add, m[0], m[3], m[0]))
            add((np.subtract, m[1], m[3], m[1]))
        out, more = sums[:2], sums[2:4]
        add((np.add, out, more[:, :1], out))
        add((np.add, out[:, 0], more[:, 1], out[:, 0]))
        add((np.subtract, out[:, 1], more[:, 1], out[:, 1]))
        self.rows = out.reshape(-1, k)
        self.outputs = out[:, :, :count].reshape(2, 2, *at, k)

    def relu(self) -> None:
        flat = self.rows.reshape(-1)
        nothing = zeros(flat.dtype)
        for piece in pieces(flat.size):
            np.maximum(flat[piece], nothing[: piece.stop - piece.start], out=flat[piece])


def correlate(
    x: Array, u: Array, bias: Array | None, y: Array, pad: tuple[int, int], relu: bool
) -> list[tuple[int, int]]:
    """y (N,P,Q,K) of x (N,H,W,C), transformed filters (16, C, K), ``pad`` rows above and columns before, and bias (K,).

    Returns the images [first, last) of the blocks whose results are not all finite: there a tile's four outputs
    have spoilt each other.
    """
    columns = -(-y.shape[2] // 2)
    nothing = np.zeros(y.shape[3], y.dtype)
    spaces: dict[tuple[int, int, int, int], _Space] = {}
    spoilt: list[tuple[int, int]] = []

    def run(task: tuple[Block, slice]) -> None:
        with short_buffers():
            compute(*task)

    def compute(block: Block, part: slice) -> None:
        key = threading.get_ident(), block.rows, block.images, part.start
        space = spaces.get(key)
        if space is None:
            space = spaces[key] = _Space(block, columns, u[:, :, part], None if bias is None else bias[part])
        space.rest[...] = 0  # blocks of another shape use the same memory
        fill(space.pixels, x, block, (-pad[0], -pad[1]))
        for operation, a, b, out in space.steps:
            operation(a, b, out)
        zero = space.rows @ nothing[part]  # or NaN
        if zero @ zero != 0:
            spoilt.append((block.image, block.image_end))
        if relu:
            space.relu()
        scatter(space.outputs, y[..., part], block)

    with single_blas_thread:
        for_each(run, _tasks(x.shape[0], -(-y.shape[1] // 2), columns, x.shape[3], y.shape[3]))
    return sorted(set(spoilt))


def tiles_of_block(c: int, k: int) -> int:
    """How many, about."""
    return max(1, min(max(LEAST_TILES, CHANNELS_OF_TILES // (c + k)), MOST_TILES // max(c, k)))


def _tasks(images: int, rows: int, columns: int, c: int, k: int) -> list[tuple[Block, slice]]:
    """Blocks of tiles, and of which filters; as a few threads can share them evenly."""
    most = tiles_of_block(c, k)
    work = tile_blocks(images, rows, columns, most)
    if len(work) == 1 and k >= 2 * LEAST_PART:
        half = k // 32 * 16
        return [(work[0], slice(0, half)), (work[0], slice(half, k))]
    if len(work) % 2 and len(work) < 8 and images * rows * columns >= LEAST_SHARED:
        work = tile_blocks(images, rows, columns, -(-images * rows * columns // (len(work) + 1)))
    return [(block, slice(0, k)) for block in work]


def _parts(count: int, c: int, k: int) -> tuple[int, int]:
    """How many products, of how many rows each, multiply ``count`` rows by (c, k) fastest."""
    small = _rows_of_small(c * k)
    pieces = -(-count // small) if small >= LEAST_ROWS else 1
    return pieces, -(-count // pieces)


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
