"""Checks that operators share. Each message names the operator and the values that are wrong."""

from __future__ import annotations

from typing import Any

from gpucnn import dtypes
from gpucnn.tensor import Tensor, float32, float64

FORMATS = ("NCHW", "NHWC")
REDUCTIONS = ("none", "mean", "sum")
REAL = "float32 or float64, float16 or bfloat16"


def tensors(operator: str, **arguments: Any) -> None:
    """Raises TypeError unless all are tensors, ValueError unless they share one device."""
    _tensors(operator, arguments)


def _tensors(operator: str, arguments: dict[str, Any]) -> None:
    device, several = None, False
    for name, value in arguments.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{operator}: {name} must be a tensor, got {type(value).__name__}")
        if device is None:
            device = value.device
        elif value.device is not device:
            several = True
    if several:
        where = ", ".join(f"{name} on {value.device}" for name, value in arguments.items())
        raise ValueError(f"{operator}: tensors on two devices: {where}")


def real(operator: str, **arguments: Any) -> None:
    """As :func:`tensors`; raises TypeError unless all are of one real dtype."""
    _real(operator, arguments)


def _real(operator: str, arguments: dict[str, Any]) -> Tensor:
    """As :func:`real`; returns the first."""
    _tensors(operator, arguments)
    first: Tensor = next(iter(arguments.values()))
    dtype = first.dtype
    for value in arguments.values():
        if value.dtype != dtype:
            raise TypeError(f"{operator}: tensors of two dtypes: {_listed(arguments)}")
    if not dtypes.is_floating(dtype):
        raise TypeError(f"{operator}: expected {REAL}, got {_listed(arguments)}")
    return first


def floating(operator: str, **arguments: Any) -> None:
    """As :func:`tensors`; raises TypeError unless all are of one real dtype that the device's primitives compute in.

    That is float32, on ``cpu`` float64 and elsewhere float16 and bfloat16.
    """
    _floating(operator, arguments)


def _floating(operator: str, arguments: dict[str, Any]) -> None:
    if _usual(arguments):
        return
    first = _real(operator, arguments)
    if first.backend.computes(first.dtype):
        return
    if first.dtype == float64:
        raise TypeError(f"{operator}: float64 works on cpu only, got {_listed(arguments)} on {first.device}")
    raise TypeError(
        f"{operator}: {first.dtype} works on cuda and emulated; {first.device} computes in float32 and float64"
        f" (x.float() converts), got {_listed(arguments)}"
    )


def _usual(arguments: dict[str, Any]) -> bool:
    """Whether all are float32 tensors of one device: every device computes in it."""
    device = None
    for value in arguments.values():
        if not isinstance(value, Tensor) or value.dtype is not float32:
            return False
        if device is None:
            device = value.device
        elif value.device is not device:
            return False
    return True


def mixed(operator: str, input: Tensor, **parameters: Tensor | None) -> None:
    """As :func:`floating`, but beside an ``input`` of a half type the parameters may be float32. None is left out."""
    given: dict[str, Any] = {"input": input}
    for name, value in parameters.items():
        if value is not None:
            given[name] = value
    if _usual(given):
        return
    if isinstance(input, Tensor) and dtypes.is_half(input.dtype):
        _tensors(operator, given)
        given = {name: value for name, value in given.items() if value.dtype != float32}
    _floating(operator, given)


def _listed(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value.dtype}" for name, value in arguments.items())


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


def activation(operator: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless ``value`` is None or one of ``choices``."""
    if value is not None and value not in choices:
        raise ValueError(f"{operator}: activation must be None or {' or '.join(map(repr, choices))}, got {value!r}")


def label_smoothing(operator: str, value: Any) -> float:
    """``value`` as a float. Raises TypeError unless it is a number, ValueError outside [0, 1]."""
    if isinstance(value, bool) or not hasattr(value, "__float__") or isinstance(value, Tensor):
        raise TypeError(f"{operator}: label_smoothing must be a number, got {value!r}")
    number = float(value)
    if not 0 <= number <= 1:  # also NaN
        raise ValueError(f"{operator}: label_smoothing must be in [0, 1], got {value}")
    return number


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
