"""ReLU, GELU, SiLU and dropout of float16 and bfloat16: computed in float32, rounded once, by vectors or one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn.random import keep_mask
from tests.kernels.arrays import exact_ends, host, launches, unaligned
from tests.kernels.halves import half_normal, half_types, same_values
from tests.support import reference_smooth as reference
from tests.support.tolerance import check

SHAPES = [(1,), (7,), (8,), (3, 5, 2, 8), (1027,)]


@half_types
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("aligned", [True, False])
def test_relu(backend: Any, dtype: Any, shape: tuple[int, ...], aligned: bool) -> None:
    x, dy = half_normal(1, shape, dtype), half_normal(2, shape, dtype)
    place = backend.from_host if aligned else lambda array: unaligned(backend, array)
    with launches(backend) as names, exact_ends(backend):
        y = backend.relu_forward(place(x))
        dx = backend.relu_backward(place(dy), y)
    same_values(host(backend, y), np.where(x > 0, x, dtype.type(0)))
    same_values(host(backend, dx), np.where(x > 0, dy, dtype.type(0)))
    assert names[0] == f"relu_forward_{dtype.name}" + ("x8" if aligned and x.size % 8 == 0 else "")


@half_types
def test_relu_keeps_nan(backend: Any, dtype: Any) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -2.0, 3e-7], np.float32).astype(dtype)
    expected = np.array([np.nan, np.inf, 0, 0, 0, 1.5, 0, x[7]], np.float32).astype(dtype)
    for cut in (0, 1):
        same_values(host(backend, backend.relu_forward(backend.from_host(x[cut:]))), expected[cut:])


@half_types
@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu"])
@pytest.mark.parametrize("shape", [(13,), (3, 8)])
def test_smooth_activations(backend: Any, dtype: Any, name: str, shape: tuple[int, ...]) -> None:
    x, dy = half_normal(1, shape, dtype, 2.0), half_normal(2, shape, dtype)
    on_device, gradient = backend.from_host(x), backend.from_host(dy)
    with exact_ends(backend):
        if name == "silu":
            y, kept = backend.silu_forward(on_device, True)
            dx = backend.silu_backward(gradient, kept)
        else:
            y, kept = backend.gelu_forward(on_device, name == "gelu_tanh", True)
            dx = backend.gelu_backward(gradient, kept, name == "gelu_tanh")
    assert host(backend, y).dtype == host(backend, dx).dtype == dtype
    if name == "silu":
        check(host(backend, y), reference.silu_forward, x)
        check(host(backend, dx), reference.silu_backward, dy, x)
    else:
        check(host(backend, y), reference.gelu_forward, x, name == "gelu_tanh")
        check(host(backend, dx), reference.gelu_backward, dy, x, name == "gelu_tanh")


@half_types
@pytest.mark.parametrize("shape", [(1,), (5,), (8,), (3, 7, 8), (1030,)])
def test_dropout_has_the_mask_of_its_stream(backend: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    x, key = half_normal(3, shape, dtype), (12345, 6, 1)
    with exact_ends(backend):
        y = host(backend, backend.dropout(backend.from_host(x), 0.3, key))
    kept = keep_mask(x.size, 0.3, key).reshape(shape)
    same_values(y, (x.astype(np.float32) * np.where(kept, np.float32(1 / 0.7), 0)).astype(dtype))


@pytest.mark.parametrize(
    ("dtype", "shape"), [(np.float32, (10,)), (np.float32, (2, 8)), (np.float16, (9,)), (np.float16, (16,))]
)
def test_an_offset_on_the_device_moves_the_stream(
    backend: Any, dtype: Any, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.ones(shape, dtype)
    monkeypatch.setattr(backend, "stream_offset", lambda purpose: backend.from_host(np.array([5], np.int64)))
    moved = host(backend, backend.dropout(backend.from_host(x), 0.5, (1, 7, 1)))
    monkeypatch.undo()
    there = host(backend, backend.dropout(backend.from_host(x), 0.5, (1, 12, 1)))
    np.testing.assert_array_equal(moved, there)
    np.testing.assert_array_equal(moved != 0, keep_mask(x.size, 0.5, (1, 12, 1)).reshape(shape))
