"""The wrappers of kernels/ptx.cuh: on the emulator its stand-ins, on a GPU the instructions.

Where a matrix's elements lie in the lanes' registers is written down here a second time, element by element as the PTX
ISA has it ("Matrix Fragments for mma.m16n8k8", "... mma.m16n8k16 with floating point type", "ldmatrix").
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gpucnn.backends.emulator import EmulatorEngine, KernelTrap, MisalignedAccess, OutOfBounds, WarpFault
from gpucnn.backends.launch import Launcher
from tests.numpy_backend.geometries import normal

HERE = Path(__file__).parent
LANES = np.arange(32)
GROUP, T = LANES // 4, LANES % 4  # the ISA's groupID and threadID_in_group


@pytest.fixture
def launch(backend: Any) -> Launcher:
    return Launcher(backend.engine, HERE)


@pytest.mark.parametrize(("kernel", "width"), [("reverse_by_16", 4), ("reverse_by_4", 1)])
def test_copies_arrive_and_invalid_ones_are_zero(backend: Any, launch: Launcher, kernel: str, width: int) -> None:
    blocks, valid = 3, 2 * 64 + 32 + 7  # the last group ends inside the last block
    x = normal(1, (blocks * 64, width), np.float32)
    y = backend.empty(x.shape)
    launch("ptx.cu", kernel, blocks, 32, backend.from_host(x), y, valid)
    expected = x.copy()
    expected[valid:] = 0
    expected = expected.reshape(-1, 32, width)[:, ::-1].reshape(x.shape)
    np.testing.assert_array_equal(backend.to_host(y), expected)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("matrices", [2, 4])
def test_ldmatrix(backend: Any, launch: Launcher, matrices: int, transposed: bool) -> None:
    x = np.random.default_rng(3).integers(0, 2**16, (4, 8, 8), np.uint16)
    y = backend.empty((32, matrices), np.uint32)
    rows = backend.from_host(x.view(np.uint32).reshape(-1))
    launch("ptx.cu", f"load_x{matrices}{'_trans' * transposed}", 1, 32, rows, y)
    found = backend.to_host(y).view(np.uint16).reshape(32, matrices, 2)
    for lane in range(32):
        for i in range(matrices):
            matrix = x[i].T if transposed else x[i]
            assert found[lane, i].tolist() == matrix[lane // 4, 2 * (lane % 4) :][:2].tolist(), (lane, i)


def words(elements: np.ndarray) -> np.ndarray:
    """Registers of 32 bits (lane, register) from elements (lane, element), the first element lowest."""
    return np.ascontiguousarray(elements).view(np.uint32).reshape(32, -1)


def a_fragment_of_halves(a: np.ndarray) -> np.ndarray:
    """ISA, m16n8k16: row = g for i in 0, 1, 4, 5, else g + 8; column = 2t + i % 2, + 8 for i >= 4. m16n8k8: i < 4."""
    elements = [
        a[GROUP + (0 if i in (0, 1, 4, 5) else 8), 2 * T + i % 2 + (8 if i >= 4 else 0)] for i in range(a.shape[1] // 2)
    ]
    return words(np.stack(elements, 1))


def b_fragment_of_halves(b: np.ndarray) -> np.ndarray:
    """ISA: row = 2t + i % 2, + 8 for i >= 2; column = g."""
    elements = [b[2 * T + i % 2 + (8 if i >= 2 else 0), GROUP] for i in range(b.shape[0] // 4)]
    return words(np.stack(elements, 1))


def a_fragment_of_tf32(a: np.ndarray) -> np.ndarray:
    """ISA: row = g for a0 and a2, g + 8 for a1 and a3; column = t for a0 and a1, t + 4 for a2 and a3."""
    return words(np.stack([a[GROUP, T], a[GROUP + 8, T], a[GROUP, T + 4], a[GROUP + 8, T + 4]], 1))


def b_fragment_of_tf32(b: np.ndarray) -> np.ndarray:
    """ISA: row = t for b0, t + 4 for b1; column = g."""
    return words(np.stack([b[T, GROUP], b[T + 4, GROUP]], 1))


def d_fragment(d: np.ndarray) -> np.ndarray:
    """ISA: row = g for c0 and c1, else g + 8; column = 2t + i % 2."""
    return np.stack([d[GROUP + (8 if i >= 2 else 0), 2 * T + i % 2] for i in range(4)], 1)


def from_d_fragment(registers: np.ndarray) -> np.ndarray:
    d = np.full((16, 8), np.nan)
    for i in range(4):
        d[GROUP + (8 if i >= 2 else 0), 2 * T + i % 2] = registers[:, i]
    return d


PRODUCTS = {
    "m16n8k16_f16": (16, np.float16, a_fragment_of_halves, b_fragment_of_halves),
    "m16n8k16_bf16": (16, ml_dtypes.bfloat16, a_fragment_of_halves, b_fragment_of_halves),
    "m16n8k8_f16": (8, np.float16, a_fragment_of_halves, b_fragment_of_halves),
    "m16n8k8_tf32": (8, np.float32, a_fragment_of_tf32, b_fragment_of_tf32),
}


def run_product(backend: Any, launch: Launcher, name: str, a: np.ndarray, b: np.ndarray, d: np.ndarray) -> np.ndarray:
    _, _, a_fragment, b_fragment = PRODUCTS[name]
    registers = backend.from_host(d_fragment(d))
    launch(
        "ptx.cu",
        f"product_{name}",
        1,
        32,
        backend.from_host(a_fragment(a)),
        backend.from_host(b_fragment(b)),
        registers,
    )
    return from_d_fragment(backend.to_host(registers))


def truncated(x: np.ndarray) -> np.ndarray:
    """The upper 19 bits of floats, which is what the tensor cores read of a tf32 operand."""
    return (x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_random_matrices(backend: Any, launch: Launcher, name: str, seed: int) -> None:
    k, dtype, *_ = PRODUCTS[name]
    a, b = normal(seed, (16, k), np.float32).astype(dtype), normal(seed + 9, (k, 8), np.float32).astype(dtype)
    d = normal(seed + 5, (16, 8), np.float32)
    result = run_product(backend, launch, name, a, b, d)
    if dtype is np.float32:
        a, b = truncated(a), truncated(b)
    a64, b64, d64 = (x.astype(np.float64) for x in (a, b, d))
    scale = abs(a64) @ abs(b64) + abs(d64)
    # Products are exact, so the only errors are those of k additions, each at most eps (a GPU's tensor cores cut off
    # what others round: eps, not eps / 2).
    assert (abs(result - (a64 @ b64 + d64)) <= k * np.finfo(np.float32).eps * scale).all()


@pytest.mark.parametrize("name", PRODUCTS)
def test_each_element_of_a_and_b_stands_where_the_isa_says(backend: Any, launch: Launcher, name: str) -> None:
    """Small integers with a product of their own for each (row, k, column), so that nothing is rounded anywhere."""
    k, dtype, *_ = PRODUCTS[name]
    a = (np.arange(16 * k).reshape(16, k) % 61 - 30).astype(dtype)
    b = (np.arange(k * 8).reshape(k, 8) % 53 - 26).astype(dtype)
    d = np.arange(128, dtype=np.float32).reshape(16, 8)
    result = run_product(backend, launch, name, a, b, d)
    np.testing.assert_array_equal(result, a.astype(np.float64) @ b.astype(np.float64) + d)


def test_halves_from_subnormals_to_infinity(backend: Any, launch: Launcher) -> None:
    a = np.zeros((16, 16), np.float16)
    a[:5, 0] = [2**-24, 2**-14, 65504, np.inf, np.nan]
    b = np.zeros((16, 8), np.float16)
    b[0] = 2
    d = np.zeros((16, 8), np.float32)
    result = run_product(backend, launch, "m16n8k16_f16", a, b, d)
    np.testing.assert_array_equal(result[:5, 3], [2**-23, 2**-13, 131008, np.inf, np.nan])
    assert not result[5:].any()


def test_tf32_rounds_to_nearest_with_ties_away_from_zero(backend: Any, launch: Launcher) -> None:
    step = 2.0**-10
    x = np.array([1 + step / 2, -1 - step / 2, 1 + step * 1.5, 1 + step * 0.49, 0, -0.0, np.inf, -np.inf], np.float32)
    x = np.concatenate([x, normal(2, (1000,), np.float32), np.array([np.nan, 3e38], np.float32)])
    y = backend.empty(x.shape)
    launch("ptx.cu", "round_to_tf32", 2, 128, backend.from_host(x), y, x.size)
    found = backend.to_host(y)
    assert found[:8].tolist() == [1 + step, -1 - step, 1 + 2 * step, 1, 0, 0, np.inf, -np.inf]
    assert np.isnan(found[-2])
    finite = np.isfinite(x)
    mantissa, exponent = np.frexp(x[finite].astype(np.float64))
    nearest = np.copysign(np.floor(abs(mantissa) * 2**11 + 0.5), mantissa)  # ties away from zero
    np.testing.assert_array_equal(found[finite], np.ldexp(nearest, exponent - 11))


def test_a_tile_from_global_memory_through_the_tensor_cores(backend: Any, launch: Launcher) -> None:
    a, b = (normal(seed, (64, 96), np.float32).astype(np.float16) for seed in (1, 2))
    c = backend.empty((64, 64))
    launch("ptx.cu", "tile_f16", 1, 128, backend.from_host(a), backend.from_host(b), c, 96)
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    error = abs(backend.to_host(c) - a64 @ b64.T)
    assert (error <= 96 * np.finfo(np.float32).eps * (abs(a64) @ abs(b64.T))).all()


@pytest.fixture
def strict() -> Launcher:
    return Launcher(EmulatorEngine("strict", 80), HERE)


@pytest.mark.parametrize(
    ("offset", "step", "error", "message"),
    [
        (8, 8, MisalignedAccess, "ldmatrix reads at byte 8 of shared memory, which is no multiple of 16"),
        (16, 16, OutOfBounds, r"thread \(31, 0, 0\).* reads 16 bytes at 512, which is outside the block's 512 bytes"),
        (0, -16, OutOfBounds, r"thread \(1, 0, 0\).* reads 16 bytes at -16"),
    ],
)
def test_addresses_that_ldmatrix_does_not_take(
    strict: Launcher, offset: int, step: int, error: Any, message: str
) -> None:
    y = np.zeros(32, np.uint32)
    strict("ptx_faults.cu", "load_from", 1, 32, y, 0, 16, shared_mem=512)
    with pytest.raises(error, match=message):
        strict("ptx_faults.cu", "load_from", 1, 32, y, offset, step, shared_mem=512)


def test_half_a_warp_at_ldmatrix(strict: Launcher) -> None:
    with pytest.raises(WarpFault, match=r"waits for lane 16 .*thread \(16, 0, 0\) has left the kernel"):
        strict("ptx_faults.cu", "half_a_warp", 1, 32, np.zeros(32, np.uint32), shared_mem=512)


@pytest.mark.parametrize(
    ("arch", "kernel"), [(70, "load_x4"), (70, "product_m16n8k8_f16"), (75, "product_m16n8k16_f16")]
)
def test_what_an_older_gpu_does_not_have(arch: int, kernel: str) -> None:
    launch = Launcher(EmulatorEngine("fast", arch), HERE)
    arrays = [np.zeros(128, np.uint32), np.zeros(128, np.uint32)]
    if kernel.startswith("product"):
        arrays += [np.zeros(128, np.float32)]
    with pytest.raises(KernelTrap, match=r"needs sm_(75|80) or newer"):
        launch("ptx.cu", kernel, 1, 32, *arrays)


def test_sm_75_multiplies_m16n8k8() -> None:
    launch = Launcher(EmulatorEngine("strict", 75), HERE)
    d = np.zeros((32, 4), np.float32)
    ones = np.full(128, 0x3C003C00, np.uint32)  # two float16 ones
    launch("ptx.cu", "product_m16n8k8_f16", 1, 32, ones[:64], ones[:32], d)
    assert (d == 8).all()
