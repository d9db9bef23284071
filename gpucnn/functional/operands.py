"""Operands of elementwise operators: tensors, numbers and arrays, brought to one device, dtype and shape.

The common dtype is PyTorch's. Un-broadcasting sums a gradient over the axes that broadcasting had added or stretched.
"""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from gpucnn import dtypes, layout
from gpucnn.creation import tensor
from gpucnn.functional import checks
from gpucnn.tensor import Tensor, bool_, float32, int64

Operand = Any  # Tensor, number or NumPy array

LEAST_ON_CPU = 1 << 16  # elements of a sum on the CPU that is worth a primitive


def _data(operand: Operand) -> Any:
    return operand.data if isinstance(operand, Tensor) else operand


def compute(like: Tensor, ufunc: str, *operands: Operand) -> Tensor:
    """A function of ``like``'s array module, by name, over broadcast operands."""
    function = getattr(like.backend.xp, ufunc)
    return Tensor(layout.elementwise(function, *map(_data, operands)), like.device)


def compute_alike(like: Tensor, ufunc: str, *operands: Operand) -> Tensor:
    """As :func:`compute`, the tensors first brought to one dtype."""
    result = _on_kernel(like, ufunc, operands)
    if result is not None:
        return result
    dtype = common_dtype(*operands)
    if dtypes.is_half(dtype):  # ml_dtypes takes a Python number for a float32
        operands = tuple(operand if isinstance(operand, Tensor) else dtype.type(operand) for operand in operands)
    if all(not isinstance(operand, Tensor) or operand.dtype == dtype for operand in operands):
        return compute(like, ufunc, *operands)
    function = getattr(like.backend.xp, ufunc)

    def cast(*arrays: Any) -> Any:
        return function(*(a.astype(dtype) if hasattr(a, "astype") and a.dtype != dtype else a for a in arrays))

    return Tensor(layout.elementwise(cast, *map(_data, operands)), like.device)


def _on_kernel(like: Tensor, ufunc: str, operands: tuple[Operand, ...]) -> Tensor | None:
    """What a training step has most of, the sum of two tensors of one shape and a tensor times a number, as one launch;
    None for all else.
    """
    backend, dtype = like.backend, like.dtype
    if ufunc not in ("add", "multiply") or not backend.computes(dtype):
        return None
    if backend.name == "cpu" and (ufunc == "multiply" or like.numel() < LEAST_ON_CPU):
        return None  # NumPy's own operators; large sums take memory that was used before, and both threads
    tensors = [o for o in operands if isinstance(o, Tensor)]
    if any(t.shape != like.shape or t.dtype != dtype or not layout.is_dense(t.data) for t in tensors):
        return None
    if ufunc == "add" and len(tensors) == 2:
        return added(tensors[0], tensors[1], None)
    if ufunc == "multiply" and len(tensors) == 1:
        number = next(o for o in operands if not isinstance(o, Tensor))
        with np.errstate(over="ignore"):  # infinite beyond float32, as in NumPy
            factor = float(np.float32(number))
        result = backend.scale(layout.memory_view(like.data), factor)
        return Tensor(layout.from_memory(result, like.data), like.device)
    return None


def added(x: Tensor, y: Tensor, activation: str | None) -> Tensor:
    """f(x + y) of two tensors of one shape and dtype that the device computes in, f the identity or ReLU."""
    first, other = layout.settled(x.data), layout.settled(y.data)
    if layout.is_channels_last(other):  # of two orders the sum has this one, as in layout.elementwise
        first = layout.like(first, other)
    other = layout.memory_view(layout.like(other, first))
    result = x.backend.add(layout.memory_view(first), other, activation)
    return Tensor(layout.from_memory(result, first), x.device)


