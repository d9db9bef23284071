"""The convolution kernels against the formula in float64, instance by instance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray

from gpucnn import backends
from gpucnn.backends.cuda import conv2d, split_k
from gpucnn.device import device
from gpucnn.geometry import Conv2dGeometry
from tests.numpy_backend.geometries import convolutions, normal, seeds
from tests.support import reference
from tests.support.tolerance import check

Array = NDArray[Any]

GEOMETRIES = {
    "odd sizes, stride 3": Conv2dGeometry.of((2, 3, 11, 7), (5, 3, 3, 3), stride=3, padding=1),
    "asymmetric padding": Conv2dGeometry.of((2, 4, 6, 9), (8, 4, 3, 2), stride=(2, 1), padding=((0, 3), (2, 1))),
    "padding wider than the filter": Conv2dGeometry.of((1, 4, 3, 4), (4, 4, 2, 2), padding=((4, 3), (5, 0))),
    "one channel": Conv2dGeometry.of((1, 1, 9, 8), (7, 1, 3, 4)),
    "one filter": Conv2dGeometry.of((3, 7, 5, 5), (1, 7, 3, 3), padding="same"),
    "dilation": Conv2dGeometry.of((2, 6, 12, 11), (8, 6, 3, 3), padding=2, dilation=(2, 3)),
    "stride and dilation share a factor": Conv2dGeometry.of(
        (2, 8, 13, 14), (12, 8, 3, 3), stride=(4, 2), padding=3, dilation=(2, 4)
    ),
    "stride beyond the filter": Conv2dGeometry.of((2, 4, 12, 13), (4, 4, 2, 2), stride=5),
    "stride beyond the image": Conv2dGeometry.of((2, 4, 3, 4), (4, 4, 3, 3), stride=7, padding=1),
    "groups": Conv2dGeometry.of((2, 12, 7, 6), (24, 4, 3, 3), padding=1, groups=3),
    "groups not of fours": Conv2dGeometry.of((2, 10, 7, 6), (14, 5, 3, 3), stride=2, padding=1, groups=2),
    "depthwise": Conv2dGeometry.of((2, 9, 8, 7), (18, 1, 3, 3), padding=1, groups=9),
    "pointwise": Conv2dGeometry.of((2, 20, 5, 6), (12, 20, 1, 1)),
    "filter as large as the input": Conv2dGeometry.of((3, 8, 6, 5), (12, 8, 6, 5)),
    "several tiles each way": Conv2dGeometry.of((2, 20, 12, 13), (136, 20, 3, 3), padding=1),
    "lecture conv1": Conv2dGeometry.of((1, 3, 24, 24), (64, 3, 5, 5), padding="same"),
}
VECTOR = {name: g for name, g in GEOMETRIES.items() if g.C // g.groups % 4 == 0 and g.K // g.groups % 4 == 0}
INSTANCES = {
    "fprop": ("128x64_vec4", "64x64_vec4", "64x64_scalar", "direct"),
    "dgrad": ("128x64_vec4", "64x64_vec4", "64x64_scalar", "direct"),
    "wgrad": ("64x128_vec4", "64x64_vec4", "64x64_scalar", "direct"),
}
CASES = [
    pytest.param(operator, instance, g, id=f"{operator}-{instance}-{name}")
    for operator, instances in INSTANCES.items()
    for instance in instances
    for name, g in (VECTOR if "vec4" in instance else GEOMETRIES).items()
]


def operands(g: Conv2dGeometry, operator: str, seed: int = 0) -> tuple[Array, ...]:
    """What ``operator`` takes: non-uniform values of both signs."""
    x, w = normal(seed, g.input_shape, np.float32), normal(seed + 1, g.weight_shape, np.float32)
    dy, bias = normal(seed + 2, g.output_shape, np.float32), normal(seed + 3, (g.K,), np.float32)
    return {"fprop": (x, w, bias), "dgrad": (dy, w), "wgrad": (x, dy)}[operator]


def run(
    backend: Any, operator: str, arrays: tuple[Array, ...], g: Conv2dGeometry, instance: str | None = None
) -> Array:
    """The result on the host."""
    on_device = [backend.from_host(array) for array in arrays]
    result = getattr(conv2d, operator)(backend, *on_device, g, instance=instance)
    on_host: Array = backend.to_host(result[0] if operator == "wgrad" else result)
    return on_host


def check_operator(actual: Array, operator: str, arrays: tuple[Array, ...], g: Conv2dGeometry) -> None:
    check(actual, getattr(reference, f"conv2d_{operator}"), *arrays, g, what=f"{operator} of {g}")


@pytest.mark.parametrize(("operator", "instance", "g"), CASES)
def test_every_instance_computes_the_formula(backend: Any, operator: str, instance: str, g: Conv2dGeometry) -> None:
    arrays = operands(g, operator)
    with backend.engine.record() as launches:
        actual = run(backend, operator, arrays, g, instance)
    assert launches[0].kernel == f"conv2d_{operator}_{instance}"
    check_operator(actual, operator, arrays, g)


@pytest.mark.parametrize("g", GEOMETRIES.values(), ids=GEOMETRIES)
def test_primitives_of_the_backend(backend: Any, g: Conv2dGeometry) -> None:
    x, w, bias = operands(g, "fprop")
    dy, _ = operands(g, "dgrad")
    x_, w_, bias_, dy_ = map(backend.from_host, (x, w, bias, dy))
    y = backend.conv2d_fprop(x_, w_, None, g)
    check_operator(backend.to_host(y), "fprop", (x, w, None), g)
    y = backend.conv2d_fprop(x_, w_, bias_, g)
    check_operator(backend.to_host(y), "fprop", (x, w, bias), g)
    dx, (dw, no_db) = backend.conv2d_dgrad(dy_, w_, g), backend.conv2d_wgrad(x_, dy_, g)
    assert no_db is None
    check_operator(backend.to_host(dx), "dgrad", (dy, w), g)
    check_operator(backend.to_host(dw), "wgrad", (x, dy), g)
    for result in (y, dx, dw):
        assert result.dtype == np.float32 and result.flags.c_contiguous


def random_case(backend: Any, g: Conv2dGeometry, seed: int) -> None:
    for operator, instances in INSTANCES.items():
        arrays = operands(g, operator, seed)
        tiled, direct = run(backend, operator, arrays, g), run(backend, operator, arrays, g, instances[-1])
        check_operator(tiled, operator, arrays, g)
        check_operator(direct, operator, arrays, g)


ON_ANY_BACKEND = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=ON_ANY_BACKEND)
@given(g=convolutions(), seed=seeds)
def test_awkward_geometries(backend: Any, g: Conv2dGeometry, seed: int) -> None:
    random_case(backend, g, seed)


@pytest.mark.full
@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=ON_ANY_BACKEND)
@given(g=convolutions(), seed=seeds)
def test_many_awkward_geometries(backend: Any, g: Conv2dGeometry, seed: int) -> None:
    random_case(backend, g, seed)


@pytest.mark.parametrize("instance", ["64x128_vec4", "64x64_vec4", "64x64_scalar"])
def test_split_wgrad(backend: Any, instance: str) -> None:
    g = Conv2dGeometry.of((3, 8, 15, 14), (20, 8, 3, 3), padding=((1, 1), (0, 2)))
    arrays = operands(g, "wgrad")
    with backend.engine.record() as launches:
        actual = run(backend, "wgrad", arrays, g, instance)
    assert [launch.kernel for launch in launches] == [f"conv2d_wgrad_{instance}", "split_k_reduce"]
    assert launches[0].grid[1] > 1
    check_operator(actual, "wgrad", arrays, g)


@pytest.mark.parametrize(
    ("operator", "instance"), [(operator, instance) for operator in INSTANCES for instance in INSTANCES[operator]]
)
def test_infinity_reaches_only_the_results_that_see_it(backend: Any, operator: str, instance: str) -> None:
    """Products beyond the end of a sum are 0 * 0; with 0 * x, infinite values would spoil results far away."""
    channels = 5 if instance in ("64x64_scalar", "direct") else 4
    g = Conv2dGeometry.of((2, channels, 9, 8), (channels, channels, 3, 3), stride=(1, 2), padding=1)
    arrays = operands(g, operator)
    arrays[0][0, 4, 1, 1] = np.inf  # of x or dy
    with np.errstate(invalid="ignore"):
        expected = getattr(reference, f"conv2d_{operator}")(*arrays, g).value
    assert 0 < np.isfinite(expected).sum() < expected.size
    np.testing.assert_array_equal(np.isfinite(run(backend, operator, arrays, g, instance)), np.isfinite(expected))


@pytest.mark.parametrize("operator", INSTANCES)
def test_results_are_the_same_bits_in_every_run(backend: Any, operator: str) -> None:
    g = Conv2dGeometry.of((4, 12, 17, 16), (20, 12, 3, 3), stride=(2, 1), padding=1)
    arrays = operands(g, operator)
    first, second = run(backend, operator, arrays, g), run(backend, operator, arrays, g)
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("operator", ["fprop", "dgrad"])
def test_the_choice_of_tile_does_not_change_a_bit(backend: Any, operator: str) -> None:
    g = Conv2dGeometry.of((2, 12, 11, 10), (20, 12, 3, 3), stride=(2, 1), padding=1)
    arrays = operands(g, operator)
    results = {run(backend, operator, arrays, g, instance).tobytes() for instance in INSTANCES[operator][:3]}
    assert len(results) == 1


@pytest.mark.parametrize("operator", INSTANCES)
def test_an_array_off_16_bytes_takes_the_scalar_instance(backend: Any, operator: str) -> None:
    g = Conv2dGeometry.of((2, 8, 9, 9), (12, 8, 3, 3), padding=1)
    arrays = operands(g, operator)
    for place in range(2):
        shifted = [backend.from_host(array) for array in arrays]
        buffer = backend.empty((arrays[place].size + 1,))
        shifted[place] = buffer[1:].reshape(arrays[place].shape)
        shifted[place][...] = backend.from_host(arrays[place])
        with backend.engine.record() as launches:
            result = getattr(conv2d, operator)(backend, *shifted, g)
            actual = backend.to_host(result[0] if operator == "wgrad" else result)
        assert launches[0].kernel == f"conv2d_{operator}_64x64_scalar"
        check_operator(actual, operator, arrays, g)


def test_arrays_that_end_where_memory_ends() -> None:
    backend: Any = backends.get(device("emulated"))  # the one that can put inaccessible memory right behind an array
    for g in (GEOMETRIES["odd sizes, stride 3"], GEOMETRIES["groups not of fours"], GEOMETRIES["depthwise"]):
        for operator in INSTANCES:
            arrays = operands(g, operator)
            with backend.engine.exact_ends():
                actual = run(backend, operator, arrays, g)
            check_operator(actual, operator, arrays, g)


@pytest.mark.parametrize(
    ("shape", "weight", "options", "expected"),
    [
        ((8, 64, 64, 32), (64, 64, 3, 3), {"padding": 1}, ("64x64_vec4", "64x64_vec4", "64x128_vec4")),
        ((32, 64, 64, 64), (64, 64, 3, 3), {"padding": 1}, ("128x64_vec4", "128x64_vec4", "64x128_vec4")),
        ((8, 64, 32, 32), (64, 64, 1, 1), {}, ("64x64_vec4", "64x64_vec4", "64x64_vec4")),
        ((8, 3, 32, 32), (64, 3, 5, 5), {"padding": 2}, ("64x64_scalar", "64x64_scalar", "64x64_scalar")),
        ((8, 64, 32, 32), (64, 1, 3, 3), {"padding": 1, "groups": 64}, ("direct", "direct", "64x64_scalar")),
    ],
)
def test_which_instance_runs(
    shape: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    g = Conv2dGeometry.of(shape, weight, **options)
    recorder = Recorder()
    conv2d.fprop(recorder, np.zeros(g.input_shape, np.float32), np.zeros(g.weight_shape, np.float32), None, g)
    conv2d.dgrad(recorder, np.zeros(g.output_shape, np.float32), np.zeros(g.weight_shape, np.float32), g)
    conv2d.wgrad(recorder, np.zeros(g.input_shape, np.float32), np.zeros(g.output_shape, np.float32), g)
    ran = [name.split("_", 2)[2] for name in recorder.kernels if name.startswith("conv2d")]
    assert tuple(ran) == expected


class Recorder:
    """Stands for a backend and only notes what would be launched."""

    xp = np

    def __init__(self) -> None:
        self.kernels: list[str] = []

    def launch(self, source: str, name: str, *arguments: Any) -> None:
        self.kernels.append(name)

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        return np.empty(shape, dtype)


def test_an_empty_batch(backend: Any) -> None:
    g = Conv2dGeometry.of((0, 4, 5, 5), (8, 4, 3, 3))
    x, w, bias = map(backend.from_host, operands(g, "fprop"))
    dy = backend.empty(g.output_shape)
    with backend.engine.record() as launches:
        assert backend.conv2d_fprop(x, w, bias, g).shape == (0, 3, 3, 8)
        assert backend.conv2d_dgrad(dy, w, g).shape == (0, 5, 5, 4)
        assert launches == []
        dw, db = map(backend.to_host, backend.conv2d_wgrad(x, dy, g, bias=True))
    np.testing.assert_array_equal(dw, np.zeros(g.weight_shape, np.float32))
    np.testing.assert_array_equal(db, np.zeros(g.K, np.float32))


def test_a_vector_instance_refuses_channels_that_are_not_of_fours(backend: Any) -> None:
    g = GEOMETRIES["groups not of fours"]
    x, w, bias = operands(g, "fprop")
    with pytest.raises(ValueError, match="128x64_vec4 needs C/groups and K/groups divisible by 4"):
        conv2d.fprop(backend, x, w, bias, g, instance="128x64_vec4")


def test_too_many_pixels_for_int_are_refused(backend: Any) -> None:
    many = Conv2dGeometry.of((1 << 15, 1, 1 << 8, 1 << 8), (1, 1, 1, 1))
    padded = Conv2dGeometry.of((1, 1, 1, 1), (1, 1, 1, 1), stride=1 << 14, padding=1 << 14)
    for g in (many, padded):
        with pytest.raises(ValueError, match=r"conv2d fprop: at most 1073741824 pixels"):
            conv2d.fprop(backend, np.zeros(1), np.zeros(1), None, g)


@pytest.mark.parametrize("terms", [1, 7, 8, 127, 256, 1000, 18432, 73728, 802816])
@pytest.mark.parametrize(("tiles", "size"), [(1, 75), (13, 102400), (162, 2359296), (700, 10_000_000), (1, 1 << 26)])
def test_split_covers_the_sum_within_the_workspace(terms: int, tiles: int, size: int) -> None:
    split = split_k.choose(terms, tiles, size)
    assert split.parts * split.length >= terms > (split.parts - 1) * split.length  # all terms, no part empty
    assert split.length % split_k.STAGE == 0
    assert split.parts == 1 or split.parts * size * 4 <= split_k.WORKSPACE
    assert split.parts == 1 or split.length >= split_k.SHORTEST_SUM - split_k.STAGE
