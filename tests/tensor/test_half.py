"""Tensors of float16 and bfloat16: made, moved, indexed, computed with, printed and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import gpucnn
import gpucnn.functional as F
from gpucnn import Tensor, dtypes

DEVICES = ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)]
HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

pytestmark = [pytest.mark.parametrize("device", DEVICES), pytest.mark.parametrize("name", HALVES)]


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def same(tensor: Tensor, expected: Any, dtype: Any) -> None:
    assert tensor.dtype == dtype
    np.testing.assert_array_equal(
        tensor.numpy().astype(np.float32), np.asarray(expected).astype(dtype).astype(np.float32)
    )


def test_made_and_cast(device: str, name: str) -> None:
    dtype = HALVES[name]
    array = normal(2, 3, 4, 5)
    assert getattr(gpucnn, name) == dtype == dtypes.as_dtype(name)
    same(gpucnn.tensor(array.astype(dtype), device=device), array, dtype)
    same(gpucnn.tensor(array, dtype=name, device=device), array, dtype)
    wide = gpucnn.tensor(array, device=device)
    for cast in (wide.to(dtype), wide.to(dtype=name), wide.half() if name == "float16" else wide.bfloat16()):
        same(cast, array, dtype)
        assert cast.data.transpose(0, 2, 3, 1).flags.c_contiguous and cast.is_floating_point()
        assert cast.float().dtype == np.float32
    same(wide.permute(0, 2, 3, 1).to(dtype), array.transpose(0, 2, 3, 1), dtype)
    same(gpucnn.zeros(2, 3, dtype=name, device=device), np.zeros((2, 3)), dtype)
    same(gpucnn.full((2,), 2.5, dtype=dtype, device=device), [2.5, 2.5], dtype)
    same(gpucnn.arange(5, dtype=dtype, device=device), range(5), dtype)
    assert gpucnn.randn(3, dtype=name, device=device).dtype == dtype
    assert gpucnn.tensor(array, device=device).to("cpu", dtype).to(device).dtype == dtype


def test_gradients_are_half_too_and_casts_pass_them_on(device: str, name: str) -> None:
    dtype = HALVES[name]
    x = gpucnn.tensor(normal(3, 4), device=device, requires_grad=True)
    half = x.to(dtype)
    (half * 2.0 + half).sum().backward()
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad.numpy(), np.full((3, 4), 3, np.float32))
    leaf = gpucnn.tensor(normal(3, 4).astype(dtype), device=device, requires_grad=True)
    leaf.sum().backward()
    same(leaf.grad, np.ones((3, 4)), dtype)


def test_arithmetic_rounds_each_result_once(device: str, name: str) -> None:
    dtype = HALVES[name]
    a, b = (normal(3, 5, seed=seed).astype(dtype) for seed in (1, 2))
    x, y = (gpucnn.tensor(array, device=device) for array in (a, b))
    wide, other = a.astype(np.float32), b.astype(np.float32)
    same(x + y, wide + other, dtype)
    same(x - y, wide - other, dtype)
    same(x * y, wide * other, dtype)
    same(x / y, wide / other, dtype)
    same(-x, -wide, dtype)
    same(abs(x), abs(wide), dtype)
    same(x * 0.5, wide * 0.5, dtype)
    same(gpucnn.where(x > y, x, y), np.maximum(wide, other), dtype)
    same(x.maximum(y), np.maximum(wide, other), dtype)
    same(gpucnn.cat([x, y]), np.concatenate([wide, other]), dtype)
    assert ((x > y).numpy() == (wide > other)).all()
    assert (x + gpucnn.tensor(normal(3, 5), device=device)).dtype == np.float32
    beside = a.astype(next(other for other in HALVES.values() if other != dtype))
    assert (x + gpucnn.tensor(beside, device=device)).dtype == np.float32
    with gpucnn.no_grad():
        x.mul_(0.5)
    same(x, wide * 0.5, dtype)


def test_reductions_add_in_float32(device: str, name: str) -> None:
    dtype = HALVES[name]
    x = gpucnn.full((300, 3), 300.0, dtype=dtype, device=device)  # its sum is no float16, and no sum of bfloat16s
    same(x.mean(0), [300.0] * 3, dtype)
    same(x[:100].sum(0), [30000.0] * 3, dtype)
    a = normal(4, 5).astype(dtype)
    y = gpucnn.tensor(a, device=device)
    same(y.max(), a.astype(np.float32).max(), dtype)
    assert int(y.argmax()) == int(a.astype(np.float32).argmax())
    assert y.std().dtype == y.softmax(1).dtype == y.log_softmax(1).dtype == dtype
    np.testing.assert_allclose(y.softmax(1).numpy().astype(np.float32).sum(1), 1, atol=0.02)


def test_indexing(device: str, name: str) -> None:
    dtype = HALVES[name]
    a = normal(4, 5).astype(dtype)
    x = gpucnn.tensor(a, device=device, requires_grad=True)
    same(x[1:3, ::2], a[1:3, ::2], dtype)
    same(x[2], a[2], dtype)
    assert x[0, 0].item() == float(a[0, 0]) and isinstance(x[0, 0].item(), float)
    x[1:3].sum().backward()
    same(x.grad, np.repeat([0, 1, 1, 0], 5).reshape(4, 5), dtype)
    with gpucnn.no_grad():
        x[0] = 1.5
    same(x[0], np.full(5, 1.5), dtype)


def test_gradients_of_a_repeated_index_add_up_in_float32(device: str, name: str) -> None:
    """3000 times 1: in either half type by itself 1 is lost long before."""
    x = gpucnn.ones(2, 3, dtype=name, device=device, requires_grad=True)
    picked = x[gpucnn.tensor([1] * 3000, device=device)]
    picked.backward(gpucnn.ones(3000, 3, dtype=name, device=device))
    same(x.grad, [[0.0] * 3, [3000.0] * 3], HALVES[name])


def test_printed_and_saved(device: str, name: str, tmp_path: Path) -> None:
    dtype = HALVES[name]
    x = gpucnn.tensor(np.array([[1.5, -2.25]], np.float32).astype(dtype), device=device)
    assert "[[ 1.5 , -2.25]]" in repr(x) and f"dtype={name}" in repr(x)
    gpucnn.save({"x": x, "n": 3}, tmp_path / "half")
    same(gpucnn.load(tmp_path / "half", device)["x"], x.numpy(), dtype)


def test_what_does_not_compute_in_half_types_says_so(device: str, name: str) -> None:
    dtype = HALVES[name]
    x = gpucnn.tensor(normal(2, 3, 4, 4).astype(dtype), device=device)
    if device == "cpu":
        with pytest.raises(TypeError, match=f"relu: {name} works on cuda and emulated; cpu computes in float32"):
            F.relu(x)
    else:
        same(F.relu(x), np.maximum(x.numpy().astype(np.float32), 0), dtype)
