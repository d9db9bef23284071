"""Kernels on one GPU: cubins from the compiler's cache, loaded at the first launch, launched as CuPy RawKernels."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.backends.cuda import compiler, driver
from gpucnn.backends.cuda.cache import KernelCache
from gpucnn.backends.cuda.graph import GraphMemory, StreamCapture
from gpucnn.backends.cuda.memory import tracker
from gpucnn.backends.declarations import Declaration
from gpucnn.backends.launch import LaunchRecords, address

SHARED_WITHOUT_ASKING = 48 * 1024  # bytes; a kernel that wants more dynamic shared memory has to say so first
TABLES_KEPT = 64
NULL = np.uint64(0)  # a null pointer: CuPy up to 13 passes None as whatever is in memory (cupy/cupy#9046)


class CudaEngine(LaunchRecords):
    """The GPU number ``index``. Making one imports CuPy; the context comes with the first array or launch.

    Raises RuntimeError with the reason where that GPU cannot be used.
    """

    def __init__(self, index: int = 0) -> None:
        super().__init__()
        driver.require(index)
        import cupy

        self.xp = cupy
        self.index = index
        self.name = f"cuda:{index}"
        self.device = cupy.cuda.Device(index)
        self.architecture = compiler.architecture_of(driver.devices()[index].capability)
        self._modules: dict[Path, Any] = {}
        self._tables: OrderedDict[tuple[int, bytes], Any] = OrderedDict()
        self._lock = threading.RLock()
        tracker.install(cupy)

    def empty(self, shape: int | tuple[int, ...], dtype: Any = np.float32) -> Any:
        """A new C-contiguous array on this GPU whose elements are not set yet."""
        with self.device:
            return self.xp.empty(shape, dtype)

    @cached_property
    def multiprocessors(self) -> int:
        """How many this GPU has. ``attributes`` may ask the driver for all there are: once will do."""
        return int(self.device.attributes["MultiProcessorCount"])

    def kernel(self, declaration: Declaration) -> Callable[..., None]:
        """The kernel as ``callable(grid, block, args, shared_mem=0)``; its module is loaded when it is first
        called."""
        return _CudaKernel(self, declaration)

    def load(self, declaration: Declaration) -> Any:
        """The kernel as a CuPy RawKernel, compiled if the cache does not have it and loaded into this GPU's context.

        Raises compiler.CompileError with NVRTC's log.
        """
        with self._lock, self.device:
            module = self._modules.get(declaration.source)
            if module is None:
                module = self.xp.RawModule(path=str(self._image(declaration.source)))
                self._modules[declaration.source] = module
            return module.get_function(declaration.name)

    def _image(self, source: Path) -> Path:
        (built,) = compiler.build([(compiler.Program.read(source), self.architecture)], KernelCache(), threads=1)
        if built.path is None:
            raise compiler.CompileError(f"{source.name} cannot be compiled for {self.name}: {built.error}")
        return built.path

    def new_capture(self, memory: GraphMemory | None = None) -> StreamCapture:
        """A capture, to be opened; with memory of its own, or that of other graphs that are never replayed at the same
        time."""
        return StreamCapture(self, memory)

    def pointer_table(self, arrays: Sequence[Any]) -> Any:
        """The arrays' addresses as an array on the GPU.

        The latest tables are kept, so that a training step whose arrays stay where they are copies nothing. Each
        stream has its own: what it launches next comes after its copy, and nobody waits.
        """
        addresses = np.array([address(array) for array in arrays], np.uint64)
        if self.capturing:
            return self.capture.pointer_table(arrays, addresses)
        with self._lock, self.device:
            key = (self.xp.cuda.get_current_stream().ptr, addresses.tobytes())
            table = self._tables.get(key)
            if table is None:
                table = self.xp.asarray(addresses)
                self._tables[key] = table
                if len(self._tables) > TABLES_KEPT:
                    self._tables.popitem(last=False)
            else:
                self._tables.move_to_end(key)
        return table


class _CudaKernel:
    def __init__(self, engine: CudaEngine, declaration: Declaration) -> None:
        self.engine = engine
        self.declaration = declaration
        self.raw: Any = None
        self.dynamic_shared = SHARED_WITHOUT_ASKING
        self.current_device = engine.xp.cuda.runtime.getDevice

    def __call__(
        self, grid: tuple[int, int, int], block: tuple[int, int, int], args: tuple[Any, ...], shared_mem: int = 0
    ) -> None:
        engine = self.engine
        if self.raw is None:
            self.raw = engine.load(self.declaration)
        if engine.capturing:
            engine.capture.launched(self.declaration.name, grid, block, shared_mem, args)
        else:
            engine.launched(self.declaration.name, grid, block, shared_mem)
        if self.current_device() == engine.index:
            self._run(grid, block, args, shared_mem)
        else:
            with engine.device:
                self._run(grid, block, args, shared_mem)

    def _run(
        self, grid: tuple[int, int, int], block: tuple[int, int, int], args: tuple[Any, ...], shared_mem: int
    ) -> None:
        if shared_mem > self.dynamic_shared:
            self.raw.max_dynamic_shared_size_bytes = shared_mem
            self.dynamic_shared = shared_mem
        arguments = tuple([NULL if argument is None else argument for argument in args])
        self.raw(grid, block, arguments, shared_mem=shared_mem)
