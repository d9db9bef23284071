"""Buffers that each thread keeps from block to block: data stays in cache, and memory is not asked for again."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

_local = threading.local()

ALIGNMENT = 64  # bytes: a cache line, and the widest vector load
KEPT_BYTES = 8 << 20  # a larger buffer is for one use
SHORT = 1024  # elements of a ufunc's buffer: a few of them fit into the L1 cache


def scratch(name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """This thread's buffer ``name`` as an uninitialised array; the next call with that name gives the same memory."""
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    buffers: dict[str, NDArray[np.uint8]] = _local.__dict__
    buffer = buffers.get(name)
    if buffer is None or buffer.size < size:
        raw = np.empty(size + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        buffer = raw[start : start + size]
        if size <= KEPT_BYTES:
            buffers[name] = buffer
    return np.ndarray(shape, kind, buffer)


@contextmanager
def short_buffers(elements: int = SHORT) -> Iterator[None]:
    """Elementwise operations of this thread on strided or mixed operands go through buffers that stay in L1.

    NumPy copies operands whose inner runs are shorter than its buffer piece by piece, and casts them there. With its
    own size, 8192 elements, that takes up to twice as long. Float sums over strided arrays may get other bits: where
    they are taken, each block of work must be within or each without. Runs of ``elements`` or more are not copied.
    """
    before = np.setbufsize(elements)
    try:
        yield
    finally:
        np.setbufsize(before)
