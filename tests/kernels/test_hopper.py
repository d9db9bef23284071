"""The wrappers of kernels/hopper.cuh on the emulator standing for sm_90, beside float64, and what it catches.

Where a product's elements lie is written in the kernels of hopper.cu, and once more in the emulator: a tile that one of
them has wrong gives wrong sums.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gpucnn.backends.emulator import (
    BarrierFault,
    EmulatorEngine,
    KernelTrap,
    MisalignedAccess,
    OutOfBounds,
    UninitializedRead,
    WarpFault,
)
from gpucnn.backends.launch import Launcher
from tests.numpy_backend.geometries import normal

HERE = Path(__file__).parent


@pytest.fixture
def launch() -> Launcher:
    return Launcher(EmulatorEngine("strict", 90), HERE)


def assert_product(d: np.ndarray, a: np.ndarray, b: np.ndarray, before: np.ndarray | float = 0.0) -> None:
    """d = before + a b; products of halves are exact, each of the additions is off by eps at most."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    scale = abs(a64) @ abs(b64) + abs(before)
    assert (abs(d - (a64 @ b64 + before)) <= a.shape[1] * np.finfo(np.float32).eps * scale).all()


@pytest.mark.parametrize("k", [64, 320])
@pytest.mark.parametrize(
    ("kernel", "n", "dtype"),
    [
        ("product_f16_64", 64, np.float16),
        ("product_f16_128", 128, np.float16),
        ("product_bf16_256", 256, ml_dtypes.bfloat16),
    ],
)
def test_products_in_two_stages(launch: Launcher, kernel: str, n: int, dtype: Any, k: int) -> None:
    a, b = normal(1, (64, k), np.float32).astype(dtype), normal(2, (n, k), np.float32).astype(dtype)
    d = np.zeros((64, n), np.float32)
    launch("hopper.cu", kernel, 1, 128, a, b, d, k, shared_mem=2 * (64 + n) * 128)
    assert_product(d, a, b.T)


@pytest.mark.parametrize("kernel", ["product_of_columns", "product_of_short_columns"])
def test_a_product_of_operands_whose_rows_run_along_m_and_n(launch: Launcher, kernel: str) -> None:
    a, b = normal(3, (32, 64), np.float32).astype(np.float16), normal(4, (32, 128), np.float32).astype(np.float16)
    d = normal(5, (64, 128), np.float32)
    before = d.astype(np.float64)
    launch("hopper.cu", kernel, 1, 128, a, b, d)
    assert_product(d, a.T, b, before)


def test_a_product_of_short_lines(launch: Launcher) -> None:
    a, b = (normal(seed, (64, 32), np.float32).astype(ml_dtypes.bfloat16) for seed in (5, 6))
    d = np.zeros((64, 64), np.float32)
    launch("hopper.cu", "product_of_short_rows", 1, 128, a, b, d)
    assert_product(d, a, b.T)


def test_a_producer_and_a_consumer(launch: Launcher) -> None:
    x = normal(6, (7 * 256,), np.float32)
    y = np.zeros_like(x)
    launch("hopper.cu", "produce_and_consume", 1, 64, x, y, 7)
    np.testing.assert_array_equal(y, x + np.float32(1))


def test_pairs_of_warps_and_copies_that_arrive(launch: Launcher) -> None:
    x, y = normal(7, (128,), np.float32), np.zeros(128, np.float32)
    launch("hopper.cu", "pairs_of_warps", 1, 128, x, y)
    np.testing.assert_array_equal(y, x.reshape(2, 64)[:, ::-1].reshape(-1))


@pytest.mark.parametrize(
    ("which", "error", "message"),
    [
        (1, WarpFault, r"wgmma without wgmma_fence\(\)"),
        (2, UninitializedRead, r"y\[0\] depends on memory that nobody wrote"),
        (3, BarrierFault, r"operand B of the wgmma at .*hopper_faults.cu:\d+ was overwritten before its wait"),
        (
            4,
            MisalignedAccess,
            "operand A starts at byte 128 of shared memory: its tile must start at a multiple of 1024",
        ),
        (5, WarpFault, "leaves the kernel while its wgmma is under way"),
        (6, OutOfBounds, "operand A takes 8192 bytes at 15360, which is outside the block's 16384 bytes"),
    ],
)
def test_products_gone_wrong(launch: Launcher, which: int, error: Any, message: str) -> None:
    y = np.zeros(128, np.float32)
    launch("hopper_faults.cu", "multiply", 1, 128, y, 0, shared_mem=16384)
    assert (y == 32 * 32).all()
    with pytest.raises(error, match=message):
        launch("hopper_faults.cu", "multiply", 1, 128, y, which, shared_mem=16384)


@pytest.mark.parametrize(
    ("which", "error", "message"),
    [
        (1, BarrierFault, "the mbarrier at byte 256 of shared memory was not initialised"),
        (
            2,
            BarrierFault,
            r"waits for phase 0 of the mbarrier at byte 256 .*lacks 0 arrivals and 256 bytes; no thread can",
        ),
        (3, UninitializedRead, r"y\[0\] depends on memory that nobody wrote"),
        (4, MisalignedAccess, "cp.async.bulk of 252 bytes from .*: both must be multiples of 16"),
        (5, BarrierFault, "arrives at the mbarrier at byte 256, whose phase has seen its 1 arrivals already"),
        (6, BarrierFault, r"comes to named barrier 2 with (32|64) threads, others came with (64|32)"),
        (7, BarrierFault, r"waits at named barrier 3 .*where 32 of 64 threads have come; no thread can go on"),
    ],
)
def test_barriers_gone_wrong(launch: Launcher, which: int, error: Any, message: str) -> None:
    x, y = normal(8, (64,), np.float32), np.zeros(64, np.float32)
    launch("hopper_faults.cu", "fetch", 1, 64, x, y, 0, shared_mem=264)
    np.testing.assert_array_equal(y, x)
    with pytest.raises(error, match=message):
        launch("hopper_faults.cu", "fetch", 1, 64, x, y, which, shared_mem=264)


def test_other_gpus_do_not_have_it() -> None:
    launch = Launcher(EmulatorEngine("fast", 80), HERE)
    with pytest.raises(KernelTrap, match="needs sm_90a"):
        launch("hopper_faults.cu", "multiply", 1, 128, np.zeros(128, np.float32), 0, shared_mem=16384)


def test_bulk_copies_are_traffic(launch: Launcher) -> None:
    x, y = normal(9, (3 * 256,), np.float32), np.zeros(3 * 256, np.float32)
    with launch.engine.traffic() as records:
        launch("hopper.cu", "produce_and_consume", 1, 64, x, y, 3)
    assert (records[0].read, records[0].written, records[0].requested) == (3072, 3072, 6144)
