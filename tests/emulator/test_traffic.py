"""The bytes that a launch reads, writes and asks for, beside counts made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import backends
from gpucnn.backends.emulator import EmulatorEngine
from gpucnn.backends.emulator.traffic import Traffic
from gpucnn.backends.launch import Launcher
from tests.emulator.conftest import KERNELS


@pytest.fixture
def launch() -> Launcher:
    return Launcher(EmulatorEngine("fast", 80), KERNELS)


def counted(launch: Launcher, kernel: str, grid: Any, block: Any, *args: Any) -> Traffic:
    with launch.engine.traffic() as records:
        launch("traffic.cu", kernel, grid, block, *args)
    (record,) = records
    assert (record.kernel, record.block) == (kernel, (block, 1, 1))
    return record


def of(record: Traffic, name: str) -> tuple[int, ...]:
    array = record.array(name)
    return array.size, array.read, array.written, array.touched, array.requested


def floats(size: int) -> np.ndarray:
    return np.random.default_rng(size).standard_normal(size).astype(np.float32)


@pytest.mark.parametrize(("kernel", "width"), [("copy", 1), ("copy_vec4", 4)])
def test_a_copy(launch: Launcher, kernel: str, width: int) -> None:
    x, y = floats(1000), np.zeros(1000, np.float32)
    record = counted(launch, kernel, 3, 128, x, y, 1000 // width)
    assert (record.read, record.written, record.touched, record.requested) == (4000, 4000, 8000, 8000)
    assert of(record, "x") == (4000, 4000, 0, 4000, 4000)
    assert of(record, "y") == (4000, 0, 4000, 4000, 4000)
    assert (y == x).all()


def test_vectors_of_halves(launch: Launcher) -> None:
    x, y = floats(80).astype(np.float16), np.zeros(80, np.float32)
    record = counted(launch, "widen", 1, 32, x, y, 10)
    assert (record.read, record.written, record.touched, record.requested) == (160, 320, 480, 480)
    assert (y == x).all()


def test_a_part_that_is_read_again(launch: Launcher) -> None:
    """100 windows of 7: 106 elements are read, 700 times in all; the rest of x is not."""
    x, y = floats(500), np.zeros(100, np.float32)
    record = counted(launch, "window_sums", 2, 64, x, y, 100, 7)
    assert of(record, "x") == (2000, 424, 0, 424, 2800)
    assert of(record, "y") == (400, 0, 400, 400, 400)


def test_single_bytes_and_no_shared_memory(launch: Launcher) -> None:
    x, y = np.arange(1000, dtype=np.uint8), np.zeros(1000, np.uint8)
    record = counted(launch, "every", 1, 64, x, y, 1000, 3)
    assert of(record, "x") == (1000, 334, 0, 334, 334)
    assert of(record, "y") == (1000, 0, 334, 334, 334)
    assert record.requested == 668


@pytest.mark.parametrize("valid", [128, 70, 0])
def test_asynchronous_copies_of_16_bytes(launch: Launcher, valid: int) -> None:
    x, y = floats(512), np.zeros(512, np.float32)
    record = counted(launch, "through_shared", 2, 64, x, y, valid)
    assert of(record, "x") == (2048, 16 * valid, 0, 16 * valid, 16 * valid)
    assert of(record, "y") == (2048, 0, 2048, 2048, 2048)
    assert (y[: 4 * valid] == x[: 4 * valid]).all() and not y[4 * valid :].any()


def test_atomics_read_and_write(launch: Launcher) -> None:
    labels = np.array([3, 3, 5, 3, 0, 5], np.int64)
    counts = np.zeros(10, np.uint32)
    record = counted(launch, "count_labels", 1, 64, labels, counts, 6)
    assert of(record, "labels") == (48, 48, 0, 48, 48)
    assert of(record, "counts") == (40, 12, 12, 12, 48)
    assert counts.tolist() == [1, 0, 0, 3, 0, 2, 0, 0, 0, 0]


def test_a_table_and_its_arrays(launch: Launcher) -> None:
    sizes = np.array([5, 130], np.int32)
    parameters, gradients = [floats(5), floats(130)], [floats(6)[:5], floats(131)[:130]]
    record = counted(launch, "step", 2, 64, parameters, gradients, sizes)
    assert of(record, "parameters") == (16, 16, 0, 16, 2 * 64 * 8)
    assert of(record, "parameters[1]") == (520, 520, 520, 520, 1040)
    assert of(record, "gradients[0]") == (20, 20, 0, 20, 20)
    assert record.touched == 2 * 16 + 8 + 2 * (20 + 520)
    assert record.written == 540


def test_memory_that_two_arguments_share_counts_once(launch: Launcher) -> None:
    x, z = floats(300), np.zeros(100, np.float32)
    record = counted(launch, "add", 1, 64, x[:100], x[:100], None, z, 100)
    assert (record.read, record.touched, record.requested) == (400, 800, 1200)
    record = counted(launch, "add", 1, 64, x[:100], x[50:150], x[130:250], z, 100)
    assert (record.read, record.touched, record.requested) == (230 * 4, 330 * 4, 1600)
    assert of(record, "y") == (400, 400, 0, 400, 400)


def test_records_end_with_their_block_and_the_public_device_has_them() -> None:
    backend = backends.get(gpucnn.device("emulated"))
    x = backend.from_host(floats(64).reshape(2, 32))
    with backend.engine.traffic() as records, backend.engine.record() as launches:
        backend.relu_forward(x)
    backend.relu_forward(x)
    (record,) = records
    assert [record.kernel] == [launch.kernel for launch in launches]
    assert (record.read, record.written, record.requested) == (256, 256, 512)
    assert backend.engine.mode != "traffic"
