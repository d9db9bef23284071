"""Local response normalisation across channels (Krizhevsky et al. 2012, section 3.3), as PyTorch defines it."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import memory
from gpucnn.backends.numpy.elementwise import select
from gpucnn.backends.numpy.scratch import scratch, short_buffers
from gpucnn.backends.numpy.threads import for_each, single_blas_thread
from gpucnn.backends.numpy.windows import spans

Array = NDArray[Any]

PIECE_BYTES = 256 << 10  # of one array; a piece works on four or five
BAND = 64  # channels of one product


def forward(x: Array, size: int, alpha: float, beta: float, k: float, keep: bool) -> tuple[Array, Array | None]:
    """y = x / scale**beta and, to ``keep``, scale = k + alpha / size * (sum of squares of ``size`` channels), like x
    (..., C).
    """
    y, scale = memory.empty(x.shape, x.dtype), memory.empty(x.shape, x.dtype)
    xs, ys, scales = (_rows(array) for array in (x, y, scale))
    sums = _window_sums(x.shape[-1], size, size // 2, alpha / size, x.dtype)

    def run(rows: slice) -> None:
        part, total, out = xs[rows], scales[rows], ys[rows]
        np.multiply(part, part, out=out)
        sums(out, total)
        np.add(total, x.dtype.type(k), out=total)
        _power(total, beta, out)
        np.divide(part, out, out=out)

    with single_blas_thread:
        for_each(run, _pieces(xs))
    return y, scale if keep else None


def backward(
    dy: Array, x: Array, scale: Any, size: int, alpha: float, beta: float, k: float, mask: bool = False
) -> Array:
    """dx of :func:`forward`, like x; with ``mask`` 0 where not x > 0.

    dx = dy scale**-beta - (2 alpha beta / size) x (sum of dy x scale**(-beta - 1) over the windows with the channel).
    """
    dx = memory.empty(x.shape, x.dtype)
    dys, xs, scales, dxs = (_rows(array) for array in (dy, x, scale, dx))
    sums = _window_sums(x.shape[-1], size, (size - 1) // 2, -2 * alpha * beta / size, x.dtype)

    def run(rows: slice) -> None:
        gradient, part, total, out = dys[rows], xs[rows], scales[rows], dxs[rows]
        direct, shared = scratch("direct", part.shape, x.dtype), scratch("shared", part.shape, x.dtype)
        _power(total, beta, direct)
        np.divide(gradient, direct, out=direct)
        np.divide(direct, total, out=shared)
        np.multiply(shared, part, out=shared)
        sums(shared, out)
        np.multiply(out, part, out=out)
        np.add(out, direct, out=out)
        if mask:
            with short_buffers():
                select(out, np.greater(part, 0), out)

    with single_blas_thread:
        for_each(run, _pieces(xs))
    return dx


def _rows(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])


def _pieces(rows: Array) -> list[slice]:
    row_bytes = rows.shape[1] * rows.itemsize
    return [slice(a, b) for a, b in spans(len(rows), max(PIECE_BYTES // row_bytes, 1))]


def _power(scale: Array, beta: float, out: Array) -> None:
    """out = scale**beta; by square roots, which are correctly rounded and fast, at the usual betas."""
    if beta == 0.75:
        root = scratch("root", scale.shape, scale.dtype)
        np.sqrt(scale, out=root)
        np.sqrt(root, out=out)
        np.multiply(out, root, out=out)
    elif beta == 0.5:
        np.sqrt(scale, out=out)
    elif beta == 1:
        np.copyto(out, scale)
    else:
        np.power(scale, scale.dtype.type(beta), out=out)


class _WindowSums:
    """factor * (sum over the ``size`` channels d from c - before on, those outside left out), for every channel c.

    A product with a banded matrix of ``factor``, BAND channels of c at a time: a BLAS multiplies by its zeros
    faster than NumPy adds shifted channels (64 channels, a window of 9: 35 microseconds against 64 for 32,768
    elements). Where a value is not finite, 0 times it would be NaN in its neighbours' sums, and the channels
    are added.
    """

    def __init__(self, channels: int, size: int, before: int, factor: float, dtype: Any) -> None:
        self.factor, self.offsets = np.dtype(dtype).type(factor), range(-before, size - before)
        self.products = []
        for first, last in spans(channels, BAND):
            low, high = max(first - before, 0), min(last - before + size - 1, channels)
            start = np.arange(first, last) - before
            read = np.arange(low, high)[:, None]
            band = np.where((read >= start) & (read < start + size), factor, 0).astype(dtype)
            self.products.append((slice(low, high), slice(first, last), band))

    def __call__(self, values: Array, out: Array) -> None:
        if np.isfinite(values.min()) and np.isfinite(values.max()):
            for read, write, band in self.products:
                np.matmul(values[:, read], band, out=out[:, write])
        else:
            self._add(values, out)

    def _add(self, values: Array, out: Array) -> None:
        channels = values.shape[1]
        out.fill(0)
        for offset in self.offsets:
            first, last = max(-offset, 0), min(channels, channels - offset)
            if first < last:
                out[:, first:last] += values[:, first + offset : last + offset]
        np.multiply(out, self.factor, out=out)


@functools.lru_cache(maxsize=16)
def _window_sums(channels: int, size: int, before: int, factor: float, dtype: Any) -> _WindowSums:
    """One that was made before: for a single small image making it takes as long as all the rest."""
    return _WindowSums(channels, size, before, factor, dtype)
