"""Weight gradients of 3x3 convolutions at stride 1 by Winograd's F(3x3, 2x2), with 16 products for 36.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (2016). The gradient is the transpose of
:mod:`winograd`'s F(2x2, 3x3) in its filters: with the tiles d of 4 x 4 inputs and e of 2 x 2 output gradients

    dW = G' [ sum over tiles of (A e A') * (B' d B) ] G

where * multiplies element by element, for each filter and each input channel. So the sums are 16 matrix products
(K, tiles) x (tiles, C), whose inner size is the number of tiles, and G' ... G comes once, at the end. A has only 0, 1
and -1 as B has; its places 0 and 3 only pick, so 4 of the 16 transformed gradients are gradients and 8 are one sum.

A block of tiles goes through its 16 products one by one, each right after its operands were made. Blocks follow each
other in a few runs with sums of their own, which are added in a fixed order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import memory
from gpucnn.backends.numpy.scratch import scratch, short_buffers
from gpucnn.backends.numpy.threads import for_each, single_blas_thread
from gpucnn.backends.numpy.tiles import fill, tile_blocks
from gpucnn.backends.numpy.windows import Block, spans
from gpucnn.backends.numpy.winograd import transform_row
from gpucnn.geometry import Conv2dGeometry

Array = NDArray[Any]

BLOCK_BYTES = 1 << 20  # of a block's pixels and gradients: half of a core's L2 cache
LEAST_TILES = 512  # of a block all the same: the inner size that the products want
RUNS = 8  # of blocks, with sums of their own
SUMS_BYTES = 32 << 20  # of all runs' sums
FEW_RUNS = 4  # with less of them, the four rows of places are tasks of their own, so that threads can share
SLAB = 1 << 14  # places of filters, for each of the 16, that are transformed back at a time


def wgrad(x: Array, dy: Array, g: Conv2dGeometry, direct: Callable[[Array, Array, Conv2dGeometry], Array]) -> Array:
    """dw (K,3,3,C) of x (N,H,W,C) and dy (N,P,Q,K).

    ``direct``, of the same arguments, is another way to compute it: for values that are not finite, which the
    transforms would spread over a filter's taps.
    """
    rows, columns = -(-g.P // 2), -(-g.Q // 2)
    most = max(LEAST_TILES, BLOCK_BYTES // (4 * (g.C + g.K) * x.itemsize))
    work = tile_blocks(g.N, rows, columns, most)
    if not work:
        return np.zeros(g.weight_shape, x.dtype)
    count = max(1, min(RUNS, SUMS_BYTES // (16 * g.C * g.K * x.itemsize)))
    runs = spans(len(work), -(-len(work) // count))
    sums = memory.empty((len(runs), 16, g.K, g.C), x.dtype)
    places = [range(4)] if len(runs) >= FEW_RUNS else [range(i, i + 1) for i in range(4)]

    def run(task: tuple[int, range]) -> None:
        index, rows_of_places = task
        first, last = runs[index]
        with short_buffers():
            for block in work[first:last]:
                _add_block(x, dy, block, columns, g, rows_of_places, sums[index], block is work[first])

    dw = memory.empty(g.weight_shape, x.dtype)
    nothing = np.zeros(g.C, x.dtype)
    finite: list[bool] = []

    def finish(slab: tuple[int, int]) -> None:
        part = slice(*slab)
        total = sums[0, :, part]
        for other in sums[1:]:
            np.add(total, other[:, part], out=total)
        _transform_back(total.reshape(4, 4, *total.shape[1:]), dw[part])
        finite.append(bool(np.isfinite(dw[part] @ nothing).all()))

    with single_blas_thread:
        for_each(run, [(index, row) for index in range(len(runs)) for row in places])
        for_each(finish, spans(g.K, max(1, SLAB // g.C)))
    return dw if all(finite) else direct(x, dy, g)


def _add_block(
    x: Array, dy: Array, block: Block, columns: int, g: Conv2dGeometry, rows_of_places: range, sums: Array, first: bool
) -> None:
    """Adds a block's products to ``sums`` (16, K, C), or makes them their first terms."""
    # Columns come before rows, so that a column's neighbour is as far for all rows and sums run over all of them.
    pixels = scratch("pixels", (2, 2, columns + 1, block.rows + 1, block.images, g.C), x.dtype)
    gradients = scratch("gradients", (2, 2, columns, block.rows, block.images, g.K), x.dtype)
    fill(pixels.transpose(0, 3, 1, 2, 4, 5), x, block, (-g.pad_top, -g.pad_left))
    fill(gradients.transpose(0, 3, 1, 2, 4, 5), dy, block, (0, 0))
    v_row = scratch("v row", (2, columns + 1, block.rows, block.images, g.C), x.dtype)
    e_row = scratch("e row", gradients.shape[1:], x.dtype)
    v = scratch("v", v_row[0, 1:].shape, x.dtype)
    e = scratch("e", e_row.shape[1:], x.dtype)
    product = scratch("product", sums.shape[1:], x.dtype)
    for i in rows_of_places:
        transform_row(pixels.transpose(1, 0, 3, 2, 4, 5), i, v_row.transpose(0, 2, 1, 3, 4))
        gradients_row = _transform_gradients(gradients, i, e_row)
        for j in range(4):
            transform_row(v_row[None], j, v[None])
            left = _transform_gradients(gradients_row, j, e).reshape(-1, g.K).T
            right, total = v.reshape(-1, g.C), sums[4 * i + j]
            if first:
                np.matmul(left, right, out=total)
            else:
                np.matmul(left, right, out=product)
                np.add(total, product, out=total)


def _transform_gradients(pair: Array, i: int, out: Array) -> Array:
    """Place i of A along the first axis, of two; place 3 without its sign, which :func:`_transform_back` gives."""
    if i in (0, 3):
        picked: Array = pair[i // 3]
        return picked
    return np.asarray((np.add if i == 1 else np.subtract)(pair[0], pair[1], out=out))


def _transform_back(m: Array, dw: Array) -> None:
    """dw (k,3,3,C) = G' m G of m (4,4,k,C), the last row and column with the other sign; m is spoilt."""
    taps = scratch("taps", (3, *m.shape[1:]), m.dtype)
    _taps(m, taps)
    for r in range(3):
        _taps(taps[r], [dw[:, r, s] for s in range(3)])


def _taps(places: Array, taps: Array | list[Array]) -> None:
    """The three taps from four places along the first axis, which are spoilt."""
    half = places.dtype.type(0.5)
    np.multiply(places[1:3], half, out=places[1:3])
    np.subtract(places[1], places[2], out=taps[1])
    np.add(places[1], places[2], out=places[1])
    np.add(places[0], places[1], out=taps[0])
    np.subtract(places[1], places[3], out=taps[2])
