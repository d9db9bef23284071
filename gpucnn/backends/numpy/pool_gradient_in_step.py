"""Gradients of max pooling windows that start at every stride-th input: all places of a block's windows at once.

Two threads wait for each other's interpreter between operations, so there are five a block at most, on long arrays,
and their views are made once for all blocks of a size.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy.elementwise import BITS, select
from gpucnn.backends.numpy.scratch import scratch, short_buffers
from gpucnn.backends.numpy.threads import for_each
from gpucnn.backends.numpy.windows import WIDE_PIXEL, Block, blocks, copy_pixels, in_step
from gpucnn.geometry import Pool2dGeometry

Array = NDArray[Any]

BLOCK_BYTES = 1 << 20  # of a block's inputs
NARROW_BLOCK = 1 << 21  # the same where pixels are copied: fewer operations for two threads, if beyond the L2 cache
OVERLAPPING_BLOCK = 1 << 19  # the same where windows overlap: their shares are more than twice that, and stay in L2
LEAST_BLOCKS = 2  # operations on less than that cost more than the threads bring
WHOLE_IMAGE = 1 << 19  # elements of an image up to which a block of whole images stays small
MOST_PLACES = 64  # of a window whose places are gone through together
NARROW = 32  # channels below which pixels that do not lie side by side are copied, not computed, to their places


def takes(g: Pool2dGeometry) -> bool:
    """Whether :func:`gather` does this geometry: the shares of a block's windows are few enough to be had at once."""
    few = g.R * g.S <= MOST_PLACES and (g.stride_h == g.R or g.H * g.W * g.C <= WHOLE_IMAGE)
    return few and in_step(g)


def gather(dy: Array, index: Array, g: Pool2dGeometry, dx: Array) -> None:
    """dx (N,H,W,C): every input adds up the dy (N,P,Q,C) of the windows that chose it."""
    if (g.stride_h, g.stride_w) != (g.R, g.S):
        _overlapping(dy, index, g, dx)
    else:
        _tiled(dy, index, g, dx)


def _tiled(dy: Array, index: Array, g: Pool2dGeometry, dx: Array) -> None:
    """Windows side by side: what a window gives to its places is dx."""
    places = np.arange(g.R * g.S, dtype=index.dtype).reshape(g.R, g.S, 1, 1, 1, 1)
    inputs = _by_place(dx, g)

    def run(block: Block) -> None:
        at = slice(block.image, block.image_end), slice(block.row, block.row_end)
        gradient, out = dy[at], inputs[(slice(None), slice(None), *at)]
        shape = (g.R, g.S, *gradient.shape)
        wins = scratch("wins", shape, np.bool_)
        np.equal(index[at], places, out=wins)
        if g.C < NARROW:
            shares = scratch("shares", shape, dy.dtype)
            select(gradient, wins, shares)
            copy_pixels(shares, out)
        else:
            with short_buffers():
                select(gradient, wins, out)

    budget = NARROW_BLOCK if g.C < NARROW else BLOCK_BYTES
    for_each(run, blocks(g.N, g.P, g.R * g.W * g.C * dx.itemsize, budget, LEAST_BLOCKS), work=dx.size)


def _overlapping(dy: Array, index: Array, g: Pool2dGeometry, dx: Array) -> None:
    """Windows that reach into the next ones: their shares, then what these give to the same inputs added.

    Along the flat array the share of the window to the left or above is a constant step away: no window chooses an
    input that is not there, so the last window of a row adds zeros to the next row.
    """
    down, across, image = g.stride_h, g.stride_w, g.P * g.Q * g.C
    places = np.arange(g.R * g.S, dtype=index.dtype).reshape(-1, 1)
    bits = BITS[dy.itemsize]
    gradients, chosen, inputs = dy.reshape(-1).view(bits), index.reshape(-1), _as_pixels(_by_place(dx, g))
    made: dict[tuple[int, int], tuple[Array, ...]] = {}

    def views(images: int) -> tuple[Array, ...]:
        wins = scratch("wins", (g.R * g.S, images * image), np.bool_)
        shares = scratch("shares", (g.R, g.S, images * image), dy.dtype)
        right, below = g.C, g.Q * g.C
        of_next = shares[:, : g.S - across, right:], shares[:, across:, :-right]
        of_lower = shares[: g.R - down, :across, below:], shares[down:, :across, :-below]
        sums = _as_pixels(shares[:down, :across].reshape(down, across, images, g.P, g.Q, g.C))
        return wins, shares.view(bits).reshape(wins.shape), *of_next, *of_lower, sums

    def run(block: Block) -> None:
        key = threading.get_ident(), block.images
        if key not in made:
            made[key] = views(block.images)
        wins, shares, left, next_left, upper, next_upper, sums = made[key]
        at = slice(block.image * image, block.image_end * image)
        np.equal(chosen[at], places, out=wins)
        np.multiply(gradients[at], wins, out=shares)  # long runs: shorter buffers would be no gain
        if across < g.S:
            np.add(left, next_left, out=left)
        if down < g.R:
            np.add(upper, next_upper, out=upper)
        np.copyto(inputs[:, :, block.image : block.image_end], sums)

    for_each(run, _whole_images(g, OVERLAPPING_BLOCK, dx.itemsize), work=dx.size)


def _whole_images(g: Pool2dGeometry, budget: int, itemsize: int) -> list[Block]:
    """Blocks of whole images, at most ``budget`` bytes of inputs or one image, an even number of them if possible.

    All but the last are of one size, for which views are made once.
    """
    count = -(-g.N // max(budget // (g.H * g.W * g.C * itemsize), 1))
    size = max(-(-g.N // max(count + count % 2, 1)), 1)
    return [Block(first, min(first + size, g.N), 0, g.P) for first in range(0, g.N, size)]


def _by_place(dx: Array, g: Pool2dGeometry) -> Array:
    """dx seen as (stride_h, stride_w, N, P, Q, C)."""
    return dx.reshape(g.N, g.P, g.stride_h, g.Q, g.stride_w, g.C).transpose(2, 4, 0, 1, 3, 5)


def _as_pixels(array: Array) -> Array:
    """(..., C) of contiguous channels with each pixel as one item, unless it is wide."""
    size = array.shape[-1] * array.itemsize
    return array if size > WIDE_PIXEL else array.view(np.dtype((np.void, size)))[..., 0]
