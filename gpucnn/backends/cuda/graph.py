"""Capture on a GPU: what a thread gives to a stream becomes one CUDA graph, which a replay starts with one call.

What this file relies on, read in the source of CuPy 14 (cupy/cuda/stream.pyx, graph.pyx, memory.pyx and
cupy_backends/cuda/libs/*.pyx):

* ``Stream.begin_capture`` refuses the default stream, and captures in the mode "relaxed", in which the memory pool may
  ask the driver for more memory and other threads go on as they like. A stream that does not block the default stream
  is needed besides, for a default stream that waited for a capturing one would be an error (CUDA C++ Programming
  Guide, "Cross-stream Dependencies and Events").
* A pool gives memory that is freed during a capture to what is captured after it. That is right within one graph, whose
  nodes run in order, and wrong outside of it: so the graph has a pool of its own, which lives as long as the graph.
  Graphs that are replayed one after another on one stream may share theirs; for that they are captured on one stream,
  because a pool keeps what is freed for each stream apart.
* Where the driver has no memory left, a pool gives its unused blocks back to it (``_try_malloc``), in the middle of a
  capture too. To blocks of a graph's pool its nodes refer: so that pool gets its memory from :func:`_from_driver`,
  after whose error it gives nothing back.
* cuBLAS, cuRAND, cuSOLVER and cuSPARSE raise NotImplementedError when a capturing stream is set, and copies between
  host and device that wait raise the runtime's error. Kernels of its own, asynchronous memset and copies within the
  device are captured.
* A graph is instantiated by ``end_capture`` and started by ``Graph.launch`` on any stream, by default the current one.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpucnn.backends.capture import STREAMS, Capture
from gpucnn.backends.cuda.memory import tracker
from gpucnn.backends.launch import address

ERROR_MEMORY_ALLOCATION = 2  # cudaErrorMemoryAllocation; CuPy has no name for it in Python


class GraphMemory:
    """A memory pool for the graphs that are replayed in turn, and the stream on which they are captured."""

    def __init__(self, cupy: Any) -> None:
        self.pool = cupy.cuda.MemoryPool(_from_driver(cupy))
        self.stream = cupy.cuda.Stream(non_blocking=True)
        memory = cupy.cuda.memory
        self.allocate = tracker.wrap(self.pool.malloc, memory.MemoryPointer, memory.UnownedMemory)


def _from_driver(cupy: Any) -> Callable[[int], Any]:
    """An allocator for a pool none of whose blocks may go back to the driver: where there is no memory left, other
    pools' unused blocks go back, and then it is CuPy's OutOfMemoryError at once."""
    memory, runtime = cupy.cuda.memory, cupy.cuda.runtime

    def allocate(size: int) -> Any:
        for last in (False, True):
            try:
                return memory.MemoryPointer(memory.Memory(size), 0)
            except runtime.CUDARuntimeError as error:
                if error.status != ERROR_MEMORY_ALLOCATION:
                    raise
                pool = cupy.get_default_memory_pool()
                if last:
                    raise memory.OutOfMemoryError(size, pool.total_bytes()) from None
                pool.free_all_blocks()
        raise AssertionError

    return allocate


class StreamCapture(Capture):
    """A CUDA graph and all that it needs to stay valid: memory, tables of pointers, the arrays that were there."""

    def __init__(self, engine: Any, memory: GraphMemory | None = None) -> None:
        super().__init__(engine)
        self.cupy = engine.xp
        with engine.device:
            self.memory = memory if memory is not None else GraphMemory(self.cupy)
            self.offsets = self.cupy.zeros(STREAMS, np.int64)
            self.offsets += 0  # loads the kernel by which the captured step moves them on
        self.stream = self.memory.stream
        self.graph: Any = None
        self._begins: set[int] = set()  # where the pieces begin that it was given while it was open
        self._tables: dict[bytes, tuple[Any, Any]] = {}  # (table, addresses) by the addresses' bytes
        self._constants: list[Any] = []
        self._kept: dict[int, Any] = {}  # by their address: arrays that were not made in it

    @contextmanager
    def open(self) -> Iterator[None]:
        """Within it what this thread launches is captured and not run.

        Raises what CuPy raises where something cannot be captured; the stream is then as it was.
        """
        cupy, collecting = self.cupy, gc.isenabled()
        gc.collect()
        cupy.get_default_memory_pool().free_all_blocks()  # of the warm-up: the capture needs as much again
        gc.disable()  # what is collected meanwhile could destroy an event or a module, which is no work for a graph
        try:
            with self.engine.device, cupy.cuda.using_allocator(self._allocate), self.stream:
                self.stream.begin_capture()
                try:
                    yield
                except BaseException:
                    self._abandon()
                    raise
                self.graph = self.stream.end_capture()
        finally:
            if collecting:
                gc.enable()
        self._fill_tables()

    def _allocate(self, size: int) -> Any:
        pointer = self.memory.allocate(size)
        self._begins.add(int(pointer.ptr))
        return pointer

    def _abandon(self) -> None:
        try:
            self.stream.end_capture()
        except Exception:  # the capture is invalid already, which the exception under way has said
            self.graph = None

    def replay(self) -> None:
        """Starts the graph on the current stream."""
        with self.engine.device:
            self.graph.launch()

    def launched(self, kernel: str, grid: Any, block: Any, shared_mem: int, args: Iterable[Any] = ()) -> None:
        """Notes a launch that is being recorded, and keeps the arrays that it reads that were there before."""
        super().launched(kernel, grid, block, shared_mem)
        for argument in args:
            if isinstance(argument, self.cupy.ndarray):
                self._keep(argument)

    def _keep(self, array: Any) -> None:
        if array is not None and (begin := self._memory_begin(array)) not in self._begins:
            self._kept[begin] = array

    @staticmethod
    def _memory_begin(array: Any) -> int:
        memory = getattr(array.data, "mem", None)
        return address(array) if memory is None else int(memory.ptr)

    def pointer_table(self, arrays: Iterable[Any], addresses: Any) -> Any:
        """Memory on the device for these addresses. They are written after the capture: a copy from the host would be
        captured, or refused."""
        for array in arrays:
            self._keep(array)
        key = addresses.tobytes()
        if key not in self._tables:
            self._tables[key] = self.cupy.empty(addresses.shape, np.uint64), addresses
        return self._tables[key][0]

    def constant(self, values: Any) -> Any:
        """A NumPy array on the device, there before this returns: it goes there by another stream, which is not
        captured. The graph keeps it, for its launches will read it."""
        cupy = self.cupy
        with self.engine.device, cupy.cuda.Stream(non_blocking=True) as own:
            array = cupy.empty(values.shape, values.dtype)
            array.set(values, stream=own)
            own.synchronize()
        self._constants.append(array)
        return array

    def _fill_tables(self) -> None:
        with self.engine.device:
            for table, addresses in self._tables.values():
                table.set(addresses)
            self.cupy.cuda.get_current_stream().synchronize()

    # ---- arrays: the GPU's driver sees what is done with them ----

    @staticmethod
    def watched(array: Any) -> Any:
        """``array`` itself."""
        return array

    released = watched
