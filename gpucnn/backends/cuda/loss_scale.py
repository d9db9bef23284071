"""Loss scaling that is decided on the device, on kernels/loss_scale.cu."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import chunks
from gpucnn.backends.cuda.grids import THREADS, blocks

SOURCE = "loss_scale.cu"


def scale_by(backend: Any, x: Array, factor: Array) -> Array:
    """x * factor[0], like x."""
    y = backend.empty(x.shape, np.float32)
    backend.launch(SOURCE, "scale_by", blocks(x.size), THREADS, x, factor, y, x.size)
    return y


def check_gradients(
    backend: Any, gradients: Sequence[Array], found_inf: Array, inverse_scale: Array | None = None
) -> None:
    """found_inf[0] = 1 where any gradient is not finite; unscaled first, in place, with ``inverse_scale``."""
    chunks.launch(backend, SOURCE, "check_gradients", [gradients], found_inf, inverse_scale)


def update_scale(backend: Any, state: Array, found_inf: Array, growth: float, backoff: float, interval: int) -> None:
    """The scale after a step; found_inf is left at 0."""
    backend.launch(
        SOURCE, "update_scale", 1, 1, state, found_inf, found_inf.size, growth, backoff, interval
    )  # fmt: skip
