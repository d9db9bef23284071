"""Kernels that do nothing wrong run, strictly and fast, and give what NumPy gives in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from gpucnn.backends.emulator import EmulatorEngine
from gpucnn.backends.launch import Launch, Launcher

EPS = float(np.finfo(np.float32).eps)


def random(shape: int | tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("m", "n", "k"), [(16, 16, 16), (37, 21, 50), (1, 1, 1), (65, 3, 17)])
def test_tiled_gemm(either: Launcher, m: int, n: int, k: int) -> None:
    a, b = random((m, k)), random((k, n), 1)
    c = either.engine.empty((m, n))
    either("good.cu", "tiled_gemm", (-(-n // 16), -(-m // 16)), (16, 16), a, b, c, m, n, k)
    expected = np.einsum("mk,kn->mn", a.astype(np.float64), b.astype(np.float64))
    scale = np.einsum("mk,kn->mn", abs(a).astype(np.float64), abs(b).astype(np.float64))
    assert (abs(c - expected) <= k * EPS * scale).all()


@pytest.mark.parametrize("size", [1000, 1024, 3])
@pytest.mark.parametrize("block", [32, 256])
def test_warp_reduction_and_dynamic_shared_memory(either: Launcher, size: int, block: int) -> None:
    x = random(size)
    blocks = -(-size // block)
    sums = either.engine.empty(blocks)
    either("good.cu", "block_sums", blocks, block, x, sums, size, shared_mem=block // 32 * 4)
    padded = np.concatenate([x, np.zeros(blocks * block - size, np.float32)]).reshape(blocks, block).astype(np.float64)
    assert (abs(sums - padded.sum(1)) <= 10 * EPS * abs(padded).sum(1)).all()


def test_table_of_arrays(either: Launcher) -> None:
    sizes = np.array([5, 200, 1, 64], np.int32)
    parameters = [random(int(size), i) for i, size in enumerate(sizes)]
    gradients = [random(int(size), 9 + i) for i, size in enumerate(sizes)]
    expected = [p.astype(np.float64) - 0.1 * g for p, g in zip(parameters, gradients, strict=True)]
    either("good.cu", "step_all", len(sizes), 64, parameters, gradients, sizes, 0.1)
    for p, e in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(p, e, rtol=4 * EPS, atol=EPS)


@dataclass(frozen=True)
class Affine:
    scale: int
    shift: int

    def as_struct(self) -> tuple[int, int]:
        return self.scale, self.shift


@pytest.mark.parametrize("with_bias", [True, False])
def test_struct_and_null_pointer(either: Launcher, with_bias: bool) -> None:
    x = np.arange(-50, 50, dtype=np.int32)
    bias = np.arange(100, dtype=np.int32) ** 2 if with_bias else None
    y = np.zeros(100, np.int32)
    either("good.cu", "affine", 2, 64, x, bias, y, Affine(-3, 1000), 100)
    assert y.tolist() == (x * -3 + 1000 + (0 if bias is None else bias)).tolist()


@pytest.mark.parametrize("exact", [True, False])
def test_vectors(strict: Launcher, exact: bool) -> None:
    x = random(52)
    y = np.zeros(52, np.float32)
    if exact:
        with strict.engine.exact_ends():
            strict("good.cu", "double_vectors", 2, 8, x, y, 13)
    else:
        strict("good.cu", "double_vectors", 2, 8, x, y, 13)
    assert (y == 2 * x).all()


def test_integer_atomics_and_votes(either: Launcher) -> None:
    x = np.random.default_rng(3).integers(0, 6, 300).astype(np.uint8)
    counts = np.zeros(9, np.int32)
    total = np.array([1 << 40], np.uint64)
    either("good.cu", "histogram", 5, 64, x, counts, total, 300)
    assert counts[:6].tolist() == [int((x == value).sum()) for value in range(6)]
    assert counts[8] == 4
    assert int(total[0]) == (1 << 40) + int((x > 2).sum())


@pytest.mark.parametrize("size", [512, 500, 4])
def test_staged_copy_by_cp_async(either: Launcher, size: int) -> None:
    x = random(size)
    y = either.engine.empty(size)
    either("good.cu", "staged_copy", 1, 32, x, y, -(-size // 128), size)
    assert (x == y).all()


@pytest.mark.parametrize("arch", [61, 80, 90])
def test_stands_for_an_architecture(launcher: Callable[..., Launcher], arch: int) -> None:
    y = np.zeros(1, np.int32)
    launcher("fast", arch=arch)("good.cu", "which_architecture", 1, 1, y)
    assert y[0] == 10 * arch


def test_two_launches_have_the_same_bits_in_both_modes(launcher: Callable[..., Launcher]) -> None:
    a, b = random((40, 33)), random((33, 20), 1)
    results = []
    for mode in ("strict", "fast", "strict", "fast"):
        c = np.zeros((40, 20), np.float32)
        launcher(mode)("good.cu", "tiled_gemm", (2, 3), (16, 16), a, b, c, 40, 20, 33)
        results.append(c.tobytes())
    assert len(set(results)) == 1


def test_empty_arrays(either: Launcher) -> None:
    either("good.cu", "affine", 1, 64, np.zeros(0, np.int32), None, np.zeros(0, np.int32), Affine(1, 1), 0)


def test_large_arrays(fast: Launcher) -> None:
    """Arrays that grow and shrink from launch to launch keep to their places."""
    for size in (3_000_000, 4, 1_000_000):
        x = np.arange(size, dtype=np.int32)
        y = np.zeros(size, np.int32)
        fast("good.cu", "affine", -(-size // 64), 64, x, None, y, Affine(2, 1), size)
        assert (y == 2 * x + 1).all()


def test_empty_is_poisoned() -> None:
    engine = EmulatorEngine("fast")
    assert engine.name == "emulated" and engine.xp is np
    assert np.isnan(engine.empty((2, 3))).all() and engine.empty((), np.uint8) == 255


def test_record(either: Launcher) -> None:
    x, y = np.zeros(52, np.float32), np.zeros(52, np.float32)
    with either.engine.record() as launches:
        either("good.cu", "double_vectors", 2, 8, x, y, 13)
        either("good.cu", "block_sums", (1,), (32, 1), x[:32], y[:1], 32, shared_mem=4)
    either("good.cu", "double_vectors", 2, 8, x, y, 13)
    assert launches == [
        Launch("double_vectors", (2, 1, 1), (8, 1, 1), 0),
        Launch("block_sums", (1, 1, 1), (32, 1, 1), 4),
    ]
