"""The wrappers of kernels/ptx.cuh: on the emulator its stand-ins, on a GPU the instructions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucnn.backends.launch import Launcher
from tests.numpy_backend.geometries import normal

HERE = Path(__file__).parent


@pytest.mark.parametrize(("kernel", "width"), [("reverse_by_16", 4), ("reverse_by_4", 1)])
def test_copies_arrive_and_invalid_ones_are_zero(backend: Any, kernel: str, width: int) -> None:
    launch = Launcher(backend.engine, HERE)
    blocks, valid = 3, 2 * 64 + 32 + 7  # the last group ends inside the last block
    x = normal(1, (blocks * 64, width), np.float32)
    y = backend.empty(x.shape)
    launch("ptx.cu", kernel, blocks, 32, backend.from_host(x), y, valid)
    expected = x.copy()
    expected[valid:] = 0
    expected = expected.reshape(-1, 32, width)[:, ::-1].reshape(x.shape)
    np.testing.assert_array_equal(backend.to_host(y), expected)
