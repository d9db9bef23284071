"""kernels/half.cuh beside NumPy's float16 and ml_dtypes' bfloat16: every half, and floats where rounding decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gpucnn.backends.launch import Launcher

HERE = Path(__file__).parent
HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


@pytest.fixture
def launch(backend: Any) -> Launcher:
    return Launcher(backend.engine, HERE)


def every_half(dtype: np.dtype) -> np.ndarray:
    return np.arange(2**16, dtype=np.uint16).view(dtype)


def same(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal bits; NaN at the same places."""
    nan = np.isnan(expected.astype(np.float32))
    assert np.array_equal(np.isnan(actual.astype(np.float32)), nan)
    integer = np.dtype(f"u{expected.itemsize}")
    np.testing.assert_array_equal(actual.view(integer)[~nan], expected.view(integer)[~nan])


@pytest.mark.parametrize("name", HALVES)
def test_every_half_becomes_its_float(backend: Any, launch: Launcher, name: str) -> None:
    x = every_half(HALVES[name])
    y = backend.empty(x.shape)
    launch("half.cu", f"widen_{name}", 4, 256, backend.from_host(x), y, x.size)
    same(backend.to_host(y), x.astype(np.float32))


@pytest.mark.parametrize("name", HALVES)
def test_floats_round_to_the_nearest_half_and_ties_to_even(backend: Any, launch: Launcher, name: str) -> None:
    """The floats: every half, the midpoints between neighbours and the floats beside those, and random bits."""
    dtype = HALVES[name]
    halves = every_half(dtype).astype(np.float32)
    finite = np.unique(halves[np.isfinite(halves)])
    with np.errstate(over="ignore"):
        middle = (finite[1:].astype(np.float64) + finite[:-1]) / 2
        edges = middle.astype(np.float32)  # a midpoint of halves is a float
    assert (edges == middle).all()
    last = np.abs(finite).max()
    beyond = np.float64(last) + (np.float64(last) - np.float64(finite[-2])) / 2  # from here on: infinity
    edges = np.concatenate([edges, np.array([beyond, -beyond], np.float32)])
    with np.errstate(over="ignore"):
        below, above = np.nextafter(edges, np.float32(-np.inf)), np.nextafter(edges, np.float32(np.inf))
    random = np.random.default_rng(4).integers(0, 2**32, 20_000, np.uint32).view(np.float32)
    x = np.concatenate([halves, edges, below, above, random])
    y = backend.empty(x.shape, dtype)
    launch("half.cu", f"narrow_{name}", 4, 256, backend.from_host(x), y, x.size)
    with np.errstate(over="ignore", invalid="ignore"):
        same(backend.to_host(y), x.astype(dtype))


def test_a_nan_stays_one_whatever_its_bits(backend: Any, launch: Launcher) -> None:
    x = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000], np.uint32).view(np.float32)
    for name, dtype in HALVES.items():
        y = backend.empty(x.shape, dtype)
        launch("half.cu", f"narrow_{name}", 1, 32, backend.from_host(x), y, x.size)
        assert backend.to_host(y).view(np.uint16).tolist() == [0x7FFF] * x.size


@pytest.mark.parametrize("width", [2, 8])
@pytest.mark.parametrize("name", HALVES)
def test_vectors_of_halves(backend: Any, launch: Launcher, name: str, width: int) -> None:
    dtype = HALVES[name]
    x = np.arange(37 * width).astype(dtype)
    y = backend.empty(x.shape, dtype)
    launch("half.cu", f"reverse_{name}x{width}", 1, 32, backend.from_host(x), y, 37)
    same(backend.to_host(y), x[::-1].copy())


@pytest.mark.parametrize("name", HALVES)
def test_what_a_pointer_to_vectors_refuses(backend: Any, launch: Launcher, name: str) -> None:
    dtype = HALVES[name]
    x, y = backend.empty(24, dtype), backend.empty(24, dtype)
    with pytest.raises(ValueError, match=rf"x \({name}x8\*\) must hold a multiple of 8 elements, got shape \(12,\)"):
        launch("half.cu", f"reverse_{name}x8", 1, 32, x[:12], y, 1)
    with pytest.raises(ValueError, match=rf"x \({name}x8\*\) must start at a multiple of 16 bytes.*address that is 8"):
        launch("half.cu", f"reverse_{name}x8", 1, 32, x[4:12], y, 1)
    other = HALVES["bfloat16" if name == "float16" else "float16"]
    with pytest.raises(TypeError, match=rf"x must have dtype {name}, got {other}"):
        launch("half.cu", f"reverse_{name}x8", 1, 32, backend.empty(24, other), y, 3)
