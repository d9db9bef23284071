"""Adaptive max and average pooling, over blocks of images; a window is a slice of rows and one of columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import memory
from gpucnn.backends.numpy.threads import for_each
from gpucnn.backends.numpy.windows import spans
from gpucnn.geometry import AdaptivePool2dGeometry, adaptive_windows

Array = NDArray[Any]

BLOCK_BYTES = 1 << 20  # of a block's images, the larger of input and output


def max_forward(x: Array, g: AdaptivePool2dGeometry) -> tuple[Array, Array]:
    """y and index (N,P,Q,C): the maximum of each window and its place h*W + w, the first of equals, NaN above all."""
    y, index = memory.empty(g.output_shape, x.dtype), memory.empty(g.output_shape, np.int32)
    down, across = adaptive_windows(g.H, g.P), adaptive_windows(g.W, g.Q)

    def run(span: tuple[int, int]) -> None:
        images = slice(*span)
        for p, (top, bottom) in enumerate(down):
            for q, (left, right) in enumerate(across):
                window = x[images, top:bottom, left:right]
                taps = window.reshape(len(window), -1, g.C)
                tap = taps.argmax(axis=1)  # NaN counts as the largest
                y[images, p, q] = np.take_along_axis(taps, tap[:, None], axis=1)[:, 0]
                index[images, p, q] = (top + tap // (right - left)) * g.W + left + tap % (right - left)

    for_each(run, _blocks(g, x.itemsize))
    return y, index


def max_backward(dy: Array, index: Array, g: AdaptivePool2dGeometry) -> Array:
    """dx (N,H,W,C): each dy (N,P,Q,C) added to the input that ``index`` names, in the order of the windows."""
    dx = np.zeros(g.input_shape, dy.dtype)
    pixels = dx.reshape(g.N, g.H * g.W, g.C)
    channels = np.arange(g.C)

    def run(span: tuple[int, int]) -> None:
        images = np.arange(*span)[:, None]
        for p, q in np.ndindex(g.P, g.Q):  # within one window every (image, channel) names one input
            pixels[images, index[slice(*span), p, q], channels] += dy[slice(*span), p, q]

    for_each(run, _blocks(g, dy.itemsize))
    return dx


def avg_forward(x: Array, g: AdaptivePool2dGeometry) -> Array:
    """y (N,P,Q,C), the mean of each window: sums of rows, then of columns."""
    y = memory.empty(g.output_shape, x.dtype)
    down, across = adaptive_windows(g.H, g.P), adaptive_windows(g.W, g.Q)
    counts = _counts(g, x.dtype)

    def run(span: tuple[int, int]) -> None:
        images = slice(*span)
        _sums(x[images], down, across, y[images])
        np.divide(y[images], counts, out=y[images])

    for_each(run, _blocks(g, x.itemsize))
    return y


def avg_backward(dy: Array, g: AdaptivePool2dGeometry) -> Array:
    """dx (N,H,W,C): an input adds up the shares of the windows that hold it, which follow one another too."""
    dx = memory.empty(g.input_shape, dy.dtype)
    down, across = adaptive_windows(g.P, g.H), adaptive_windows(g.Q, g.W)
    counts = _counts(g, dy.dtype)

    def run(span: tuple[int, int]) -> None:
        images = slice(*span)
        _sums(dy[images] / counts, down, across, dx[images])

    for_each(run, _blocks(g, dy.itemsize))
    return dx


def _sums(x: Array, down: list[tuple[int, int]], across: list[tuple[int, int]], out: Array) -> None:
    """out (N,P,Q,C): the sums of x (N,H,W,C) over windows of rows and columns."""
    rows = memory.empty((len(x), len(down), *x.shape[2:]), x.dtype)
    for p, (top, bottom) in enumerate(down):
        x[:, top:bottom].sum(axis=1, out=rows[:, p])
    for q, (left, right) in enumerate(across):
        rows[:, :, left:right].sum(axis=2, out=out[:, :, q])


def _counts(g: AdaptivePool2dGeometry, dtype: Any) -> Array:
    """(P, Q, 1): how many inputs each window holds."""
    heights, widths = (
        [high - low for low, high in adaptive_windows(inputs, outputs)] for inputs, outputs in ((g.H, g.P), (g.W, g.Q))
    )
    return np.outer(heights, widths).astype(dtype)[:, :, None]


def _blocks(g: AdaptivePool2dGeometry, itemsize: int) -> list[tuple[int, int]]:
    image_bytes = max(g.H * g.W, g.P * g.Q) * g.C * itemsize
    return spans(g.N, max(BLOCK_BYTES // max(image_bytes, 1), 1))
