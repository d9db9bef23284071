"""Batch normalisation over the rows of channels-last memory, with few passes over it.

Work is cut into pieces that stay in cache; every step of a piece reads and writes it there, so that x is read from
memory twice and y written once forward, and x and dy are read twice and dx written once backward. Channels are few
beside what an inner loop of NumPy needs to be fast, so several rows are worked on as one wide row. Sums over rows are
products with a vector of ones, and pieces' sums are added in float64 in the order of the pieces.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import activation as smooth
from gpucnn.backends.numpy import elementwise, memory
from gpucnn.backends.numpy.scratch import scratch
from gpucnn.backends.numpy.threads import for_each, single_blas_thread
from gpucnn.backends.numpy.windows import spans

Array = NDArray[Any]
Statistics = tuple[Array, Array | None, Array]

PIECE_BYTES = 512 << 10  # of one array; a piece works on three or four
WIDTH = 1024  # elements of a wide row, about
SAMPLE = 16  # one wide row of so many gives the shift
LEAST_SAMPLE = 8  # wide rows for it, where there are as many


def statistics(x: Array, running_mean: Array | None, running_var: Array | None, momentum: float) -> Statistics:
    """mean, what rounding took from it, and variance, each (C,), of x (..., C); the running ones are updated in place.

    Each piece is shifted by the mean of some of its wide rows, one of 16 where there are many. Whatever the values are,
    that is at most four standard deviations from the piece's mean, so the difference of its two sums loses no more than
    about four bits. Pieces are then joined as Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances" (1979), do.
    """
    rows = x.reshape(-1, x.shape[-1])
    count, channels = rows.shape
    pieces = _pieces(rows)
    totals = np.zeros((len(pieces), 2, channels))  # of each piece: mean, and sum of squared differences from it

    def run(index: int) -> None:
        part = pieces[index].of(rows)
        moved = scratch("moved", part.shape, x.dtype)
        sample = part[:: max(min(len(part) // LEAST_SAMPLE, SAMPLE), 1)]
        shift = (_column_sums(sample, channels) * (channels / sample.size)).astype(x.dtype)
        np.subtract(part, np.tile(shift, pieces[index].repeats), out=moved)
        first = _column_sums(moved, channels)
        np.multiply(moved, moved, out=moved)
        second = _column_sums(moved, channels)
        size = pieces[index].rows
        totals[index] = shift + first / size, second - first * first / size

    with single_blas_thread:
        for_each(run, range(len(pieces)))
    sizes = np.array([piece.rows for piece in pieces], np.float64)[:, None]
    mean = (sizes * totals[:, 0]).sum(axis=0) / max(count, 1)
    squares = np.maximum((totals[:, 1] + sizes * (totals[:, 0] - mean) ** 2).sum(axis=0), 0)
    for running, value in ((running_mean, mean), (running_var, squares / max(count - 1, 1))):
        if running is not None and count:
            running[...] = (1 - momentum) * running + momentum * value
    rounded = mean.astype(x.dtype)
    return rounded, (mean - rounded).astype(x.dtype), (squares / max(count, 1)).astype(x.dtype)


def forward(
    x: Array,
    statistics: Statistics,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    activation: str | None = None,
) -> Array:
    """y = f((x - mean) / sqrt(var + eps) * weight + bias), like x (..., C), f by the name in ``activation``."""
    if activation is not None:
        z = forward(x, statistics, weight, bias, eps)
        return elementwise.relu_forward(z) if activation == "relu" else _smooth(activation, z, False)[0]
    y = memory.empty(x.shape, x.dtype)
    xs, ys = x.reshape(-1, x.shape[-1]), y.reshape(-1, x.shape[-1])
    mean, rest, _ = statistics
    scale = _inverse_std(statistics, eps) * (1.0 if weight is None else weight)
    shift = (0.0 if bias is None else bias) - (0.0 if rest is None else rest) * scale
    pieces = _pieces(xs)
    wide = _Wide(pieces, x.dtype, mean, scale, shift)
    plain = not shift.any()

    def run(piece: _Piece) -> None:
        part, out = piece.of(xs), piece.of(ys)
        centre, factor, offset = wide[piece]
        np.subtract(part, centre, out=out)
        np.multiply(out, factor, out=out)
        if not plain:
            np.add(out, offset, out=out)

    for_each(run, pieces)
    return y


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
    if activation is not None:
        z = forward(x, statistics, weight, bias, eps)
        if activation == "relu":
            dy = elementwise.relu_backward(dy, z)
        else:
            dy = smooth.backward(dy, _smooth(activation, z, True)[1])  # type: ignore[arg-type]
    need_x, need_weight, need_bias = needs
    channels = x.shape[-1]
    dys, xs = dy.reshape(-1, channels), x.reshape(-1, channels)
    inverse = _inverse_std(statistics, eps)
    scale = inverse * (1.0 if weight is None else weight)
    centred = need_weight or (need_x and training)
    products, sums = np.zeros(channels), np.zeros(channels)
    if centred or need_bias:
        products, sums = _sums(dys, xs, statistics, centred)
    dx = None
    if need_x and training:
        dx = _training_gradient(dys, xs, statistics, inverse, scale, products, sums).reshape(dy.shape)
    elif need_x:
        dx = _scaled(dys, scale).reshape(dy.shape)
    dweight = (products * inverse).astype(x.dtype) if need_weight else None
    return dx, dweight, sums.astype(x.dtype) if need_bias else None


def _smooth(activation: str, z: Array, slope: bool) -> tuple[Array, Array | None]:
    """The activation of that name at z, and with ``slope`` its derivative there."""
    if activation == "silu":
        return smooth.silu_forward(z, slope)
    return smooth.gelu_forward(z, activation == "gelu_tanh", slope)


def _sums(dys: Array, xs: Array, statistics: Statistics, centred: bool) -> tuple[Array, Array]:
    """The sums of dy (x - mean), zeros unless ``centred``, and of dy, each (C,) float64."""
    mean, rest, _ = statistics
    channels = xs.shape[1]
    pieces = _pieces(xs)
    wide = _Wide(pieces, xs.dtype, mean)
    totals = np.zeros((len(pieces), 2, channels))

    def run(index: int) -> None:
        gradient = pieces[index].of(dys)
        totals[index, 1] = _column_sums(gradient, channels)
        if centred:
            part = pieces[index].of(xs)
            moved = scratch("moved", part.shape, xs.dtype)
            np.subtract(part, wide[pieces[index]][0], out=moved)
            np.multiply(moved, gradient, out=moved)
            totals[index, 0] = _column_sums(moved, channels)

    with single_blas_thread:
        for_each(run, range(len(pieces)))
    products, sums = totals.sum(axis=0)
    return products if rest is None else products - rest * sums, sums


def _training_gradient(
    dys: Array, xs: Array, statistics: Statistics, inverse: Array, scale: Array, products: Array, sums: Array
) -> Array:
    """scale * (dy - mean of dy - (x - mean) / var * mean of dy (x - mean)): mean and variance depend on x too."""
    mean, rest, _ = statistics
    slope = products * inverse**2 / max(len(xs), 1)
    level = sums / max(len(xs), 1) - (0.0 if rest is None else rest) * slope
    dxs = memory.empty(dys.shape, dys.dtype)
    pieces = _pieces(xs)
    wide = _Wide(pieces, xs.dtype, mean, slope, level, scale)

    def run(piece: _Piece) -> None:
        part, gradient, out = piece.of(xs), piece.of(dys), piece.of(dxs)
        centre, tilt, middle, factor = wide[piece]
        moved = scratch("moved", part.shape, xs.dtype)
        np.subtract(part, centre, out=moved)
        np.multiply(moved, tilt, out=moved)
        np.subtract(gradient, middle, out=out)
        np.subtract(out, moved, out=out)
        np.multiply(out, factor, out=out)

    for_each(run, pieces)
    return dxs


def _scaled(dys: Array, scale: Array) -> Array:
    dxs = memory.empty(dys.shape, dys.dtype)
    pieces = _pieces(dys)
    wide = _Wide(pieces, dys.dtype, scale)

    def run(piece: _Piece) -> None:
        np.multiply(piece.of(dys), wide[piece][0], out=piece.of(dxs))

    for_each(run, pieces)
    return dxs


def _inverse_std(statistics: Statistics, eps: float) -> Array:
    return 1.0 / np.sqrt(statistics[2].astype(np.float64) + eps)


# ---- pieces ----


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows [start, stop), worked on as rows of ``repeats`` rows each."""

    start: int
    stop: int
    repeats: int

    @property
    def rows(self) -> int:
        return self.stop - self.start

    def of(self, array: Array) -> Array:
        """The piece of ``array`` (rows, C) as (rows / repeats, repeats * C)."""
        return array[self.start : self.stop].reshape(-1, self.repeats * array.shape[1])


