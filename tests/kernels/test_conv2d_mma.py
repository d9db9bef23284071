"""Tensor-core kernels (convolution, linear layers, matrix products) against the formula in float64, by instance."""

from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from gpucnn.backends.cuda import conv2d_mma, mma_choice
from gpucnn.backends.cuda.backend import CudaBackend
from gpucnn.backends.cuda.mma_choice import INSTANCES, Direction, Gemm, Instance
from gpucnn.backends.declarations import declarations, source_path
from gpucnn.backends.emulator import EmulatorEngine
from gpucnn.geometry import Conv2dGeometry
from tests.kernels.arrays import exact_ends, unaligned
from tests.kernels.halves import half_normal, tensor_core_values
from tests.support import reference
from tests.support.reference import Reference
from tests.support.tolerance import check

Array = NDArray[Any]

DTYPES: dict[str, Any] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "tf32": np.float32}
CONVOLUTIONS = (Direction.FPROP, Direction.DGRAD, Direction.WGRAD)
GEOMETRIES = {
    "odd sizes, stride 3, asymmetric padding": Conv2dGeometry.of(
        (2, 8, 11, 7), (24, 8, 3, 3), stride=3, padding=((0, 2), (1, 0))
    ),
    "groups, stride and dilation share a factor": Conv2dGeometry.of(
        (1, 16, 9, 10), (16, 8, 3, 2), stride=(2, 4), padding=3, dilation=(2, 1), groups=2
    ),
    "several tiles each way": Conv2dGeometry.of((2, 24, 9, 10), (136, 24, 3, 3), padding=1),
    "three channels, ten filters": Conv2dGeometry.of((2, 3, 8, 7), (10, 3, 3, 3), stride=2, padding=1),
    "three channels": Conv2dGeometry.of((1, 3, 9, 9), (24, 3, 5, 5), padding="same"),
    "one channel, dilation": Conv2dGeometry.of((1, 1, 9, 8), (7, 1, 3, 4), dilation=(1, 2)),
    "groups of five": Conv2dGeometry.of(
        (2, 10, 7, 6), (14, 5, 2, 3), stride=(1, 2), padding=((2, 0), (1, 1)), groups=2
    ),
    "stride beyond the filter": Conv2dGeometry.of((2, 8, 6, 7), (8, 8, 2, 2), stride=5),
    "fifteen taps": Conv2dGeometry.of((1, 8, 3, 17), (8, 8, 2, 15), padding=(1, 7)),
    "sixteen taps, for narrow instances": Conv2dGeometry.of((1, 8, 17, 3), (8, 8, 16, 1), padding=(8, 0)),
}


def masked(dy: Array, w: Array, mask: Array, g: Conv2dGeometry, dtype: Any = np.float64) -> Reference:
    value, scale = reference.conv2d_dgrad(dy, w, g, dtype=dtype)
    keep = mask.astype(np.float32) > 0
    return Reference(np.where(keep, value, 0).astype(value.dtype), scale)


def relu_of(x: Array, w: Array, bias: Array, g: Conv2dGeometry, dtype: Any = np.float64) -> Reference:
    value, scale = reference.conv2d_fprop(x, w, bias, g, dtype=dtype)
    return Reference(np.maximum(value, 0), scale)


