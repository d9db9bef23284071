"""The convolutions on Hopper's wgmma, on the emulator standing for sm_90 and on a Hopper GPU, against the formula in
float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gpucnn import backends, settings
from gpucnn.backends.cuda import conv2d_mma, mma_choice
from gpucnn.backends.cuda.backend import CudaBackend
from gpucnn.backends.cuda.mma_choice import WGMMA, Direction, Gemm, Instance
from gpucnn.backends.declarations import declarations
from gpucnn.backends.emulator import EmulatorEngine
from gpucnn.device import device
from gpucnn.geometry import Conv2dGeometry
from tests.kernels.test_conv2d_mma import CONVOLUTIONS, run_and_check
from tests.support.banks import extra_wavefronts, lane_values

GEOMETRIES = (
    Conv2dGeometry.of((2, 8, 11, 7), (24, 8, 3, 3), stride=3, padding=((0, 2), (1, 0))),
    Conv2dGeometry.of((2, 24, 9, 10), (136, 24, 3, 3), padding=1),
    Conv2dGeometry.of((1, 16, 9, 10), (16, 8, 3, 2), stride=(2, 4), padding=3, dilation=(2, 1), groups=2),
    Conv2dGeometry.of((1, 272, 5, 4), (72, 272, 1, 1)),
)
HALVES = ("float16", "bfloat16")


LONG = Conv2dGeometry.of((5, 64, 17, 15), (264, 64, 3, 3), padding=1)  # goes round each pipeline more than once


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def hopper(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "emulated":
        yield CudaBackend(EmulatorEngine("strict", 90))
        return
    found = backends.get(device("cuda"))
    if conv2d_mma.architecture(found.engine) != 90:
        pytest.skip("not a Hopper GPU")
    with found.context():
        yield found


@pytest.mark.gpu
@pytest.mark.parametrize("instance", WGMMA[Direction.FPROP], ids=lambda instance: instance.name)
@pytest.mark.parametrize("direction", CONVOLUTIONS)
@pytest.mark.parametrize("hopper", ["cuda"], indirect=True)
def test_long_sums_on_a_gpu(hopper: Any, direction: Direction, instance: Instance) -> None:
    """On hardware copies, products and stores run at their own pace: many stages and blocks."""
    for precision in HALVES:
        for parts in (1, 5):
            run_and_check(hopper, direction, precision, LONG, f"{instance.name}:{parts}", epilogue=True)


@pytest.mark.parametrize("instance", WGMMA[Direction.FPROP], ids=lambda instance: instance.name)
@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("direction", CONVOLUTIONS)
def test_every_instance_computes_the_formula(
    hopper: Any, direction: Direction, precision: str, instance: Instance
) -> None:
    """In one part of K and in several; with bias and ReLU, a mask, or the bias' gradient, and without. Each precision
    takes half of the geometries."""
    for i, g in list(enumerate(GEOMETRIES))[HALVES.index(precision) :: 2]:
        with hopper.engine.record() as launches:
            name = f"{instance.name}:{(1, 3, 2, 11)[i]}"
            run_and_check(hopper, direction, precision, g, name, epilogue=i % 3 != 2, seed=i)
        assert [launch.kernel for launch in launches] == [conv2d_mma.names(direction, precision, instance)[1]]


def test_sources_hold_the_instances_of_the_table() -> None:
    for direction in CONVOLUTIONS:
        for precision in HALVES:
            names = [conv2d_mma.names(direction, precision, instance) for instance in WGMMA[direction]]
            found = {(source, kernel) for source, _ in names for kernel in declarations(source)}
            assert found == set(names)
            for instance, (source, kernel) in zip(WGMMA[direction], names, strict=True):
                assert declarations(source)[kernel].max_threads == instance.threads == 2 * instance.rows


def test_only_sm_90_takes_them_and_only_for_whole_chunks_of_halves() -> None:
    wide = Gemm.of(Direction.FPROP, Conv2dGeometry.of((32, 256, 32, 32), (256, 256, 3, 3), padding=1), 1)
    assert mma_choice.choose(wide, "float16", 90).instance.name == "128x256_wgmma"
    for arch in (80, 89, 100, 120):
        assert mma_choice.choose(wide, "float16", arch).instance.form == "wide"
    assert mma_choice.choose(wide, "tf32", 90).instance.form == "wide"
    assert mma_choice.choose(wide, "float16", 90, aligned=False).instance.form == "narrow"
    with pytest.raises(ValueError, match="64x256_wgmma does not suit float16 on sm_80"):
        mma_choice.named("64x256_wgmma", wide, "float16", 80)


@pytest.mark.parametrize(("threads", "columns"), [(128, 64), (128, 128), (128, 256), (256, 128), (256, 256)])
@pytest.mark.parametrize("along_k", ["true", "false"])
def test_copies_into_a_stage_have_no_bank_conflicts(tmp_path: Any, threads: int, columns: int, along_k: str) -> None:
    """Neither those of rows along K nor those of lines along N; and every chunk of a stage has a place of its own."""
    header = tmp_path / "wgmma.cuh"
    header.write_text(
        f'#define MMA_BLOCK_THREADS {threads}\n#include "{settings.kernels_path() / "conv2d_wgmma.cuh"}"\n'
    )
    chunks = columns * 32 // 8 // threads
    places = lane_values(
        tmp_path,
        str(header),
        [f"wgmma_place<Share<float16, {columns}, {along_k}>>(thread, {i})" for i in range(chunks)],
        threads=threads,
        arch=90,
    )
    for lanes in places.reshape(-1, 32):
        assert extra_wavefronts(lanes, 16) == 0
    assert sorted(places.reshape(-1)) == list(range(0, columns * 64, 16))
