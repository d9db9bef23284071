"""The block that arrives last, and the counters that tell it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucnn.backends.cuda.counters import LEAST, Counters
from gpucnn.backends.launch import Launcher


@pytest.mark.parametrize(("tiles", "blocks"), [(1, 1), (3, 1), (1, 7), (5, 4)])
def test_one_block_finishes_what_all_have_written(backend: Any, tiles: int, blocks: int) -> None:
    launch = Launcher(backend.engine, Path(__file__).parent)
    counters = backend.counters(tiles)
    for scale in (1.0, 0.1):  # again: the first launch has left the counters at zero
        partial, out = backend.empty((blocks, tiles)), backend.empty((tiles,))
        launch("last_block.cu", "sum_by_last_block", (tiles, blocks), 64, partial, counters, out, scale)
        sums = np.cumsum(np.float32(scale) * np.arange(1, blocks + 1, dtype=np.float32), dtype=np.float32)
        np.testing.assert_array_equal(backend.to_host(out), np.full(tiles, sums[-1]))
        assert not backend.to_host(counters).any()


def test_counters_stay_where_they_are(backend: Any) -> None:
    counters = Counters(backend.engine)
    few = counters.get(10)
    assert few.dtype == np.uint32 and few.size >= 10 and not backend.to_host(few).any()
    again = counters.get(LEAST)
    many = counters.get(LEAST + 1)
    assert many.size > LEAST and not backend.to_host(many).any()
    # What a captured graph refers to is neither freed nor handed out for anything else.
    xp = backend.xp
    assert xp.may_share_memory(few, again) and not xp.may_share_memory(few, many)
    assert any(xp.may_share_memory(few, kept) for kept in counters._outgrown)
    assert xp.may_share_memory(counters.get(1), many)


@pytest.mark.gpu
def test_streams_do_not_share_counters() -> None:
    import cupy

    from gpucnn.backends.cuda.engine import CudaEngine

    counters = Counters(CudaEngine())
    default = counters.get(1)
    with cupy.cuda.Stream(non_blocking=True):
        other = counters.get(1)
    assert not cupy.may_share_memory(default, other)
