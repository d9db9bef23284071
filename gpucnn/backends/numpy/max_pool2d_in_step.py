"""Max pooling forward of windows that start at every stride-th input, as nearly all do: few and long operations.

The same tournament as in max_pool2d.py. What an operation costs beside its work, its interpreter and its wait for
that of the other thread, is most of the time of small images, so there is nothing here that need not be.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy.scratch import SHORT, scratch
from gpucnn.backends.numpy.windows import Block, copy_pixels, in_step
from gpucnn.geometry import Pool2dGeometry

Array = NDArray[Any]

LEAST_CHANNELS = 32  # fewer make runs too short to be operands
LEAST_PIXEL = 12  # channels of pixels that are worth a copy, by which the places of windows 2x2 become long runs
WIDE = 256  # channels from which no operand is copied to NumPy's buffer, if that is short enough
LARGE_IMAGE = 1 << 19  # elements; of windows that overlap whole images are taken
LONG_PIXEL = 128  # channels from which a reduction over pixels is as fast as operations on pairs of them


def takes(g: Pool2dGeometry) -> bool:
    """Whether :func:`run` does windows of this geometry."""
    if g.C < LEAST_CHANNELS and not (g.C >= LEAST_PIXEL and _two_by_two(g)):
        return False
    if min(g.stride_h, g.stride_w) < 2 or g.R * g.S > 256:
        return False
    return in_step(g) and (g.stride_h == g.R or g.H * g.W * g.C <= LARGE_IMAGE)


def buffer(g: Pool2dGeometry) -> int:
    """Elements of NumPy's buffer that suit :func:`run`."""
    return SHORT // 2 if g.C >= WIDE and _two_by_two(g) else SHORT


def _two_by_two(g: Pool2dGeometry) -> bool:
    return g.R == g.S == g.stride_h == g.stride_w == 2


def run(x: Array, block: Block, g: Pool2dGeometry, y: Array, index: Array) -> None:
    """y and index of a block's windows, of finite values."""
    down, across = g.stride_h, g.stride_w
    part = x[block.image : block.image_end, block.row * down : block.row_end * down]
    inputs = part.reshape(len(part), block.rows, down, g.Q, across, g.C)
    if g.P * g.Q == 1 and g.C >= LONG_PIXEL and (down, across) == (g.R, g.S):
        _whole_images(part.reshape(len(part), down * across, g.C), y.reshape(-1, g.C), index.reshape(-1, g.C))
        return
    if _two_by_two(g):
        _quarters(inputs.reshape(-1, 2, g.Q, 2, g.C), y.reshape(-1, g.Q, g.C), index.reshape(-1, g.Q, g.C))
        return
    best = scratch("best", (*inputs.shape[:4], g.C), x.dtype)
    places = scratch("places", best.shape, np.uint8)
    wins = scratch("wins", best.shape, np.uint8)
    left, right = inputs[..., 0, :], inputs[..., 1, :]
    np.greater(right, left, out=places.view(np.bool_))
    np.maximum(left, right, out=best)
    for s in range(2, g.S):
        columns = slice(None) if s < across else slice(-1)  # the last window ends with the image
        value = inputs[..., s, :] if s < across else inputs[:, :, :, 1:, s - across]
        leader, place, won = best[:, :, :, columns], places[:, :, :, columns], wins[:, :, :, columns]
        np.greater(value, leader, out=won.view(np.bool_))
        np.maximum(leader, value, out=leader)
        np.multiply(won, np.uint8(s), out=won)
        np.maximum(place, won, out=place)
    for r in range(1, g.R):
        rows = slice(None) if r < down else slice(-1)
        value, place = best[:, slice(r // down, None), r % down], places[:, slice(r // down, None), r % down]
        leader, held, target, chosen = y[:, rows], index[:, rows], y[:, rows], index[:, rows]
        if r == 1:
            leader, held = best[:, :, 0], places[:, :, 0]
        won, claimed = wins[:, rows, 0], wins[:, rows, 1]
        np.greater(value, leader, out=won.view(np.bool_))
        np.maximum(leader, value, out=target)
        np.add(place, np.uint8(r * g.S), out=claimed)
        np.multiply(claimed, won, out=claimed)
        np.maximum(held, claimed, out=chosen)


def _quarters(inputs: Array, y: Array, index: Array) -> None:
    """y and index (rows, Q, C) of windows 2x2 over inputs (rows, 2, Q, 2, C).

    The maxima of upper and of lower rows are kept apart, so that what meets in the second round is in one run each.
    """
    best = scratch("best", (2, *y.shape), y.dtype)
    places = scratch("places", best.shape, np.uint8)
    wins = scratch("wins", best.shape, np.uint8)
    if inputs.shape[-1] < LEAST_CHANNELS:
        quarters = scratch("quarters", (2, *best.shape), y.dtype)
        copy_pixels(inputs, quarters.transpose(2, 1, 3, 0, 4))
        np.greater(quarters[1], quarters[0], out=places.view(np.bool_))
        np.maximum(quarters[0], quarters[1], out=best)
    else:
        left, right = inputs[:, :, :, 0], inputs[:, :, :, 1]
        np.greater(right, left, out=places.view(np.bool_).transpose(1, 0, 2, 3))
        np.maximum(left, right, out=best.transpose(1, 0, 2, 3))
    (upper, lower), (place, claimed), (won, _) = best, places, wins
    np.greater(lower, upper, out=won.view(np.bool_))
    np.maximum(upper, lower, out=y)
    np.add(claimed, np.uint8(2), out=claimed)
    np.multiply(claimed, won, out=claimed)
    np.maximum(place, claimed, out=index)


def _whole_images(pixels: Array, y: Array, index: Array) -> None:
    """y and index (N, C) over pixels (N, H*W, C): the first pixel that equals the maximum."""
    count = pixels.shape[1]
    np.maximum.reduce(pixels, axis=1, out=y)
    equal = scratch("wins", pixels.shape, np.uint8)
    np.equal(pixels, y[:, None], out=equal.view(np.bool_))
    np.multiply(equal, np.arange(count - 1, -1, -1, dtype=np.uint8)[:, None], out=equal)
    np.maximum.reduce(equal, axis=1, out=index)
    np.subtract(np.uint8(count - 1), index, out=index)
