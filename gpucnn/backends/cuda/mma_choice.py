"""Which tensor-core instance computes a convolution, a linear layer or a matrix product, and in how many parts of K.

Everything here is a pure function of sizes, dtype and architecture, so that a run can be repeated bit by bit. The
heuristic counts cycles of a multiprocessor for each candidate and takes the fewest; :func:`cycles` says what it counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

from gpucnn.backends.cuda.grids import MAX_ROW_BLOCKS, ceil_div
from gpucnn.geometry import Conv2dGeometry

LINE_BYTES = 64  # of a row of an operand in one stage of the kernels
WORKSPACE = 32 << 20  # bytes of partial sums, at most: level-2 caches hold most of them beside the operands
FAN_IN, TREE_LEVELS = 8, 6  # of the tree in which parts are added up (kernels/conv2d_mma_epilogue.cuh)
MOST_TAPS = 15  # rows or columns of a filter in wide instances of fprop and dgrad
SHORTEST_PART = 4  # stages of a part of K: below that a pipeline does not fill
TAGS = {"float16": "f16", "bfloat16": "bf16", "tf32": "tf32"}
NEEDS = {"float16": 75, "bfloat16": 80, "tf32": 80}  # the least compute capability
MULTIPROCESSORS = {75: 40, 80: 108, 86: 84, 89: 128, 90: 132, 100: 148, 120: 170}  # of a usual GPU of each kind
# Products a multiprocessor and cycle with float32 sums, mma.sync (NVIDIA's architecture white papers); half for tf32.
RATES = {75: 512, 80: 1024, 86: 512, 89: 512, 90: 1024, 100: 1024, 120: 512}
WGMMA_RATE = 2048  # the same of sm_90a by wgmma
# Bytes a cycle that one multiprocessor reads from the level-2 cache while all others do, its tiles' operands among
# them: about half of the 64 that one alone can take, and less where there is less to multiply.
L2_BYTES = {75: 20, 80: 32, 86: 16, 89: 16, 90: 32, 100: 32, 120: 16}
SHARED_BYTES = {75: 64, 80: 164, 86: 100, 89: 100, 90: 228, 100: 228, 120: 100}  # KiB of a multiprocessor
BLOCK_CYCLES = 1500  # from a block's start to its first product, and its epilogue


class Direction(Enum):
    """The kernels' families; PRODUCT is wgrad with results in the inputs' dtype."""

    FPROP = "fprop"
    DGRAD = "dgrad"
    WGRAD = "wgrad"
    PRODUCT = "product"


PRODUCT = Direction.PRODUCT


@dataclass(frozen=True, slots=True)
class Instance:
    """A tile of ``rows`` x ``columns`` results. ``form``: "wide" reads 16 bytes at a time, "narrow" single elements,
    "few" a wide dy and a narrow x (wgrad) or w (dgrad), "wgmma" is wide and for sm_90a alone. A multiprocessor has
    registers for ``resident`` blocks; ``efficiency`` is the share of its tensor cores' rate that they reach while they
    run, by the shared memory that a product costs; of "few" and "narrow", by the instructions of a stage on sm_80.
    """

    rows: int
    columns: int
    depth: int  # stages of the pipeline on sm_80 and newer
    resident: int
    efficiency: float
    form: str = "wide"

    @property
    def name(self) -> str:
        """As kernels' names end: "128x64", "64x64_narrow"."""
        return f"{self.rows}x{self.columns}" + ("" if self.form == "wide" else f"_{self.form}")

    def stages(self, arch: int) -> int:
        """How many stages lie in shared memory."""
        return self.depth if self.form in ("wide", "wgmma") and arch >= 80 else 2

    @property
    def threads(self) -> int:
        """Of a block: wgmma takes a warpgroup for each 64 rows."""
        return 2 * self.rows if self.form == "wgmma" else 128

    def blocks(self, arch: int) -> int:
        """How many a multiprocessor holds; each also takes 1 KiB and what its kernel names."""
        one = self.stages(arch) * (self.rows + self.columns) * LINE_BYTES + (2560 if self.form == "wgmma" else 1536)
        return max(1, min(self.resident, SHARED_BYTES[_nearest(arch, SHARED_BYTES)] * 1024 // one))


_ROWS_OF_WINDOWS = (
    Instance(128, 128, 3, 2, 1.0),
    Instance(128, 64, 4, 3, 0.9),
    Instance(64, 64, 4, 4, 0.75),
    Instance(128, 32, 4, 4, 0.6),
    Instance(64, 64, 2, 3, 0.32, "narrow"),
)
INSTANCES: dict[Direction, tuple[Instance, ...]] = {
    Direction.FPROP: _ROWS_OF_WINDOWS,
    Direction.DGRAD: (*_ROWS_OF_WINDOWS, Instance(128, 32, 2, 4, 0.5, "few")),
    Direction.WGRAD: (
        Instance(128, 128, 3, 2, 1.0),
        Instance(128, 64, 4, 3, 0.9),
        Instance(64, 128, 4, 3, 0.9),
        Instance(64, 64, 4, 4, 0.75),
        Instance(64, 32, 2, 4, 0.28, "few"),
        Instance(64, 64, 2, 3, 0.22, "narrow"),
    ),
    Direction.PRODUCT: (Instance(64, 64, 4, 4, 0.75), Instance(64, 64, 2, 3, 0.22, "narrow")),
}
# On Hopper's wgmma (kernels/conv2d_wgmma.cuh). A stage is written to shared memory once and read once (operand B by
# each warpgroup), at 128 bytes a cycle together: of 64 x 256 that is 40 KiB, 320 cycles for a stage that takes the
# tensor cores 256; of 128 x 256, 64 KiB and 512 cycles for 512.
_WGMMA = (
    Instance(128, 256, 8, 1, 1.0, "wgmma"),
    Instance(64, 256, 5, 2, 0.8, "wgmma"),
    Instance(64, 128, 5, 3, 0.67, "wgmma"),
    Instance(64, 64, 6, 4, 0.5, "wgmma"),
)
WGMMA: dict[Direction, tuple[Instance, ...]] = {
    Direction.FPROP: _WGMMA,
    Direction.DGRAD: _WGMMA,
    Direction.WGRAD: _WGMMA,
    Direction.PRODUCT: (),
}
# Instances for which the compiler finds registers enough on some architectures only, from the first number up to the
# second; on others they trap.
FITS = {
    (Direction.DGRAD, "tf32", "128x128"): (80, 120),
    (Direction.WGRAD, "tf32", "128x128"): (80, 120),
    (Direction.WGRAD, "float16", "128x128"): (80, 1000),
}


@dataclass(frozen=True, slots=True)
class Gemm:
    """One launch as matrix products: ``outer`` of them, (rows, terms) times (terms, columns). ``a_run`` and ``b_run``
    elements of the operands lie side by side in memory.
    """

    direction: Direction
    outer: int
    rows: int
    columns: int
    terms: int
    a_run: int
    b_run: int
    taps: int = 1  # the larger of a filter's rows and columns

    @classmethod
    def of(cls, direction: Direction, g: Conv2dGeometry, outer: int) -> Gemm:
        """The products of a convolution; for dgrad those of its largest phase, all phases counted in ``outer``."""
        depth, filters, taps, most = g.C // g.groups, g.K // g.groups, g.R * g.S, max(g.R, g.S)
        if direction is Direction.FPROP:
            return cls(direction, outer, g.N * g.P * g.Q, filters, taps * depth, depth, depth, most)
        if direction is Direction.DGRAD:
            phases = min(g.stride_h, g.H) * min(g.stride_w, g.W)
            rows = g.N * ceil_div(g.H, g.stride_h) * ceil_div(g.W, g.stride_w)
            terms = ceil_div(g.R, g.stride_h) * ceil_div(g.S, g.stride_w) if g.dilation_h == g.dilation_w == 1 else taps
            return cls(direction, outer * phases, rows, depth, terms * filters, filters, depth, most)
        return cls(direction, outer, filters, taps * depth, g.N * g.P * g.Q, filters, depth)

    def tiles(self, instance: Instance) -> int:
        """The blocks of one part of K."""
        return ceil_div(self.rows, instance.rows) * ceil_div(self.columns, instance.columns) * self.outer


@dataclass(frozen=True, slots=True)
class Choice:
    """An instance, and K in ``parts`` of ``terms`` each (the last may be shorter)."""

    instance: Instance
    parts: int
    terms: int

    @property
    def name(self) -> str:
        """What the operators of conv2d_mma.py take: "128x64:4"."""
        return f"{self.instance.name}:{self.parts}"


def precision(dtype: Any) -> str:
    """The precision of arrays of ``dtype``: "float16", "bfloat16", or "tf32" for float32. Raises TypeError."""
    name = "tf32" if dtype.name == "float32" else str(dtype.name)
    if name not in TAGS:
        raise TypeError(f"tensor cores take float16, bfloat16 and float32 (tf32) arrays, got {dtype}")
    return name


def stage_terms(precision: str) -> int:
    """The terms of K in one stage."""
    return LINE_BYTES // (4 if precision == "tf32" else 2)


def partial_floats(instance: Instance, direction: Direction) -> int:
    """The floats that a block leaves for the one that adds up: its tile, in wgrad also the sums of its rows (one
    fragment column of them for each of the two or more warps that lie along the columns)."""
    sums = instance.rows // (16 * _warps_m(instance)) if direction in (Direction.WGRAD, Direction.PRODUCT) else 0
    return instance.rows * instance.columns + sums * 4 * instance.threads


def _warps_m(instance: Instance) -> int:
    return instance.threads // 32 if instance.columns == 32 or instance.form == "wgmma" else 2


def suits(instance: Instance, gemm: Gemm, precision: str, arch: int, aligned: bool = True) -> bool:
    """Whether the instance can compute it: wide operands need runs of whole 16 bytes that begin at multiples of 16."""
    least, end = FITS.get((gemm.direction, precision, instance.name), (NEEDS[precision], 1000))
    if not least <= arch < end:
        return False
    run = 4 if precision == "tf32" else 8
    aligned = aligned and gemm.taps <= MOST_TAPS
    wide_a, wide_b = aligned and gemm.a_run % run == 0, aligned and gemm.b_run % run == 0
    wgmma = wide_a and wide_b and arch == 90 and precision != "tf32"
    return {"wide": wide_a and wide_b, "few": wide_a, "narrow": True, "wgmma": wgmma}[instance.form]


def candidates(
    gemm: Gemm, precision: str, arch: int, aligned: bool = True, multiprocessors: int | None = None
) -> list[Choice]:
    """Every instance that suits, each in the numbers of parts that may be worth it: the heuristic's and autotune's
    choices."""
    count = multiprocessors or MULTIPROCESSORS[_nearest(arch, MULTIPROCESSORS)]
    found = []
    for instance in (*INSTANCES[gemm.direction], *WGMMA[gemm.direction]):
        if suits(instance, gemm, precision, arch, aligned):
            found += [split(gemm, instance, precision, parts) for parts in _parts(gemm, instance, precision, count)]
    return list(dict.fromkeys(found))


def split(gemm: Gemm, instance: Instance, precision: str, parts: int) -> Choice:
    """K in at most ``parts`` parts of whole stages, none of them empty."""
    stage = stage_terms(precision)
    terms = max(1, ceil_div(ceil_div(gemm.terms, parts), stage)) * stage
    return Choice(instance, max(1, ceil_div(gemm.terms, terms)), terms)


def _parts(gemm: Gemm, instance: Instance, precision: str, multiprocessors: int) -> list[int]:
    """One, powers of two, and as many as give each multiprocessor one to eight blocks, or just not one more."""
    stages, tiles = ceil_div(gemm.terms, stage_terms(precision)), gemm.tiles(instance)
    most = min(stages // SHORTEST_PART, WORKSPACE // (4 * tiles * partial_floats(instance, gemm.direction)))
    filling = {blocks * multiprocessors // tiles for blocks in range(1, 9)}
    return [1, *sorted(n for n in filling | {1 << k for k in range(1, 10)} if 1 < n <= min(most, MAX_ROW_BLOCKS))]


def cycles(gemm: Gemm, choice: Choice, precision: str, arch: int, multiprocessors: int) -> float:
    """The cycles that a launch takes, counted: the products of the blocks that one multiprocessor gets, at its tensor
    cores' rate times the tile's efficiency, or the time in which their operands come from the level-2 cache where that
    is longer; a start and an end for each round of blocks that fit at a time; and with K in parts, what the blocks
    write and read back, and what is read one after the other while they are added up.
    """
    tile = choice.instance
    rate: float = WGMMA_RATE if tile.form == "wgmma" else RATES[_nearest(arch, RATES)]
    rate *= tile.efficiency / (2 if precision == "tf32" else 1)
    blocks = gemm.tiles(tile) * choice.parts
    alone = ceil_div(blocks, multiprocessors)  # blocks of the busiest multiprocessor
    resident, l2_bytes = tile.blocks(arch), L2_BYTES[_nearest(arch, L2_BYTES)]
    rounds = ceil_div(blocks, multiprocessors * resident)
    terms = min(choice.terms, ceil_div(gemm.terms, 32) * 32)
    # Four warps that are alone on their multiprocessor cannot keep the tensor cores busy while they wait.
    busy = min(1.0, 0.5 + 0.25 * min(alone, resident) * tile.threads / 128)
    multiplying = tile.rows * tile.columns * terms / (rate * busy)
    reading = (tile.rows + tile.columns) * terms * LINE_BYTES / stage_terms(precision) / l2_bytes
    total = alone * max(multiplying, reading) + rounds * BLOCK_CYCLES
    if choice.parts > 1:
        moved = partial_floats(tile, gemm.direction) * 4
        total += (2 * alone + _reads_in_turn(choice.parts)) * moved / l2_bytes
    return total


def _reads_in_turn(parts: int) -> int:
    """The most parts, and sums of parts, that lie between a block's results and the tile's."""
    reads = 0
    while parts > 1:
        reads += min(parts, FAN_IN)
        parts = ceil_div(parts, FAN_IN)
    return reads


@lru_cache(maxsize=4096)
def choose(gemm: Gemm, precision: str, arch: int, multiprocessors: int | None = None, aligned: bool = True) -> Choice:
    """The candidate of the fewest :func:`cycles`, of the wide ones where there are any; the first of equals. Raises
    ValueError where the GPU has no tensor cores for ``precision``."""
    found = candidates(gemm, precision, arch, aligned, multiprocessors)
    if not found:
        raise ValueError(f"{precision} on tensor cores needs sm_{NEEDS[precision]} or newer, this is sm_{arch}")
    count = multiprocessors or MULTIPROCESSORS[_nearest(arch, MULTIPROCESSORS)]
    wide = [choice for choice in found if choice.instance.form in ("wide", "wgmma")]
    return min(wide or found, key=lambda choice: cycles(gemm, choice, precision, arch, count))


def named(name: str, gemm: Gemm, precision: str, arch: int, aligned: bool = True) -> Choice:
    """The instance called ``name``, with ":parts" behind it or not (then one part). Raises ValueError where it does
    not suit."""
    tile, _, parts = name.partition(":")
    have = {instance.name: instance for instance in (*INSTANCES[gemm.direction], *WGMMA[gemm.direction])}
    if tile not in have or (parts and (not parts.isdigit() or not int(parts))):
        raise ValueError(
            f"{gemm.direction.value}: no instance {name!r}; there are {', '.join(have)}, each with ':parts'"
        )
    if not suits(have[tile], gemm, precision, arch, aligned):
        raise ValueError(
            f"{gemm.direction.value}: instance {name} does not suit {precision} on sm_{arch} with runs of {gemm.a_run}"
            f" and {gemm.b_run} elements{'' if aligned else ' that do not begin at multiples of 16 bytes'}"
        )
    return split(gemm, have[tile], precision, int(parts or 1))


def _nearest(arch: int, table: dict[int, Any]) -> int:
    return max((known for known in table if known <= arch), default=min(table))
