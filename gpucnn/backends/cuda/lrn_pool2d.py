"""Backward of local response normalisation beside max pooling in one launch, on kernels/lrn_pool2d.cu and
lrn_pool2d_half.cu; in two where these have no instance."""

from __future__ import annotations

from typing import Any

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import instances, lrn, pool2d
from gpucnn.backends.cuda.grids import MAX_BLOCKS, THREADS, ceil_div
from gpucnn.backends.launch import address
from gpucnn.geometry import Pool2dGeometry

SIZE = 9  # the window of channels that there are instances for
POOL = 3  # and of pixels
STRIP = 4  # rows of tiles a block: longer ones compute fewer rows twice, shorter ones fill a GPU with a smaller batch
MOST_PIXELS = 2**30  # kernels count them in int, and one step of the grid further


def lrn_backward(
    backend: Any, dy: Array, index: Array, g: Pool2dGeometry, x: Array, size: int, alpha: float, beta: float, k: float,
    mask: bool,
) -> Array:  # fmt: skip
    """dx like x (N,H,W,C) of y = lrn(x) pooled: dy (N,P,Q,C), whose memory may be in the order N,C,P,Q, and index."""
    planes = dy.transpose(0, 3, 1, 2)
    by_planes = not dy.flags.c_contiguous and planes.flags.c_contiguous
    lanes = _lanes(g, size, beta, k, x) if x.dtype == dy.dtype else 0
    if not lanes or address(index) % lanes or not (by_planes or dy.flags.c_contiguous):
        if by_planes:
            dy = backend.transpose(planes.reshape(g.N, g.C, g.P * g.Q)).reshape(dy.shape)
        dy = pool2d.max_backward(backend, dy, index, g)
        return lrn.backward(backend, dy, x, size, alpha, beta, k, mask)
    dx = backend.empty(x.shape, x.dtype)
    columns = g.C // lanes
    block = columns, THREADS // columns
    backend.launch(
        instances.source("lrn_pool2d", x.dtype), f"lrn_backward_pool_{SIZE}{instances.suffix(x.dtype, lanes)}",
        min(ceil_div(g.N * g.H * g.W, block[1]), MAX_BLOCKS), block,
        planes if by_planes else dy, index, x, dx, g, int(by_planes),
        alpha / size, k, 2.0 * alpha * beta / size, int(mask), lrn.warp_rows(block),
    )  # fmt: skip
    return dx


def max_pool2d_backward(
    backend: Any, dy: Array, pooled: Array, size: int, alpha: float, beta: float, k: float, mask: bool, index: Array,
    g: Pool2dGeometry,
) -> Array:  # fmt: skip
    """dx (N,H,W,C) of y = lrn(pooled), dy and pooled (N,P,Q,C), and index, the places of ``pooled`` in its windows."""
    lanes = _lanes(g, size, beta, k, pooled, dy) if pooled.dtype == dy.dtype else 0
    if not lanes or address(index) % lanes:
        dy = lrn.backward(backend, dy, pooled, size, alpha, beta, k, mask)
        return pool2d.max_backward(backend, dy, index, g)
    dx = backend.empty(g.input_shape, dy.dtype)
    columns = g.C // lanes
    tile_rows, tile_columns = pool2d.square_tiles(g)
    block = columns, min(tile_columns, THREADS // columns)
    chunks = ceil_div(tile_columns, block[1] - int(tile_columns > block[1]))
    backend.launch(
        instances.source("lrn_pool2d", dy.dtype), f"max_pool2d_backward_lrn_{SIZE}{instances.suffix(dy.dtype, lanes)}",
        min(g.N * ceil_div(tile_rows, STRIP) * chunks, MAX_BLOCKS), block, dy, pooled, index, dx, g, STRIP,
        alpha / size, k, 2.0 * alpha * beta / size, int(mask), lrn.warp_rows(block),
    )  # fmt: skip
    return dx


def _lanes(g: Pool2dGeometry, size: int, beta: float, k: float, *arrays: Array) -> int:
    """How many channels a thread owns in the instances; 0 where these do not serve."""
    lanes = lrn.window_lanes(size, beta, k, *arrays)
    if size != SIZE or not pool2d.square(g) or g.R != POOL or max(g.N * g.H * g.W, g.N * g.P * g.Q) > MOST_PIXELS:
        return 0
    return lanes if lanes and 2 * (g.C // lanes) <= THREADS and arrays[0].size else 0
