"""GELU, SiLU and adaptive pooling by their formulas, like tests/support/reference.py."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpucnn.geometry import AdaptivePool2dGeometry
from tests.support.reference import Reference

Array = NDArray[Any]


def erf(x: Array) -> Array:
    """2 / sqrt(pi) exp(-x^2) times the sum of 2^n x^(2n + 1) / (2n + 1)!!, terms of one sign; in long double."""
    wide = np.minimum(abs(x).astype(np.longdouble), 7)  # 1 - erf(7) is 4e-23
    term = wide.copy()
    total = np.zeros_like(wide)
    for n in range(220):
        total += term
        term *= 2 * wide * wide / (2 * n + 3)
    value = 2 / np.sqrt(np.arccos(np.longdouble(-1))) * np.exp(-wide * wide) * total
    return (np.sign(x) * value).astype(x.dtype)


def gelu_forward(x: Array, tanh: bool = False, dtype: DTypeLike = np.float64) -> Reference:
    """x Phi(x), or the approximation by tanh."""

    def value(x: Array) -> Array:
        return x * ((1 + (np.tanh(_cubic(x)) if tanh else erf(x / np.sqrt(x.dtype.type(2))))) / 2)

    return Reference(value(x.astype(dtype)), value(abs(x.astype(dtype))))


def _cubic(x: Array) -> Array:
    root = np.sqrt(2 / np.arccos(np.longdouble(-1))).astype(x.dtype)
    return np.asarray(root * (x + x.dtype.type("0.044715") * x * x * x))


def gelu_backward(dy: Array, x: Array, tanh: bool = False, dtype: DTypeLike = np.float64) -> Reference:
    """dy times the derivative at x."""

    def slope(x: Array, sign: int) -> Array:
        real = x.dtype.type
        if not tanh:
            density = np.exp(-x * x / 2) / np.sqrt(2 * np.arccos(np.longdouble(-1))).astype(x.dtype)
            return np.asarray((1 + erf(x / np.sqrt(real(2)))) / 2 + x * density)
        t = np.tanh(_cubic(x))
        inner = _cubic(np.ones_like(x)) / real("1.044715") * (1 + 3 * real("0.044715") * x * x)
        return np.asarray((1 + t) / 2 + x * (1 - sign * t * t) * inner / 2)

    dy, x = dy.astype(dtype), x.astype(dtype)
    return Reference(dy * slope(x, 1), abs(dy) * slope(abs(x), -1))


def silu_forward(x: Array, dtype: DTypeLike = np.float64) -> Reference:
    """x / (1 + exp(-x))."""
    x = x.astype(dtype)
    return Reference(x * _sigmoid(x), abs(x) * _sigmoid(abs(x)))


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):  # 1 / inf is 0
        return np.asarray(1 / (1 + np.exp(-x)))


def silu_backward(dy: Array, x: Array, dtype: DTypeLike = np.float64) -> Reference:
    """dy times the derivative at x."""
    dy, x = dy.astype(dtype), x.astype(dtype)
    s, most = _sigmoid(x), _sigmoid(abs(x))
    return Reference(dy * (s + x * s * (1 - s)), abs(dy) * (most + abs(x) * most))


def _windows(g: AdaptivePool2dGeometry) -> list[tuple[int, int, list[int], list[int]]]:
    """(p, q, rows, columns): what each output sees, from fractions."""

    def seen(i: int, inputs: int, outputs: int) -> list[int]:
        low, high = floor(Fraction(i * inputs, outputs)), ceil(Fraction((i + 1) * inputs, outputs))
        return [place for place in range(inputs) if low <= place < high]

    return [(p, q, seen(p, g.H, g.P), seen(q, g.W, g.Q)) for p in range(g.P) for q in range(g.Q)]


def adaptive_max_pool2d_forward(x: Array, g: AdaptivePool2dGeometry) -> tuple[Array, Array]:
    """y and the place h*W + w of each maximum, the first of equals, the first NaN above all; exact."""
    y, index = np.empty(g.output_shape, x.dtype), np.full(g.output_shape, -1, np.int64)
    for p, q, rows, columns in _windows(g):
        for h in rows:
            for w in columns:
                value, best = x[:, h, w], y[:, p, q]
                first = index[:, p, q] < 0
                wins = first | (value > best) | (np.isnan(value) & ~np.isnan(best))
                y[:, p, q] = np.where(wins, value, best)
                index[:, p, q] = np.where(wins, h * g.W + w, index[:, p, q])
    return y, index


def adaptive_max_pool2d_backward(
    dy: Array, index: Array, g: AdaptivePool2dGeometry, dtype: DTypeLike = np.float64
) -> Reference:
    """dx (N,H,W,C)."""

    def scatter(values: Array) -> Array:
        dx = np.zeros(g.input_shape, values.dtype)
        for p, q, rows, columns in _windows(g):
            for h in rows:
                for w in columns:
                    dx[:, h, w] += np.where(index[:, p, q] == h * g.W + w, values[:, p, q], 0)
        return dx

    return Reference(scatter(dy.astype(dtype)), scatter(abs(dy.astype(dtype))))


def adaptive_avg_pool2d_forward(x: Array, g: AdaptivePool2dGeometry, dtype: DTypeLike = np.float64) -> Reference:
    """y (N,P,Q,C)."""

    def means(x: Array) -> Array:
        y = np.zeros(g.output_shape, x.dtype)
        for p, q, rows, columns in _windows(g):
            for h in rows:
                for w in columns:
                    y[:, p, q] += x[:, h, w]
            y[:, p, q] /= x.dtype.type(len(rows) * len(columns))
        return y

    return Reference(means(x.astype(dtype)), means(abs(x.astype(dtype))))


def adaptive_avg_pool2d_backward(dy: Array, g: AdaptivePool2dGeometry, dtype: DTypeLike = np.float64) -> Reference:
    """dx (N,H,W,C)."""

    def shares(dy: Array) -> Array:
        dx = np.zeros(g.input_shape, dy.dtype)
        for p, q, rows, columns in _windows(g):
            for h in rows:
                for w in columns:
                    dx[:, h, w] += dy[:, p, q] / dy.dtype.type(len(rows) * len(columns))
        return dx

    return Reference(shares(dy.astype(dtype)), shares(abs(dy.astype(dtype))))
