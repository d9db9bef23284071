"""The dtypes of tensors. NumPy has no bfloat16 of its own: ml_dtypes brings it, and is imported only where it is asked
for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

DType = np.dtype[Any]

float16: DType = np.dtype(np.float16)
float32: DType = np.dtype(np.float32)
float64: DType = np.dtype(np.float64)


def bfloat16() -> DType:
    """The dtype bfloat16: a float32 without its lower 16 bits."""
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def as_dtype(value: Any) -> DType:
    """``value`` (a dtype, a scalar type or a name, "bfloat16" included) as a NumPy dtype."""
    if isinstance(value, str) and value == "bfloat16":
        return bfloat16()
    return np.dtype(value)


def is_half(dtype: DType) -> bool:
    """Whether ``dtype`` is float16 or bfloat16."""
    return dtype == float16 or _is_bfloat16(dtype)


def is_floating(dtype: DType) -> bool:
    """Whether ``dtype`` holds real numbers: float16, bfloat16, float32 or float64."""
    return dtype.kind == "f" or _is_bfloat16(dtype)


def kind(dtype: DType) -> str:
    """NumPy's letter for the kind of ``dtype``, "f" for bfloat16 too (NumPy takes it for raw bytes)."""
    return "f" if _is_bfloat16(dtype) else dtype.kind


def _is_bfloat16(dtype: DType) -> bool:
    return dtype.kind == "V" and dtype.name == "bfloat16"
