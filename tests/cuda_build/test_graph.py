"""Capture on a GPU, without one: a stand-in for CuPy has streams that record, and pools that are told apart."""

from __future__ import annotations

import gc
import sys
import threading
import types
import weakref
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucnn import backends, graphs
from gpucnn.backends.capture import NotCapturable
from gpucnn.backends.cuda import compiler, driver
from gpucnn.backends.cuda import engine as engine_module
from gpucnn.backends.cuda import graph as graph_module
from gpucnn.backends.cuda.backend import CudaBackend
from gpucnn.backends.cuda.engine import CudaEngine
from gpucnn.backends.cuda.memory import MemoryTracker
from gpucnn.backends.declarations import declarations
from gpucnn.backends.launch import Launch
from gpucnn.device import Device
from gpucnn.tensor import Tensor
from tests.cuda_build.test_engine import FakeCupy


class CUDARuntimeError(RuntimeError):
    """What the runtime says no to."""

    status = 2  # cudaErrorMemoryAllocation


class OutOfMemoryError(MemoryError):
    """What CuPy's pools say."""


class Array(np.ndarray[Any, Any]):
    """An array of the stand-in: as CuPy's, it copies from the host by ``set``."""

    def set(self, values: Any, stream: Any = None) -> None:
        cupy = sys.modules["cupy"]
        assert not cupy.streams[-1].capturing, "a copy from the host inside a capture"
        cupy.copied.append(np.array(values))
        self[...] = values

    def get(self) -> Any:
        if sys.modules["cupy"].streams[-1].capturing:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: not permitted when stream is capturing")
        return self.view(np.ndarray).copy()


class Stream:
    def __init__(self, cupy: Any, ptr: int = 0, non_blocking: bool = False) -> None:
        self.cupy, self.ptr, self.non_blocking = cupy, ptr, non_blocking
        self.capturing: list[Any] | None = None

    def __enter__(self) -> Stream:
        self.cupy.streams.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self.cupy.streams.pop() is self

    def synchronize(self) -> None:
        assert self.capturing is None

    def begin_capture(self) -> None:
        assert self.non_blocking and self.ptr and not gc.isenabled()
        self.capturing = []

    def end_capture(self) -> Any:
        work, self.capturing = self.capturing, None
        assert work is not None
        if "invalid" in work:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated")
        return types.SimpleNamespace(launch=lambda: self.cupy.done.extend(work))


class Pool:
    """A pool hands out NumPy's memory, and knows its pieces. What it is refused it asks for again, as CuPy's, when it
    has given back its unused blocks."""

    def __init__(self, allocator: Any) -> None:
        self.allocator, self.pieces, self.given_back = allocator, [], 0

    def malloc(self, size: int) -> Any:
        try:
            piece = self.allocator(size).mem
        except CUDARuntimeError:
            self.given_back += 1
            piece = self.allocator(size).mem
        self.pieces.append(piece)
        memory = types.SimpleNamespace(size=size)
        return types.SimpleNamespace(mem=memory, ptr=piece.ctypes.data, device_id=0, piece=piece)


