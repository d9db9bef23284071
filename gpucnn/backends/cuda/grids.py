"""Launch shapes that several families of kernels share."""

from __future__ import annotations

THREADS = 256  # threads of a block; every kernel here is bounded for it
MAX_BLOCKS = 16384  # four million threads fill any GPU; kernels walk on by grid strides
MAX_ROW_BLOCKS = 65535  # CUDA's limit of gridDim.y


def ceil_div(a: int, b: int) -> int:
    """The least integer not below a / b."""
    return -(-a // b)


def blocks(work: int, per_block: int = THREADS) -> int:
    """The grid for ``work`` items of which a block takes ``per_block`` at a time; 0 for no work."""
    return min(ceil_div(work, per_block), MAX_BLOCKS)


def power_of_two(size: int, least: int, most: int) -> int:
    """The least power of two that is not below ``size``, kept in [least, most], two powers of two."""
    return max(least, min(most, 1 << max(size - 1, 0).bit_length()))
