"""3x3 convolutions at stride 1 by Winograd's F(4x4, 3x3): fprop and dgrad with 36 products for 144.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (2016). The points 2 and -2 cost digits: results are
within 32 eps S, not 4, so this way is taken only where ``GPUCNN_WINOGRAD=4x4`` asks for it. The code is that of the
5x5 form (:mod:`winograd5`), which has tiles of 4 x 4 outputs too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import memory
from gpucnn.backends.numpy.winograd5 import Form, correlate, transform_filters
from gpucnn.geometry import Conv2dGeometry

Array = NDArray[Any]

# The points 0, 1, -1, 2, -2 and infinity.
FORM = Form(
    inputs=np.array(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ]
    ),
    taps=np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24,
    outputs=np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]),
    every_output=1,
)


def fprop(
    x: Array, w: Array, bias: Array | None, g: Conv2dGeometry, activation: str | None, direct: Callable[..., Array]
) -> Array:
    """y (N,P,Q,K) of x (N,H,W,C), w (K,3,3,C) and bias (K,); ``direct``, of the same arguments, is another way to
    compute it, for images with values that are not finite."""
    y = memory.empty(g.output_shape, x.dtype)
    u = transform_filters(w, False, FORM)
    for a, b in correlate(x, u, bias, y, (g.pad_top, g.pad_left), activation == "relu", FORM):
        y[a:b] = direct(x[a:b], w, bias, replace(g, N=b - a), activation)
    return y


def dgrad(dy: Array, w: Array, g: Conv2dGeometry, direct: Callable[..., Array]) -> Array:
    """dx (N,H,W,C) of dy (N,P,Q,K) and w (K,3,3,C), ``direct`` as in :func:`fprop`."""
    dx = memory.empty(g.input_shape, dy.dtype)
    u = transform_filters(w, True, FORM)
    for a, b in correlate(dy, u, None, dx, (2 - g.pad_top, 2 - g.pad_left), False, FORM):
        dx[a:b] = direct(dy[a:b], w, replace(g, N=b - a))
    return dx
