"""Bank conflicts of the tensor-core kernels: each access to shared memory in main loop and epilogue, counted from the
address functions that the kernels use."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpucnn.backends.cuda import mma_choice
from tests.support.banks import extra_wavefronts, lane_values, ldmatrix_extra_wavefronts

THREADS = 128  # of a block
TYPES = {"float16": 2, "float": 4}


def shares(type_name: str) -> dict[tuple[int, bool], str]:
    """Operands' tiles: BM or BN, and whether memory runs along K."""
    return {
        (rows, along_k): f"Share<{type_name}, {rows}, {str(along_k).lower()}>"
        for rows in (32, 64, 128)
        for along_k in (True, False)
    }


def conflicts(tmp_path: Path, expressions: list[str], threads: int, width: int | None) -> list[str]:
    """Those of the expressions whose addresses conflict: accesses of ``width`` bytes, or ldmatrix's (None)."""
    values = lane_values(tmp_path, "conv2d_mma.cuh", expressions, threads=threads)
    count = ldmatrix_extra_wavefronts if width is None else lambda lanes: extra_wavefronts(lanes, width)
    return [
        f"{expression}, warp {first // 32}"
        for expression, offsets in zip(expressions, values, strict=True)
        for first in range(0, threads, 32)
        if count(offsets[first : first + 32])
    ]


def test_copies_to_shared_memory_have_no_bank_conflicts(tmp_path: Path) -> None:
    """16 bytes a thread, by cp.async or from registers."""
    expressions = [
        f"{share}::offset(thread, {i})"
        for type_name in TYPES
        for (rows, _), share in shares(type_name).items()
        for i in range(rows // 32)
    ]
    assert conflicts(tmp_path, expressions, THREADS, 16) == []
    values = lane_values(tmp_path, "conv2d_mma.cuh", expressions, threads=THREADS)
    first = 0
    for type_name in TYPES:
        for rows, _ in shares(type_name):  # the copies fill the tile, each place once
            chunks = values[first : first + rows // 32].reshape(-1)
            assert sorted(chunks) == list(range(0, rows * mma_choice.LINE_BYTES, 16))
            first += rows // 32


@pytest.mark.parametrize("is_a", ["true", "false"])
def test_fragments_are_read_without_bank_conflicts(tmp_path: Path, is_a: str) -> None:
    """ldmatrix for all but tf32 along M or N, which are single floats."""
    matrices, floats = [], []
    for type_name, size in TYPES.items():
        for (rows, along_k), share in shares(type_name).items():
            for row in range(0, rows, 16):
                for step in range(2):
                    place = f"<{share}, {is_a}>(thread, {row}, {step}"
                    if along_k or size == 2:
                        matrices.append(f"matrix_line{place})")
                    else:
                        floats += [f"fragment_float{place}, {i})" for i in range(4)]
    (tmp_path / "matrices").mkdir()
    (tmp_path / "floats").mkdir()
    assert conflicts(tmp_path / "matrices", matrices, 32, None) == []
    assert conflicts(tmp_path / "floats", floats, 32, 4) == []


@pytest.mark.parametrize("is_a", ["true", "false"])
def test_the_main_loop_finds_the_same_places_from_a_warps_first(tmp_path: Path, is_a: str) -> None:
    differences = []
    for type_name, size in TYPES.items():
        for (rows, along_k), share in shares(type_name).items():
            for warp_rows in (16, 32, 64):
                for first in range(0, rows, warp_rows):
                    for i in range(min(rows, warp_rows) // 16):
                        for step in range(2):
                            place = f"<{share}, {is_a}>(thread, {first + 16 * i}, {step}"
                            start = f"<{share}, {is_a}>(thread, {first}, 0"
                            if along_k or size == 2:
                                moved = f"moved_line<{share}>(matrix_line{start}), {i}, {step})"
                                differences.append(f"matrix_line{place}) - {moved}")
                            else:
                                moved = f"moved_float<{share}, {is_a}>(fragment_float{start}, 0), {i}, {step}, "
                                differences += [f"fragment_float{place}, {v}) - {moved}{v})" for v in range(4)]
    assert not lane_values(tmp_path, "conv2d_mma.cuh", differences).any()


def test_results_pass_through_shared_memory_without_bank_conflicts(tmp_path: Path) -> None:
    written: dict[int, list[str]] = {4: [], 8: []}
    read = []
    for type_name, size in TYPES.items():
        for columns in (32, 64):
            place = f"<{type_name}, {columns}>"
            written[2 * size] += [
                f"result_pair{place}(thread, {half}, {j})" for half in range(2) for j in range(columns // 8)
            ]
            read += [f"StoredChunk{place}(thread, {turn}).offset()" for turn in range(columns * size // 32)]
    for name in ("pairs of halves", "pairs of floats", "chunks"):
        (tmp_path / name).mkdir()
    assert conflicts(tmp_path / "pairs of halves", written[4], 32, 4) == []
    assert conflicts(tmp_path / "pairs of floats", written[8], 32, 8) == []
    assert conflicts(tmp_path / "chunks", read, 32, 16) == []