class RecordingCupy(FakeCupy):
    def __init__(self) -> None:
        super().__init__()
        self.done: list[Any] = []
        self.copied: list[Any] = []
        self.freed = 0
        self.streams = [Stream(self)]
        self.allocators: list[Any] = []
        self.pools: list[Pool] = []
        self.ndarray = Array
        cuda = self.cuda
        cuda.get_current_stream = lambda: self.streams[-1]
        self.made: list[Stream] = []
        cuda.Stream = self._stream
        cuda.MemoryPool = self._pool
        cuda.using_allocator = self._using
        cuda.runtime.CUDARuntimeError = CUDARuntimeError
        self.free = 1 << 30  # bytes that the driver has
        cuda.memory = types.SimpleNamespace(
            MemoryPointer=self._pointer,
            Memory=self._driver,
            OutOfMemoryError=OutOfMemoryError,
            UnownedMemory=lambda ptr, size, owner, device: types.SimpleNamespace(ptr=ptr, owner=owner),
        )
        self.zeros = lambda shape, dtype: np.zeros(shape, dtype).view(Array)

    def _stream(self, non_blocking: bool = False) -> Stream:
        self.made.append(Stream(self, 7, non_blocking))
        return self.made[-1]

    @staticmethod
    def _pointer(memory: Any, offset: int) -> Any:
        if isinstance(memory, np.ndarray):
            return types.SimpleNamespace(mem=memory)
        return types.SimpleNamespace(ptr=memory.ptr, piece=memory.owner._pointer.piece)

    def _driver(self, size: int) -> Any:
        if size > self.free:
            raise CUDARuntimeError("cudaErrorMemoryAllocation")
        return np.empty(size, np.uint8)

    def _pool(self, allocator: Any) -> Pool:
        self.pools.append(Pool(allocator))
        return self.pools[-1]

    @contextmanager
    def _using(self, allocator: Any) -> Any:
        self.allocators.append(allocator)
        try:
            yield
        finally:
            self.allocators.pop()

    def get_default_memory_pool(self) -> Any:
        return types.SimpleNamespace(free_all_blocks=self._freed, total_bytes=lambda: 1 << 30)

    def _freed(self) -> None:
        self.freed += 1
        self.free += 100

    def empty(self, shape: Any, dtype: Any = np.float32) -> Any:  # type: ignore[override]
        if not self.allocators:
            return np.empty(shape, dtype).view(Array)
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        pointer = self.allocators[-1](nbytes)
        return pointer.piece.view(dtype).reshape(shape).view(Array)

    def RawModule(self, *, path: str) -> Any:
        assert self.streams[-1].capturing is None, "a module loaded inside a capture"

        def launch(name: str, args: Any) -> None:
            stream = self.streams[-1]
            (self.done if stream.capturing is None else stream.capturing).append((name, args))

        def kernel(name: str) -> Any:
            return lambda grid, block, args, shared_mem=0: launch(name, args)

        return types.SimpleNamespace(get_function=kernel)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RecordingCupy:
    compiler.load_nvrtc()
    module = RecordingCupy()
    module.__dict__.pop("empty", None)  # the base class keeps NumPy's
    monkeypatch.setitem(sys.modules, "cupy", module)
    gpus = (driver.Device(0, "A", (7, 5), 1 << 30),)
    monkeypatch.setattr(driver, "query", lambda: driver.Driver(True, (12, 9), gpus, None))
    monkeypatch.setattr(driver, "unavailable_reason", lambda: None)
    counts = MemoryTracker()
    counts.installed = True
    monkeypatch.setattr(engine_module, "tracker", counts)
    monkeypatch.setattr(graph_module, "tracker", counts)
    monkeypatch.setenv("GPUCNN_CACHE_DIR", str(tmp_path / "cache"))
    return module


@pytest.fixture
def backend(cupy, monkeypatch) -> CudaBackend:
    made = CudaBackend(CudaEngine(0))
    monkeypatch.setattr(backends, "get", lambda device: made)
    return made


@pytest.fixture
def kernel(backend, kernels) -> Any:
    found = backend.engine.kernel(declarations(kernels / "values.cu")["read_scalars"])
    found((1, 1, 1), (32, 1, 1), ("warm-up",))
    backend.xp.done.clear()
    return found


def captured(step: Any, *inputs: Any, memory: Any = None) -> graphs.CapturedStep:
    return graphs.CapturedStep(step, inputs, Device("cuda", 0), memory)


def test_a_step_is_captured_on_a_stream_of_its_own_and_replayed_in_order(backend, kernel) -> None:
    cupy = backend.xp

    def step() -> None:
        assert backend.engine.capturing and cupy.streams[-1].capturing is not None
        for number in range(3):
            kernel((1 + number, 1, 1), (32, 1, 1), (number,), shared_mem=8)

    with backend.engine.record() as eager:
        graph = captured(step)
    assert eager == [] and cupy.done == [] and cupy.freed == 1
    assert graph.launches == [Launch("read_scalars", (1 + n, 1, 1), (32, 1, 1), 8) for n in range(3)]
    assert not backend.engine.capturing and len(cupy.streams) == 1 and not cupy.allocators and gc.isenabled()
    for _ in range(2):
        graph.replay()
    assert cupy.done == [("read_scalars", (n,)) for n in range(3)] * 2


def test_addresses_reach_the_device_after_the_capture(backend, kernel) -> None:
    cupy, tables = backend.xp, []
    arrays = [cupy.empty(4), cupy.empty(3)]

    def step() -> None:
        tables.append(backend.engine.pointer_table(arrays))
        tables.append(backend.engine.pointer_table(arrays))
        assert cupy.copied == []

    captured(step)
    assert tables[0] is tables[1]
    assert tables[0].tolist() == [array.ctypes.data for array in arrays]
    assert [copy.tolist() for copy in cupy.copied] == [tables[0].tolist()]


