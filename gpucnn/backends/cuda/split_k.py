"""Split-K: many blocks share one long sum, and a second kernel adds their partial sums up in a fixed order.

The number of parts follows from the sizes alone, never from the GPU or from timing, so that results are the same bits
everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpucnn.backends.base import Array
from gpucnn.backends.cuda.grids import MAX_ROW_BLOCKS, THREADS, blocks, ceil_div

STAGE = 16  # terms in the kernels' longest stage (kernels/gemm_simt.cuh): parts begin at multiples of it
ENOUGH_BLOCKS = 512  # that keep any GPU busy: a few for each of its (up to about 150) multiprocessors
SHORTEST_SUM = 128  # terms in a part; below that, writing and reading partial sums costs more than it brings
LONGEST_SUM = 512  # terms in a part: the rounding error of a running sum grows with its length
WORKSPACE = 64 << 20  # bytes of partial sums, at most


@dataclass(frozen=True, slots=True)
class Split:
    """``parts`` sums of ``length`` terms each (the last may be shorter)."""

    parts: int
    length: int


def choose(terms: int, tiles: int, size: int) -> Split:
    """How to split sums of ``terms`` terms, for ``size`` results that make ``tiles`` blocks."""
    wanted = max(ceil_div(ENOUGH_BLOCKS, max(tiles, 1)), ceil_div(terms, LONGEST_SUM))
    most = min(terms // SHORTEST_SUM, WORKSPACE // (4 * max(size, 1)), MAX_ROW_BLOCKS)
    parts = max(1, min(wanted, most))
    length = max(STAGE, ceil_div(terms, parts * STAGE) * STAGE)
    return Split(max(1, ceil_div(terms, length)), length)


def reduce(backend: Any, partial: Array, bias: Array | None, out: Array) -> None:
    """out = the sum of ``partial`` (parts, *out.shape) over its first axis, plus bias along the last axis."""
    sizes = (out.size, out.shape[-1], partial.shape[0])
    backend.launch("split_k.cu", "split_k_reduce", blocks(out.size), THREADS, partial, bias, out, *sizes)
