"""The engine's own work, without a GPU: a stand-in for CuPy notes what is loaded, launched and copied."""

from __future__ import annotations

import sys
import types
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucnn.backends.cuda import compiler, driver
from gpucnn.backends.cuda import engine as engine_module
from gpucnn.backends.cuda.backend import CudaBackend
from gpucnn.backends.cuda.compiler import CompileError
from gpucnn.backends.cuda.engine import CudaEngine
from gpucnn.backends.declarations import declarations
from gpucnn.backends.launch import Launch


class RawKernel:
    def __init__(self, cupy: Any, path: str, name: str) -> None:
        self.cupy, self.path, self.name = cupy, path, name
        self.max_dynamic_shared_size_bytes = 48 * 1024
        self.launches: list[Any] = []

    def __call__(self, grid: Any, block: Any, args: Any, shared_mem: int = 0) -> None:
        assert shared_mem <= self.max_dynamic_shared_size_bytes, "a GPU refuses this launch"
        self.launches.append((grid, block, args, shared_mem, self.cupy.current))


class FakeCupy(types.ModuleType):
    """Two GPUs; arrays are NumPy's."""

    def __init__(self) -> None:
        super().__init__("cupy")
        self.current = 0
        self.loaded: list[tuple[str, int]] = []
        self.copies = 0
        self.synchronized = 0
        self.stream = stream = types.SimpleNamespace(ptr=0, synchronize=self._synchronize)
        runtime = types.SimpleNamespace(getDevice=lambda: self.current)
        self.cuda = types.SimpleNamespace(Device=self._device, runtime=runtime, get_current_stream=lambda: stream)
        self.empty, self.array = np.empty, self.asarray
        self.ndarray = np.ndarray
        self.copied_to: list[int] = []

    def _synchronize(self) -> None:
        self.synchronized += 1

    def _device(self, index: int) -> Any:
        cupy = self

        class Device:
            def __enter__(self) -> None:
                self.before, cupy.current = cupy.current, index

            def __exit__(self, *_: object) -> None:
                cupy.current = self.before

        @contextmanager
        def entered() -> Any:
            with Device():
                yield

        return _Reentrant(entered)

    def asarray(self, array: Any) -> Any:
        self.copies += 1
        self.copied_to.append(self.current)
        return array.copy()

    def RawModule(self, *, path: str) -> Any:
        self.loaded.append((Path(path).name.rsplit("-", 1)[0], self.current))
        return types.SimpleNamespace(get_function=lambda name: RawKernel(self, path, name))


class _Reentrant:
    """A device that can be entered again while it is entered, as CuPy's can."""

    def __init__(self, make: Any) -> None:
        self.make, self.stack = make, []

    def __enter__(self) -> None:
        self.stack.append(self.make())
        self.stack[-1].__enter__()

    def __exit__(self, *error: Any) -> None:
        self.stack.pop().__exit__(*error)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCupy:
    compiler.load_nvrtc()  # CuPy itself finds the library, so before something stands in for it
    module = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    gpus = (driver.Device(0, "A", (7, 5), 1 << 30), driver.Device(1, "B", (8, 6), 1 << 30))
    monkeypatch.setattr(driver, "query", lambda: driver.Driver(True, (12, 9), gpus, None))
    monkeypatch.setattr(driver, "unavailable_reason", lambda: None)
    monkeypatch.setattr(engine_module, "tracker", types.SimpleNamespace(install=lambda cupy: None))
    monkeypatch.setenv("GPUCNN_CACHE_DIR", str(tmp_path / "cache"))
    return module


def test_a_kernel_is_compiled_and_loaded_at_its_first_launch_on_its_own_gpu(cupy, kernels) -> None:
    engine = CudaEngine(1)
    found = declarations(kernels / "values.cu")
    first, second = engine.kernel(found["read_struct"]), engine.kernel(found["add_to_each"])
    assert cupy.loaded == []
    for _ in range(2):
        first((1, 1, 1), (32, 1, 1), ("a",))
        second((2, 1, 1), (64, 1, 1), ("b",), shared_mem=8)
    assert cupy.loaded == [("values-sm_86", 1)]
    assert first.raw.launches == [((1, 1, 1), (32, 1, 1), ("a",), 0, 1)] * 2
    assert second.raw.launches == [((2, 1, 1), (64, 1, 1), ("b",), 8, 1)] * 2
    assert cupy.current == 0


def test_a_null_pointer_goes_as_the_number_0(cupy, kernels) -> None:
    """CuPy up to 13 takes None for a pointer to nowhere in particular."""
    kernel = CudaEngine(0).kernel(declarations(kernels / "values.cu")["read_scalars"])
    kernel((1, 1, 1), (32, 1, 1), ("a", None, 3))
    (arguments,) = [launch[2] for launch in kernel.raw.launches]
    assert arguments == ("a", 0, 3)
    assert arguments[1].dtype == np.uint64  # as wide as a pointer


