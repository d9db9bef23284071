"""Bank conflicts counted by tests/support/banks.py, beside patterns whose conflicts are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.banks import extra_wavefronts, lane_values, ldmatrix_extra_wavefronts, wavefronts

LANES = np.arange(32)


@pytest.mark.parametrize(
    ("addresses", "width", "extra"),
    [
        (4 * LANES, 4, 0),  # neighbours
        (np.zeros(32, int), 4, 0),  # one word for all
        (8 * LANES, 4, 1),  # every other word: two lanes to a bank
        (128 * LANES, 4, 31),  # one column of 32 words
        (132 * LANES, 4, 0),  # the same with one word of padding
        (12 * LANES, 4, 0),  # an odd stride
        (2 * LANES, 2, 0),  # halves: two lanes share a word
        (64 * LANES, 2, 15),
        (8 * LANES, 8, 0),  # two half warps
        (16 * LANES, 8, 2),  # each half warp takes two
        (16 * LANES, 16, 0),  # four quarters
        (32 * LANES, 16, 4),
        (128 * LANES, 16, 28),  # eight lanes to the same four banks, four times
        (LANES // 8 * 128, 16, 0),  # a quarter reads one vector
        (144 * LANES, 16, 0),  # rows of 64 halves and 16 bytes of padding
    ],
)
def test_known_patterns(addresses: np.ndarray, width: int, extra: int) -> None:
    assert extra_wavefronts(addresses, width) == extra


def test_lanes_that_take_no_part_conflict_with_none() -> None:
    assert extra_wavefronts(128 * LANES, 4, LANES < 1) == 0
    assert extra_wavefronts(128 * LANES, 4, LANES < 3) == 2
    assert wavefronts(16 * LANES, 16, LANES < 8) == 1
    assert wavefronts(16 * LANES, 16, np.zeros(32, bool)) == 0


def test_ldmatrix_reads_eight_rows_at_a_time() -> None:
    assert ldmatrix_extra_wavefronts(64 * LANES) == 4 * 3  # rows of 32 halves: rows 0, 2, 4, 6 share banks
    assert ldmatrix_extra_wavefronts(80 * LANES) == 0  # padded by 16 bytes
    swizzled = 64 * LANES + 16 * (LANES // 2 % 4)  # chunk ^ (row / 2) % 4, for chunk 0
    assert ldmatrix_extra_wavefronts(swizzled[:16]) == 0


@pytest.mark.parametrize(("addresses", "width"), [(LANES, 4), (4 * LANES, 3), (-4 * LANES, 4), (np.arange(64) * 4, 4)])
def test_what_no_warp_accesses(addresses: np.ndarray, width: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        wavefronts(addresses, width)


def test_expressions_are_evaluated_as_device_code(tmp_path: Path) -> None:
    values = lane_values(
        tmp_path,
        "common.cuh",
        ["ceil_div(thread, 3)", *(f"offset({stage}, thread)" for stage in range(2))],
        threads=64,
        before="__device__ int offset(int stage, int thread) { return stage * 4096 + (thread ^ 1) * 16; }",
    )
    thread = np.arange(64)
    np.testing.assert_array_equal(values[0], -(-thread // 3))
    np.testing.assert_array_equal(values[2], 4096 + (thread ^ 1) * 16)