def test_a_constant_goes_by_another_stream(backend, kernel) -> None:
    found = []
    captured(lambda: found.append(backend.constant(np.arange(3.0))))
    assert found[0].tolist() == [0.0, 1.0, 2.0]
    assert [copy.tolist() for copy in backend.xp.copied] == [[0.0, 1.0, 2.0]]


def test_what_a_capture_allocates_is_its_own_and_counted(backend, kernel) -> None:
    cupy, counts = backend.xp, graph_module.tracker
    made = []
    first = captured(lambda: made.append(backend.empty((5,))))
    (pool,) = cupy.pools
    assert made[0].ctypes.data == pool.pieces[0].ctypes.data
    assert counts.most(0) == 20
    second = captured(lambda: made.append(backend.empty((5,))), memory=first)
    assert len(cupy.pools) == 1 and len(pool.pieces) == 2
    assert second._capture.stream is first._capture.stream  # a pool keeps what is freed for each stream apart
    captured(lambda: made.append(backend.empty((5,))))
    assert len(cupy.pools) == 2


def test_a_graphs_pool_gives_nothing_back_to_the_driver(backend, kernel) -> None:
    cupy = backend.xp

    def step(size: int) -> Any:
        cupy.free = 10
        return lambda: backend.empty((size,), np.uint8) is None

    captured(step(120))  # other pools' unused blocks make room for it
    with pytest.raises(OutOfMemoryError):
        captured(step(300))
    assert [pool.given_back for pool in cupy.pools] == [0, 0] and not backend.engine.capturing


def test_a_graph_keeps_what_another_one_of_the_same_memory_made(backend, kernel) -> None:
    made: list[Any] = []
    first = captured(lambda: made.append(backend.empty((4,))))
    second = captured(lambda: kernel((1, 1, 1), (32, 1, 1), (made[0], backend.empty((4,)))), memory=first)
    assert [array is made[0] for array in second._capture._kept.values()] == [True]


def test_a_graph_keeps_what_it_reads_from_outside_and_lets_its_own_temporaries_go(backend, kernel) -> None:
    kept = {"outside": backend.xp.empty(4)}
    seen = []

    def step() -> None:
        inside = backend.empty((4,))
        kernel((1, 1, 1), (32, 1, 1), (kept["outside"], inside))
        seen.extend([weakref.ref(kept.pop("outside")), weakref.ref(inside)])

    graph = captured(step)
    backend.xp.done.clear()  # the stand-in's own list has the arguments
    assert len(graph._capture._kept) == 1
    (outside,) = graph._capture._kept.values()
    assert outside is seen[0]() and outside.ctypes.data not in graph._capture._begins


def test_a_host_read_names_the_operator_and_leaves_all_as_it_was(backend, kernel) -> None:
    cupy = backend.xp
    x = Tensor(cupy.empty((1,)), Device("cuda", 0))
    with pytest.raises(NotCapturable, match=r"cuda\.graph: Tensor\.item \(test_graph\.py:\d+\) reads a value"):
        captured(lambda: x.item())
    assert not backend.engine.capturing and len(cupy.streams) == 1 and not cupy.allocators and gc.isenabled()
    assert [stream.capturing for stream in cupy.made] == [None]
    captured(lambda: kernel((1, 1, 1), (32, 1, 1), (1,))).replay()
    assert cupy.done == [("read_scalars", (1,))]


def test_what_cupy_refuses_names_the_operator(backend, kernel) -> None:
    cupy = backend.xp

    def blas() -> None:
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")

    def copied() -> None:
        cupy.streams[-1].capturing.append("invalid")
        x.data.get()

    x = Tensor(cupy.empty((2, 2)), Device("cuda", 0))
    with pytest.raises(NotCapturable, match=r"cuda\.graph: the step cannot be captured: calling cuBLAS"):
        captured(blas)
    with pytest.raises(NotCapturable, match="cannot be captured: cudaErrorStreamCaptureUnsupported"):
        captured(copied)
    with pytest.raises(NotCapturable, match="a copy from the host cannot be captured"):
        captured(lambda: backend.from_host(np.zeros(3)))
    with pytest.raises(ZeroDivisionError):
        captured(lambda: 1 / 0)
    assert cupy.done == [] and not backend.engine.capturing


def test_captures_do_not_nest_and_belong_to_their_thread(backend, kernel) -> None:
    seen = []

    def step() -> None:
        thread = threading.Thread(target=lambda: seen.append(backend.engine.capturing))
        thread.start()
        thread.join()
        captured(lambda: None)

    with pytest.raises(NotCapturable, match=r"a step is being captured on cuda(:0)? already"):
        captured(step)
    assert seen == [False] and not backend.engine.capturing