def test_constants_are_on_their_gpu_before_any_stream_can_ask_for_them(cupy) -> None:
    backend = CudaBackend(CudaEngine(1))
    values = np.arange(3.0)
    array = backend.constant(values)
    assert array is not values and array.tolist() == [0, 1, 2]
    assert (cupy.copied_to, cupy.synchronized) == ([1], 1)


def test_more_than_48_kib_of_shared_memory_is_asked_for(cupy, kernels) -> None:
    kernel = CudaEngine(0).kernel(declarations(kernels / "values.cu")["reverse_blocks"])
    for size in (1024, 60000, 50000, 64000):
        kernel((1, 1, 1), (32, 1, 1), (), shared_mem=size)
    assert [launch[3] for launch in kernel.raw.launches] == [1024, 60000, 50000, 64000]


def test_a_kernel_that_does_not_compile_raises_at_its_first_launch(cupy, tmp_path) -> None:
    source = tmp_path / "wrong.cu"
    source.write_text('extern "C" __global__ void wrong(int n) { oops; }\n')
    kernel = CudaEngine(0).kernel(declarations(source)["wrong"])
    for _ in range(2):
        with pytest.raises(CompileError, match=r'(?s)wrong\.cu cannot be compiled for cuda:0: .*"oops" is undefined'):
            kernel((1, 1, 1), (1, 1, 1), ())


def test_a_cache_that_cannot_be_written_raises_at_the_first_launch(cupy, kernels, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GPUCNN_CACHE_DIR", str(tmp_path / "file" / "below"))
    kernel = CudaEngine(0).kernel(declarations(kernels / "values.cu")["read_struct"])
    with pytest.raises(CompileError, match="GPUCNN_CACHE_DIR"):
        kernel((1, 1, 1), (1, 1, 1), ())


def test_tables_are_copied_once_and_the_latest_are_kept(cupy, monkeypatch) -> None:
    monkeypatch.setattr(engine_module, "TABLES_KEPT", 3)
    engine = CudaEngine(0)
    arrays = [np.zeros(4, np.float32) for _ in range(6)]
    table = engine.pointer_table(arrays[:2])
    assert table.dtype == np.uint64
    assert table.tolist() == [array.ctypes.data for array in arrays[:2]]
    assert engine.pointer_table(tuple(arrays[:2])) is table
    assert (cupy.copies, cupy.synchronized) == (1, 0)
    assert engine.pointer_table(arrays[1::-1]).tolist() == table.tolist()[::-1]
    engine.pointer_table(arrays[2:3])
    engine.pointer_table(arrays[:2])  # used again: the oldest is now another
    engine.pointer_table(arrays[3:4])
    copies = cupy.copies
    assert engine.pointer_table(arrays[:2]) is table
    assert cupy.copies == copies
    engine.pointer_table(arrays[1::-1])
    assert cupy.copies == copies + 1


def test_each_stream_has_tables_of_its_own(cupy) -> None:
    engine, arrays = CudaEngine(1), [np.zeros(4, np.float32)]
    first = engine.pointer_table(arrays)
    cupy.stream.ptr = 7  # its launches do not wait for the first stream's copy
    second = engine.pointer_table(arrays)
    assert first is not second
    assert engine.pointer_table(arrays) is second
    cupy.stream.ptr = 0
    assert engine.pointer_table(arrays) is first
    assert cupy.copied_to == [1, 1]


def test_launches_are_recorded_while_a_record_is_open(cupy, kernels) -> None:
    engine = CudaEngine(0)
    kernel = engine.kernel(declarations(kernels / "values.cu")["read_struct"])
    run = lambda blocks: kernel((blocks, 1, 1), (32, 1, 1), ())  # noqa: E731
    run(1)
    with engine.record() as outer:
        run(2)
        with engine.record() as inner:
            run(3)
        run(4)
    run(5)
    assert outer == [Launch("read_struct", (blocks, 1, 1), (32, 1, 1), 0) for blocks in (2, 3, 4)]
    assert inner == outer[1:2]


def test_a_gpu_that_is_not_there(cupy) -> None:
    with pytest.raises(RuntimeError, match=r"cuda:2 cannot be used: this process sees 2 GPU\(s\)"):
        CudaEngine(2)


def test_a_gpu_too_old_for_this_nvrtc(cupy, monkeypatch) -> None:
    monkeypatch.setattr(compiler, "load_nvrtc", lambda: types.SimpleNamespace(
        getSupportedArchs=lambda: [80, 90], getVersion=lambda: (13, 0)))  # fmt: skip
    with pytest.raises(CompileError, match=r"does not compile for compute capability 7\.5"):
        CudaEngine(0)
