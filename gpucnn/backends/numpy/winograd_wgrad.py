"""Weight gradients of 3x3 convolutions at stride 1 by Winograd's F(3x3, 2x2), with 16 products for 36.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (2016). The gradient is the transpose of
:mod:`winograd`'s F(2x2, 3x3) in its filters: with the tiles d of 4 x 4 inputs and e of 2 x 2 output gradients

    dW = G' [ sum over tiles of (A e A') * (B' d B) ] G

where * multiplies element by element, for each filter and each input channel. So the sums are 16 matrix products
(K, tiles) x (tiles, C), whose inner size is the number of tiles, and G' ... G comes once, at the end. A has only 0, 1
and -1 as B has; its places 0 and 3 only pick, so 4 of the 16 transformed gradients are gradients and 8 are one sum.

A block of tiles goes through its 16 products one by one, each right after its operands were made, so that they stay
in cache. Blocks follow each other in a few runs with sums of their own, which are added in a fixed order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import memory
from gpucnn.backends.numpy.scratch import scratch, short_buffers
from gpucnn.backends.numpy.threads import for_each, single_blas_thread
from gpucnn.backends.numpy.tiles import fill, tile_blocks
from gpucnn.backends.numpy.windows import Block, spans
from gpucnn.backends.numpy.winograd import SMALL_PRODUCT, Step, transform_step
from gpucnn.geometry import Conv2dGeometry

Array = NDArray[Any]

TILES = 480  # of a block, about: their pixels, gradients and one product stay in cache
RUNS = 8  # of blocks, with sums of their own
SUMS_BYTES = 32 << 20  # of all runs' sums
FEW_RUNS = 4  # with less of them, pairs of the four rows of places are tasks of their own, so that threads can share
PAIRS = ((0, 3), (1, 2))
SLAB = 1 << 14  # places of filters, for each of the 16, that are transformed back at a time
LEAST_FILTERS = 16  # of a product that OpenBLAS multiplies without packing its operands, for it to win


def wgrad(x: Array, dy: Array, g: Conv2dGeometry, direct: Callable[[Array, Array, Conv2dGeometry], Array]) -> Array:
    """dw (K,3,3,C) of x (N,H,W,C) and dy (N,P,Q,K).

    ``direct``, of the same arguments, is another way to compute it: for values that are not finite, which the
    transforms would spread over a filter's taps.
    """
    columns = -(-g.Q // 2)
    work = tile_blocks(g.N, -(-g.P // 2), columns, TILES)
    if not work:
        return np.zeros(g.weight_shape, x.dtype)
    count = max(1, min(RUNS, SUMS_BYTES // (16 * g.C * g.K * x.itemsize)))
    runs = spans(len(work), -(-len(work) // count))
    sums = memory.empty((len(runs), 4, 4, g.K, g.C), x.dtype)
    places: list[tuple[int, ...]] = [(0, 1, 2, 3)] if len(runs) >= FEW_RUNS else list(PAIRS)

    def run(task: tuple[int, tuple[int, ...]]) -> None:
        index, rows_of_places = task
        spaces: dict[tuple[int, int], _Space] = {}
        with short_buffers():
            for block in work[slice(*runs[index])]:
                first, shape = not spaces, (block.rows, block.images)
                if shape not in spaces:
                    spaces[shape] = _Space(block, columns, rows_of_places, sums[index])
                space = spaces[shape]
                fill(space.pixels, x, block, (-g.pad_top, -g.pad_left))
                fill(space.gradients, dy, block, (0, 0))
                for operation, a, b, out in space.first_steps if first else space.steps:
                    operation(a, b, out)

    dw = memory.empty(g.weight_shape, x.dtype)
    nothing = np.zeros(g.C, x.dtype)
    finite: list[bool] = []

    def finish(slab: tuple[int, int]) -> None:
        part = slice(*slab)
        total = sums[0, :, :, part]
        for other in sums[1:]:
            np.add(total, other[:, :, part], out=total)
        _transform_back(total, dw[part])
        finite.append(bool(np.isfinite(dw[part] @ nothing).all()))

    with single_blas_thread:
        for_each(run, [(index, rows) for index in range(len(runs)) for rows in places])
        for_each(finish, spans(g.K, max(1, SLAB // g.C)))
    return dw if all(finite) else direct(x, dy, g)


class _Space:
    """One thread's buffers for blocks of one shape, and the steps from ``pixels`` and ``gradients`` to ``sums``
    (4,4,K,C), or, for the first block of a run, to their first terms.

    The views are made once for many blocks: nothing else runs while the interpreter makes them.
    """

    def __init__(self, block: Block, columns: int, rows_of_places: Sequence[int], sums: Array) -> None:
        (k, c), dtype = sums.shape[2:], sums.dtype
        at = (columns, block.rows, block.images)
        count = columns * block.rows * block.images
        # Columns come before rows, so that a column's neighbour is as far for all rows and sums run over all of them.
        pixels = scratch("pixels", (2, 2, columns + 1, block.rows + 1, block.images, c), dtype)
        gradients = scratch("gradients", (2, 2, *at, k), dtype)
        self.pixels, self.gradients = pixels.transpose(0, 3, 1, 2, 4, 5), gradients.transpose(0, 3, 1, 2, 4, 5)
        row_of_pixels = scratch("row of pixels", (2, columns + 1, *at[1:], c), dtype)
        row_of_gradients = scratch("row of gradients", (2, *at, k), dtype)
        tiles, transformed = scratch("tiles", (*at, c), dtype), scratch("transformed", (*at, k), dtype)
        product = scratch("product", (k, c), dtype)
        filters = _filters_at_a_time(k, c, count)
        parts = (k // filters, filters, c)
        self.steps: list[Step] = []
        self.first_steps: list[Step] = []
        for i in rows_of_places:
            row = transform_step(pixels.transpose(1, 0, 3, 2, 4, 5), 1, i, row_of_pixels.transpose(0, 2, 1, 3, 4))
            steps, of_row = _gradients(gradients, i, row_of_gradients)
            steps.append(row)
            for j in range(4):
                more, left = _gradients(of_row, j, transformed)
                steps += [*more, transform_step(row_of_pixels, 0, j, tiles)]
                left = left.reshape(count, *parts[:2]).transpose(1, 2, 0)
                right, total = tiles.reshape(count, c), sums[i, j]
                self.steps += [
                    *steps,
                    (np.matmul, left, right, product.reshape(parts)),
                    (np.add, total, product, total),
                ]
                self.first_steps += [*steps, (np.matmul, left, right, total.reshape(parts))]
                steps = []


def _gradients(pair: Array, i: int, out: Array) -> tuple[list[Step], Array]:
    """Place i of A along the first axis, of two, and the steps to it; place 3 without its sign, which
    :func:`_transform_back` gives."""
    if i in (0, 3):
        return [], pair[i // 3]
    return [(np.add if i == 1 else np.subtract, pair[0], pair[1], out)], out


def _filters_at_a_time(k: int, c: int, count: int) -> int:
    """How many filters' products with ``count`` tiles of c channels are taken at once: all, or few enough for
    OpenBLAS to multiply without packing, where they are a power of two that divides all."""
    filters = k & -k
    while filters * c * count > SMALL_PRODUCT:
        filters //= 2
    return filters if filters >= LEAST_FILTERS else k


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