def run_and_check(
    backend: Any,
    direction: Direction,
    precision: str,
    g: Conv2dGeometry,
    instance: str | None,
    epilogue: bool,
    seed: int = 0,
) -> None:
    """One operator, with bias and ReLU, with a mask, or with db where ``epilogue``, held to the formula."""
    dtype = DTYPES[precision]
    x, w, dy = (half_normal(seed + i, s, dtype) for i, s in enumerate((g.input_shape, g.weight_shape, g.output_shape)))
    bias, mask = half_normal(seed + 3, (g.K,), np.float32), half_normal(seed + 4, g.input_shape, dtype)
    mask[abs(mask) < 0.5] = 0  # as behind a ReLU
    tf32, what = precision == "tf32", f"{direction.value} {instance} of {g}"
    x_, w_, dy_, bias_, mask_ = map(backend.from_host, (x, w, dy, bias, mask))
    if direction is Direction.FPROP:
        relu = "relu" if epilogue else None
        y = conv2d_mma.fprop(backend, x_, w_, bias_ if epilogue else None, g, relu, tf32, instance)
        assert y.dtype == dtype
        formula = relu_of if epilogue else reference.conv2d_fprop
        check(
            backend.to_host(y),
            formula,
            tensor_core_values(x),
            tensor_core_values(w),
            bias if epilogue else None,
            g,
            what=what,
        )
    elif direction is Direction.DGRAD:
        dx = conv2d_mma.dgrad(backend, dy_, w_, g, mask_ if epilogue else None, tf32, instance)
        assert dx.dtype == dtype
        operands = (tensor_core_values(dy), tensor_core_values(w), *((mask,) if epilogue else ()), g)
        check(backend.to_host(dx), masked if epilogue else reference.conv2d_dgrad, *operands, what=what)
    else:
        dw, db = conv2d_mma.wgrad(backend, x_, dy_, g, epilogue, tf32, instance)
        assert dw.dtype == np.float32
        check(backend.to_host(dw), reference.conv2d_wgrad, tensor_core_values(x), tensor_core_values(dy), g, what=what)
        if epilogue:
            check(backend.to_host(db), reference.bias_grad, tensor_core_values(dy), what=f"db by {what}")
        else:
            assert db is None


def suiting(direction: Direction, instance: Instance, precision: str, arch: int = 80) -> dict[str, Conv2dGeometry]:
    return {
        name: g
        for name, g in GEOMETRIES.items()
        if mma_choice.suits(instance, Gemm.of(direction, g, g.groups), precision, arch)
    }


CASES = [
    pytest.param(direction, precision, instance, id=f"{direction.value}-{precision}-{instance.name}")
    for precision in DTYPES
    for direction in CONVOLUTIONS
    for instance in INSTANCES[direction]
]


@pytest.mark.parametrize(("direction", "precision", "instance"), CASES)
def test_every_instance_computes_the_formula(
    backend: Any, direction: Direction, precision: str, instance: Instance
) -> None:
    found = suiting(direction, instance, precision)
    assert found
    for i, g in enumerate(found.values()):
        parts = (1, 3)[i % 2]
        with backend.engine.record() as launches:
            run_and_check(backend, direction, precision, g, f"{instance.name}:{parts}", epilogue=i % 3 != 2, seed=i)
        kernel = conv2d_mma.names(direction, precision, instance)[1]
        assert [launch.kernel for launch in launches] == [kernel]
        assert launches[0].grid[1] <= parts


@pytest.mark.parametrize("parts", [4, 8, 11, 32])
@pytest.mark.parametrize("instance", ["128x64", "64x64_narrow"])
def test_parts_of_k_are_added_up_in_a_tree(backend: Any, instance: str, parts: int) -> None:
    """Eight at a time: one level up to 8 parts, two levels of whole and of broken groups beyond."""
    g = Conv2dGeometry.of((4, 8, 16, 16), (16, 8, 3, 3), padding=1)
    with backend.engine.record() as launches:
        run_and_check(backend, Direction.WGRAD, "float16", g, f"{instance}:{parts}", epilogue=True)
    assert launches[0].grid[1] == parts


@pytest.mark.parametrize("precision", DTYPES)
def test_linear_layers(backend: Any, precision: str) -> None:
    dtype, tf32 = DTYPES[precision], precision == "tf32"
    for m, k, n in ((37, 96, 10), (1, 24, 16), (5, 7, 3)):
        x, w, dy = half_normal(0, (m, k), dtype), half_normal(1, (n, k), dtype), half_normal(2, (m, n), dtype)
        bias, mask = half_normal(3, (n,), np.float32), half_normal(4, (m, k), dtype)
        g = Conv2dGeometry.of((m, k, 1, 1), (n, k, 1, 1))
        image, filters, gradient = (tensor_core_values(a).reshape(a.shape[0], 1, 1, -1) for a in (x, w, dy))
        x_, w_, dy_, bias_, mask_ = map(backend.from_host, (x, w, dy, bias, mask))
        y = backend.to_host(conv2d_mma.linear_forward(backend, x_, w_, bias_, "relu", tf32))
        check(y.reshape(g.output_shape), relu_of, image, filters, bias, g)
        dx = backend.to_host(conv2d_mma.linear_dgrad(backend, dy_, w_, mask_, tf32))
        check(dx.reshape(g.input_shape), masked, gradient, filters, mask.reshape(g.input_shape), g)
        dw, db = conv2d_mma.linear_wgrad(backend, x_, dy_, True, tf32)
        check(backend.to_host(dw).reshape(g.weight_shape), reference.conv2d_wgrad, image, gradient, g)
        check(backend.to_host(db), reference.bias_grad, gradient)
        assert conv2d_mma.linear_wgrad(backend, x_, dy_, tf32=tf32)[1] is None


