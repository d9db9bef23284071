"""The kernels of GELU and SiLU: every instance, the tails, and values that are not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.kernels.arrays import exact_ends, host, launches, unaligned
from tests.numpy_backend.geometries import normal
from tests.support import reference_smooth as reference
from tests.support.tolerance import check

SHAPES = [(1,), (3,), (4,), (2, 5, 7, 3), (3, 4, 4, 8), (1025,)]


def run(backend: Any, name: str, x: Any, dy: Any) -> tuple[Any, Any]:
    if name == "silu":
        y, kept = backend.silu_forward(x, True)
        return y, backend.silu_backward(dy, kept)
    y, kept = backend.gelu_forward(x, name == "gelu_tanh", True)
    return y, backend.gelu_backward(dy, kept, name == "gelu_tanh")


def check_values(backend: Any, name: str, y: Any, dx: Any, x: Any, dy: Any) -> None:
    y, dx = host(backend, y), host(backend, dx)
    if name == "silu":
        check(y, reference.silu_forward, x)
        check(dx, reference.silu_backward, dy, x)
    else:
        check(y, reference.gelu_forward, x, name == "gelu_tanh")
        check(dx, reference.gelu_backward, dy, x, name == "gelu_tanh")


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("aligned", [True, False])
def test_values_and_gradients(backend: Any, name: str, shape: tuple[int, ...], aligned: bool) -> None:
    x, dy = 2 * normal(1, shape, np.float32), normal(2, shape, np.float32)
    place = backend.from_host if aligned else lambda array: unaligned(backend, array)
    with launches(backend) as names, exact_ends(backend):
        y, dx = run(backend, name, place(x), place(dy))
    check_values(backend, name, y, dx, x, dy)
    suffix = "_vec4" if x.size % 4 == 0 and aligned else ""
    assert names == [f"{name}_forward{suffix}", f"{name}_backward{suffix}"]


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu"])
def test_the_whole_range(backend: Any, name: str) -> None:
    x = np.concatenate([np.linspace(-12, 12, 2001), np.geomspace(1e-30, 1e9, 200), -np.geomspace(1e-30, 1e9, 200)])
    x = x.astype(np.float32)
    if name == "gelu_tanh":
        x = x[abs(x) < 1e6]  # the cube of the derivative, in float32
    dy = normal(3, x.shape, np.float32)
    y, dx = run(backend, name, backend.from_host(x), backend.from_host(dy))
    check_values(backend, name, y, dx, x, dy)


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu"])
def test_far_out_the_slope_is_one_or_zero(backend: Any, name: str) -> None:
    """The tolerance rule allows more there: its scale grows with the terms that cancel."""
    x = np.geomspace(20, 1e18, 60).astype(np.float32)
    for sign, slope in ((1, 1), (-1, 0)):
        y, dx = run(backend, name, backend.from_host(sign * x), backend.from_host(np.full_like(x, 2)))
        np.testing.assert_allclose(host(backend, y), slope * x, atol=1e-6)
        np.testing.assert_allclose(host(backend, dx), 2 * slope, atol=1e-6)


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu"])
def test_nothing_is_kept_that_nobody_wants_and_no_elements_are_no_work(backend: Any, name: str) -> None:
    x = backend.from_host(np.array([np.nan, np.inf, 0.0, -0.0, 1.0], np.float32))
    y, kept = backend.silu_forward(x, False) if name == "silu" else backend.gelu_forward(x, name == "gelu_tanh", False)
    assert kept is None
    y = host(backend, y)
    assert np.isnan(y[0]) and y[1] == np.inf and (y[2:4] == 0).all() and 0.7 < y[4] < 0.9
    nothing = backend.from_host(np.zeros((0, 3), np.float32))
    assert [part.shape for part in run(backend, name, nothing, nothing)] == [(0, 3), (0, 3)]
