"""The launcher hands an engine exactly what the kernel declares, and refuses everything else by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucnn.backends.launch import Launcher
from gpucnn.geometry import Conv2dGeometry

SOURCE = """
#include "common.cuh"
#include "geometry.cuh"
extern "C" __global__ void __launch_bounds__(128) arrays(IN float* __restrict__ x, OUT float* __restrict__ y, int n)
{} extern "C" __global__ void loose(IN float* x, INOUT float* y) {} extern "C" __global__ void vectors(IN float4* x)
{} extern "C" __global__ void longs(OUT long long* y) {} extern "C" __global__ void table(INOUT float* const*
__restrict__ xs) {} extern "C" __global__ void scalars(int i, unsigned u, unsigned char c, long long l, unsigned long
long ul, float f) {} extern "C" __global__ void geometry(Conv2dGeometry g) {}
struct Mixed { int a; float b; };
extern "C" __global__ void mixed(Mixed m) {}
"""


class Engine:
    """Takes NumPy arrays and notes what it is told to run."""

    name = "fake"
    xp = np

    def kernel(self, declaration: Any) -> Any:
        def run(grid: Any, block: Any, args: Any, shared_mem: int = 0) -> None:
            self.ran = (declaration.name, grid, block, args, shared_mem)

        return run


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def launch(tmp_path: Path, engine: Engine) -> Launcher:
    (tmp_path / "k.cu").write_text(SOURCE)
    return Launcher(engine, tmp_path)


def floats(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def test_arguments_arrive_in_order_and_sizes_have_three_numbers(launch, engine) -> None:
    x, y = floats(3, 4), floats(12)
    launch("k.cu", "arrays", 7, (32, 2), x, y, 12, shared_mem=64)
    name, grid, block, args, shared_mem = engine.ran
    assert (name, grid, block, shared_mem) == ("arrays", (7, 1, 1), (32, 2, 1), 64)
    assert args[0] is x
    assert args[1] is y
    assert type(args[2]) is np.int32


def test_scalars_become_the_c_types(launch, engine) -> None:
    launch("k.cu", "scalars", 1, 1, -(2**31), 2**32 - 1, 255, np.int8(-5), 2**64 - 1, 1)
    args = engine.ran[3]
    assert [type(a) for a in args] == [np.int32, np.uint32, np.uint8, np.int64, np.uint64, np.float32]
    assert [int(a) for a in args] == [-(2**31), 2**32 - 1, 255, -5, 2**64 - 1, 1]


@pytest.mark.parametrize("value", [0.1, np.float64(0.1), np.float32(0.1), np.array(0.1)])
def test_floats_are_rounded_to_float32(launch, engine, value) -> None:
    launch("k.cu", "scalars", 1, 1, 0, 0, 0, 0, 0, value)
    assert engine.ran[3][5].tobytes() == np.float32(0.1).tobytes()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_infinities_and_nan_pass(launch, engine, value) -> None:
    launch("k.cu", "scalars", 1, 1, 0, 0, 0, 0, 0, value)
    assert np.array_equal(engine.ran[3][5], np.float32(value), equal_nan=True)


@pytest.mark.parametrize(
    ("position", "value", "error", "message"),
    [
        (0, 2**31, ValueError, r"scalars: argument i \(int\): 2147483648 is outside -2147483648 to 2147483647"),
        (1, -1, ValueError, r"argument u \(unsigned\): -1 is outside"),
        (2, 256, ValueError, r"argument c \(unsigned char\): 256 is outside 0 to 255"),
        (3, 2**63, ValueError, r"argument l \(long long\)"),
        (4, 2**64, ValueError, r"argument ul \(unsigned long long\)"),
        (0, 1.0, TypeError, r"argument i \(int\) must be an integer, got float 1.0"),
        (0, None, TypeError, "must be an integer, got NoneType"),
        (5, 1e39, ValueError, r"argument f \(float\): 1e\+39 is out of the range of float32"),
        (5, "1", TypeError, "argument f .* must be a number, got str '1'"),
        (5, np.zeros(3), TypeError, r"must be a number, got numpy.ndarray of shape \(3,\)"),
    ],
)
def test_scalars_out_of_range_or_kind(launch, position, value, error, message) -> None:
    values: list[Any] = [0, 0, 0, 0, 0, 0.0]
    values[position] = value
    with pytest.raises(error, match=message):
        launch("k.cu", "scalars", 1, 1, *values)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros(4), TypeError, r"arrays: argument x must have dtype float32, got float64 of shape \(4,\)"),
        ([1.0], TypeError, r"argument x must be a numpy.ndarray on fake, got list"),
        (floats(4, 3).T, ValueError, r"argument x must be C-contiguous, got shape \(3, 4\) with strides \(4, 12\)"),
        (floats(8)[::2], ValueError, "must be C-contiguous"),
        (
            np.frombuffer(bytearray(17), np.uint8)[1:].view(np.float32),
            ValueError,
            "must start at a multiple of 4 bytes",
        ),
    ],
)
def test_arrays_of_another_kind(launch, x, error, message) -> None:
    with pytest.raises(error, match=message):
        launch("k.cu", "arrays", 1, 1, x, floats(1), 1)


def test_read_only_arrays_are_for_reading(launch) -> None:
    fixed = floats(4)
    fixed.flags.writeable = False
    launch("k.cu", "arrays", 1, 1, fixed, floats(4), 4)
    with pytest.raises(ValueError, match="argument y is written by the kernel, got a read-only array"):
        launch("k.cu", "arrays", 1, 1, floats(4), fixed, 4)


def test_vectors_need_their_alignment_and_a_multiple_of_their_size(launch) -> None:
    buffer = floats(32)
    first = (-buffer.ctypes.data // 4) % 4  # the first element at a multiple of 16 bytes
    launch("k.cu", "vectors", 1, 1, buffer[first : first + 8])
    with pytest.raises(ValueError, match=r"argument x \(float4\*\) must start at a multiple of 16.* 4 bytes beyond"):
        launch("k.cu", "vectors", 1, 1, buffer[first + 1 : first + 9])
    with pytest.raises(ValueError, match=r"must hold a multiple of 4 elements, got shape \(6,\)"):
        launch("k.cu", "vectors", 1, 1, buffer[first : first + 6])


def test_none_is_a_null_pointer_and_empty_arrays_pass(launch, engine) -> None:
    launch("k.cu", "arrays", 1, 1, None, floats(0, 3), 0)
    assert engine.ran[3][0] is None


def test_what_restrict_promises_is_kept(launch) -> None:
    x = floats(16)
    launch("k.cu", "arrays", 1, 1, x[:8], x[8:], 8)
    with pytest.raises(ValueError, match=r"argument y \(written\) overlaps x in memory"):
        launch("k.cu", "arrays", 1, 1, x[:9], x[8:], 8)
    launch("k.cu", "loose", 1, 1, x, x)


def test_a_table_is_a_list_of_checked_arrays(launch, engine) -> None:
    arrays = [floats(3), floats(2, 2)]
    launch("k.cu", "table", 1, 1, arrays)
    assert [id(array) for array in engine.ran[3][0]] == [id(array) for array in arrays]
    with pytest.raises(TypeError, match="argument xs must have dtype float32, got float64"):
        launch("k.cu", "table", 1, 1, [floats(3), np.zeros(3)])
    for wrong in ([], floats(3)):
        with pytest.raises(TypeError, match="argument xs must be a list of one or more arrays"):
            launch("k.cu", "table", 1, 1, wrong)
    launch("k.cu", "table", 1, 1, None)  # a null pointer, as for an array
    assert engine.ran[3] == (None,)
    launch("k.cu", "table", 1, 1, [arrays[0], None])  # null pointers in the table
    assert engine.ran[3][0][0] is arrays[0] and engine.ran[3][0][1] is None


def test_an_engine_may_turn_tables_into_its_own(launch, engine) -> None:
    engine.pointer_table = lambda arrays: ("table", [a.ctypes.data for a in arrays])
    arrays = [floats(3), floats(4)]
    launch("k.cu", "table", 1, 1, arrays)
    assert engine.ran[3][0] == ("table", [a.ctypes.data for a in arrays])


def test_a_struct_is_one_element_with_the_bytes_of_its_fields(launch, engine) -> None:
    g = Conv2dGeometry.of((2, 3, 9, 7), (4, 3, 3, 2), stride=(2, 1), padding=((1, 0), (0, 1)))
    launch("k.cu", "geometry", 1, 1, g)
    (packed,) = engine.ran[3]
    assert packed.size == 1
    assert packed.tobytes() == np.array(g.as_struct(), np.int32).tobytes()
    with pytest.raises(TypeError, match=r"argument g \(Conv2dGeometry\) must have as_struct\(\), got tuple"):
        launch("k.cu", "geometry", 1, 1, (1, 2))


def test_structs_with_wrong_fields(launch, engine) -> None:
    class Struct:
        def __init__(self, *values: float) -> None:
            self.values = values

        def as_struct(self) -> tuple[float, ...]:
            return self.values

    with pytest.raises(TypeError, match="has 18 fields, got 2 values"):
        launch("k.cu", "geometry", 1, 1, Struct(1, 2))
    with pytest.raises(ValueError, match="field N = 2147483648 does not fit int32"):
        launch("k.cu", "geometry", 1, 1, Struct(2**31, *range(17)))
    with pytest.raises(ValueError, match=r"field b = 1e\+39 does not fit float32"):
        launch("k.cu", "mixed", 1, 1, Struct(1, 1e39))
    launch("k.cu", "mixed", 1, 1, Struct(1, float("inf")))
    assert engine.ran[3][0]["b"] == np.inf


@pytest.mark.parametrize(
    ("grid", "block", "shared", "message"),
    [
        ((1, 65536), 32, 0, r"arrays: grid \(1, 65536, 1\) is outside"),
        (2**31, 32, 0, "is outside 0 to"),
        (-1, 32, 0, "is outside 0 to"),
        (1, 0, 0, r"block \(0, 1, 1\) is outside 1 to"),
        (1, (1, 1, 65), 0, "is outside 1 to"),
        (1, (64, 4), 0, r"block \(64, 4, 1\) has 256 threads, more than the 128 of the kernel's launch bounds"),
        (1, 32, 227 * 1024 + 1, "shared_mem must be 0 to 232448 bytes, got 232449"),
        (1, 32, -1, "shared_mem must be"),
        ((1, 1, 1, 1), 32, 0, "one to three sizes"),
    ],
)
def test_grid_block_and_shared_memory_limits(launch, grid, block, shared, message) -> None:
    with pytest.raises(ValueError, match=message):
        launch("k.cu", "arrays", grid, block, floats(4), floats(4), 4, shared_mem=shared)


def test_a_grid_of_no_blocks_launches_nothing(launch, engine) -> None:
    launch("k.cu", "arrays", 0, 32, floats(0), floats(0), 0)
    assert not hasattr(engine, "ran")
    with pytest.raises(ValueError, match=r"argument y has shape \(4,\) and would not be written"):
        launch("k.cu", "arrays", (0, 3), 32, floats(0), floats(4), 0)


def test_the_number_of_arguments(launch) -> None:
    with pytest.raises(TypeError, match=r"arrays\(in float\* x, out float\* y, int n\) takes 3 arguments, got 2"):
        launch("k.cu", "arrays", 1, 1, floats(4), floats(4))


def test_a_kernel_that_is_not_there(launch) -> None:
    with pytest.raises(ValueError, match=r"k\.cu has no kernel relu; it has arrays, loose, vectors"):
        launch("k.cu", "relu", 1, 1)
    with pytest.raises(FileNotFoundError, match=r"no kernel file other\.cu"):
        launch("other.cu", "relu", 1, 1)