def product(a: Array, b: Array, dtype: Any = np.float64) -> Reference:
    a, b = a.astype(dtype), b.astype(dtype)
    return Reference(a @ b, abs(a) @ abs(b))


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize(("transpose_a", "transpose_b"), [(False, False), (False, True), (True, False), (True, True)])
def test_batches_of_matrix_products(backend: Any, precision: str, transpose_a: bool, transpose_b: bool) -> None:
    for batch, m, n, k in (((2, 3), 9, 7, 21), ((2,), 24, 40, 72), ((), 16, 8, 136)):
        a, b = half_normal(0, (*batch, m, k), DTYPES[precision]), half_normal(1, (*batch, k, n), DTYPES[precision])
        stored = [
            backend.from_host(np.ascontiguousarray(np.swapaxes(array, -1, -2) if swap else array))
            for array, swap in ((a, transpose_a), (b, transpose_b))
        ]
        c = conv2d_mma.matmul(backend, *stored, transpose_a, transpose_b, precision == "tf32")
        assert c.dtype == DTYPES[precision] and c.flags.c_contiguous
        check(backend.to_host(c), product, tensor_core_values(a), tensor_core_values(b))


@pytest.mark.parametrize(
    "direction",
    [Direction.FPROP, pytest.param(Direction.DGRAD, marks=pytest.mark.full), Direction.WGRAD],
    ids=lambda d: d.value,
)
def test_sm_75_with_its_own_shapes_and_no_asynchronous_copies(direction: Direction) -> None:
    backend: Any = CudaBackend(EmulatorEngine(arch=75))
    for instance in INSTANCES[direction]:
        found = list(suiting(direction, instance, "float16", 75).values())
        assert found or (direction, "float16", instance.name) in mma_choice.FITS
        for g in found[:1]:
            run_and_check(backend, direction, "float16", g, f"{instance.name}:2", epilogue=True)


def test_gpus_without_the_tensor_cores_are_refused() -> None:
    refused = (
        (70, np.float16, "float16 on tensor cores needs sm_75 or newer, this is sm_70"),
        (75, np.float32, "tf32 on tensor cores needs sm_80 or newer, this is sm_75"),
    )
    for arch, dtype, message in refused:
        backend: Any = CudaBackend(EmulatorEngine(arch=arch))
        with pytest.raises(ValueError, match=message):
            conv2d_mma.linear_forward(backend, np.zeros((4, 8), dtype), np.zeros((4, 8), dtype), None)
    with pytest.raises(TypeError, match="tensor cores take float16, bfloat16 and float32"):
        conv2d_mma.linear_forward(backend, np.zeros((4, 8)), np.zeros((4, 8)), None)


@pytest.mark.parametrize("direction", CONVOLUTIONS, ids=lambda d: d.value)
def test_an_array_off_16_bytes_takes_a_narrow_instance(backend: Any, direction: Direction) -> None:
    g = GEOMETRIES["stride beyond the filter"]
    first, second = half_normal(0, g.input_shape, np.float16), half_normal(1, g.weight_shape, np.float16)
    if direction is not Direction.FPROP:
        first, second = (
            half_normal(0, g.output_shape, np.float16),
            (second, half_normal(1, g.input_shape, np.float16))[direction is Direction.WGRAD],
        )
    shifted, other = unaligned(backend, first), backend.from_host(second)
    with backend.engine.record() as launches, exact_ends(backend):
        if direction is Direction.FPROP:
            check(
                backend.to_host(conv2d_mma.fprop(backend, shifted, other, None, g)),
                reference.conv2d_fprop,
                first,
                second,
                None,
                g,
            )
        elif direction is Direction.DGRAD:
            check(
                backend.to_host(conv2d_mma.dgrad(backend, shifted, other, g)), reference.conv2d_dgrad, first, second, g
            )
        else:
            check(
                backend.to_host(conv2d_mma.wgrad(backend, other, shifted, g)[0]),
                reference.conv2d_wgrad,
                second,
                first,
                g,
            )
    assert launches[0].kernel.endswith("_narrow")


