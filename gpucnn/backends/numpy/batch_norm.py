"""Batch normalisation over the rows of channels-last memory, with few passes over it.

Work is cut into pieces that stay in cache, so that x is read from memory twice and y written once forward, and x and dy
are read twice and dx written once backward. What is known by channel is repeated to the length of a piece: NumPy works
on arrays of one shape in one loop, and twice as fast as on rows that share one. Sums over rows are products with a
vector of ones or einsum's, and pieces' sums are added in float64 in the order of the pieces.

Values by channel are taken from x itself, as x * scale + shift, where that loses no more than four bits to x - mean:
where no mean is farther from zero than four standard deviations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import activation as smooth
from gpucnn.backends.numpy import memory
from gpucnn.backends.numpy.elementwise import BITS
from gpucnn.backends.numpy.scratch import scratch
from gpucnn.backends.numpy.threads import for_each, single_blas_thread
from gpucnn.backends.numpy.wide_rows import WIDTH, column_dots, column_sums, cut, cuts, tiles, wide_pieces

Array = NDArray[Any]
Statistics = tuple[Array, Array | None, Array]
Apply = Callable[[Array, Array, slice], None]  # (x, out, at): the same elements of both, and where they are

SAMPLE = 16  # one wide row of so many gives the shift
LEAST_SAMPLE = 8  # wide rows for it, where there are as many
SHIFTING = 64  # wide rows of all of x that say whether it is shifted, and by what
FAR = 16  # mean of x * x over variance, from which x is centred before it is scaled
FAR_SUM = 4  # the same for the variance itself; half of it for the sample


def statistics(x: Array, running_mean: Array | None, running_var: Array | None, momentum: float) -> Statistics:
    """mean, what rounding took from it, and variance, each (C,), of x (..., C); the running ones are updated in place.

    Where a sample says that some channel is far from zero, x is shifted by the sample's means. A piece that is far from
    zero all the same is summed again, shifted by the mean of one of 16 of its own wide rows: whatever the values are,
    that is at most four standard deviations from the piece's mean, so the difference of its two sums loses no more than
    about four bits. Pieces are then joined as Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances" (1979), do.
    """
    rows = x.reshape(-1, x.shape[-1])
    count, channels = rows.shape
    pieces = wide_pieces(rows)
    shifts = np.zeros((len(pieces), channels), x.dtype)
    sums = np.zeros((len(pieces), 2, channels))  # of each piece: of x - shift and of its square

    def run(index: int) -> None:
        part = pieces[index].of(rows)
        if shift is not None:
            moved = scratch("moved", part.shape, x.dtype)
            for start in range(0, part.size, len(shift)):
                at = slice(start, min(start + len(shift), part.size))
                np.subtract(part.reshape(-1)[at], shift[: at.stop - start], out=moved.reshape(-1)[at])
            part = moved
        sums[index] = column_sums(part, channels), column_dots(part, part, channels)

    def run_again(index: int) -> None:
        part = pieces[index].of(rows)
        moved = scratch("moved", part.shape, x.dtype)
        sample = part[:: max(min(len(part) // LEAST_SAMPLE, SAMPLE), 1)]
        shifts[index] = column_sums(sample, channels) * (channels / sample.size)
        np.subtract(part, np.tile(shifts[index], pieces[index].repeats), out=moved)
        sums[index] = column_sums(moved, channels), column_dots(moved, moved, channels)

    sizes = np.array([piece.rows for piece in pieces], np.float64)[:, None]
    with single_blas_thread:
        centre = _centre(rows) if count else None
        shift = None if centre is None else tiles(x, centre)[0]
        if centre is not None:
            shifts[...] = centre
        for_each(run, range(len(pieces)), 2 * x.size)
        first, second = sums[:, 0], sums[:, 1]
        near = (FAR_SUM * first * first <= (FAR_SUM - 1) * second * sizes) & (second < np.inf)
        for_each(run_again, np.flatnonzero(~near.all(axis=1)).tolist(), 2 * x.size)
    # Means are counted from the first piece's shift: far from zero, their differences would lose digits.
    base = shifts[:1]
    means, squares = shifts - base + first / sizes, second - first * first / sizes
    middle = (sizes * means).sum(axis=0) / max(count, 1)
    total = np.maximum((squares + sizes * (means - middle) ** 2).sum(axis=0), 0)
    mean = base.sum(axis=0, dtype=np.float64) + middle
    for running, value in ((running_mean, mean), (running_var, total / max(count - 1, 1))):
        if running is not None and count:
            running[...] = (1 - momentum) * running + momentum * value
    rounded = mean.astype(x.dtype)
    return rounded, (mean - rounded).astype(x.dtype), (total / max(count, 1)).astype(x.dtype)


def _centre(rows: Array) -> Array | None:
    """The means of a sample, None where all of them are near enough to zero."""
    channels = rows.shape[1]
    repeats = max(WIDTH // channels, 1)
    wide = len(rows) // repeats
    sample = rows[: wide * repeats].reshape(wide, -1)[:: max(wide // SHIFTING, 1)] if wide else rows
    first, second = column_sums(sample, channels), column_dots(sample, sample, channels)
    count = sample.size / channels
    near = FAR_SUM * first * first <= (FAR_SUM - 2) * second * count
    return None if near.all() else (first / count).astype(rows.dtype)


def forward(
    x: Array,
    statistics: Statistics,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    activation: str | None = None,
) -> Array:
    """y = f((x - mean) / sqrt(var + eps) * weight + bias), like x (..., C), f by the name in ``activation``."""
    scale, level = _scaling(x, statistics, weight, bias, eps)
    rectifies, (nothing,) = activation == "relu", tiles(x, 0)
    y = memory.empty(x.shape, x.dtype)
    xs, ys = x.reshape(-1), y.reshape(-1)

    def run(at: slice) -> None:
        out = ys[at]
        scale(xs[at], out)
        np.add(out, level[: len(out)], out=out)
        if rectifies:
            np.maximum(out, nothing[: len(out)], out=out)

    for_each(run, cuts(x), 2 * x.size)
    return y if activation is None or rectifies else _smooth(activation, y, False)[0]


def backward(
    dy: Array,
    x: Array,
    statistics: Statistics,
    weight: Array | None,
    eps: float,
    training: bool,
    needs: tuple[bool, bool, bool],
    bias: Array | None = None,
    activation: str | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """dx like x, dweight and dbias (C,), each None unless needed, as base.py states them."""
    need_x, need_weight, need_bias = needs
    channels = x.shape[-1]
    before = None
    if activation == "relu":
        before = _relu_backward(dy, x, statistics, weight, bias, eps)
    elif activation is not None:
        z = forward(x, statistics, weight, bias, eps)
        dy = smooth.backward(dy, _smooth(activation, z, True)[1])  # type: ignore[arg-type]
    # What the ReLU leaves of dy is written where dx will be, and read there.
    dx = memory.empty(dy.shape, dy.dtype) if need_x or before is not None else None
    dys, xs = dy.reshape(-1, channels), x.reshape(-1, channels)
    dzs = dys if before is None or dx is None else dx.reshape(-1, channels)
    inverse = _inverse_std(statistics, eps)
    scale = inverse * (1.0 if weight is None else weight)
    centred = need_weight or (need_x and training)
    products, sums = np.zeros(channels), np.zeros(channels)
    if centred or need_bias or before is not None:
        products, sums = _sums(dzs, xs, statistics, eps, centred, before)
    if need_x and dx is not None:
        slope = products * inverse**2 / max(len(xs), 1) if training else np.zeros(channels)
        level = sums / max(len(xs), 1) if training else np.zeros(channels)
        _input_gradient(dzs, xs, dx.reshape(-1), statistics, eps, scale, slope, level)
    dweight = (products * inverse).astype(x.dtype) if need_weight else None
    return dx if need_x else None, dweight, sums.astype(x.dtype) if need_bias else None


def _smooth(activation: str, z: Array, slope: bool) -> tuple[Array, Array | None]:
    """The activation of that name at z, and with ``slope`` its derivative there."""
    if activation == "silu":
        return smooth.silu_forward(z, slope)
    return smooth.gelu_forward(z, activation == "gelu_tanh", slope)


def _scaling(
    x: Array, statistics: Statistics, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Callable[[Array, Array], None], Array]:
    """(part, out) -> None on flat pieces of whole rows, and the tile to add to ``out`` after it: together
    (part - mean) / sqrt(var + eps) * weight + bias.
    """
    scale, near = _inverse_std(statistics, eps) * (1.0 if weight is None else weight), _near(statistics, eps)
    shift = (0.0 if bias is None else bias.astype(np.float64)) - _missing(statistics, near) * scale
    centre, factor, level = tiles(x, statistics[0], scale, shift)

    def run(part: Array, out: Array) -> None:
        if not near:
            part = np.subtract(part, centre[: len(part)], out=out)
        np.multiply(part, factor[: len(part)], out=out)

    return run, level


def _relu_backward(
    dy: Array, x: Array, statistics: Statistics, weight: Array | None, bias: Array | None, eps: float
) -> Apply:
    """(part, out, at), of x at ``at``: out = dy where the output is positive, else 0."""
    scale, level = _scaling(x, statistics, weight, bias, eps)
    least, dys, bits = -level, dy.reshape(-1), BITS[x.itemsize]

    def run(part: Array, out: Array, at: slice) -> None:
        z = scratch("moved", part.shape, part.dtype)
        wins, factors = scratch("wins", part.shape, np.bool_), scratch("factors", part.shape, bits)
        scale(part, z)
        np.greater(z, least[: len(z)], out=wins)  # z + level > 0, whose rounding never changes its sign
        np.copyto(factors, wins)
        np.multiply(dys[at].view(bits), factors, out=out.view(bits))  # of floats, 0 * inf would be NaN

    return run


def _sums(
    dzs: Array, xs: Array, statistics: Statistics, eps: float, centred: bool, before: Apply | None
) -> tuple[Array, Array]:
    """The sums of dz (x - mean), zeros unless ``centred``, and of dz, each (C,) float64; ``before`` fills dz piece by
    piece.
    """
    channels, near = xs.shape[1], _near(statistics, eps)
    flat_x, flat_dz, size = xs.reshape(-1), dzs.reshape(-1), cut(xs)
    pieces = wide_pieces(xs)
    totals = np.zeros((len(pieces), 2, channels))
    centres = {} if near else {n: np.tile(statistics[0], n) for n in {piece.repeats for piece in pieces}}

    def run(index: int) -> None:
        piece = pieces[index]
        if before is not None:
            for start in range(piece.start * channels, piece.stop * channels, size):
                at = slice(start, min(start + size, piece.stop * channels))
                before(flat_x[at], flat_dz[at], at)
        gradient, part = piece.of(dzs), piece.of(xs)
        totals[index, 1] = column_sums(gradient, channels)
        if centred and not near:
            part = np.subtract(part, centres[piece.repeats], out=scratch("moved", part.shape, xs.dtype))
        if centred:
            totals[index, 0] = column_dots(part, gradient, channels)

    with single_blas_thread:
        for_each(run, range(len(pieces)), 2 * xs.size)
    products, sums = totals.sum(axis=0)
    if not centred:
        return products, sums
    return products - _missing(statistics, near) * sums, sums


def _input_gradient(
    dzs: Array, xs: Array, dx: Array, statistics: Statistics, eps: float, scale: Array, slope: Array, level: Array
) -> None:
    """dx = scale * (dz - level - (x - mean) * slope); ``dx`` may be dz. In training mean and variance depend on x."""
    flat_x, flat_dz = xs.reshape(-1), dzs.reshape(-1)
    if not slope.any() and not level.any():
        (factor,) = tiles(xs, scale)

        def run_scaled(at: slice) -> None:
            np.multiply(flat_dz[at], factor[: at.stop - at.start], out=dx[at])

        for_each(run_scaled, cuts(xs), xs.size)
        return
    near = _near(statistics, eps)
    shifts = _missing(statistics, near) * slope - level
    centre, tilt, shift, factor = tiles(xs, statistics[0], -slope, shifts, scale)

    def run(at: slice) -> None:
        size, part = at.stop - at.start, flat_x[at]
        moved = scratch("moved", (size,), xs.dtype)
        if not near:
            part = np.subtract(part, centre[:size], out=moved)
        np.multiply(part, tilt[:size], out=moved)
        np.add(moved, shift[:size], out=moved)
        np.add(moved, flat_dz[at], out=moved)
        np.multiply(moved, factor[:size], out=dx[at])

    for_each(run, cuts(xs), 4 * xs.size)


def _inverse_std(statistics: Statistics, eps: float) -> Array:
    return 1.0 / np.sqrt(statistics[2].astype(np.float64) + eps)


def _mean(statistics: Statistics) -> Array:
    """The mean with what rounding took from it."""
    mean, rest, _ = statistics
    return mean.astype(np.float64) if rest is None else mean.astype(np.float64) + rest


def _missing(statistics: Statistics, near: bool) -> Array:
    """What sums of x, or where means are far from zero those of x - mean, have too much in each term."""
    if near:
        return _mean(statistics)
    return np.zeros(1) if statistics[1] is None else statistics[1].astype(np.float64)


def _near(statistics: Statistics, eps: float) -> bool:
    """Whether the mean of no channel is far from zero, in standard deviations."""
    return bool((np.square(_mean(statistics)) <= (FAR - 1) * (statistics[2].astype(np.float64) + eps)).all())