def _pieces(rows: Array) -> list[_Piece]:
    """The rows in pieces of whole wide rows, and one more piece for what is left."""
    count, channels = rows.shape
    repeats = max(WIDTH // channels, 1)
    wide = count // repeats
    size = max(PIECE_BYTES // (repeats * channels * rows.itemsize), 1)
    pieces = [_Piece(a * repeats, b * repeats, repeats) for a, b in spans(wide, size)]
    return [*pieces, _Piece(wide * repeats, count, 1)] if wide * repeats < count else pieces


class _Wide:
    """Per-channel values, rounded to ``dtype``, repeated to the width of each piece's rows."""

    def __init__(self, pieces: Sequence[_Piece], dtype: Any, *values: Array) -> None:
        self.values = {
            repeats: [np.tile(value.astype(dtype), repeats) for value in values]
            for repeats in {piece.repeats for piece in pieces}
        }

    def __getitem__(self, piece: _Piece) -> list[Array]:
        return self.values[piece.repeats]


def _column_sums(part: Array, channels: int) -> Array:
    """(channels,) float64: sums over the rows of a wide piece, first within the wide columns."""
    wide = np.matmul(_ones(len(part), part.dtype), part)
    return wide.reshape(-1, channels).sum(axis=0, dtype=np.float64)


@functools.lru_cache(maxsize=64)
def _ones(size: int, dtype: Any) -> Array:
    return np.ones(size, dtype)