@pytest.mark.parametrize("channels", [5, 8])
@pytest.mark.parametrize("direction", CONVOLUTIONS, ids=lambda d: d.value)
def test_infinity_reaches_only_the_results_that_see_it(backend: Any, direction: Direction, channels: int) -> None:
    """Products beyond the end of a sum are 0 * 0; with 0 * x, infinite values would spoil results far away."""
    g = Conv2dGeometry.of((2, channels, 9, 8), (channels, channels, 3, 3), stride=(1, 2), padding=1)
    first = half_normal(0, g.output_shape if direction is Direction.DGRAD else g.input_shape, np.float16)
    second = half_normal(1, g.output_shape if direction is Direction.WGRAD else g.weight_shape, np.float16)
    first[0, 4, 1, 1] = np.inf
    first_, second_ = backend.from_host(first), backend.from_host(second)
    with np.errstate(invalid="ignore"):
        if direction is Direction.FPROP:
            expected = reference.conv2d_fprop(first, second, None, g).value
            actual = conv2d_mma.fprop(backend, first_, second_, None, g)
        elif direction is Direction.DGRAD:
            expected = reference.conv2d_dgrad(first, second, g).value
            actual = conv2d_mma.dgrad(backend, first_, second_, g)
        else:
            expected = reference.conv2d_wgrad(first, second, g).value
            actual = conv2d_mma.wgrad(backend, first_, second_, g)[0]
    assert 0 < np.isfinite(expected).sum() < expected.size
    np.testing.assert_array_equal(np.isfinite(backend.to_host(actual).astype(np.float32)), np.isfinite(expected))


def test_nan_passes_relu_and_stops_at_the_mask(backend: Any) -> None:
    x, w = np.ones((1, 1, 2, 8), np.float16), np.ones((8, 1, 1, 8), np.float16)
    x[0, 0, 0, 0] = np.nan
    g = Conv2dGeometry.of((1, 8, 1, 2), (8, 8, 1, 1))
    y = backend.to_host(conv2d_mma.fprop(backend, backend.from_host(x), backend.from_host(w), None, g, "relu"))
    assert np.isnan(y[0, 0, 0]).all() and (y[0, 0, 1] == 8).all()
    dx = conv2d_mma.dgrad(backend, backend.from_host(x), backend.from_host(w), g, backend.from_host(-x))
    np.testing.assert_array_equal(backend.to_host(dx), np.zeros_like(x))


def test_no_rows_and_no_terms(backend: Any) -> None:
    g = Conv2dGeometry.of((0, 8, 5, 5), (8, 8, 3, 3))
    empty, w, dy = (backend.empty(shape, np.float16) for shape in (g.input_shape, g.weight_shape, g.output_shape))
    with backend.engine.record() as launches:
        assert conv2d_mma.fprop(backend, empty, w, None, g).shape == (0, 3, 3, 8)
        assert conv2d_mma.dgrad(backend, dy, w, g).shape == (0, 5, 5, 8)
        dw, db = conv2d_mma.wgrad(backend, empty, dy, g, bias=True)
        assert not backend.to_host(dw).any() and not backend.to_host(db).any()
        wide, tall = backend.empty((3, 0), np.float16), backend.empty((0, 5), np.float16)
        bias = backend.from_host(np.array([-1, 2, 3, -4, 5], np.float32))
        y = conv2d_mma.linear_forward(backend, wide, backend.empty((5, 0), np.float16), bias, "relu")
        np.testing.assert_array_equal(backend.to_host(y), [[0, 2, 3, 0, 5]] * 3)
        assert not backend.to_host(conv2d_mma.matmul(backend, wide, tall)).any()
        assert not backend.to_host(conv2d_mma.linear_dgrad(backend, wide, tall)).any()
        dw, db = conv2d_mma.linear_wgrad(backend, backend.empty((0, 4), np.float16), tall, bias=True)
        assert dw.shape == (5, 4) and not backend.to_host(dw).any() and not backend.to_host(db).any()
    assert launches == []


