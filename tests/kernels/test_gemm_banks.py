"""Bank conflicts of the float32 matrix product: what its main loop reads from and copies to shared memory, counted from
the address functions that the kernels use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.banks import extra_wavefronts, lane_values, wavefronts

TILES = {"Tile128x64": (128, 2), "Tile64x128": (128, 4), "Tile64x80Scalar": (64, 5)}  # threads, groups of 4 columns
OPERANDS = {"A": ("row", "M"), "B": ("column", "N")}


@pytest.mark.parametrize("arch", [61, 80])
@pytest.mark.parametrize("along_k", [True, False])
def test_copies_have_no_bank_conflicts(tmp_path: Path, along_k: bool, arch: int) -> None:
    for width, tile in ((4, "Tile128x64"), (4, "Tile64x128"), (1, "Tile128x64Scalar"), (1, "Tile64x64Scalar")):
        shares = [f"Share<{tile}, Operand{operand}<{tile}>, {width}, {str(along_k).lower()}>" for operand in OPERANDS]
        places = lane_values(tmp_path, "gemm_simt.cuh", [f"{share}::place(0)" for share in shares], 128, arch)
        for lanes in (run[first : first + 32] for run in places for first in range(0, 128, 32)):
            assert extra_wavefronts(4 * lanes, 4 * width) == 0


def test_the_narrow_tiles_copies_have_no_bank_conflicts(tmp_path: Path) -> None:
    expressions = [f"Share<Tile64x80Scalar, OperandB<Tile64x80Scalar>, 1, false>::place({i})" for i in range(20)]
    places = lane_values(tmp_path, "gemm_simt.cuh", expressions, 64)
    assert {extra_wavefronts(4 * run[first : first + 32], 4) for run in places for first in (0, 32)} == {0}


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("along_k", [True, False])
def test_fragments_are_read_without_bank_conflicts(tmp_path: Path, tile: str, along_k: bool) -> None:
    """And so that lanes i and i ^ 1, or lanes i and i ^ 2, read one address: two quarters of a warp then go at once."""
    if along_k and tile == "Tile64x80Scalar":
        return  # both of its operands lie along M and N
    threads, _ = TILES[tile]
    for operand, (side, letter) in OPERANDS.items():
        vec = 1 if (tile, operand) == ("Tile64x80Scalar", "B") else 4
        pitch = f"Share<{tile}, Operand{operand}<{tile}>, {vec}, {str(along_k).lower()}>::PITCH"
        read = f"fragment_place<{str(along_k).lower()}, {pitch}, {tile}::LANES_{letter}>"
        places = 4 * lane_values(
            tmp_path,
            "gemm_simt.cuh",
            [f"{read}(warp_{side}<{tile}>(), lane_{side}<{tile}>(), {k}, {i})" for k in (0, 4) for i in (0, 4)],
            threads,
        )
        for lanes in (run[first : first + 32] for run in places for first in range(0, threads, 32)):
            assert extra_wavefronts(lanes, 16) == 0 and wavefronts(lanes[[0, 1, 2, 3]], 16) == 1
            pairs = (lanes == lanes[[i ^ 1 for i in range(32)]]).all() or (
                lanes == lanes[[i ^ 2 for i in range(32)]]
            ).all()
            assert pairs


@pytest.mark.parametrize("tile", TILES)
def test_every_result_has_one_owner(tmp_path: Path, tile: str) -> None:
    threads, _ = TILES[tile]
    rows, columns = lane_values(
        tmp_path, "gemm_simt.cuh", [f"thread_row<{tile}>()", f"thread_column<{tile}>()"], threads
    )
    sizes = lane_values(
        tmp_path,
        "gemm_simt.cuh",
        [f"{tile}::{name}" for name in ("BM", "BN", "TM", "TN", "LANES_M", "LANES_N")],
        threads,
    )
    bm, bn, tm, tn, lanes_m, lanes_n = (int(size[0]) for size in sizes)
    owned = [
        (row + i // 4 * 4 * lanes_m + i % 4) * bn + column + j // 4 * 4 * lanes_n + j % 4
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        for i in range(tm)
        for j in range(tn)
    ]
    assert sorted(owned) == list(range(bm * bn))
