"""Images cut into overlapping square tiles, laid out so that sums of a tile's pixels are sums of long vectors.

Winograd's convolutions compute m x m outputs from a tile of m + halo*m or fewer inputs a side. Adding pixels of
one tile to each other would mean runs of C numbers only. So a block's pixels are sorted by their place modulo m:
the pixels at place (a, b) of all tiles lie side by side, and those at place (a + m, b) are the next tile's at
(a, b), one row of tiles further on. Sums over all tiles are then sums of a few large arrays.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy.scratch import scratch
from gpucnn.backends.numpy.windows import Block, spans

Array = NDArray[Any]


def tile_blocks(images: int, rows: int, columns: int, most: int) -> list[Block]:
    """Images of rows x columns tiles in blocks of about ``most`` tiles; a block's rows are rows of tiles."""
    if images == 0 or rows == 0 or columns == 0:
        return []
    fitting = most // (rows * columns)
    if fitting >= 1:
        return [Block(a, b, 0, rows) for a, b in spans(images, fitting)]
    cuts = spans(rows, max(1, most // columns))
    return [Block(n, n + 1, a, b) for n in range(images) for a, b in cuts]


def gather(x: Array, block: Block, columns: int, start: tuple[int, int], m: int, halo: int, name: str) -> Array:
    """A block's pixels as (m, rows + halo, m, columns + halo, images, C), zero outside the image; in buffer ``name``.

    Element [a, t, b, u, i] is the pixel of image ``block.image + i`` at row ``start[0] + m * (block.row + t) + a``
    and column ``start[1] + m * u + b`` of x (N, H, W, C).
    """
    shape = (m, block.rows + halo, m, columns + halo, block.images, x.shape[3])
    pixels = scratch(name, shape, x.dtype)
    fill(pixels, x, block, start)
    return pixels


def fill(pixels: Array, x: Array, block: Block, start: tuple[int, int]) -> None:
    """Gathers a block's pixels into an array or view (m, rows + halo, m, columns + halo, images, C)."""
    m, shape = len(pixels), pixels.shape
    images = slice(block.image, block.image_end)
    across = [_inside(start[1] + b, x.shape[2], shape[3], m) for b in range(m)]
    for b, (left, right, _) in enumerate(across):
        if left > 0:
            pixels[:, :, b, :left] = 0
        if right < shape[3]:
            pixels[:, :, b, right:] = 0
    for a in range(m):
        top, bottom, down = _inside(start[0] + m * block.row + a, x.shape[1], shape[1], m)
        if top > 0:
            pixels[a, :top] = 0
        if bottom < shape[1]:
            pixels[a, bottom:] = 0
        for b, (left, right, along) in enumerate(across):
            np.copyto(pixels[a, top:bottom, b, left:right], x[images, down, along].transpose(1, 2, 0, 3))


@functools.lru_cache(4096)
def _inside(first: int, size: int, count: int, m: int) -> tuple[int, int, slice]:
    """Which of the places first, first + m, ... (``count`` of them) lie in [0, size), as a range; and those places."""
    low = min(max(0, -(first // m)), count)
    high = max(low, min(count, -((first - size) // m)))
    return low, high, slice(first + m * low, max(first + m * (high - 1) + 1, first + m * low), m)


def scatter(tiles: Array, y: Array, block: Block) -> None:
    """y (N,P,Q,K), the part that is the block's, from its tiles' outputs (m, m, rows, columns, images, K)."""
    m = len(tiles)
    images = slice(block.image, block.image_end)
    for a in range(m):
        for b in range(m):
            part = y[images, m * block.row + a : m * block.row_end : m, b::m].transpose(1, 2, 0, 3)
            np.copyto(part, tiles[a, b, : part.shape[0], : part.shape[1]])
