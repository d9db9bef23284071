"""5x5 convolutions at stride 1 by nested Winograd transforms: fprop, dgrad and wgrad with 121 products for 400.

Along one axis, four outputs of five taps are two blocks of two outputs with three blocks of two taps, the last
with one. F(2, 3) over the blocks, with blocks for numbers, takes four products of blocks: three of two taps, each
by F(2, 2) in three multiplications, and one of a single tap in two. That makes 11 for 20, and of tiles d of 8 x 8
inputs and filters g of 5 x 5

    Y = A' [ (G g G') * (B' d B) ] A        4 x 4 outputs; * element by element, summed over the input channels

11 x 11 products (tiles, C) x (C, K). The points are 0, 1, -1 and infinity, within the blocks 1, -1 and 0 or infinity:
B and A have only 0, 1, -1 and 2, G halves and quarters, so rounding errors stay near those of F(2x2, 3x3). F(4, 5) in
one go takes 8 for 20, but needs the points 2 and -2 or worse, which float32 does not bear. Winograd, "Arithmetic
Complexity of Computations" (1980), has the nesting; Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks"
(2016), the use of such forms for a layer; wgrad is the same sum read the other way,
dw = G' [ (B' d B) * (A dy A') ] G.

The transforms are products too, of these small matrices with arrays of pixels laid out row by row with all images
of a block side by side, which BLAS does twice as fast as NumPy adds them up. A block's rows are transformed first;
then for each of the 11 rows of the tile the columns are transformed, multiplied and transformed back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from gpucnn.backends.numpy import memory
from gpucnn.backends.numpy.elementwise import pieces, zeros
from gpucnn.backends.numpy.scratch import scratch
from gpucnn.backends.numpy.threads import for_each, single_blas_thread
from gpucnn.backends.numpy.tiles import tile_blocks
from gpucnn.backends.numpy.windows import Block, spans
from gpucnn.geometry import Conv2dGeometry

Array = NDArray[Any]

M = 4  # outputs of a tile, along an axis
TILE = 8  # its inputs
PLACES = 11  # its products
TILES_TIMES_CHANNELS = 144 * 64  # of a block, with the greater of C and K: what stays in cache
LEAST_TILES = 64  # of a block: each reads all transformed filters
SUMS = 4  # running sums of dw's transform, each over its own run of blocks
FILTER_PARTS = 4  # of the channels, for threads to share the filters' transforms

# F(2, 2) at the points 1, -1, infinity, and its mirror image at 1, -1, 0: B', G and A'.
_INNER = (
    np.array([[1, 1, 0], [1, -1, 0], [-1, 0, 1]]),
    np.array([[0.5, 0.5], [0.5, -0.5], [0, 1]]),
    np.array([[1, 1, 0], [1, -1, 1]]),
)
_MIRRORED = (_INNER[0][:, ::-1], _INNER[1][:, ::-1], _INNER[2][::-1])
_PLAIN = (np.eye(2), np.ones((2, 1)), np.eye(2))  # a single tap
_INNERS = (_MIRRORED, _INNER, _INNER, _PLAIN)  # the choice that spreads rounding errors best over the outputs
# F(2, 3) at 0, 1, -1, infinity.
_B3 = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_G3 = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_A3 = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])


def _nested() -> tuple[Array, Array, Array]:
    """B' (11, 8), G (11, 5) and A' (4, 11)."""
    b, g, a = np.zeros((PLACES, TILE)), np.zeros((PLACES, 6)), np.zeros((M, PLACES))
    for outer, (inputs, taps, outputs) in enumerate(_INNERS):
        at = slice(3 * outer, 3 * outer + len(inputs))
        for i in range(4):
            b[at, 2 * i : 2 * i + inputs.shape[1]] += _B3[outer, i] * inputs[:, : TILE - 2 * i]
        for i in range(3):
            g[at, 2 * i : 2 * i + taps.shape[1]] += _G3[outer, i] * taps
        a[:, at] = np.kron(_A3[:, outer : outer + 1], outputs)
    return b, g[:, :5], a


INPUTS, TAPS, OUTPUTS = _nested()
FILTER_PLACES = np.kron(TAPS, TAPS)  # (121, 25)


class Form(NamedTuple):
    """A way to compute M outputs along an axis: B', G, A', and the place that goes into all outputs with factor 1."""

    inputs: Array
    taps: Array
    outputs: Array
    every_output: int


FORM = Form(INPUTS, TAPS, OUTPUTS, 3)


def transform_filters(w: Array, turned: bool, form: Form = FORM) -> Array:
    """G g G' of filters (K,R,R,C) as (places, C, K), or for dgrad, turned by half a turn, as (places, K, C)."""
    k, r, s, c = w.shape
    places = np.kron(form.taps, form.taps).astype(w.dtype)
    taps = w.reshape(k, r * s, c)
    taps, places = (taps.transpose(1, 0, 2), places[:, ::-1].copy()) if turned else (taps.transpose(1, 2, 0), places)
    u = memory.empty((len(places), *taps.shape[1:]), w.dtype)

    def run(part: tuple[int, int]) -> None:
        at = slice(*part)
        source = taps[:, at]
        tapwise = scratch("taps", source.shape, w.dtype)
        np.copyto(tapwise, source)
        np.matmul(places, tapwise.reshape(r * s, -1), out=u[:, at].reshape(len(places), -1))

    with single_blas_thread:
        for_each(run, spans(len(u[0]), -(-len(u[0]) // FILTER_PARTS)))
    return u


def _pixels(x: Array, block: Block, columns: int, start: tuple[int, int], halo: int, name: str) -> Array:
    """A block's pixels as (rows, columns, images, C), four to a tile and ``halo`` more, zero outside the image."""
    shape = (M * block.rows + halo, M * columns + halo, block.images, x.shape[3])
    pixels = scratch(name, shape, x.dtype)
    top, left = start[0] + M * block.row, start[1]
    low, high = max(top, 0), min(top + shape[0], x.shape[1])
    first, last = max(left, 0), min(left + shape[1], x.shape[2])
    if high <= low or last <= first:
        pixels.fill(0)
        return pixels
    rows = pixels[low - top : high - top]
    pixels[: low - top] = pixels[high - top :] = 0
    rows[:, : first - left] = rows[:, last - left :] = 0
    source = x[block.image : block.image_end, low:high, first:last]
    np.copyto(rows[:, first - left : last - left], source.transpose(1, 2, 0, 3))
    return pixels


def _tiles(pixels: Array, axis: int, tile: int) -> Array:
    """Overlapping tiles along an axis, of which M pixels belong to the next, a view: the axis becomes (tiles, tile)."""
    shape, strides = list(pixels.shape), list(pixels.strides)
    shape[axis : axis + 1] = [(shape[axis] - M) // M, tile]
    strides[axis : axis + 1] = [M * strides[axis], strides[axis]]
    return as_strided(pixels, shape, strides, writeable=False)


def _rows_transformed(x: Array, block: Block, columns: int, start: tuple[int, int], inputs: Array) -> Array:
    """B' along the columns: (rows, places, M*columns + M, images*C)."""
    pixels = _pixels(x, block, columns, start, M, "pixels")
    n = pixels.shape[2] * pixels.shape[3]
    out = scratch("rows transformed", (block.rows, len(inputs), columns + 1, M * n), x.dtype)
    # Four pixels of all images at a time: BLAS packs what is larger, which takes longer than the product.
    source = _tiles(pixels.reshape(len(pixels), columns + 1, M * n), 0, inputs.shape[1])
    np.matmul(inputs, source.transpose(0, 2, 1, 3), out=out.transpose(0, 2, 1, 3))
    return out.reshape(block.rows, len(inputs), M * (columns + 1), n)


def _inputs(rows: Array, i: int, inputs: Array, out: Array) -> None:
    """Row i of B' d B, of all tiles: (places, rows, columns, images*C)."""
    np.matmul(inputs, _tiles(rows[:, i], 1, inputs.shape[1]), out=out.transpose(1, 2, 0, 3))


def correlate(
    x: Array, u: Array, bias: Array | None, y: Array, pad: tuple[int, int], relu: bool, form: Form = FORM
) -> list[tuple[int, int]]:
    """y (N,P,Q,K) of x (N,H,W,C), transformed filters (places, C, K), ``pad`` rows above and columns before, bias (K,).

    Returns the images [first, last) of the blocks whose results are not all finite: there a tile's outputs have
    spoilt each other.
    """
    c, k = u.shape[1:]
    columns = -(-y.shape[2] // M)
    inputs, outputs = form.inputs.astype(x.dtype), form.outputs.astype(x.dtype)
    places, every = len(inputs), form.every_output
    nothing = np.zeros(k, y.dtype)
    spoilt: list[tuple[int, int]] = []

    def run(block: Block) -> None:
        rows = _rows_transformed(x, block, columns, (-pad[0], -pad[1]), inputs)
        shape = (block.rows, columns, block.images)
        v = scratch("tiles", (places, *shape[:2], block.images * c), x.dtype)
        m = scratch("products", (places, *shape[:2], block.images * k), x.dtype)
        across = scratch("across", (places, *shape[:2], M, block.images * k), x.dtype)
        for i in range(places):
            _inputs(rows, i, inputs, v)
            products = m.reshape(places, -1, k)
            np.matmul(v.reshape(places, -1, c), u[places * i : places * (i + 1)], out=products)
            if i == every and bias is not None:
                np.add(products[every], bias, out=products[every])
            np.matmul(outputs, m.transpose(1, 2, 0, 3), out=across[i])
        result = scratch("outputs", (block.rows, M, columns, M * block.images * k), x.dtype)
        lines = across.reshape(places, block.rows, columns, -1)
        np.matmul(outputs, lines.transpose(1, 2, 0, 3), out=result.transpose(0, 2, 1, 3))
        if not np.isfinite(result.reshape(-1, k) @ nothing).all():
            spoilt.append((block.image, block.image_end))
        if relu:
            flat = result.reshape(-1)
            for piece in pieces(flat.size):
                np.maximum(flat[piece], zeros(y.dtype)[: piece.stop - piece.start], out=flat[piece])
        part = y[block.image : block.image_end, M * block.row : M * block.row_end].transpose(1, 2, 0, 3)
        np.copyto(part, result.reshape(M * block.rows, M * columns, block.images, k)[: len(part), : part.shape[1]])

    with single_blas_thread:
        for_each(run, _blocks(y.shape, max(c, k)))
    return sorted(set(spoilt))


def _blocks(outputs: tuple[int, ...], channels: int) -> list[Block]:
    """Blocks of tiles of outputs (N, P, Q, ...), an even number where they are few."""
    n, rows, columns = outputs[0], -(-outputs[1] // M), -(-outputs[2] // M)
    work = tile_blocks(n, rows, columns, max(LEAST_TILES, TILES_TIMES_CHANNELS // channels))
    if len(work) % 2 and len(work) < 8:
        work = tile_blocks(n, rows, columns, -(-n * rows * columns // (len(work) + 1)))
    return work


def fprop(
    x: Array, w: Array, bias: Array | None, g: Conv2dGeometry, activation: str | None, direct: Callable[..., Array]
) -> Array:
    """y (N,P,Q,K) of x (N,H,W,C), w (K,5,5,C) and bias (K,); ``direct``, of the same arguments, is another way to
    compute it, for images with values that are not finite."""
    y = memory.empty(g.output_shape, x.dtype)
    u = transform_filters(w, turned=False)
    for a, b in correlate(x, u, bias, y, (g.pad_top, g.pad_left), activation == "relu"):
        y[a:b] = direct(x[a:b], w, bias, replace(g, N=b - a), activation)
    return y


def dgrad(dy: Array, w: Array, g: Conv2dGeometry, direct: Callable[..., Array]) -> Array:
    """dx (N,H,W,C) of dy (N,P,Q,K) and w (K,5,5,C), ``direct`` as in :func:`fprop`."""
    dx = memory.empty(g.input_shape, dy.dtype)
    u = transform_filters(w, turned=True)
    for a, b in correlate(dy, u, None, dx, (4 - g.pad_top, 4 - g.pad_left), False):
        dx[a:b] = direct(dy[a:b], w, replace(g, N=b - a))
    return dx


def wgrad(x: Array, dy: Array, g: Conv2dGeometry, direct: Callable[..., Array]) -> Array:
    """dw (K,5,5,C) of x (N,H,W,C) and dy (N,P,Q,K), ``direct`` as in :func:`fprop`."""
    c, k, columns = g.C, g.K, -(-g.Q // M)
    work = _blocks(dy.shape, max(c, k))
    if not work:
        return np.zeros(g.weight_shape, x.dtype)
    runs = spans(len(work), -(-len(work) // SUMS))
    sums = memory.empty((len(runs), PLACES, PLACES, c, k), x.dtype)
    inputs, outputs = INPUTS.astype(x.dtype), np.ascontiguousarray(OUTPUTS.T.astype(x.dtype))

    def run(index: int) -> None:
        first, last = runs[index]
        for block in work[first:last]:
            add(block, sums[index], block is work[first])

    def add(block: Block, total: Array, first: bool) -> None:
        rows = _rows_transformed(x, block, columns, (-g.pad_top, -g.pad_left), inputs)
        shape, n = (PLACES, block.rows, columns), block.images * k
        gradients = _pixels(dy, block, columns, (0, 0), 0, "gradients").reshape(block.rows, M, columns, M * n)
        down = scratch("down", (block.rows, PLACES, columns, M * n), x.dtype)
        np.matmul(outputs, gradients.transpose(0, 2, 1, 3), out=down.transpose(0, 2, 1, 3))
        v = scratch("tiles", (*shape, block.images * c), x.dtype)
        d = scratch("places", (*shape, n), x.dtype)
        for i in range(PLACES):
            _inputs(rows, i, inputs, v)
            np.matmul(outputs, down[:, i].reshape(block.rows, columns, M, n), out=d.transpose(1, 2, 0, 3))
            products = total[i] if first else scratch("products", (PLACES, c, k), x.dtype)
            np.matmul(v.reshape(PLACES, -1, c).transpose(0, 2, 1), d.reshape(PLACES, -1, k), out=products)
            if not first:
                np.add(total[i], products, out=total[i])

    dw = memory.empty(g.weight_shape, x.dtype)
    taps = np.ascontiguousarray(FILTER_PLACES.T.astype(x.dtype))

    def finish(part: tuple[int, int]) -> None:
        at = slice(*part)
        total = sums[0, :, :, at]
        for other in sums[1:]:
            np.add(total, other[:, :, at], out=total)
        tapwise = scratch("taps", (25, at.stop - at.start, k), x.dtype)
        np.matmul(taps, total.reshape(PLACES * PLACES, -1), out=tapwise.reshape(25, -1))
        np.copyto(dw.reshape(k, 25, c)[:, :, at], tapwise.transpose(2, 0, 1))

    with single_blas_thread:
        for_each(run, range(len(runs)))
        for_each(finish, spans(c, -(-c // FILTER_PARTS)))
    # A value that is not finite is in every tap of the transform: the taps that do not meet it are spoilt too.
    return dw if np.isfinite(dw).all() else direct(x, dy, g)
