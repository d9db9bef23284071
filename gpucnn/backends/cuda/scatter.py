"""Indexing that accumulates repeated indices in order, on kernels/scatter.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.backends.base import Array
from gpucnn.backends.cuda.grids import THREADS, blocks


def add(backend: Any, size: int, positions: Array, values: Array) -> Array:
    """out (size,) from zeros: out[positions[i]] += values[i] for i = 0, 1, ...; positions (M,) int64, values (M,)."""
    xp, count = backend.xp, int(positions.size)
    out = xp.zeros(size, np.float32)
    if count == 0:
        return out
    shift = count.bit_length()
    if size.bit_length() + shift > 63:
        raise ValueError(f"scatter_add: {size} elements and {count} indices are too many for one sort")
    # All keys differ, so the order among equal positions is that of i whatever sorting method xp has.
    keys = (positions.astype(np.int64) << shift) | xp.arange(count, dtype=np.int64)
    keys.sort()
    backend.launch("scatter.cu", "scatter_add_sorted", blocks(count), THREADS, keys, values, out, count, shift)
    return out
