"""Split-K: several blocks share the sums of one tile, and the last of them to arrive adds the parts up in a fixed
order (join_parts in kernels/gemm_simt.cuh).

The number of parts follows from the sizes alone, never from the GPU or from
timing, so that results are the same bits everywhere. It is the one with the least estimated time on a GPU of
MULTIPROCESSORS, for which the model below counts in stages: the time in which a multiprocessor that is full multiplies
one stage of one block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from gpucnn.backends.cuda.grids import MAX_ROW_BLOCKS, ceil_div

STAGE = 16  # terms in the kernels' longest stage (kernels/gemm_simt.cuh): parts begin at multiples of it
SHORTEST_SUM = 64  # terms in a part, at least: a shorter one is all beginning and end
WORKSPACE = 64 << 20  # bytes of partial sums, at most
LITTLE = 1 << 20  # bytes of partial sums that any launch may have
FEW_PARTS = 4  # as in kernels/gemm_simt.cuh
MULTIPROCESSORS = 132  # of an H100 or H200; a smaller GPU has more blocks for each, and is full all the same
SHARE = (0.6, 0.85, 0.95)  # of a multiprocessor that one, two, three blocks of four warps keep busy
AROUND = 2.0  # stages that a block's beginning and end take
PASS = 0.5  # stages in which a block writes its part, or the last one reads a part


@dataclass(frozen=True, slots=True)
class Split:
    """``parts`` sums of ``length`` terms each (the last may be shorter)."""

    parts: int
    length: int

    @property
    def counters(self) -> int:
        """How many counters each tile needs: one for each group of parts, and one for the groups."""
        return 1 + ceil_div(self.parts, group_size(self.parts))


def group_size(parts: int) -> int:
    """How many parts are joined at a time."""
    return max(FEW_PARTS, math.isqrt(max(parts - 1, 0)) + 1)


@lru_cache(maxsize=1024)
def choose(terms: int, tiles: int, floats: int, longest: int | None = None, data: int = WORKSPACE) -> Split:
    """How to split sums of ``terms`` terms over ``tiles`` tiles, of which a part takes ``floats`` floats.

    ``data``: bytes that the launch reads and writes in any case; its partial sums take no more, or LITTLE. ``longest``
    bounds the terms of a part where that is possible: the rounding error of a running sum grows with its length.
    """
    tiles = max(tiles, 1)
    stages = max(1, ceil_div(terms, STAGE))
    most = min(terms // SHORTEST_SUM, min(WORKSPACE, max(data, LITTLE)) // (4 * tiles * floats), MAX_ROW_BLOCKS)
    least = 1 if longest is None else ceil_div(terms, longest)
    lengths = {max(1, ceil_div(stages, parts)) for parts in range(1, min(max(most, 1), 512) + 1)}
    if most > 1 and least > 512:
        lengths.add(ceil_div(stages, min(least, most)))
    fit = [length for length in lengths if ceil_div(stages, length) <= max(most, 1)]
    enough = [length for length in fit if ceil_div(stages, length) >= min(least, max(most, 1))] or [min(fit)]
    length = min(enough, key=lambda length: (_time(tiles, stages, length), -length))
    return Split(ceil_div(stages, length), length * STAGE)


def _time(tiles: int, stages: int, length: int) -> float:
    """Stages that the busiest multiprocessor takes, with the joining of the parts at the end."""
    parts = ceil_div(stages, length)
    blocks = ceil_div(tiles * parts, MULTIPROCESSORS)
    busy = SHARE[min(blocks, len(SHARE)) - 1]
    if parts == 1:
        return blocks * (length + AROUND) / busy
    size = group_size(parts)
    groups = ceil_div(parts, size)
    last = PASS * (min(size, parts) + (groups if groups > 1 else 0)) + AROUND * (2 if groups > 1 else 1)
    return blocks * (length + AROUND + PASS) / busy + last
