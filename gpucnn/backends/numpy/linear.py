"""Matrix products in tiles of fixed bounds, one thread each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy.threads import for_each, single_blas_thread
from gpucnn.backends.numpy.windows import spans

Array = NDArray[Any]

TILE = 64  # least rows or columns of a tile
TILES = 8  # at most, of one product


def matmul(a: Array, b: Array, transpose_a: bool = False, transpose_b: bool = False) -> Array:
    """(..., M, N) of a (..., M, K) and b (..., K, N), stored transposed where the flags say so."""
    left = a.swapaxes(-1, -2) if transpose_a else a
    right = b.swapaxes(-1, -2) if transpose_b else b
    out = np.empty(left.shape[:-1] + right.shape[-1:], np.result_type(a, b))
    count = math.prod(out.shape[:-2])  # spelled out below: an empty array cannot tell
    lefts, rights, outs = (m.reshape((count, *m.shape[-2:])) for m in (left, right, out))
    _products(lefts, rights, outs, None)
    return out


def linear_forward(x: Array, w: Array, bias: Array | None, activation: str | None = None) -> Array:
    """y (M, N) = x (M, K) times w (N, K) transposed, plus bias (N,); ``activation="relu"``: max(y, 0)."""
    y = np.empty((x.shape[0], w.shape[0]), x.dtype)
    _products(x[None], w.T[None], y[None], bias, activation)
    return y


def _products(a: Array, b: Array, out: Array, bias: Array | None, activation: str | None = None) -> None:
    """out[i] = a[i] b[i] + bias, each cut along the longer side of ``out[i]``: the same bits in a batch as alone."""
    count, m, n = out.shape
    tall = m >= n
    size = max(TILE, -(-max(m, n) // TILES))

    def run(item: tuple[int, tuple[int, int]]) -> None:
        i, span = item
        at = slice(*span)
        part = out[i, at] if tall else out[i, :, at]
        np.matmul(a[i, at] if tall else a[i], b[i] if tall else b[i, :, at], out=part)
        if bias is not None:
            np.add(part, bias if tall else bias[at], out=part)
        if activation == "relu":
            np.maximum(part, 0, out=part)

    with single_blas_thread:
        for_each(run, [(i, span) for i in range(count) for span in spans(max(m, n), size)])
