"""On a real GPU: every kernel loads, and arguments of every kind arrive as the launcher hands them over."""

from __future__ import annotations

import numpy as np
import pytest

from gpucnn import cuda
from gpucnn.backends.declarations import declarations, kernel_sources
from gpucnn.backends.launch import Launch, Launcher

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def engine():
    from gpucnn.backends.cuda.engine import CudaEngine

    return CudaEngine(0)


@pytest.fixture
def launch(engine, kernels) -> Launcher:
    return Launcher(engine, kernels)


class Mixed:
    def as_struct(self) -> tuple[object, ...]:
        return (-7, 2**31 - 1, 2.25, -(2**40))


@pytest.mark.parametrize("source", [source.name for source in kernel_sources()])
def test_every_kernel_loads(engine, source) -> None:
    for declaration in declarations(source).values():
        raw = engine.load(declaration)
        assert raw.num_regs > 0
        assert raw.max_threads_per_block >= declaration.max_threads


def test_a_struct_arrives_by_value(engine, launch) -> None:
    out = engine.xp.zeros(4, np.int64)
    launch("values.cu", "read_struct", 1, 32, Mixed(), out)
    assert out.get().tolist() == [-7, 2**31 - 1, 9, -(2**40)]


@pytest.mark.parametrize("null", [True, False])
def test_scalars_and_null_pointers_arrive(engine, launch, null) -> None:
    out = engine.xp.zeros(7, np.int64)
    maybe = None if null else engine.xp.full(1, 5, np.float32)
    launch("values.cu", "read_scalars", 1, 32, -3, 2**32 - 1, 200, -(2**50), 2**63 - 1, 0.75, maybe, out)
    assert out.get().tolist() == [-3, 2**32 - 1, 200, -(2**50), 2**63 - 1, 3, -1 if null else 5]


def test_a_table_of_arrays_is_copied_to_the_gpu_once(engine, launch) -> None:
    sizes = [1, 70, 33]
    arrays = [engine.xp.zeros(size, np.float32) for size in sizes]
    counts = engine.xp.asarray(np.array(sizes, np.int32))
    launch("values.cu", "add_to_each", 3, 64, arrays, counts, 1.5)
    table = engine.pointer_table(arrays)
    launch("values.cu", "add_to_each", 3, 64, arrays, counts, 1.0)
    assert engine.pointer_table(arrays) is table
    for array in arrays:
        assert (array.get() == 2.5).all()


@pytest.mark.parametrize("count", [100, 12288, 16384])
def test_dynamic_shared_memory_also_above_48_kib(engine, launch, count) -> None:
    if count == 16384 and cuda.get_device_capability() < (7, 0):
        count = 8192
    x = engine.xp.arange(2 * count, dtype=np.float32)
    y = engine.empty(2 * count)
    launch("values.cu", "reverse_blocks", 2, 256, x, y, count, shared_mem=4 * count)
    assert np.array_equal(y.get().reshape(2, count), x.get().reshape(2, count)[:, ::-1])


def test_launches_are_recorded(engine, launch) -> None:
    out = engine.xp.zeros(4, np.int64)
    with engine.record() as launches:
        launch("values.cu", "read_struct", 2, (16, 2), Mixed(), out)
    launch("values.cu", "read_struct", 1, 32, Mixed(), out)
    assert launches == [Launch("read_struct", (2, 1, 1), (16, 2, 1), 0)]


def test_memory_is_counted(engine) -> None:
    before = cuda.memory_allocated()
    cuda.reset_peak_memory_stats()
    first = engine.empty(1 << 20)
    second = engine.empty(1 << 20)
    assert cuda.memory_allocated() - before == 2 * 4 << 20
    del first
    assert cuda.memory_allocated() - before == 4 << 20
    assert cuda.max_memory_allocated() - before == 2 * 4 << 20
    del second
    cuda.empty_cache()
    assert cuda.memory_allocated() == before


def test_arrays_of_the_host_are_refused(launch) -> None:
    with pytest.raises(TypeError, match=r"argument out must be a cupy\.ndarray on cuda:0, got numpy\.ndarray"):
        launch("values.cu", "read_struct", 1, 32, Mixed(), np.zeros(4, np.int64))