def test_results_are_the_same_bits_in_every_run_and_every_tile(backend: Any) -> None:
    g = GEOMETRIES["several tiles each way"]
    x, w = (
        backend.from_host(half_normal(0, g.input_shape, np.float16)),
        backend.from_host(half_normal(1, g.weight_shape, np.float16)),
    )
    results = {
        backend.to_host(conv2d_mma.fprop(backend, x, w, None, g, instance=name)).tobytes()
        for name in ("128x128", "64x64", "64x64", "64x64_narrow")
    }
    assert len(results) == 1
    parts = [backend.to_host(conv2d_mma.fprop(backend, x, w, None, g, instance="64x64:3")).tobytes() for _ in range(2)]
    assert parts[0] == parts[1]


@pytest.mark.parametrize(
    ("instance", "message"),
    [
        ("32x32", "fprop: no instance '32x32'; there are 128x128, "),
        ("64x64:0", "fprop: no instance '64x64:0'"),
        ("64x64", r"fprop: instance 64x64 does not suit float16 on sm_80 with runs of 5 and 5 elements"),
    ],
)
def test_an_instance_that_does_not_suit_is_refused(backend: Any, instance: str, message: str) -> None:
    g = GEOMETRIES["groups of five"]
    x, w = np.zeros(g.input_shape, np.float16), np.zeros(g.weight_shape, np.float16)
    with pytest.raises(ValueError, match=message):
        conv2d_mma.fprop(CudaBackend(EmulatorEngine(arch=80)), x, w, None, g, instance=instance)


def test_sizes_beyond_the_kernels_integers_are_refused(backend: Any) -> None:
    many = Conv2dGeometry.of((1 << 15, 8, 1 << 8, 1 << 8), (8, 8, 1, 1))
    wide = Conv2dGeometry.of((1, 8, 1, 1 << 16), (8, 8, 1, 3), dilation=(1, 1 << 14))
    for g, message in ((many, "at most 1073741824 pixels"), (wide, "fewer than 32768 rows and columns")):
        with pytest.raises(ValueError, match=message):
            conv2d_mma.fprop(backend, np.zeros(1), np.zeros(1), None, g)
    with pytest.raises(ValueError, match="linear: at most 1073741824 rows"):
        conv2d_mma.linear_forward(
            backend, np.zeros((1, 1 << 20)), np.zeros((1 << 20, 1))[:, :0].reshape(1 << 20, 0), None
        )


@pytest.mark.parametrize("d", [1, 2, 3, 5, 7, 8, 24, 31, 576, 1023, 65537, (1 << 30) - 1, 1 << 30])
def test_the_kernels_division(d: int) -> None:
    multiplier, shift = conv2d_mma._divisor(d)
    assert multiplier < 1 << 32
    numbers = [0, 1, d - 1, d, d + 1, 7 * d - 1, 7 * d, (1 << 31) - 1, *range(1, 1 << 31, 123_456_789)]
    for n in (n for n in numbers if n < 1 << 31):
        assert (((n * multiplier >> 32) + n) & 0xFFFFFFFF) >> shift == n // d, n


def test_problem_has_the_fields_of_the_struct_in_their_order() -> None:
    found = declarations("conv2d_mma_fprop_f16.cu")["conv2d_fprop_f16_64x64"].parameters[-1]
    assert found.dtype.names == tuple(conv2d_mma.Problem.__slots__)


