"""Gradients that are too large, made smaller."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from gpucnn import layout
from gpucnn.autograd import running_on
from gpucnn.tensor import Tensor

SMALL = 1e-6  # added to the norm before the division, as PyTorch does

Array = Any
Launches = dict[tuple[Any, Any], list[Tensor]]  # tensors by device and dtype


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float | str = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scales the gradients of all ``parameters``, in place, so that their norm together is at most ``max_norm``, and
    returns the norm before that, a tensor without axes.

    The norm is (sum |g| ** norm_type) ** (1 / norm_type) over all elements of all gradients, the largest |g| for
    ``math.inf`` or "inf"; the same bits in every run. The gradients are multiplied by min(1, max_norm / (norm + 1e-6))
    on their device, without waiting for it. Parameters without a gradient do not count; the norm of none is 0. Method:
    Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013.

    Raises ValueError for a negative or NaN ``max_norm`` and a ``norm_type`` that is not above 0, and RuntimeError,
    where ``error_if_nonfinite``, for a norm that is infinite or NaN; nothing is changed then.
    """
    if not isinstance(max_norm, (int, float)) or not max_norm >= 0:
        raise ValueError(f"clip_grad_norm_: max_norm must be a number, not negative, got {max_norm!r}")
    gradients = _gradients("clip_grad_norm_", parameters)
    norm = _total_norm("clip_grad_norm_", gradients, norm_type, error_if_nonfinite)
    if math.isinf(max_norm):
        return norm
    for (device, dtype), tensors in _by_place(gradients).items():
        with running_on(device):
            backend, here = tensors[0].backend, norm.to(device)
            total = layout.contiguous(here.data.reshape(1)).astype(dtype, copy=False)
            backend.clip_all([_to_write(tensor) for tensor in tensors], total, float(max_norm), SMALL)
        for tensor in tensors:
            tensor.modified()
    return norm


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Brings every element of the gradients of ``parameters`` into [-clip_value, clip_value], in place; NaN stays.

    Raises ValueError for a negative or NaN ``clip_value``.
    """
    if not isinstance(clip_value, (int, float)) or not clip_value >= 0:
        raise ValueError(f"clip_grad_value_: clip_value must be a number, not negative, got {clip_value!r}")
    for (device, _), tensors in _by_place(_gradients("clip_grad_value_", parameters)).items():
        with running_on(device):
            tensors[0].backend.clamp_all([_to_write(tensor) for tensor in tensors], float(clip_value))
        for tensor in tensors:
            tensor.modified()


def get_total_norm(
    tensors: Tensor | Iterable[Tensor], norm_type: float | str = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """The norm of all elements of ``tensors`` together, a tensor without axes; see :func:`clip_grad_norm_`."""
    found = _tensors("get_total_norm", tensors)
    return _total_norm("get_total_norm", found, norm_type, error_if_nonfinite)


def _tensors(function: str, given: Tensor | Iterable[Tensor]) -> list[Tensor]:
    tensors = [given] if isinstance(given, Tensor) else list(given)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{function}: expected tensors, got {type(tensor).__name__}")
    return tensors


def _gradients(function: str, parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [p.grad for p in _tensors(function, parameters) if p.grad is not None]


def _by_place(tensors: list[Tensor]) -> Launches:
    launches: Launches = {}
    for tensor in tensors:
        if tensor.data.size:
            launches.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    return launches


def _view(array: Array) -> Array:
    """``array`` in the order of its memory; a copy where it has none of its own (a broadcast one)."""
    try:
        return layout.memory_view(array)
    except ValueError:
        return layout.contiguous(array)


def _to_write(tensor: Tensor) -> Array:
    """The memory of a gradient, which is given one first where it has none of its own."""
    try:
        return layout.memory_view(tensor.data)
    except ValueError:
        tensor.data = layout.canonical(tensor.data)
        return layout.memory_view(tensor.data)


def _total_norm(function: str, tensors: list[Tensor], norm_type: float | str, error_if_nonfinite: bool) -> Tensor:
    if norm_type == "inf":
        norm_type = math.inf
    if not isinstance(norm_type, (int, float)) or not norm_type > 0:
        raise ValueError(f"{function}: norm_type must be a number above 0, got {norm_type!r}")
    norms = []
    for (device, _), some in _by_place(tensors).items():
        with running_on(device):
            views = [_view(tensor.data) for tensor in some]
            norms.append(Tensor(some[0].backend.total_norm(views, float(norm_type)).reshape(()), device))
    if len(norms) == 1:
        norm = norms[0]
    elif not norms:
        norm = Tensor(np.zeros((), np.float32), "cpu").to(tensors[0].device if tensors else "cpu")
    else:
        norm = _together(norms, float(norm_type))
    if error_if_nonfinite and not math.isfinite(norm.item()):
        raise RuntimeError(
            f"{function}: the norm of order {float(norm_type)} of the gradients is {norm.item()}, so they cannot be"
            " clipped; error_if_nonfinite=False lets them pass"
        )
    return norm


def _together(norms: list[Tensor], order: float) -> Tensor:
    """The norm of the norms of several devices or dtypes, computed on the host."""
    values = np.array([norm.item() for norm in norms])
    with np.errstate(all="ignore"):
        total = values.max() if math.isinf(order) else (values**order).sum() ** (1 / order)
    first = norms[0]
    return Tensor(np.asarray(total, first.dtype), "cpu").to(first.device)
