"""Every check of the emulator catches a kernel that is wrong in one way, and the process lives on."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from gpucnn.backends.emulator import (
    AliasedArguments,
    BarrierFault,
    EmulatorFault,
    KernelStackOverflow,
    KernelTimeout,
    KernelTrap,
    MisalignedAccess,
    OrderDependence,
    OutOfBounds,
    ResourceFault,
    UndefinedBehaviour,
    UninitializedRead,
    UnwrittenOutput,
    WarpFault,
    WriteToInput,
)
from gpucnn.backends.launch import Launcher

GIGABYTE = 2**30 // 4  # in float32 elements


def ones(size: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.ones(size, dtype)


@pytest.fixture(autouse=True)
def process_lives_on(strict: Launcher) -> Iterator[None]:
    """After each test's fault: signals are handled as before, and a good kernel runs and is right."""
    before = [signal.getsignal(number) for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE)]
    yield
    assert before == [signal.getsignal(number) for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE)]
    x = np.arange(8, dtype=np.float32)
    y = np.zeros(8, np.float32)
    strict("good.cu", "double_vectors", 1, 32, x, y, 2)
    assert y.tolist() == [0, 2, 4, 6, 8, 10, 12, 14]


@pytest.mark.parametrize("size", [64, 61, 4096])
@pytest.mark.parametrize("beyond", [0, GIGABYTE, -1, -GIGABYTE])
def test_read_out_of_bounds(strict: Launcher, marked_line: Callable[[str], int], size: int, beyond: int) -> None:
    index = beyond if beyond < 0 else size + beyond
    y = ones(32)
    with strict.engine.exact_ends(), pytest.raises(OutOfBounds, match=rf"out-of-bounds read of x\[{index}\]") as caught:
        strict("broken.cu", "read_at", 2, 32, ones(size), y, index)
    fault = caught.value
    assert (fault.kernel, fault.thread) == ("read_at", (2, 0, 0))
    assert fault.block in ((0, 0, 0), (1, 0, 0))
    assert fault.file is not None and fault.file.endswith("broken.cu") and fault.line == marked_line("read_at")
    assert (y == 1).all(), "a launch that failed left its outputs alone"


@pytest.mark.parametrize("beyond", [0, GIGABYTE, -1, -GIGABYTE])
def test_write_out_of_bounds(strict: Launcher, beyond: int) -> None:
    index = beyond if beyond < 0 else 64 + beyond
    with pytest.raises(OutOfBounds, match=rf"write_at.*out-of-bounds write of y\[{index}\]"):
        strict("broken.cu", "write_at", 1, 32, ones(64), index)


@pytest.mark.parametrize("index", [61, 62, 63, -1, -15])
def test_write_into_the_bytes_beside_an_array(strict: Launcher, index: int) -> None:
    """61 bytes end 3 bytes before a multiple of 16, so these writes may meet no guard page."""
    with pytest.raises(OutOfBounds, match="write of y"):
        strict("broken.cu", "write_byte_at", 1, 32, ones(61, np.uint8), index)


def test_out_of_bounds_in_fast_mode(fast: Launcher) -> None:
    with pytest.raises(OutOfBounds, match=r"out-of-bounds read of x\[64\], element one past the last"):
        fast("broken.cu", "read_at", 1, 32, ones(64), ones(32), 64)


def test_write_to_input(either: Launcher, marked_line: Callable[[str], int]) -> None:
    x = np.zeros(32, np.float32)
    with pytest.raises(WriteToInput, match=r"write of x\[0\], but x is IN") as caught:
        either("broken.cu", "write_input", 1, 32, x, ones(32))
    assert caught.value.line == marked_line("write_input")
    assert not x.any()


def test_null_pointer(either: Launcher) -> None:
    with pytest.raises(OutOfBounds, match="null pointer"):
        either("broken.cu", "follow_null", 1, 32, None, ones(32))


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_misaligned_vector(strict: Launcher, marked_line: Callable[[str], int], shift: int) -> None:
    with pytest.raises(MisalignedAccess, match=r"misaligned address .* needs 16 bytes") as caught:
        strict("broken.cu", "misaligned", 1, 32, ones(64), ones(32), shift)
    assert caught.value.line == marked_line("misaligned")