def test_the_instances_are_those_of_the_sources() -> None:
    """Each name has a kernel whose tile, warps, stages and forms are the instance's."""
    for precision in DTYPES:
        for direction, instances in INSTANCES.items():
            if (direction, precision) == (mma_choice.PRODUCT, "tf32"):
                continue
            for instance in instances:
                source, kernel = conv2d_mma.names(direction, precision, instance)
                assert declarations(source)[kernel].max_threads == instance.threads == 128
                text = source_path(source).read_text()
                body = text[text.index(f" {kernel}(") :].split("}")[0]
                match = re.search(
                    r"MmaTile<\w+, (\d+), (\d+), (\d+), (\d+), (\w+), (\w+)(?:, .__CUDA_ARCH__ ([^)]*).)?>", body
                )
                assert match is not None
                fits = mma_choice.FITS.get((direction, precision, instance.name))
                wide = {"wide": ("true", "true"), "few": ("true", "false"), "narrow": ("false", "false")}[instance.form]
                assert match.groups() == (
                    *map(str, (instance.rows, instance.columns, mma_choice._warps_m(instance), instance.depth)),
                    *wide,
                    {None: None, (80, 120): "< 1200", (80, 1000): ">= 800"}[fits],
                )


LECTURE_CONV2 = Conv2dGeometry.of((128, 64, 12, 12), (64, 64, 5, 5), padding=2)
RESNET9_LAYER3 = Conv2dGeometry.of((512, 256, 8, 8), (512, 256, 3, 3), padding=1)
RESNET9_PREP = Conv2dGeometry.of((512, 3, 32, 32), (64, 3, 3, 3), padding=1)
AIRBENCH_CONV1 = Conv2dGeometry.of((2000, 24, 31, 31), (64, 24, 3, 3), padding=1)
LECTURE_LOGITS = Conv2dGeometry.of((128, 192, 1, 1), (10, 192, 1, 1))


@pytest.mark.parametrize(
    ("arch", "g", "expected"),
    [
        (80, LECTURE_CONV2, ("128x64:2", "128x64:2", "64x128:8")),
        (80, RESNET9_LAYER3, ("128x128:1", "128x128:1", "128x128:3")),
        (86, RESNET9_LAYER3, ("128x128:1", "128x128:1", "128x128:2")),
        (80, RESNET9_PREP, ("64x64_narrow:1", "128x32_few:1", "64x32_few:216")),
        (80, AIRBENCH_CONV1, ("128x64:1", "128x32:1", "64x128:54")),
        (80, LECTURE_LOGITS, ("64x64:1", "64x64_narrow:1", "64x64_narrow:1")),
        (90, LECTURE_CONV2, ("128x64:2", "128x64:2", "64x64_wgmma:5")),
        (90, RESNET9_LAYER3, ("128x256_wgmma:1", "128x256_wgmma:1", "128x256_wgmma:3")),
        (90, AIRBENCH_CONV1, ("128x64:1", "128x32:1", "64x256_wgmma:132")),
        (90, LECTURE_LOGITS, ("64x64:1", "64x64_narrow:1", "64x64_narrow:1")),
    ],
)
def test_which_instance_runs(arch: int, g: Conv2dGeometry, expected: tuple[str, ...]) -> None:
    chosen = [conv2d_mma.choose(direction.value, g, "float16", arch) for direction in CONVOLUTIONS]
    assert tuple(chosen) == expected
    for direction, one in zip(CONVOLUTIONS, chosen, strict=True):
        assert one in conv2d_mma.candidates(direction.value, g, "float16", arch)


@pytest.mark.parametrize("arch", [75, 80, 90, 120])
@pytest.mark.parametrize("g", GEOMETRIES.values(), ids=GEOMETRIES)
def test_candidates_cover_the_sum_within_the_workspace(g: Conv2dGeometry, arch: int) -> None:
    for direction in CONVOLUTIONS:
        gemm = Gemm.of(direction, g, g.groups)
        found = mma_choice.candidates(gemm, "float16", arch)
        assert len(set(found)) == len(found) > 0
        for choice in found:
            assert choice.terms % mma_choice.stage_terms("float16") == 0
            assert choice.parts * choice.terms >= gemm.terms > (choice.parts - 1) * choice.terms
            floats = gemm.tiles(choice.instance) * choice.parts * mma_choice.partial_floats(choice.instance, direction)
            assert choice.parts == 1 or 4 * floats <= mma_choice.WORKSPACE
            assert mma_choice.named(choice.name, gemm, "float16", arch) == choice
