"""Local response normalisation on kernels/lrn.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.backends.base import Array
from gpucnn.backends.cuda.grids import MAX_BLOCKS, THREADS, blocks, ceil_div

SOURCE = "lrn.cu"
GROUP_ELEMENTS = 1024  # what a block of lrn_backward holds in shared memory, in whole rows
MOST_SHARED = 48 * 1024 // 4  # floats; longer rows are worked on without shared memory


def forward(backend: Any, x: Array, size: int, alpha: float, beta: float, k: float) -> tuple[Array, Array]:
    """y and scale, both like x (..., C)."""
    channels = x.shape[-1]
    y, scale = backend.empty(x.shape, np.float32), backend.empty(x.shape, np.float32)
    backend.launch(
        SOURCE, "lrn_forward", blocks(x.size), THREADS,
        x, y, scale, x.size // channels, channels, size // 2, (size - 1) // 2, alpha / size, beta, k,
    )  # fmt: skip
    return y, scale


def backward(backend: Any, dy: Array, x: Array, scale: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    """dx like x (..., C), from the forward's x and scale."""
    channels = x.shape[-1]
    rows = x.size // channels
    group = max(GROUP_ELEMENTS // channels, 1) if channels <= MOST_SHARED else 0
    dx = backend.empty(x.shape, np.float32)
    backend.launch(
        SOURCE, "lrn_backward", min(ceil_div(rows, max(group, 1)), MAX_BLOCKS), THREADS,
        dy, x, scale, dx, rows, channels, size // 2, (size - 1) // 2, 2.0 * alpha * beta / size, beta, group,
        shared_mem=4 * group * channels,
    )  # fmt: skip
    return dx
