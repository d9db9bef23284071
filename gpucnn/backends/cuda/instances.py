"""Which instance of a family of kernels takes arrays of a dtype: its source, its name, and what a thread owns.

Names end in what lies in memory (kernels/lanes.cuh): nothing for float, ``_vec4`` for float4, ``_float16`` and
``_bfloat16`` for one half, ``_float16x8`` and ``_bfloat16x8`` for eight. Half instances have a source of their own,
which is compiled on first use.
"""

from __future__ import annotations

from typing import Any

from gpucnn.backends.base import Array
from gpucnn.backends.launch import address

VECTOR_BYTES = 16  # what one instruction moves at most


def lanes(*arrays: Array) -> int:
    """How many neighbouring elements a thread may move at once: as many as 16 bytes hold, where all arrays start at a
    multiple of 16 bytes and hold a multiple of so many elements, else one.
    """
    count = VECTOR_BYTES // int(arrays[0].dtype.itemsize)
    return count if all(array.size % count == 0 and address(array) % VECTOR_BYTES == 0 for array in arrays) else 1


def channel_lanes(channels: int, *arrays: Array) -> int:
    """The same for neighbouring channels of the last axis, which must not reach into the next pixel."""
    count = lanes(*arrays)
    return count if channels % count == 0 else 1


def source(family: str, dtype: Any) -> str:
    """The source that has the instances for ``dtype``: "relu.cu" or "relu_half.cu"."""
    return f"{family}.cu" if dtype.itemsize == 4 else f"{family}_half.cu"


def suffix(dtype: Any, count: int) -> str:
    """How the name of the instance ends whose threads own ``count`` elements of ``dtype``."""
    if dtype.itemsize == 4:
        return "_vec4" if count > 1 else ""
    return f"_{dtype.name}" + (f"x{count}" if count > 1 else "")


def elementwise(family: str, name: str, *arrays: Array) -> tuple[str, str, int]:
    """Source, kernel and the number of elements or vectors for arrays of one size and dtype."""
    count, dtype = lanes(*arrays), arrays[0].dtype
    return source(family, dtype), name + suffix(dtype, count), int(arrays[0].size) // count
