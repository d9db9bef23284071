"""GELU and SiLU over pieces of memory that stay in cache; forward computes the derivative too, as it is cheap there.

In float32 the normal distribution function is Phi(x) = (1 + tanh(x P(x^2))) / 2 with a polynomial P of degree 6, fitted
so that the largest error of Phi is least: 3e-8, half a unit in the last place of 1. It costs thirteen short passes and
a tanh, for which NumPy has vector instructions; it has no erf. In float64 Phi comes from math.erfc, element by element:
exact to a rounding, slow, and for gradient checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import memory
from gpucnn.backends.numpy.scratch import scratch
from gpucnn.backends.numpy.threads import for_each
from gpucnn.backends.numpy.windows import spans

Array = NDArray[Any]
Piece = Callable[[Array, Array, "Array | None"], None]  # (x, y, slope or None): writes y and slope

PIECE = 1 << 15  # elements: with the four or five buffers of a piece, well within a core's cache

# P(s) = P[0] + P[1] s + ..., weighted minimax on |x| <= 6; the last is positive, so that tanh saturates beyond.
P = (
    0.7978849411010742,
    0.03633308410644531,
    -3.2594980439171195e-05,
    -5.530619091587141e-05,
    3.964743882534094e-06,
    -1.3226330963789223e-07,
    1.7561697651657937e-09,
)
ROOT_2_OVER_PI = math.sqrt(2 / math.pi)
CUBIC = 0.044715  # of the tanh approximation


def gelu_forward(x: Array, tanh: bool, slope: bool) -> tuple[Array, Array | None]:
    """y = x Phi(x), or its tanh approximation, and with ``slope`` the derivative at x."""
    return _forward(_gelu_tanh if tanh else _gelu, x, slope)


def silu_forward(x: Array, slope: bool) -> tuple[Array, Array | None]:
    """y = x / (1 + exp(-x)), and with ``slope`` the derivative at x."""
    return _forward(_silu, x, slope)


def backward(dy: Array, slope: Array) -> Array:
    """dx = dy * slope."""
    dx = memory.empty(dy.shape, dy.dtype)
    flat_dy, flat_slope, flat_dx = dy.reshape(-1), slope.reshape(-1), dx.reshape(-1)

    def run(span: tuple[int, int]) -> None:
        piece = slice(*span)
        np.multiply(flat_dy[piece], flat_slope[piece], out=flat_dx[piece])

    for_each(run, spans(dy.size, PIECE))
    return dx


def _forward(function: Piece, x: Array, slope: bool) -> tuple[Array, Array | None]:
    y = memory.empty(x.shape, x.dtype)
    derivative = memory.empty(y.shape, y.dtype) if slope else None
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    flat_slope = None if derivative is None else derivative.reshape(-1)

    def run(span: tuple[int, int]) -> None:
        piece = slice(*span)
        function(flat_x[piece], flat_y[piece], None if flat_slope is None else flat_slope[piece])

    for_each(run, spans(x.size, PIECE))
    return y, derivative


def _gelu(x: Array, y: Array, slope: Array | None) -> None:
    """Phi(x) and phi(x) = exp(-x^2 / 2) / sqrt(2 pi); the derivative is Phi + x phi."""
    square, cdf = scratch("square", x.shape, x.dtype), scratch("cdf", x.shape, x.dtype)
    np.multiply(x, x, out=square)
    if x.dtype == np.float32:
        number = x.dtype.type
        np.multiply(square, number(P[6]), out=cdf)
        for coefficient in P[5:0:-1]:
            np.add(cdf, number(coefficient), out=cdf)
            np.multiply(cdf, square, out=cdf)
        np.add(cdf, number(P[0]), out=cdf)
        np.multiply(cdf, x, out=cdf)
        _half_of_one_plus_tanh(cdf)
    else:
        cdf[...] = [math.erfc(v) / 2 for v in (x * -math.sqrt(0.5)).tolist()]
    np.multiply(x, cdf, out=y)
    if slope is not None:
        np.multiply(square, square.dtype.type(-0.5), out=square)
        np.exp(square, out=square)
        np.multiply(square, square.dtype.type(1 / math.sqrt(2 * math.pi)), out=square)
        np.multiply(square, x, out=square)
        np.add(square, cdf, out=slope)


def _gelu_tanh(x: Array, y: Array, slope: Array | None) -> None:
    """p = (1 + tanh u) / 2, u = sqrt(2 / pi) (x + 0.044715 x^3); the derivative is p + 2 x u' p (1 - p)."""
    square, p = scratch("square", x.shape, x.dtype), scratch("cdf", x.shape, x.dtype)
    number = x.dtype.type
    np.multiply(x, x, out=square)
    np.multiply(square, number(ROOT_2_OVER_PI * CUBIC), out=p)
    np.add(p, number(ROOT_2_OVER_PI), out=p)
    np.multiply(p, x, out=p)
    _half_of_one_plus_tanh(p)
    np.multiply(x, p, out=y)
    if slope is not None:
        np.multiply(square, number(6 * ROOT_2_OVER_PI * CUBIC), out=square)
        np.add(square, number(2 * ROOT_2_OVER_PI), out=square)
        rest = scratch("rest", x.shape, x.dtype)
        np.subtract(number(1), p, out=rest)
        np.multiply(rest, y, out=rest)  # the factor that is 0 far out first: the other is of the order of x^2
        np.multiply(rest, square, out=rest)
        np.add(rest, p, out=slope)


def _silu(x: Array, y: Array, slope: Array | None) -> None:
    """p = 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2; the derivative is p + x p (1 - p)."""
    p = scratch("cdf", x.shape, x.dtype)
    number = x.dtype.type
    np.multiply(x, number(0.5), out=p)
    _half_of_one_plus_tanh(p)
    np.multiply(x, p, out=y)
    if slope is not None:
        rest = scratch("rest", x.shape, x.dtype)
        np.subtract(number(1), p, out=rest)
        np.multiply(rest, y, out=rest)
        np.add(rest, p, out=slope)


def _half_of_one_plus_tanh(u: Array) -> None:
    """u = (1 + tanh u) / 2, in place."""
    half = u.dtype.type(0.5)
    np.tanh(u, out=u)
    np.multiply(u, half, out=u)
    np.add(u, half, out=u)
