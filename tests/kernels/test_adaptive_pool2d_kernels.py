"""The adaptive pooling kernels against the formula: values, places, gradients, every instance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpucnn import backends
from gpucnn.device import device
from gpucnn.geometry import AdaptivePool2dGeometry
from tests.kernels.arrays import exact_ends, host, launches, unaligned
from tests.kernels.halves import half_types
from tests.numpy_backend.geometries import normal, seeds
from tests.support import reference_smooth as reference
from tests.support.tolerance import check

NAMED = {
    "windows that share rows": ((2, 4, 7, 5), (3, 2)),
    "nine channels": ((3, 9, 8, 5), (3, 4)),
    "more outputs than inputs": ((2, 8, 3, 4), (7, 9)),
    "one pixel": ((2, 5, 1, 1), (3, 2)),
    "one output": ((2, 6, 9, 7), (1, 1)),
    "the input's size": ((2, 3, 4, 6), (None, 6)),
    "row longer than a block": ((1, 12, 3, 130), (2, 60)),
    "no images": ((0, 4, 8, 7), (3, 3)),
}
cases = pytest.mark.parametrize(("shape", "size"), NAMED.values(), ids=NAMED.keys())


def geometry(shape: tuple[int, ...], size: Any) -> AdaptivePool2dGeometry:
    return AdaptivePool2dGeometry.of(shape, size, "adaptive_avg_pool2d")


def check_all(backend: Any, g: AdaptivePool2dGeometry, x: Any, dy: Any, place: Any = None) -> None:
    put = backend.from_host if place is None else place
    y, index = backend.adaptive_max_pool2d_forward(put(x), g)
    expected, where = reference.adaptive_max_pool2d_forward(x.astype(np.float32), g)
    np.testing.assert_array_equal(host(backend, y).astype(np.float32), expected)
    np.testing.assert_array_equal(host(backend, index), where)
    assert y.dtype == x.dtype and index.dtype == np.int32
    dx = backend.adaptive_max_pool2d_backward(put(dy), index, g)
    check(host(backend, dx), reference.adaptive_max_pool2d_backward, dy, where, g)
    if np.isfinite(x.astype(np.float32)).all():
        check(
            host(backend, backend.adaptive_avg_pool2d_forward(put(x), g)), reference.adaptive_avg_pool2d_forward, x, g
        )
    dx = backend.adaptive_avg_pool2d_backward(put(dy), g)
    check(host(backend, dx), reference.adaptive_avg_pool2d_backward, dy, g)


def operands(g: AdaptivePool2dGeometry, seed: int, ties: bool = False) -> tuple[Any, Any]:
    x, dy = normal(seed, g.input_shape, np.float32), normal(seed + 1, g.output_shape, np.float32)
    return np.round(x) if ties else x, dy


@cases
@pytest.mark.parametrize("ties", [False, True])
def test_named_sizes(backend: Any, shape: tuple[int, ...], size: Any, ties: bool) -> None:
    g = geometry(shape, size)
    with exact_ends(backend):
        check_all(backend, g, *operands(g, 1, ties))


@half_types
@pytest.mark.parametrize("channels", [8, 16, 5])
def test_half_types(backend: Any, dtype: Any, channels: int) -> None:
    g = geometry((2, channels, 7, 5), (3, 2))
    with launches(backend) as names, exact_ends(backend):
        check_all(backend, g, *(array.astype(dtype) for array in operands(g, 1)))
    suffix = f"_{dtype.name}" + ("x8" if channels % 8 == 0 else "")
    assert names[0] == "adaptive_max_pool2d_forward" + suffix and names[-1] == "adaptive_avg_pool2d_backward" + suffix


@pytest.mark.parametrize(("channels", "aligned", "instance"), [(8, True, "_vec4"), (6, True, ""), (8, False, "")])
def test_four_channels_at_a_time_where_they_fit(backend: Any, channels: int, aligned: bool, instance: str) -> None:
    g = geometry((2, channels, 5, 7), (3, 4))
    place = None if aligned else lambda array: unaligned(backend, array)
    with launches(backend) as names:
        check_all(backend, g, *operands(g, 3), place)
    kernels = ["max_pool2d_forward", "max_pool2d_backward", "avg_pool2d_forward", "avg_pool2d_backward"]
    assert names == [f"adaptive_{kernel}{instance}" for kernel in kernels]


@pytest.mark.parametrize("channels", [4, 5])
def test_values_that_are_not_finite(backend: Any, channels: int) -> None:
    """The first NaN wins over everything; of nothing but -inf the first."""
    g = geometry((3, channels, 7, 6), (3, 4))
    rng = np.random.default_rng(7)
    x, dy = operands(g, 6)
    x = np.where(rng.random(x.shape) < 0.4, rng.choice([np.nan, np.inf, -np.inf], x.shape), x).astype(np.float32)
    x[0, :, :, 0] = -np.inf
    check_all(backend, g, x, dy)


def test_sizes_beyond_the_kernels_integers_are_refused(backend: Any) -> None:
    g = AdaptivePool2dGeometry(1, 2**16, 1, 1, 2**15, 1)
    with pytest.raises(ValueError, match=r"at most 2\*\*30 an axis, got 65536 x 32768, 1 x 1"):
        backend.adaptive_avg_pool2d_forward(backend.from_host(np.zeros((1, 2**16, 1, 1), np.float32)), g)


extents = st.integers(1, 11)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.tuples(st.integers(0, 3), st.integers(1, 9), extents, extents), st.tuples(extents, extents), seeds)
def test_any_size(shape: tuple[int, ...], size: tuple[int, int], seed: int) -> None:
    g = geometry(shape, size)
    check_all(backends.get(device("emulated")), g, *operands(g, seed, seed % 2 == 0))
