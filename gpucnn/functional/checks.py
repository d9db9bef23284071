"""Checks that operators share. Each message names the operator and the values that are wrong."""

from __future__ import annotations

from typing import Any

from gpucnn.tensor import Tensor, float32, float64

FORMATS = ("NCHW", "NHWC")
REDUCTIONS = ("none", "mean", "sum")


def tensors(operator: str, **arguments: Any) -> None:
    """Raises TypeError unless all are tensors, ValueError unless they share one device."""
    for name, value in arguments.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{operator}: {name} must be a tensor, got {type(value).__name__}")
    devices = {name: value.device for name, value in arguments.items()}
    if len(set(devices.values())) > 1:
        where = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(f"{operator}: tensors on two devices: {where}")


def floating(operator: str, **arguments: Any) -> None:
    """As :func:`tensors`; raises TypeError unless all are of one real dtype that the device computes in."""
    tensors(operator, **arguments)
    kinds = {name: value.dtype for name, value in arguments.items()}
    listed = ", ".join(f"{name} {dtype}" for name, dtype in kinds.items())
    if len(set(kinds.values())) > 1:
        raise TypeError(f"{operator}: tensors of two dtypes: {listed}")
    first = next(iter(arguments.values()))
    if first.dtype not in (float32, float64):
        raise TypeError(f"{operator}: expected float32 or float64, got {listed}")
    if first.dtype == float64 and not first.backend.float64:
        raise TypeError(f"{operator}: float64 works on cpu only, got {listed} on {first.device}")


def data_format(operator: str, value: str) -> None:
    """Raises ValueError unless ``value`` is NCHW or NHWC."""
    if value not in FORMATS:
        raise ValueError(f"{operator}: data_format must be 'NCHW' or 'NHWC', got {value!r}")


def reduction(operator: str, value: str) -> None:
    """Raises ValueError unless ``value`` is none, mean or sum."""
    if value not in REDUCTIONS:
        raise ValueError(f"{operator}: reduction must be one of {', '.join(REDUCTIONS)}, got {value!r}")


def gelu_approximation(operator: str, value: Any) -> None:
    """Raises ValueError unless ``value`` is none or tanh."""
    if value not in ("none", "tanh"):
        raise ValueError(f"{operator}: approximate must be 'none' or 'tanh', got {value!r}")


def label_smoothing(operator: str, value: Any) -> float:
    """``value`` as a float. Raises TypeError unless it is a number, ValueError outside [0, 1]."""
    if isinstance(value, bool) or not hasattr(value, "__float__") or isinstance(value, Tensor):
        raise TypeError(f"{operator}: label_smoothing must be a number, got {value!r}")
    if not 0 <= float(value) <= 1:  # also NaN
        raise ValueError(f"{operator}: label_smoothing must be in [0, 1], got {value}")
    return float(value)


def axis(operator: str, dim: Any, ndim: int) -> int:
    """``dim`` counted from the front. Raises IndexError (as PyTorch) outside [-ndim, ndim)."""
    if not hasattr(dim, "__index__"):
        raise TypeError(f"{operator}: dim must be an int, got {dim!r}")
    index = int(dim)
    if not -ndim <= index < ndim:
        raise IndexError(f"{operator}: dim {index} is out of range for a tensor of {ndim} axes")
    return index % ndim


def axes(operator: str, dim: Any, ndim: int) -> tuple[int, ...]:
    """One dim, several, or None or () for all (as PyTorch), counted from the front and without repeats."""
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return tuple(range(ndim))
    found = tuple(axis(operator, d, ndim) for d in (dim if isinstance(dim, (tuple, list)) else (dim,)))
    if len(set(found)) != len(found):
        raise ValueError(f"{operator}: dim {dim!r} names an axis twice")
    return found
