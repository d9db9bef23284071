"""float32 to float16 or bfloat16 and back, on kernels/cast.cu."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import chunks
from gpucnn.backends.cuda.grids import THREADS, blocks

SOURCE = "cast.cu"


def cast(backend: Any, x: Array, dtype: Any) -> Array:
    """x in ``dtype``, one of the two being float32 and the other a half type."""
    y = backend.empty(x.shape, dtype)
    kernel = f"cast_to_{dtype.name}" if x.dtype == np.float32 else f"cast_from_{x.dtype.name}"
    backend.launch(SOURCE, kernel, blocks(x.size), THREADS, x, y, x.size)
    return y


def cast_all(backend: Any, arrays: Sequence[Array], outs: Sequence[Array]) -> None:
    """outs[i] = arrays[i], float32 rounded to the half dtype that all ``outs`` have, in one launch."""
    chunks.launch(backend, SOURCE, f"cast_all_{outs[0].dtype.name}", [arrays, outs])
