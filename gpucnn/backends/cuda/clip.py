"""The norm of all gradients, and their clipping, on kernels/clip.cu."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import chunks

SOURCE = "clip.cu"


def total_norm(backend: Any, arrays: Sequence[Array], order: float) -> Array:
    """The ``order`` norm (1,) of all elements together."""
    kind = 0 if math.isinf(order) else int(order) if order in (1, 2) else 3
    power = 1.0 if math.isinf(order) else order
    sizes = tuple(int(array.size) for array in arrays if array.size)
    partial = backend.empty(chunks.tables_of(backend, sizes)[-1])
    total = backend.empty(1)
    counter = backend.counters(1)
    chunks.launch(backend, SOURCE, "total_norm", [arrays], partial, total, counter, kind, power, 1.0 / power)
    return total


def clip_all(backend: Any, arrays: Sequence[Array], norm: Array, limit: float, small: float) -> None:
    """Multiplies all arrays by min(1, limit / (norm + small)), in place."""
    chunks.launch(backend, SOURCE, "clip_all", [arrays], norm, limit, small)


def clamp_all(backend: Any, arrays: Sequence[Array], limit: float) -> None:
    """Brings all elements into [-limit, limit], in place."""
    chunks.launch(backend, SOURCE, "clamp_all", [arrays], limit)
