"""One training step, launch by launch: FLOPs, bytes, the floor that a GPU's ceilings put under each, and seconds.

What a launch moves is counted from its arguments: every array that it is given, once. That is what it must touch at
least; what it asks for again, caches may absorb. FLOPs are those of multiply-adds, 2 each, in convolutions and matrix
products. On a GPU each launch is also timed, by repeating it between two events; elsewhere nothing is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from gpucnn.backends.declarations import Declaration
from gpucnn.bench.ceilings import Ceilings

MUON_PRODUCTS: dict[str, Callable[[int, int], int]] = {  # of the matrices (rows, columns) that kernels/muon.cu lists
    "muon_gram": lambda rows, columns: rows * (rows + 1) * columns,  # a symmetric result is computed once
    "muon_polynomial": lambda rows, columns: rows * (rows + 1) * rows,
    "muon_advance": lambda rows, columns: 2 * rows * rows * columns,
}
MULTIPLY_ADDS: dict[str, Callable[[dict[str, int]], int]] = {  # by the struct that tells a kernel its sizes
    "Conv2dGeometry": lambda g: g["N"] * g["P"] * g["Q"] * g["K"] * g["R"] * g["S"] * (g["C"] // g["groups"]),
    "GemmShape": lambda g: g["M"] * g["N"] * g["K"] * g["batch"],
    "MmaProblem": lambda g: g["pixels"] * g["K"] * g["window"],
}
TENSOR_CORE_FAMILIES = ("conv2d", "gemm", "linear", "muon")
REPEATS = 20  # of a launch between two events
WARM_UP = 3


@dataclass(frozen=True)
class Call:
    """One launch of a step.

    Args:
        kernel: its name, which says the instance.
        arithmetic: "float32", "tf32" or "float16" (also bfloat16): which ceiling its FLOPs are under.
        size: bytes of its arrays.
        seconds: of one launch, None where not measured.
    """

    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared_mem: int
    arithmetic: str
    flops: int
    size: int
    seconds: float | None = None

    def floor(self, ceilings: Ceilings) -> float:
        """The least seconds that it can take on a GPU."""
        return ceilings.floor(self.flops, self.size, self.arithmetic)


@dataclass(frozen=True)
class Profile:
    """The launches of one step, in order, and what they were counted or measured for."""

    network: str
    batch_size: int
    precision: str
    device: str
    calls: tuple[Call, ...]

    @property
    def flops(self) -> int:
        """Of all launches."""
        return sum(call.flops for call in self.calls)

    @property
    def size(self) -> int:
        """Bytes that the launches touch, each launch's counted for itself."""
        return sum(call.size for call in self.calls)

    def floor(self, ceilings: Ceilings) -> float:
        """The sum of the launches' floors, seconds: none of them can hide behind another."""
        return sum(call.floor(ceilings) for call in self.calls)

    def to_dict(self, ceilings: Ceilings | None) -> dict[str, Any]:
        """Everything, fit for JSON."""
        calls = [{**asdict(c), "floor_seconds": c.floor(ceilings) if ceilings else None} for c in self.calls]
        totals = {"launches": len(calls), "flops": self.flops, "bytes": self.size}
        gpu = asdict(ceilings) | {"flops": dict(ceilings.flops)} if ceilings else None
        head = {name: getattr(self, name) for name in ("network", "batch_size", "precision", "device")}
        return {**head, "ceilings": gpu, **totals, "calls": calls}


@dataclass(frozen=True)
class Seen:
    """A launch as it was asked for, with what it takes to do it again."""

    declaration: Declaration
    grid: Any
    block: Any
    args: tuple[Any, ...]
    shared_mem: int


@contextmanager
def watching(launcher: Any) -> Iterator[list[Seen]]:
    """``with watching(backend.launch) as seen:`` lists what is launched meanwhile, arguments included."""
    seen: list[Seen] = []

    def observer(*launch: Any) -> None:
        seen.append(Seen(*launch))

    launcher.observers.append(observer)
    try:
        yield seen
    finally:
        launcher.observers.remove(observer)


def count(seen: Seen) -> Call:
    """A launch's FLOPs and bytes."""
    named = {p.name: argument for p, argument in zip(seen.declaration.parameters, seen.args, strict=True)}
    name = seen.declaration.name
    return Call(
        kernel=name,
        grid=_sizes(seen.grid),
        block=_sizes(seen.block),
        shared_mem=seen.shared_mem,
        arithmetic=arithmetic_of(name),
        flops=flops_of(seen.declaration, named),
        size=sum(_bytes(named[p.name]) for p in seen.declaration.parameters if p.kind in ("array", "table")),
    )


def arithmetic_of(kernel: str) -> str:
    """Which unit multiplies in a convolution or a product, by the kernel's name: its instances name their operands."""
    words = kernel.split("_")
    if not {"f16", "bf16", "tf32"} & set(words) or words[0] not in TENSOR_CORE_FAMILIES:
        return "float32"
    return "tf32" if "tf32" in words else "float16"


def flops_of(declaration: Declaration, named: dict[str, Any]) -> int:
    """Two for each multiply-add of a convolution or a matrix product; 0 for other kernels."""
    if declaration.name in MUON_PRODUCTS:
        matrices = named["matrices"]
        matrices = np.asarray(matrices.get() if hasattr(matrices, "get") else matrices).reshape(-1, 8)
        return sum(MUON_PRODUCTS[declaration.name](int(matrix[3]), int(matrix[4])) for matrix in matrices)
    for parameter in declaration.parameters:
        if parameter.c_type in MULTIPLY_ADDS:
            values = named[parameter.name].as_struct()
            return 2 * MULTIPLY_ADDS[parameter.c_type](dict(zip(parameter.dtype.names or (), values, strict=True)))
    return 0


def _sizes(sizes: Any) -> tuple[int, ...]:
    return tuple(map(int, sizes)) if isinstance(sizes, (tuple, list)) else (int(sizes),)


def _bytes(argument: Any) -> int:
    if isinstance(argument, (list, tuple)):
        return sum(array.nbytes for array in argument if array is not None)
    return 0 if argument is None else int(argument.nbytes)


def timed(seen: Seen, launcher: Any, seconds: Callable[[Callable[[], None]], float]) -> float:
    """Seconds of one launch, the mean of :data:`REPEATS` in a row; ``seconds(run)`` times a call on the device."""

    def again(times: int) -> None:
        source = seen.declaration.source.name
        for _ in range(times):
            launcher(source, seen.declaration.name, seen.grid, seen.block, *seen.args, shared_mem=seen.shared_mem)

    again(WARM_UP)
    return seconds(lambda: again(REPEATS)) / REPEATS


def together(calls: Sequence[Call]) -> list[tuple[Call, int]]:
    """Launches of one kernel with equal sizes as one, with how many they are, in the order of the first."""
    groups: dict[Any, list[Call]] = {}
    for call in calls:
        groups.setdefault((call.kernel, call.grid, call.flops, call.size), []).append(call)
    result = []
    for group in groups.values():
        times = [call.seconds for call in group if call.seconds is not None]
        mean = float(np.mean(times)) if times else None
        result.append((replace(group[0], seconds=mean), len(group)))
    return result
