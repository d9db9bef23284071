"""The convolution kernels against the formula in float64, instance by instance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray

from gpucnn import backends
from gpucnn.backends.cuda import conv2d, simt, split_k
from gpucnn.backends.cuda.backend import CudaBackend
from gpucnn.backends.emulator import EmulatorEngine
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
    "more taps than a mask has bits": Conv2dGeometry.of((2, 4, 3, 40), (8, 4, 1, 33), padding=((0, 0), (5, 4))),
}
INSTANCES = conv2d.INSTANCES
CASES = [
    pytest.param(operator, instance, g, id=f"{operator}-{instance}-{name}")
    for operator in INSTANCES
    for name, g in GEOMETRIES.items()
    for instance in conv2d.candidates(operator, g)
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


TILED = [(operator, instance) for operator in INSTANCES for instance in INSTANCES[operator] if instance != "direct"]
SPLIT = Conv2dGeometry.of((3, 24, 15, 14), (20, 24, 3, 3), stride=(1, 2), padding=((1, 1), (0, 2)))


def fused(backend: Any, operator: str, instance: str, g: Conv2dGeometry) -> tuple[dict[str, Array], list[Any]]:
    """The results of an operator with all that can be fused into it, each checked, and the launches."""
    x, w, bias = operands(g, "fprop")
    dy, _ = operands(g, "dgrad")
    x_, w_, bias_, dy_ = map(backend.from_host, (x, w, bias, dy))
    with backend.engine.record() as launches:
        if operator == "fprop":
            results = {"y": conv2d.fprop(backend, x_, w_, bias_, g, activation="relu", instance=instance)}
        elif operator == "dgrad":
            results = {"dx": conv2d.dgrad(backend, dy_, w_, g, mask=x_, instance=instance)}
        else:
            results = dict(
                zip(("dw", "db"), conv2d.wgrad(backend, x_, dy_, g, bias=True, instance=instance), strict=True)
            )
    on_host = {name: backend.to_host(result) for name, result in results.items()}
    if operator == "fprop":
        check(on_host["y"], reference.conv2d_fprop_relu, x, w, bias, g)
    elif operator == "dgrad":
        check(on_host["dx"], reference.conv2d_dgrad_masked, dy, w, x, g)
    else:
        check(on_host["dw"], reference.conv2d_wgrad, x, dy, g)
        check(on_host["db"], reference.bias_grad, dy)
    return on_host, launches


@pytest.mark.parametrize(("operator", "instance"), TILED)
def test_one_launch_does_all_that_is_fused(backend: Any, operator: str, instance: str) -> None:
    g = Conv2dGeometry.of((2, 12, 9, 8), (24, 4, 3, 2), stride=(2, 1), padding=((1, 0), (2, 1)), groups=3)
    _, launches = fused(backend, operator, instance, g)
    assert [launch.kernel for launch in launches] == [f"conv2d_{operator}_{instance}"]


@pytest.mark.parametrize("parts", [2, 4, 5, 13])
@pytest.mark.parametrize(("operator", "instance"), TILED)
def test_the_last_block_joins_the_parts(
    backend: Any, monkeypatch: pytest.MonkeyPatch, operator: str, instance: str, parts: int
) -> None:
    """In one group, in one group just filled, in two groups, in four of which the last has one part."""
    terms = conv2d.plan_of(operator, instance, SPLIT).split
    total = terms.parts * terms.length
    length = -(-total // parts // split_k.STAGE) * split_k.STAGE
    split = split_k.Split(-(-total // length), length)
    monkeypatch.setattr(split_k, "choose", lambda *_: split)
    results, launches = fused(backend, operator, instance, SPLIT)
    assert [launch.grid[1] for launch in launches] == [split.parts] and split.parts > 1
    again, _ = fused(backend, operator, instance, SPLIT)
    assert all(results[name].tobytes() == again[name].tobytes() for name in results)
    assert not backend.to_host(backend.counters(4096)).any()


@pytest.mark.parametrize("arch", [61, 90])
@pytest.mark.parametrize(("operator", "instance"), TILED)
def test_with_and_without_asynchronous_copies(operator: str, instance: str, arch: int) -> None:
    backend = CudaBackend(EmulatorEngine(arch=arch))
    for g in (GEOMETRIES["groups"], SPLIT):
        fused(backend, operator, instance, g)


def test_the_direct_kernels_take_the_same_arguments(backend: Any) -> None:
    for operator in INSTANCES:
        fused(backend, operator, "direct", GEOMETRIES["depthwise"])


def test_relu_and_mask_keep_nan_as_the_separate_kernels_do(backend: Any) -> None:
    g = GEOMETRIES["pointwise"]
    x, w, _ = operands(g, "fprop")
    x[0, 0, 0, 0] = x[1, 2, 3, 4] = np.nan
    x_, w_ = backend.from_host(x), backend.from_host(w)
    y = backend.conv2d_fprop(x_, w_, None, g)
    separate = backend.to_host(backend.relu_forward(y))
    assert np.isnan(separate).sum() == 2 * g.K
    np.testing.assert_array_equal(backend.to_host(backend.conv2d_fprop(x_, w_, None, g, activation="relu")), separate)
    dx = backend.to_host(backend.conv2d_dgrad(y, w_, g, mask=x_))
    assert dx[0, 0, 0, 0] == 0 and dx[1, 2, 3, 4] == 0 and np.isnan(dx[0, 0, 0, 1:]).any()


@pytest.mark.parametrize(
    ("operator", "instance"), [(operator, instance) for operator in INSTANCES for instance in INSTANCES[operator]]
)
def test_infinity_reaches_only_the_results_that_see_it(backend: Any, operator: str, instance: str) -> None:
    """Products beyond the end of a sum are 0 * 0; with 0 * x, infinite values would spoil results far away."""
    c = 4 if instance.endswith("vec4") else 5
    k = 5 if instance.endswith(("scalar", "direct")) else 4
    g = Conv2dGeometry.of((2, c, 9, 8), (k, c, 3, 3), stride=(1, 2), padding=1)
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
    results = {run(backend, operator, arrays, g, instance).tobytes() for instance in INSTANCES[operator][:-1]}
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
        assert launches[0].kernel.startswith(f"conv2d_{operator}_") and launches[0].kernel.endswith("_scalar")
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
        ((8, 64, 64, 32), (64, 64, 3, 3), {"padding": 1}, ("128x64_vec4", "128x64_vec4", "64x128_vec4")),
        ((8, 64, 32, 32), (64, 64, 1, 1), {}, ("128x64_vec4", "128x64_vec4", "64x80_few")),
        ((8, 3, 32, 32), (64, 3, 5, 5), {"padding": 2}, ("128x64_few", "128x64_scalar", "64x80_few")),
        ((8, 6, 32, 32), (6, 6, 5, 5), {}, ("128x64_scalar", "128x64_scalar", "64x80_scalar")),
        ((8, 64, 32, 32), (64, 1, 3, 3), {"padding": 1, "groups": 64}, ("direct", "direct", "64x80_scalar")),
        ((8, 4, 1, 400), (64, 4, 1, 80), {}, ("128x64_scalar", "128x64_scalar", "64x80_scalar")),
        ((1, 4, 1 << 13, 1 << 13), (8, 4, 5, 5), {}, ("128x64_vec4", "128x64_vec4", "64x128_vec4")),
        ((1, 16, 1 << 14, 1 << 14), (8, 16, 3, 3), {}, ("direct", "direct", "direct")),  # beyond int
    ],
)
def test_which_instance_runs(
    shape: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    g = Conv2dGeometry.of(shape, weight, **options)
    assert tuple(conv2d.choose(operator, g) for operator in INSTANCES) == expected


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
    with pytest.raises(ValueError, match=r"instance 128x64_vec4 does not .* these do: 128x64_scalar, direct"):
        conv2d.fprop(backend, x, w, bias, g, instance="128x64_vec4")


def test_too_many_pixels_for_int_are_refused(backend: Any) -> None:
    many = Conv2dGeometry.of((1 << 15, 1, 1 << 8, 1 << 8), (1, 1, 1, 1))
    padded = Conv2dGeometry.of((1, 1, 1, 1), (1, 1, 1, 1), stride=1 << 14, padding=1 << 14)
    for g in (many, padded):
        with pytest.raises(ValueError, match=r"conv2d fprop: at most 1073741824 pixels"):
            conv2d.fprop(backend, np.zeros(1), np.zeros(1), None, g)


@pytest.mark.parametrize("terms", [0, 1, 7, 8, 127, 256, 1000, 18432, 147456, 73728000])
@pytest.mark.parametrize("tiles", [1, 13, 144, 700, 200_000])
@pytest.mark.parametrize("longest", [None, conv2d.LONGEST_SUM])
def test_split_covers_the_sum_within_the_workspace(terms: int, tiles: int, longest: int | None) -> None:
    split = split_k.choose(terms, tiles, 64 * 129, longest)
    assert split.parts * split.length >= terms > (split.parts - 1) * split.length or terms == 0  # all, no part empty
    assert split.length % split_k.STAGE == 0
    assert split.parts == 1 or split.parts * tiles * 4 * 64 * 129 <= split_k.WORKSPACE
    assert split.parts == 1 or split.length >= split_k.SHORTEST_SUM
    assert 1 < split.counters <= 1 + split.parts


def test_few_tiles_are_split_and_many_are_not() -> None:
    few, many = simt.Plan.of("128x64_vec4", 6, 2304, 1 << 20), simt.Plan.of("128x64_vec4", 1152, 1600, 1 << 24)
    assert few.split.parts > 8 and many.split.parts == 1
    assert few.split.parts * few.tiles * few.part <= 1 << 20  # no more than the data themselves
