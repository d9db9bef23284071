"""Local response normalisation across channels (Krizhevsky et al. 2012, section 3.3), as PyTorch defines it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy.scratch import scratch
from gpucnn.backends.numpy.threads import for_each
from gpucnn.backends.numpy.windows import spans

Array = NDArray[Any]

PIECE_BYTES = 128 << 10  # of one array; a piece works on four or five


def forward(x: Array, size: int, alpha: float, beta: float, k: float) -> tuple[Array, Array]:
    """y = x / scale**beta and scale = k + alpha / size * (sum of squares over ``size`` channels), both like x (..., C)."""
    y, scale = np.empty_like(x, order="C"), np.empty_like(x, order="C")
    xs, ys, scales = (_rows(array) for array in (x, y, scale))
    real = x.dtype.type

    def run(rows: slice) -> None:
        part, total, out = xs[rows], scales[rows], ys[rows]
        _window_sum(part, part, size, size // 2, total)
        np.multiply(total, real(alpha / size), out=total)
        np.add(total, real(k), out=total)
        _power(total, beta, out)
        np.multiply(out, part, out=out)

    for_each(run, _pieces(xs))
    return y, scale


def backward(
    dy: Array, x: Array, scale: Array, size: int, alpha: float, beta: float, k: float
) -> Array:
    """dx = dy scale**-beta - (2 alpha beta / size) x (sum of dy x scale**(-beta - 1) over the windows that hold the channel)."""
    dx = np.empty_like(x, order="C")
    dys, xs, scales, dxs = (_rows(array) for array in (dy, x, scale, dx))
    factor = x.dtype.type(-2 * alpha * beta / size)

    def run(rows: slice) -> None:
        gradient, part, total, out = dys[rows], xs[rows], scales[rows], dxs[rows]
        direct, shared = scratch("direct", part.shape, x.dtype), scratch("shared", part.shape, x.dtype)
        _power(total, beta, direct)
        np.multiply(direct, gradient, out=direct)
        np.divide(direct, total, out=shared)
        _window_sum(shared, part, size, (size - 1) // 2, out)
        np.multiply(out, factor, out=out)
        np.multiply(out, part, out=out)
        np.add(out, direct, out=out)

    for_each(run, _pieces(xs))
    return dx


def _rows(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])


def _pieces(rows: Array) -> list[slice]:
    row_bytes = rows.shape[1] * rows.itemsize
    return [slice(a, b) for a, b in spans(len(rows), max(PIECE_BYTES // row_bytes, 1))]


def _power(scale: Array, beta: float, out: Array) -> None:
    """out = scale**-beta; by square roots, which are correctly rounded and fast, at the usual betas."""
    one = scale.dtype.type(1)
    if beta == 0.75:
        root = scratch("root", scale.shape, scale.dtype)
        np.sqrt(scale, out=root)
        np.sqrt(root, out=out)
        np.multiply(out, root, out=out)
        np.divide(one, out, out=out)
    elif beta == 0.5:
        np.sqrt(scale, out=out)
        np.divide(one, out, out=out)
    elif beta == 1:
        np.divide(one, scale, out=out)
    else:
        np.power(scale, scale.dtype.type(-beta), out=out)


def _window_sum(a: Array, b: Array, size: int, before: int, out: Array) -> None:
    """out[m, c] = sum of a[m, d] b[m, d] over the ``size`` channels d from c - before on, those outside left out.

    The products stand in rows widened by ``size - 1`` zeros, so that one long addition of the memory to itself, shifted, serves all
    rows. Sums of 2, 4, 8, ... neighbours come by doubling; a window of ``size`` is then put together from those of its binary digits.
    """
    m, c = a.shape
    width = c + size - 1
    length = m * width
    # Two buffers in turn: NumPy would copy an operand that overlaps the result. The tail is read, but only into zeros' sums.
    run_sums, spare = scratch("run sums", (length + size,), a.dtype), scratch("spare", (length + size,), a.dtype)
    rows = run_sums[:length].reshape(m, width)
    rows[:, :before] = 0
    rows[:, before + c :] = 0
    run_sums[length:] = 0
    np.multiply(a, b, out=rows[:, before : before + c])

    total = scratch("total", (length,), a.dtype)
    covered, run = 0, 1  # channels in ``total`` so far; neighbours in each element of ``run_sums``
    while True:
        if size & run:
            shifted = run_sums[covered : covered + length]
            if covered:
                np.add(total, shifted, out=total)
            else:
                total = shifted if run == size else _copied(shifted, total)
            covered += run
        if covered == size:
            break
        np.add(run_sums[:-run], run_sums[run:], out=spare[:-run])
        spare[-run:] = 0
        run_sums, spare = spare, run_sums
        run *= 2
    np.copyto(out, total.reshape(m, width)[:, :c])


def _copied(source: Array, target: Array) -> Array:
    np.copyto(target, source)
    return target
