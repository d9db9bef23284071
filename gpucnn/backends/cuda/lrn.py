"""Local response normalisation on kernels/lrn.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import elementwise
from gpucnn.backends.cuda.grids import MAX_BLOCKS, THREADS, blocks, ceil_div

SOURCE = "lrn.cu"
GROUP_ELEMENTS = 1024  # what a block of lrn_backward holds in shared memory, in whole rows
MOST_SHARED = 48 * 1024 // 4  # floats; longer rows are worked on without shared memory


def forward(backend: Any, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    """y like x (..., C)."""
    return _forward(backend, x, size, alpha, beta, k)[0]


def _forward(backend: Any, x: Array, size: int, alpha: float, beta: float, k: float) -> tuple[Array, Array]:
    channels = x.shape[-1]
    y, scale = backend.empty(x.shape, np.float32), backend.empty(x.shape, np.float32)
    backend.launch(
        SOURCE, "lrn_forward", blocks(x.size), THREADS,
        x, y, scale, x.size // channels, channels, size // 2, (size - 1) // 2, alpha / size, beta, k,
    )  # fmt: skip
    return y, scale


def backward(
    backend: Any, dy: Array, x: Array, size: int, alpha: float, beta: float, k: float, mask: bool = False
) -> Array:
    """dx like x (..., C); with ``mask`` 0 where not x > 0."""
    scale = _forward(backend, x, size, alpha, beta, k)[1]
    channels = x.shape[-1]
    rows = x.size // channels
    group = max(GROUP_ELEMENTS // channels, 1) if channels <= MOST_SHARED else 0
    dx = backend.empty(x.shape, np.float32)
    backend.launch(
        SOURCE, "lrn_backward", min(ceil_div(rows, max(group, 1)), MAX_BLOCKS), THREADS,
        dy, x, scale, dx, rows, channels, size // 2, (size - 1) // 2, 2.0 * alpha * beta / size, beta, group,
        shared_mem=4 * group * channels,
    )  # fmt: skip
    return elementwise.relu_backward(backend, dx, x) if mask else dx
