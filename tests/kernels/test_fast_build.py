"""The emulator's fast build gives the bits of its strict one, also where a compiler's vectorizer is tempted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn import backends
from gpucnn.device import device


@pytest.mark.parametrize("shape", [(2, 15, 15, 64), (3, 7, 5, 8)])
def test_statistics_of_half_types(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    backend: Any = backends.get(device("emulated"))
    x = backend.from_host(np.random.default_rng(0).standard_normal(shape).astype(np.float16))
    found = []
    for mode in ("strict", "fast"):
        monkeypatch.setenv("GPUCNN_EMULATOR", mode)
        found.append([backend.to_host(part) for part in backend.batch_norm_statistics(x, None, None, 0.1)])
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[1][0], x.astype(np.float64).mean(axis=(0, 1, 2)), atol=1e-6)
