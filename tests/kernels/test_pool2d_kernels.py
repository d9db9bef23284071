"""The pooling kernels against the formula: values, places, gradients, every instance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpucnn import backends
from gpucnn.backends.cuda import pool2d
from gpucnn.device import device
from gpucnn.geometry import Pool2dGeometry
from tests.kernels.arrays import exact_ends, host, launches, unaligned
from tests.kernels.halves import half_normal, half_types
from tests.numpy_backend.geometries import normal, poolings, seeds
from tests.support import reference
from tests.support.tolerance import check

NAMED = {
    "lecture pool1": Pool2dGeometry.of((2, 64, 24, 24), 3, 2, "same"),
    "one channel": Pool2dGeometry.of((3, 1, 7, 9), 2),
    "nine channels": Pool2dGeometry.of((2, 9, 7, 5), 3, 2, 1),
    "row longer than a block": Pool2dGeometry.of((1, 12, 4, 130), (2, 3), (1, 1)),
    "overlapping, asymmetric": Pool2dGeometry.of((2, 8, 9, 6), (4, 3), (1, 2), ((2, 1), (0, 1))),
    "ceil mode": Pool2dGeometry.of((2, 3, 8, 7), 3, 2, 1, ceil_mode=True),
    "dilated": Pool2dGeometry.of((2, 5, 11, 12), (2, 3), (2, 1), 1, (3, 2)),
    "dilation shares a factor with the stride": Pool2dGeometry.of((2, 4, 13, 13), 3, (2, 4), 1, (4, 2)),
    "stride beyond the window": Pool2dGeometry.of((2, 7, 9, 13), 2, 3),
    "2x2, odd sizes, last row in no window": Pool2dGeometry.of((2, 12, 9, 7), 2),
    "2x2, padded": Pool2dGeometry.of((3, 4, 6, 5), 2, 2, 1),
    "3x3, asymmetric padding": Pool2dGeometry.of((2, 8, 7, 10), 3, 2, ((0, 1), (1, 0))),
    "3x3 of one pixel": Pool2dGeometry.of((2, 4, 1, 1), 3, 2, 1),
    "whole images": Pool2dGeometry.of((3, 68, 8, 7), (8, 7)),
    "whole images, few channels": Pool2dGeometry.of((2, 5, 19, 16), (19, 16)),
    "windows of padding alone": Pool2dGeometry.of((2, 3, 2, 2), 2, 1, 1, 3),
    "256 taps": Pool2dGeometry.of((1, 4, 18, 17), 16, 1),
    "289 taps": Pool2dGeometry.of((1, 4, 18, 19), 17, 1),
    "no images": Pool2dGeometry.of((0, 4, 8, 7), 3),
}
cases = pytest.mark.parametrize("g", NAMED.values(), ids=NAMED.keys())


def check_max(backend: Any, g: Pool2dGeometry, x: Any, dy: Any, place: Any = None) -> None:
    put = backend.from_host if place is None else place
    y, index = backend.max_pool2d_forward(put(x), g)
    expected, where = reference.max_pool2d_forward(x.astype(np.float32), g)
    np.testing.assert_array_equal(host(backend, y).astype(np.float32), expected)
    np.testing.assert_array_equal(host(backend, index), where)
    assert y.dtype == x.dtype and index.dtype == (np.uint8 if g.R * g.S <= 256 else np.int32)
    dx = backend.max_pool2d_backward(put(dy), index, g)
    check(host(backend, dx), reference.max_pool2d_backward, dy, where, g)


def check_avg(
    backend: Any, g: Pool2dGeometry, seed: int, count_include_pad: bool, divisor: int | None, dtype: Any = np.float32
) -> None:
    x, dy = half_normal(seed, g.input_shape, dtype), half_normal(seed + 1, g.output_shape, dtype)
    y = backend.avg_pool2d_forward(backend.from_host(x), g, count_include_pad, divisor)
    check(host(backend, y), reference.avg_pool2d_forward, x, g, count_include_pad, divisor)
    dx = backend.avg_pool2d_backward(backend.from_host(dy), g, count_include_pad, divisor)
    check(host(backend, dx), reference.avg_pool2d_backward, dy, g, count_include_pad, divisor)


def operands(g: Pool2dGeometry, seed: int, levels: int | None = None) -> tuple[Any, Any]:
    """x and dy; ``levels`` rounds x to few values, so that windows hold ties."""
    x, dy = normal(seed, g.input_shape, np.float32), normal(seed + 1, g.output_shape, np.float32)
    return (np.round(x * levels) / levels).astype(np.float32) if levels else x, dy


@cases
@pytest.mark.parametrize("levels", [None, 1])
def test_max_pooling(backend: Any, g: Pool2dGeometry, levels: int | None) -> None:
    check_max(backend, g, *operands(g, 1, levels))


@cases
@pytest.mark.parametrize(("count_include_pad", "divisor"), [(True, None), (False, None), (True, -3)])
def test_average_pooling(backend: Any, g: Pool2dGeometry, count_include_pad: bool, divisor: int | None) -> None:
    check_avg(backend, g, 2, count_include_pad, divisor)


@pytest.mark.parametrize(("channels", "instance"), [(8, "_vec4"), (6, "")])
def test_four_channels_at_a_time_where_they_fit(backend: Any, channels: int, instance: str) -> None:
    g = Pool2dGeometry.of((2, channels, 5, 6), 3, 1, 1)
    with launches(backend) as names:
        check_max(backend, g, *operands(g, 3))
        check_avg(backend, g, 4, False, None)
    expected = ["max_pool2d_forward", "max_pool2d_backward", "avg_pool2d_forward", "avg_pool2d_backward"]
    assert names == [name + instance for name in expected]


@pytest.mark.parametrize(
    ("window", "channels", "dtype", "instance"),
    [(2, 8, np.float32, "_2x2_vec4"), (3, 4, np.float32, "_3x3_vec4"), (3, 6, np.float32, ""),
     (4, 8, np.float32, "_vec4"), (2, 8, np.float16, "_2x2_float16x8"), (3, 12, np.float16, "_float16"),
     (5, 8, np.float16, "_float16x8")],
)  # fmt: skip
def test_the_usual_windows_have_instances_of_their_own(
    backend: Any, window: int, channels: int, dtype: Any, instance: str
) -> None:
    g = Pool2dGeometry.of((2, channels, 5, 6), window, 2)
    x, dy = operands(g, 3)
    with launches(backend) as names:
        check_max(backend, g, x.astype(dtype), dy.astype(dtype))
    assert names == ["max_pool2d_forward" + instance, "max_pool2d_backward" + instance]


HALF_CASES = [Pool2dGeometry.of((2, 16, 6, 5), (6, 5)), Pool2dGeometry.of((2, 3, 6, 5), (6, 5))]
HALF_CASES += [
    Pool2dGeometry.of((2, c, 7, 6), r, s, p) for c in (8, 24, 5) for r, s, p in ((2, 2, 0), (3, 2, 1), (4, 3, 0))
]


@half_types
@pytest.mark.parametrize("g", [*HALF_CASES, NAMED["289 taps"], NAMED["no images"]], ids=str)
def test_half_types(backend: Any, dtype: Any, g: Pool2dGeometry) -> None:
    x, dy = operands(g, 1, 3)
    with exact_ends(backend):
        check_max(backend, g, x.astype(dtype), dy.astype(dtype))
        check_avg(backend, g, 2, False, None, dtype)


@half_types
@pytest.mark.parametrize("channels", [8, 3])
def test_half_values_that_are_not_finite(backend: Any, dtype: Any, channels: int) -> None:
    g = Pool2dGeometry.of((3, channels, 9, 8), 3, 2, 1)
    rng = np.random.default_rng(7)
    x, dy = operands(g, 6)
    x = np.where(rng.random(x.shape) < 0.35, rng.choice([np.nan, np.inf, -np.inf], x.shape), x)
    check_max(backend, g, x.astype(dtype), dy.astype(dtype))


def test_slices_that_start_anywhere_take_the_scalar_kernels(backend: Any) -> None:
    g = Pool2dGeometry.of((2, 8, 5, 6), 3, 2, 1)
    with launches(backend) as names, exact_ends(backend):
        check_max(backend, g, *operands(g, 5), place=lambda array: unaligned(backend, array))
    assert names == ["max_pool2d_forward", "max_pool2d_backward"]


@pytest.mark.parametrize("values", [(np.nan,), (-np.inf,), (np.nan, np.inf, -np.inf)])
@pytest.mark.parametrize("channels", [4, 5])
def test_values_that_are_not_finite(backend: Any, values: tuple[float, ...], channels: int) -> None:
    """The first NaN wins over everything, -inf in the image over padding."""
    g = Pool2dGeometry.of((3, channels, 9, 8), 3, 2, 1)
    rng = np.random.default_rng(7)
    x, dy = operands(g, 6)
    x = np.where(rng.random(x.shape) < 0.35, rng.choice(values, x.shape), x).astype(np.float32)
    check_max(backend, g, x, dy)


@pytest.mark.parametrize("channels", [1, 4])
def test_nothing_but_minus_infinity_takes_the_first_input(backend: Any, channels: int) -> None:
    g = Pool2dGeometry.of((1, channels, 3, 3), 3, 2, 1)
    x = backend.from_host(np.full((1, 3, 3, channels), -np.inf, np.float32))
    y, index = backend.max_pool2d_forward(x, g)
    np.testing.assert_array_equal(host(backend, y)[0, :, :, -1], [[-np.inf, -np.inf], [-np.inf, -np.inf]])
    np.testing.assert_array_equal(host(backend, index)[0, :, :, -1], [[4, 3], [1, 0]])


def test_a_window_without_data_is_minus_infinity_and_its_gradient_goes_nowhere(backend: Any) -> None:
    g = Pool2dGeometry.of((1, 1, 2, 2), 2, 1, 1, 3)  # taps three apart: one window, all four taps in the padding
    assert (g.P, g.Q) == (1, 1)
    y, index = backend.max_pool2d_forward(backend.from_host(np.ones((1, 2, 2, 1), np.float32)), g)
    assert host(backend, y).item() == -np.inf
    dy = backend.from_host(np.full((1, 1, 1, 1), 5, np.float32))
    assert not host(backend, backend.max_pool2d_backward(dy, index, g)).any()
    mean = backend.avg_pool2d_forward(backend.from_host(np.ones((1, 2, 2, 1), np.float32)), g, False, None)
    assert host(backend, mean).item() == 0


def test_an_infinite_gradient_reaches_its_winner_alone(backend: Any) -> None:
    g = Pool2dGeometry.of((1, 1, 2, 4), 2)
    x = np.array([[1, 2, 0, 9], [3, 0, 5, 1]], np.float32).reshape(1, 2, 4, 1)
    _, index = backend.max_pool2d_forward(backend.from_host(x), g)
    dy = backend.from_host(np.array([np.inf, np.nan], np.float32).reshape(1, 1, 2, 1))
    dx = host(backend, backend.max_pool2d_backward(dy, index, g))
    np.testing.assert_array_equal(dx[0, :, :, 0], [[0, 0, 0, np.nan], [np.inf, 0, 0, 0]])


emulator = settings(deadline=None, suppress_health_check=list(HealthCheck))
levels = st.sampled_from([None, 1, 3])
divisors = st.sampled_from([None, None, 1, 7, -3])


@emulator
@given(poolings(), seeds, levels)
def test_max_pooling_of_any_geometry(g: Pool2dGeometry, seed: int, levels: int | None) -> None:
    check_max(backends.get(device("emulated")), g, *operands(g, seed, levels))


@emulator
@given(poolings(dilated=False), seeds, st.booleans(), divisors)
def test_average_pooling_of_any_geometry(g: Pool2dGeometry, seed: int, include: bool, divisor: int | None) -> None:
    check_avg(backends.get(device("emulated")), g, seed, include, divisor)


@pytest.mark.full
@settings(emulator, max_examples=250)
@given(poolings(), poolings(dilated=False), seeds, levels, st.booleans(), divisors)
def test_pooling_of_many_geometries(
    g: Pool2dGeometry, flat: Pool2dGeometry, seed: int, levels: int | None, include: bool, divisor: int | None
) -> None:
    check_max(backends.get(device("emulated")), g, *operands(g, seed, levels))
    check_avg(backends.get(device("emulated")), flat, seed, include, divisor)


def test_more_rows_than_the_kernels_count_are_refused() -> None:
    for rows, row_elements in ((2**30 + 1, 4), (4, 2**30 + 1)):
        with pytest.raises(ValueError, match=rf"at most 2\*\*30, got {rows} and {row_elements}"):
            pool2d.launch_shape(rows, row_elements)
