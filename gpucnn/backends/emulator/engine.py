"""The engine of the device ``emulated``: it runs CUDA kernels on NumPy arrays, strictly or fast.

A kernel is called as a ``cupy.RawKernel`` is: ``kernel(grid, block, args, shared_mem=0)``.

*fast* runs it once. *strict* compiles it with UBSan's checks and runs it three times, from the same inputs:
threads and blocks forward, reversed and shuffled; arrays flush with the inaccessible memory above them and
below them; shared memory and outputs filled with another byte each time. The results must be bit-identical.
Either way an access outside of an array, threads that wait at different barriers and the like raise an
EmulatorFault, and the arrays keep what they held.

``with engine.traffic() as records:`` runs each launch once and counts the bytes that it moves (``traffic.py``).

To step through a kernel in gdb: ``gdb --args python script.py``, then ``set breakpoint pending on``, ``handle
SIGSEGV nostop noprint pass``, ``break relu.cu:40 if threadIdx.x == 3 && blockIdx.x == 1`` and ``run``. The
libraries carry debug information; ``print threadIdx``, ``next`` and ``up`` work as in any C++ program. A step
over ``__syncthreads()`` runs the block's other threads on the way, so break with a condition on threadIdx.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from gpucnn import settings
from gpucnn.backends.declarations import Declaration, declarations, included_files
from gpucnn.backends.emulator import build, faults
from gpucnn.backends.emulator import runtime as rt
from gpucnn.backends.emulator.arguments import Packed
from gpucnn.backends.emulator.capture import Recording
from gpucnn.backends.emulator.traffic import Maps, Traffic
from gpucnn.backends.launch import Launch, LaunchRecords, three_sizes

Kernel = Callable[..., None]
Results = list["np.ndarray[Any, Any] | None"]

# Of a strict launch's runs: order, placement, poison of outputs, poison of shared memory. As float32 the
# poisons are NaN, 3.4e38 and -2.9e-16.
RUNS = (
    (rt.FORWARD, rt.END_FLUSH, 0xFF, 0x7F),
    (rt.REVERSED, rt.START_FLUSH, 0x7F, 0xA5),
    (rt.SHUFFLED, rt.END_FLUSH, 0xA5, 0xFF),
)
FAST_RUN = (rt.FORWARD, rt.END_FLUSH, 0xFF, 0xFF)
ORDER_NAMES = ("forward", "reversed", "shuffled")
# The most shared memory of a block, KiB (CUDA C++ Programming Guide, "Technical Specifications per Compute
# Capability").
SHARED_KIB = {50: 48, 61: 48, 70: 96, 75: 64, 80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}


class EmulatorEngine(LaunchRecords):
    """Runs kernels on NumPy arrays with the system's C++ compiler; no GPU and no CUDA needed.

    ``mode`` ("strict" or "fast") and ``arch`` (80 stands for sm_80) default to what GPUCNN_EMULATOR and
    GPUCNN_EMULATOR_ARCH say at each launch. ``timeout`` is the most seconds of one run, None for no limit.
    ``seed`` shuffles the third run of a strict launch. Raises RuntimeError where the platform is not Linux on
    x86-64 or aarch64, or no C++ compiler is there.
    """

    name = "emulated"
    xp = np

    def __init__(
        self, mode: str | None = None, arch: int | None = None, timeout: float | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        if mode not in (None, "strict", "fast"):
            raise ValueError(f"EmulatorEngine: mode must be 'strict' or 'fast', got {mode!r}")
        if arch is not None and arch not in SHARED_KIB:
            raise ValueError(f"EmulatorEngine: arch must be one of {', '.join(map(str, SHARED_KIB))}, got {arch!r}")
        build.require_platform()
        build.find_compiler()
        self._mode, self._arch, self.timeout, self.seed = mode, arch, timeout, seed
        self._exact = False
        self._traffic: list[list[Traffic]] = []

    @property
    def mode(self) -> str:
        """ "strict" or "fast", or "traffic" while :meth:`traffic` counts."""
        return "traffic" if self._traffic else self._mode or settings.emulator_mode()

    @property
    def arch(self) -> int:
        """The compute capability that kernels are compiled for: 80 stands for sm_80."""
        return self._arch or settings.emulator_arch()

    @contextlib.contextmanager
    def standing_for(self, arch: int) -> Iterator[None]:
        """Within it kernels are compiled for this compute capability, and instances chosen for it."""
        if arch not in SHARED_KIB:
            raise ValueError(f"EmulatorEngine: arch must be one of {', '.join(map(str, SHARED_KIB))}, got {arch!r}")
        before, self._arch = self._arch, arch
        try:
            yield
        finally:
            self._arch = before

    def empty(self, shape: int | Sequence[int], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
        """An array whose bytes are all 0xFF (NaN as a float), so that nothing can rely on what it holds."""
        if self.capturing:
            return self.capture.empty(shape, dtype)
        array = np.empty(shape, dtype)
        array.reshape(-1).view(np.uint8).fill(0xFF)
        return array

    def kernel(self, declaration: Declaration) -> Kernel:
        """The kernel as a function ``kernel(grid, block, args, shared_mem=0)``; compiled at its first launch."""
        return EmulatedKernel(self, declaration)

    def new_capture(self, memory: object = None) -> Recording:
        """A capture, to be opened; it takes the memory that it needs."""
        return Recording(self)

    @contextlib.contextmanager
    def traffic(self) -> Iterator[list[Traffic]]:
        """``with engine.traffic() as records:`` counts, for each launch meanwhile, the bytes that it reads and writes
        (:class:`~gpucnn.backends.emulator.traffic.Traffic`)."""
        records: list[Traffic] = []
        self._traffic.append(records)
        try:
            yield records
        finally:
            self._traffic = [others for others in self._traffic if others is not records]

    @contextlib.contextmanager
    def exact_ends(self) -> Iterator[None]:
        """Within it, arrays are aligned only as their element type asks, so that the first byte past any end
        is inaccessible.

        Otherwise an array starts at a multiple of 16 bytes as on a GPU, and up to 15 bytes behind its end can
        be read (not written) unnoticed in one run. A kernel that chooses vector loads by alignment takes its
        scalar path here.
        """
        before, self._exact = self._exact, True
        try:
            yield
        finally:
            self._exact = before


@lru_cache(maxsize=256)
def _library(source: Any, stamps: tuple[tuple[Any, int], ...], mode: str, arch: int) -> rt.KernelLibrary:
    rt.runtime()  # must be in the process before a library that needs it
    files = [file for file, _ in stamps]
    return rt.KernelLibrary(build.kernel_library(source, files, list(declarations(source)), mode, arch))


class EmulatedKernel:
    """One kernel on one engine."""

    def __init__(self, engine: EmulatorEngine, declaration: Declaration) -> None:
        self.engine = engine
        self.declaration = declaration
        self._compiled: dict[tuple[str, int], tuple[rt.KernelLibrary, int]] = {}

    def __call__(self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared_mem: int = 0) -> None:
        """Launch over ``grid`` blocks of ``block`` threads with ``shared_mem`` bytes of ``extern __shared__``
        memory.

        ``args`` holds, for each parameter, a number, a C-contiguous NumPy array or None (a null pointer), a
        list of arrays (a table), or a struct's value. Raises an EmulatorFault for what the kernel does wrong.
        """
        three, threads = three_sizes(grid), three_sizes(block)
        engine = self.engine
        mode, arch = engine.mode, engine.arch
        library, entry = self._compile(mode, arch)
        self._check_resources(library, three, threads, shared_mem, arch)
        if engine.capturing:
            engine.capture.launch(self.declaration, self, three, threads, args, shared_mem)
            return
        engine.launched(self.declaration.name, three, threads, shared_mem)
        packed = Packed(self.declaration, args, engine._exact)
        launch = rt.Launch(
            enter=entry, arguments=ctypes.addressof(packed.pointers), arrays=packed.arrays,
            array_count=len(packed.buffers),
            grid=three, block=threads, static_shared=library.static_shared, dynamic_shared=shared_mem,
            shared_alignment=library.shared_alignment, seed=engine.seed, timeout_seconds=engine.timeout or 0.0,
        )  # fmt: skip
        with rt.runtime().lock:
            if mode == "traffic":
                maps = Maps(packed)
                launch.count_traffic = 1
                packed.write_through()
                self._run(launch, packed, FAST_RUN)
                counts = maps.traffic(Launch(self.declaration.name, three, threads, shared_mem))
                for records in engine._traffic:
                    records.append(counts)
            elif mode == "fast":
                packed.write_through()
                self._run(launch, packed, FAST_RUN)
            else:
                self._run_strictly(launch, packed)

    def _compile(self, mode: str, arch: int) -> tuple[rt.KernelLibrary, int]:
        if (mode, arch) not in self._compiled:
            source, name = self.declaration.source, self.declaration.name
            stamps = tuple((file, file.stat().st_mtime_ns) for file in included_files(source))
            library = _library(source, stamps, mode, arch)
            count = len(self.declaration.parameters)
            sizes = library.argument_sizes(name, count)
            expected = [8 if p.kind in ("array", "table") else p.dtype.itemsize for p in self.declaration.parameters]
            if sizes != expected:
                raise RuntimeError(
                    f"{self.declaration.signature}: arguments of {sizes} bytes in C++, {expected} in Python"
                )
            self._compiled[mode, arch] = library, library.entry(name)
        return self._compiled[mode, arch]

    def _check_resources(
        self, library: rt.KernelLibrary, grid: tuple[int, ...], block: tuple[int, ...], shared_mem: int, arch: int
    ) -> None:
        name, most = self.declaration.name, self.declaration.max_threads
        if min(grid) < 1 or min(block) < 1 or shared_mem < 0:
            raise ValueError(
                f"{name}: grid {grid} and block {block} must be positive, shared_mem {shared_mem} not negative"
            )
        if math.prod(block) > most:
            raise faults.ResourceFault(
                name, f"block {block} has {math.prod(block)} threads, more than the kernel's {most}"
            )
        if shared_mem > SHARED_KIB[arch] * 1024:
            raise faults.ResourceFault(
                name, f"shared_mem is {shared_mem} bytes; a block of sm_{arch} has at most {SHARED_KIB[arch]} KiB"
            )

    def _run(self, launch: rt.Launch, packed: Packed, run: tuple[int, int, int, int]) -> None:
        launch.order, launch.placement, launch.poison, launch.shared_poison = run
        fault = rt.runtime().run(launch)
        if fault is not None:
            shared = launch.static_shared + launch.dynamic_shared
            raise faults.exception(self.declaration.name, fault, packed.buffers, shared)

    def _run_strictly(self, launch: rt.Launch, packed: Packed) -> None:
        outcomes: list[Results] = []
        for run in RUNS:
            outcomes.append(packed.results())
            self._run(launch, packed, run)
        self._check_written(packed, outcomes)
        for other, run in zip(outcomes[1:], RUNS[1:], strict=True):
            difference = _first_difference(packed, outcomes[0], other)
            if difference:
                self._explain_difference(launch, packed, outcomes[0], difference, ORDER_NAMES[run[0]])
        for buffer, result in zip(packed.buffers, outcomes[0], strict=True):
            if result is not None and buffer.array is not None:
                buffer.array.reshape(-1).view(np.uint8)[:] = result

    def _check_written(self, packed: Packed, outcomes: list[Results]) -> None:
        """A byte that still holds each run's poison was written in none: a kernel writes the same value in
        all of them.
        """
        for i, buffer in enumerate(packed.buffers):
            if buffer.direction != rt.OUT or buffer.array is None:
                continue
            untouched = np.ones(buffer.nbytes, bool)
            for results, (_, _, poison, _) in zip(outcomes, RUNS, strict=True):
                result = results[i]
                assert result is not None
                untouched &= result == poison
            if untouched.any():
                elements = untouched.reshape(-1, buffer.itemsize).any(axis=1)
                first = int(elements.argmax())
                where = _subscript(buffer, first)
                raise faults.UnwrittenOutput(
                    self.declaration.name,
                    f"the kernel never wrote {buffer.name}[{where}] (first of {int(elements.sum())} unwritten elements"
                    f" of {elements.size}; {buffer.name} is OUT, {buffer.array.dtype} {buffer.array.shape})",
                )

    def _explain_difference(
        self, launch: rt.Launch, packed: Packed, first: Results, difference: str, order: str
    ) -> None:
        """Raises: one more run, like the first but for the poison, tells the order from memory that nobody
        wrote.
        """
        repeated = packed.results()
        self._run(launch, packed, (*RUNS[0][:2], *RUNS[1][2:]))
        unwritten = _first_difference(packed, first, repeated)
        name = self.declaration.name
        if unwritten:
            raise faults.UninitializedRead(
                name,
                f"{unwritten} depends on memory that nobody wrote (shared memory, an output, bytes beside an array, or"
                " the destination of a cp.async before its wait)",
            )
        raise faults.OrderDependence(
            name,
            f"{difference} differs between threads and blocks run forward and run {order}: a race"
            " (a barrier is missing, or two threads write one element)",
        )


def _subscript(buffer: Any, element: int) -> str:
    return ", ".join(map(str, np.unravel_index(element, buffer.array.shape)))


def _first_difference(packed: Packed, left: Results, right: Results) -> str:
    """The first element whose bits differ, as ``y[2, 3]``, or an empty text."""
    for buffer, a, b in zip(packed.buffers, left, right, strict=True):
        if a is not None and b is not None and not np.array_equal(a, b):
            element = int((a != b).argmax()) // buffer.itemsize
            return f"{buffer.name}[{_subscript(buffer, element)}]"
    return ""
