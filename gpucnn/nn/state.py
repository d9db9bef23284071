"""What a module's tensors hold, taken out by name and put back whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpucnn import dtypes
from gpucnn.autograd import no_grad
from gpucnn.device import Device
from gpucnn.tensor import Tensor

if TYPE_CHECKING:
    from gpucnn.nn.module import Module


class IncompatibleKeys(NamedTuple):
    """The names that did not match in a ``load_state_dict(strict=False)``."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def entries(module: Module, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every parameter and persistent buffer by full name; a shared one under each of its names."""
    for path, part in module.named_modules(prefix.removesuffix("."), remove_duplicate=False):
        stem = f"{path}." if path else ""
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None and name not in part._transient:
                yield stem + name, tensor


def collect(module: Module, prefix: str, keep_vars: bool) -> dict[str, Tensor]:
    """See :meth:`gpucnn.nn.Module.state_dict`."""
    return {name: tensor if keep_vars else tensor.detach() for name, tensor in entries(module, prefix)}


def load(module: Module, state_dict: Mapping[str, Any], strict: bool) -> IncompatibleKeys:
    """See :meth:`gpucnn.nn.Module.load_state_dict`."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"load_state_dict: expected a mapping of names to tensors, got {type(state_dict).__name__}")
    own = dict(entries(module))
    missing = [name for name in own if name not in state_dict]
    unexpected = [name for name in state_dict if name not in own]
    values = {name: as_tensor_or_array(state_dict[name]) for name in own if name in state_dict}
    problems = []
    if strict and missing:
        problems.append("missing: " + ", ".join(missing))
    if strict and unexpected:
        problems.append("unexpected: " + ", ".join(map(str, unexpected)))
    for name, value in values.items():
        if value is None:
            problems.append(f"{name}: expected a tensor or an array, got {type(state_dict[name]).__name__}")
        elif tuple(value.shape) != tuple(own[name].shape):
            problems.append(
                f"{name}: has shape {tuple(value.shape)}, {type(module).__name__} expects {tuple(own[name].shape)}"
            )
    if problems:
        raise ValueError(f"load_state_dict: not a state of this {type(module).__name__}:\n  " + "\n  ".join(problems))
    with no_grad():
        for name, value in values.items():
            own[name].copy_(value)
    return IncompatibleKeys(missing, unexpected)


def as_tensor_or_array(value: Any) -> Tensor | np.ndarray[Any, Any] | None:
    """A Tensor as it is, anything that NumPy takes for numbers as an array, None for the rest."""
    if isinstance(value, Tensor):
        return value
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        return None
    return array if dtypes.kind(array.dtype) in "fiub" else None


def clear_grad(parameter: Tensor, set_to_none: bool) -> None:
    """Takes a parameter's gradient away, or fills it with zeros."""
    if set_to_none:
        parameter.grad = None
    elif parameter.grad is not None:
        with no_grad():
            parameter.grad.zero_()


def move(tensor: Tensor, place: Device | None, dtype: np.dtype[Any] | None) -> None:
    """Puts a tensor and its gradient, in place, on another device or in another floating dtype."""
    kind = dtype if dtypes.is_floating(tensor.dtype) else None
    for each in (tensor, tensor.grad):
        if each is None:
            continue
        moved = each
        if place is not None:
            moved = moved.to(place)
        if kind is not None:
            moved = moved.to(kind)
        if moved is not each:
            # A version of its own: what an earlier forward saved is the old memory, which nobody changed.
            each.data, each.device, each.version = moved.data, moved.device, moved.version
