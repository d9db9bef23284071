"""What the launches of kernels/gemm_simt.cuh have in common: instances, their tiles, and split-K."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import split_k
from gpucnn.backends.cuda.grids import ceil_div
from gpucnn.backends.launch import address

TILE_THREADS = {"128x64": 128, "64x128": 128, "64x64": 128, "64x80": 64}  # of the block that computes a tile


def tile(instance: str) -> tuple[int, int]:
    """The rows and columns of an instance's tile: 128 and 64 of ``"128x64_vec4"``."""
    rows, columns = instance.partition("_")[0].split("x")
    return int(rows), int(columns)


def threads(instance: str) -> int:
    """The threads of an instance's block."""
    return TILE_THREADS[instance.partition("_")[0]]


def tiles(instance: str, rows: int, columns: int) -> int:
    """How many tiles of an instance cover ``rows`` x ``columns`` results."""
    tile_rows, tile_columns = tile(instance)
    return ceil_div(rows, tile_rows) * ceil_div(columns, tile_columns)


def aligned(*arrays: Array | None) -> bool:
    """Whether all arrays start at multiples of 16 bytes."""
    return all(array is None or address(array) % 16 == 0 for array in arrays)


@dataclass(frozen=True, slots=True)
class Plan:
    """A launch: ``tiles`` blocks, each over ``split.parts`` parts of its sum."""

    instance: str
    tiles: int
    split: split_k.Split
    part: int  # floats of one tile's part

    @classmethod
    def of(
        cls, instance: str, results: int, terms: int, elements: int, sums: bool = False, longest: int | None = None
    ) -> Plan:
        """For ``results`` tiles of ``terms`` terms.

        ``elements`` are the operands' and the result's together; ``sums``: a part holds the sums of its rows too.
        """
        rows, columns = tile(instance)
        part = rows * columns + (rows if sums else 0)
        return cls(instance, results, split_k.choose(terms, results, part, longest, 4 * elements), part)

    @property
    def grid(self) -> tuple[int, int]:
        """The launch's grid."""
        return self.tiles, self.split.parts

    def scratch(self, backend: Any) -> tuple[Array | None, Array | None]:
        """Workspace and counters for join_parts; none for one part."""
        if self.split.parts == 1:
            return None, None
        workspace = backend.empty((self.split.parts, self.tiles, self.part))
        return workspace, backend.counters(self.tiles * self.split.counters)