def test_a_view_keeps_its_misalignment(strict: Launcher) -> None:
    x = ones(65)
    if x.ctypes.data % 16 == 0:
        x = x[1:]
    with pytest.raises(MisalignedAccess):
        strict("broken.cu", "misaligned", 1, 32, x[: len(x) // 4 * 4], ones(32), 0)


def test_index_overflow(strict: Launcher, marked_line: Callable[[str], int]) -> None:
    with pytest.raises(UndefinedBehaviour, match=r"signed integer overflow: 65536 \* 65536 in type 'int'") as caught:
        strict("broken.cu", "index_overflow", 1, 32, ones(4), ones(32), 65536, 65536)
    assert caught.value.line == marked_line("index_overflow")


def test_shift(strict: Launcher, marked_line: Callable[[str], int]) -> None:
    with pytest.raises(UndefinedBehaviour, match=r"shift of 1 .* by 3[2-9]") as caught:
        strict("broken.cu", "shift_too_far", 1, 8, ones(8, np.int32), 28)
    assert caught.value.line == marked_line("shift_too_far")


def test_division_by_zero(either: Launcher, marked_line: Callable[[str], int]) -> None:
    with pytest.raises(KernelTrap, match=r"thread \(5, 0, 0\): integer division") as caught:
        either("broken.cu", "divide", 1, 32, ones(32, np.int32), 5)
    assert caught.value.line == marked_line("divide")


@pytest.mark.parametrize("index", [16, -1])
def test_shared_array_overrun(strict: Launcher, marked_line: Callable[[str], int], index: int) -> None:
    """tile[0][16] lies inside the array of arrays: only the bounds of the inner one are crossed."""
    with pytest.raises(OutOfBounds, match=f"index {index} is outside of the array of type 'float *\\[16\\]'") as caught:
        strict("broken.cu", "shared_overrun", 1, 64, ones(64), index)
    assert caught.value.line == marked_line("shared_overrun")


@pytest.mark.parametrize("index", [64, 2**20])
def test_dynamic_shared_overrun(either: Launcher, marked_line: Callable[[str], int], index: int) -> None:
    with pytest.raises(OutOfBounds, match=r"of the block's .* bytes of shared memory") as caught:
        either("broken.cu", "dynamic_overrun", 1, 64, ones(64), index, shared_mem=256)
    assert caught.value.thread == (5, 0, 0)
    assert caught.value.line == marked_line("dynamic_overrun")


@pytest.mark.parametrize("index", [0, 31, 63])
def test_unwritten_float(strict: Launcher, index: int) -> None:
    with pytest.raises(UnwrittenOutput, match=rf"never wrote y\[{index}\] \(first of 1 unwritten elements of 64"):
        strict("broken.cu", "leave_out", 1, 64, ones(64), index)


@pytest.mark.parametrize("index", [0, 63, 37])
def test_unwritten_byte(strict: Launcher, index: int) -> None:
    y = np.ones((8, 8), np.uint8)
    with pytest.raises(UnwrittenOutput, match=rf"never wrote y\[{index // 8}, {index % 8}\]"):
        strict("broken.cu", "leave_out_byte", 1, 64, y, index)


@pytest.mark.parametrize("kernel", ["missing_barrier", "missing_second_barrier"])
def test_missing_barrier(strict: Launcher, kernel: str) -> None:
    x = np.arange(64, dtype=np.float32)
    with pytest.raises((OrderDependence, UninitializedRead), match=rf"{kernel}: y\["):
        strict("broken.cu", kernel, 1, 64, x, ones(64))


def test_unwritten_shared_memory(strict: Launcher) -> None:
    with pytest.raises(UninitializedRead, match=r"y\[56\] depends on memory that nobody wrote"):
        strict("broken.cu", "unwritten_shared", 1, 64, ones(64))


def test_divergent_barrier(either: Launcher, marked_line: Callable[[str], int]) -> None:
    with pytest.raises(BarrierFault, match=r"waits at the barrier .* while thread .* waits at the barrier") as caught:
        either("broken.cu", "divergent_barrier", 1, 64, ones(64))
    first = marked_line("divergent_barrier")
    assert caught.value.line == first + 2 and f"broken.cu:{first}" in str(caught.value)


def test_thread_leaves_while_others_wait(either: Launcher, marked_line: Callable[[str], int]) -> None:
    with pytest.raises(
        BarrierFault, match=r"leaves the kernel while thread \(0, 0, 0\) waits at the barrier"
    ) as caught:
        either("broken.cu", "early_exit", 1, 64, ones(64), 40)
    assert caught.value.thread == (40, 0, 0)
    assert caught.value.line == marked_line("early_exit")


@pytest.mark.parametrize(
    ("kernel", "what"),
    [
        ("absent_lane", r"waits for lane 3 \(mask 0xffffffff\), but thread \(3, 0, 0\) has left the kernel"),
        ("lane_elsewhere", r"waits for lane 3 \(mask 0xffffffff\), but thread \(3, 0, 0\) waits at the barrier"),
        ("lane_outside_mask", "reads lane 20, which is not in the mask 0x0000ffff"),
    ],
)
def test_warp_collective(either: Launcher, marked_line: Callable[[str], int], kernel: str, what: str) -> None:
    with pytest.raises(WarpFault, match=what) as caught:
        either("broken.cu", kernel, 1, 64, ones(64, np.int32))
    assert caught.value.line == marked_line(kernel)


def test_order_of_threads(strict: Launcher) -> None:
    with pytest.raises(
        OrderDependence, match=r"y\[0\] differs between threads and blocks run forward and run reversed"
    ):
        strict("broken.cu", "order_of_threads", 1, 64, ones(1))


@pytest.mark.parametrize("kernel", ["order_of_blocks", "reads_other_block"])
def test_order_of_blocks(strict: Launcher, kernel: str) -> None:
    with pytest.raises(OrderDependence, match=r"y\[\d\] differs between threads and blocks"):
        strict("broken.cu", kernel, 5, 32, ones(1 if kernel == "order_of_blocks" else 5, np.int32))


@pytest.mark.parametrize("kernel", ["missing_wait", "early_wait"])
def test_missing_wait_for_cp_async(strict: Launcher, kernel: str) -> None:
    x = np.arange(128, dtype=np.float32)
    with pytest.raises(UninitializedRead, match=r"y\[0\] depends on memory that nobody wrote"):
        strict("broken.cu", kernel, 1, 32, x, ones(128))


@pytest.mark.parametrize("index", [128, -4, GIGABYTE])
def test_cp_async_out_of_bounds(strict: Launcher, marked_line: Callable[[str], int], index: int) -> None:
    with pytest.raises(OutOfBounds, match=r"read of x\[") as caught:
        strict("broken.cu", "copy_far", 1, 32, ones(128), ones(32), index)
    assert caught.value.line == marked_line("copy_far")


def test_cp_async_misaligned(either: Launcher, marked_line: Callable[[str], int]) -> None:
    with pytest.raises(MisalignedAccess, match=r"cp.async of 16 bytes") as caught:
        either("broken.cu", "copy_misaligned", 1, 32, ones(128), ones(32))
    assert caught.value.line == marked_line("copy_misaligned")


def test_trap(either: Launcher, marked_line: Callable[[str], int]) -> None:
    with pytest.raises(KernelTrap, match=r"thread \(9, 0, 0\): __trap\(\) was called") as caught:
        either("broken.cu", "trap", 1, 64, ones(64))
    assert caught.value.line == marked_line("trap")


def test_assert(either: Launcher, marked_line: Callable[[str], int]) -> None:
    with pytest.raises(KernelTrap, match=r"assertion failed: \(int\)threadIdx.x < most") as caught:
        either("broken.cu", "failed_assert", 1, 64, ones(64), 40)
    assert caught.value.line == marked_line("failed_assert")


def test_stack_overflow(either: Launcher) -> None:
    with pytest.raises(KernelStackOverflow, match="256 KiB"):
        either("broken.cu", "stack_overflow", 1, 32, ones(32, np.int32), 100_000)


@pytest.mark.parametrize("mode", ["strict", "fast"])
def test_timeout(launcher: Callable[..., Launcher], mode: str) -> None:
    with pytest.raises(KernelTimeout, match="longer than its timeout"):
        launcher(mode, timeout=0.2)("broken.cu", "runs_away", 1, 32, ones(32, np.int32))


def test_aliased_arguments(either: Launcher) -> None:
    x = ones(64)
    with pytest.raises(AliasedArguments, match="arguments x and y overlap"):
        either("broken.cu", "add", 1, 32, x[:32], x[16:48])
    either("broken.cu", "add", 1, 32, x[:32], x[32:])
    assert x.tolist() == [1.0] * 32 + [2.0] * 32


def test_resources(launcher: Callable[..., Launcher]) -> None:
    with pytest.raises(ResourceFault, match="at most 48 KiB"):
        launcher("fast", arch=61)("broken.cu", "dynamic_overrun", 1, 64, ones(64), 0, shared_mem=49153)


def test_faults_are_runtime_errors() -> None:
    assert issubclass(EmulatorFault, RuntimeError)
    assert all(issubclass(cls, EmulatorFault) for cls in (OutOfBounds, BarrierFault, OrderDependence, KernelTimeout))
