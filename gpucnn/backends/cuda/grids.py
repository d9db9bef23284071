"""Launch shapes that several families of kernels share."""

from __future__ import annotations

from gpucnn.backends.base import Array
from gpucnn.backends.launch import address

THREADS = 256  # threads of a block; every kernel here is bounded for it
MAX_BLOCKS = 16384  # four million threads fill any GPU; kernels walk on by grid strides
MAX_ROW_BLOCKS = 65535  # CUDA's limit of gridDim.y


def ceil_div(a: int, b: int) -> int:
    """The least integer not below a / b."""
    return -(-a // b)


def blocks(work: int, per_block: int = THREADS) -> int:
    """The grid for ``work`` items of which a block takes ``per_block`` at a time; 0 for no work."""
    return min(ceil_div(work, per_block), MAX_BLOCKS)


def fits_vectors(*arrays: Array) -> bool:
    """Whether a kernel may read and write the arrays as float4: sizes in fours, starts at multiples of 16 bytes."""
    return all(array.size % 4 == 0 and address(array) % 16 == 0 for array in arrays)


def instance(name: str, *arrays: Array) -> tuple[str, int]:
    """The instance of kernel ``name`` for these arrays of one size, and how many elements or float4 they hold."""
    size = int(arrays[0].size)
    return (f"{name}_vec4", size // 4) if fits_vectors(*arrays) else (name, size)


def power_of_two(size: int, least: int, most: int) -> int:
    """The least power of two that is not below ``size``, kept in [least, most], two powers of two."""
    return max(least, min(most, 1 << max(size - 1, 0).bit_length()))
