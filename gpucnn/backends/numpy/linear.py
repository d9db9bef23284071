"""Matrix products in tiles of fixed bounds, one thread each.

Products of a few rows with a large matrix of weights are bound by memory, so the weights must be read once and in
their order. A general sgemm copies ("packs") them first; OpenBLAS leaves that out for products of up to 10^6
multiplications, so such products go as batches of that size, each of some rows of the weights.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import memory
from gpucnn.backends.numpy.bias import bias_grad
from gpucnn.backends.numpy.elementwise import PIECE, relu_backward, zeros
from gpucnn.backends.numpy.threads import PRODUCTS, for_each, single_blas_thread
from gpucnn.backends.numpy.windows import spans

Array = NDArray[Any]
Span = tuple[int, int]

# (multiplications from which, pieces): NumPy and BLAS like few large ones, 50 microseconds and more
PIECES = ((1 << 28, 8), (1 << 26, 4), (1 << 23, 2))
ROUND = 16  # rows or columns that sgemm takes at a time
NARROW = 32  # columns, up to which a product goes ROUND rows at a time: up to three times as fast
LEAST = 1 << 22  # multiplications, from which a few rows and many weights go so, and the small products are shared
FEW = 16  # rows of a batch, up to which a product with weights goes in small products
VERY_FEW = 3  # rows, up to which a gradient for them is a product of vectors with the weights
UNPACKED = 1 << 19  # multiplications of a small product


def matmul(a: Array, b: Array, transpose_a: bool = False, transpose_b: bool = False) -> Array:
    """(..., M, N) of a (..., M, K) and b (..., K, N), stored transposed where the flags say so."""
    left = a.swapaxes(-1, -2) if transpose_a else a
    right = b.swapaxes(-1, -2) if transpose_b else b
    out = memory.empty(left.shape[:-1] + right.shape[-1:], np.result_type(a, b))
    if out.ndim == 2:
        _product(left, right, out)
    else:
        count = math.prod(out.shape[:-2])  # spelled out below: an empty array cannot tell
        _products(*(m.reshape((count, *m.shape[-2:])) for m in (left, right, out)))
    return out


def linear_forward(x: Array, w: Array, bias: Array | None, activation: str | None = None) -> Array:
    """y (M, N) = x (M, K) times w (N, K) transposed, plus bias (N,); ``activation="relu"``: max(y, 0)."""
    y = memory.empty((len(x), len(w)), x.dtype)
    rows = _few_rows(len(x), x.shape[1], len(w))
    if rows:
        _by_rows(w, x.T, y.T, rows)
        _finish(y, bias, activation)
    elif len(x) == 1 and _pieces(w.size) == 1:
        with single_blas_thread:
            np.matmul(w, x[0], out=y[0])  # the weights by a vector: the same as a product of matrices takes longer
        _finish(y, bias, activation)
    elif len(w) <= NARROW and len(x) >= ROUND:
        _by_rows(x, w.T, y, ROUND)
        _finish(y, bias, activation)
    else:
        _product(x, w.T, y, bias, activation)
    return y


def linear_dgrad(dy: Array, w: Array, mask: Array | None = None) -> Array:
    """dx (M, K) = dy (M, N) times w (N, K); 0 where not mask > 0, with a mask like dx."""
    m = len(dy)
    if 1 < m <= VERY_FEW and dy.size * w.shape[1] >= LEAST:
        dx = _vectors_by_matrix(dy, w)
    else:
        dx = memory.empty((m, w.shape[1]), dy.dtype)
        _product(dy, w, dx)
    return dx if mask is None else relu_backward(dx, mask)


def linear_wgrad(x: Array, dy: Array, bias: bool = False) -> tuple[Array, Array | None]:
    """dw (N, K) = dy (M, N) transposed times x (M, K); with ``bias`` also db (N,), the sum over the rows of dy."""
    dw = memory.empty((dy.shape[1], x.shape[1]), x.dtype)
    rows = _few_rows(len(x), x.shape[1], len(dw))
    if len(x) == 1:
        _outer(dy[0], x[0], dw)
    elif rows:
        _by_rows(dy.T, x, dw, rows)
    else:
        _product(dy.T, x, dw)
    return dw, bias_grad(dy) if bias else None


# ---- how a product is cut ----


def _pieces(multiplications: int) -> int:
    return next((pieces for least, pieces in PIECES if multiplications >= least), 1)


def _product(a: Array, b: Array, out: Array, bias: Array | None = None, activation: str | None = None) -> None:
    """out (M, N) = f(a b + bias), cut along its longer side."""
    m, n = out.shape
    work = m * n * a.shape[1]
    pieces = _pieces(work)
    with single_blas_thread:
        if pieces == 1:
            np.matmul(a, b, out=out)
            _finish(out, bias, activation)
            return
        tall = m >= n

        def run(span: Span) -> None:
            at = slice(*span)
            part = out[at] if tall else out[:, at]
            np.matmul(a[at] if tall else a, b if tall else b[:, at], out=part)
            _finish(part, bias if tall or bias is None else bias[at], activation)

        longer = max(m, n)
        size = -(-longer // (pieces * ROUND)) * ROUND
        for_each(run, [(i, min(i + size, longer)) for i in range(0, longer, size)], work // PRODUCTS)


def _products(a: Array, b: Array, out: Array) -> None:
    """out[i] = a[i] b[i]: the same bits in a batch as alone."""
    count, m, n = out.shape
    work = m * n * a.shape[2]  # of one
    if _pieces(work) > 1:
        for i in range(count):
            _product(a[i], b[i], out[i])
        return

    def run(span: Span) -> None:
        at = slice(*span)
        np.matmul(a[at], b[at], out=out[at])

    with single_blas_thread:
        for_each(run, spans(count, 1 + UNPACKED // max(work, 1)), count * work // PRODUCTS)


def _finish(y: Array, bias: Array | None, activation: str | None) -> None:
    """y = f(y + bias), while it is in cache."""
    if bias is not None:
        np.add(y, bias, out=y)
    if activation == "relu":
        width = y.shape[1]  # an array of zeros is faster than the number
        np.maximum(y, zeros(y.dtype)[:width] if width <= PIECE else 0, out=y)


# ---- a few rows and many weights ----


def _few_rows(m: int, k: int, n: int) -> int:
    """How many rows of weights (N, K) a small product with (M, K) has; 0 where they are multiplied as others are."""
    if not 1 < m <= FEW or m * k * n < LEAST:
        return 0
    return UNPACKED // (m * k)


def _by_rows(a: Array, b: Array, out: Array, rows: int) -> None:
    """out (N, J) = a (N, L) b (L, J), as a batch of products of ``rows`` rows each, and one of those left over."""
    count = len(a) // rows
    whole = count * rows
    a_batch, out_batch = a[:whole].reshape(count, rows, len(b)), out[:whole].reshape(count, rows, b.shape[1])

    def run(span: Span) -> None:
        at = slice(*span)
        np.matmul(a_batch[at], b, out=out_batch[at])
        if span[1] == count and whole < len(a):
            np.matmul(a[whole:], b, out=out[whole:])

    work = out.size * len(b)
    with single_blas_thread:
        if work < LEAST:
            run((0, count))
        else:
            for_each(run, spans(count, -(-count // max(2, _pieces(work)))), work // PRODUCTS)


def _vectors_by_matrix(dy: Array, w: Array) -> Array:
    """dx (M, K) = dy (M, N) w (N, K), one row of dy after the other; the sums over N in pieces."""
    pieces = spans(len(w), -(-len(w) // PIECES[0][1]))
    parts = memory.empty((len(pieces), len(dy), w.shape[1]), w.dtype)

    def run(i: int) -> None:
        at = slice(*pieces[i])
        for row, part in zip(dy, parts[i], strict=True):
            np.matmul(row[at], w[at], out=part)

    with single_blas_thread:
        for_each(run, range(len(pieces)))
    return np.sum(parts, axis=0)


def _outer(a: Array, b: Array, out: Array) -> None:
    """out (N, K) = a (N,) times b (K,); sgemm takes three times as long."""

    def run(span: Span) -> None:
        at = slice(*span)
        np.multiply(a[at, None], b, out=out[at])

    for_each(run, spans(len(a), 1 + 4 * PIECE // max(1, len(b))), out.size)