def common_dtype(*operands: Operand) -> np.dtype[Any]:
    """PyTorch's result dtype: bools give way to integers, integers to real numbers, of whatever width.

    Of one kind, the tensors with axes decide, then those without, then the numbers (float32, int64, bool).
    """
    tensors = [operand for operand in operands if isinstance(operand, Tensor)]
    if len({operand.dtype for operand in tensors}) == 1 and dtypes.is_floating(tensors[0].dtype):
        return tensors[0].dtype  # the usual case
    groups = (
        [operand.dtype for operand in tensors if operand.ndim],
        [operand.dtype for operand in tensors if not operand.ndim],
        [_number_dtype(operand) for operand in operands if not isinstance(operand, Tensor)],
    )
    result = bool_
    decided = False
    for group in groups:
        for kind in ("f", "iu", "b"):
            found = [dtype for dtype in group if dtypes.kind(dtype) in kind]
            if found:
                if not decided or _rank(found[0]) > _rank(result):
                    result, decided = _wider(found), True
                break
    return result


def _rank(dtype: np.dtype[Any]) -> int:
    return {"b": 0, "f": 2}.get(dtypes.kind(dtype), 1)


def _wider(found: list[np.dtype[Any]]) -> np.dtype[Any]:
    """NumPy's common dtype; float32 for float16 and bfloat16, for which NumPy has none."""
    halves = {dtype for dtype in found if dtypes.is_half(dtype)}
    return np.result_type(*found) if len(halves) < 2 else np.result_type(float32, *set(found) - halves)


def _number_dtype(number: Any) -> np.dtype[Any]:
    return bool_ if isinstance(number, bool) else int64 if isinstance(number, int) else float32


def unbroadcast(gradient: Tensor, shape: tuple[int, ...] | None) -> Tensor | None:
    """The gradient of a broadcast result, summed to the shape of an operand; None for an operand that was no tensor."""
    if shape is None or gradient.shape == shape:
        return gradient if shape is not None else None
    added = gradient.ndim - len(shape)
    stretched = tuple(added + i for i, n in enumerate(shape) if n == 1 and gradient.shape[added + i] != 1)
    summed = total(gradient.data, (*range(added), *stretched), True)
    return Tensor(layout.canonical(summed.reshape(shape)), gradient.device)


def total(array: Any, axes: tuple[int, ...] | None, keepdims: bool) -> Any:
    """The sum of real numbers over ``axes``; of half types in float32, rounded once at the end."""
    if not dtypes.is_half(array.dtype):
        return array.sum(axis=axes, keepdims=keepdims)
    return array.sum(axis=axes, dtype=float32, keepdims=keepdims).astype(array.dtype)


def shape_of(operand: Operand) -> tuple[int, ...] | None:
    """The shape of a tensor, None for a number: what :func:`unbroadcast` wants to know."""
    return operand.shape if isinstance(operand, Tensor) else None


def reference(*operands: Operand) -> Tensor:
    """The first tensor among the operands, which says where to compute."""
    return next(operand for operand in operands if isinstance(operand, Tensor))


def checked(operator: str, *operands: Operand) -> list[Operand]:
    """Tensors of one device and Python's numbers.

    NumPy arrays become tensors. Raises for all else, and for shapes that do not broadcast.
    """
    if not any(isinstance(operand, Tensor) for operand in operands):
        kinds = ", ".join(type(operand).__name__ for operand in operands)
        raise TypeError(f"{operator}: expected a tensor among its operands, got {kinds}")
    device = reference(*operands).device
    found = [operand if isinstance(operand, Tensor) else _constant(operator, operand, device) for operand in operands]
    given = [operand for operand in found if isinstance(operand, Tensor)]
    checks.tensors(operator, **{f"operand {index}": operand for index, operand in enumerate(given)})
    try:
        np.broadcast_shapes(*(operand.shape for operand in given))
    except ValueError:
        shapes = " and ".join(str(operand.shape) for operand in given)
        raise ValueError(f"{operator}: shapes {shapes} do not broadcast") from None
    return found


def _constant(operator: str, value: Any, device: Any) -> Operand:
    """A NumPy array as a tensor; any real number as Python's bool, int or float, which widen no dtype."""
    if isinstance(value, np.ndarray) and value.ndim:
        return tensor(value, device=device)
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.item()
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"{operator}: expected tensors and numbers, got {type(value).__name__}")
