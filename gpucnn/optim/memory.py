"""Arrays as the fused update kernels want them: C-contiguous, and one like the other in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gpucnn import layout
from gpucnn.tensor import Tensor

Array = Any


def zeros_like(tensor: Tensor) -> Tensor:
    """Zeros with the shape, dtype, device and memory order of ``tensor``."""
    with tensor.backend.context():
        return Tensor(tensor.backend.xp.zeros_like(tensor.data), tensor.device)


def filled_like(tensor: Tensor, value: float) -> Tensor:
    """``value`` everywhere, with the shape, dtype, device and memory order of ``tensor``."""
    return zeros_like(tensor).fill_(value) if value else zeros_like(tensor)


def copy_of(tensor: Tensor) -> Tensor:
    """A copy in the same memory order, outside the tape."""
    with tensor.backend.context():
        return Tensor(tensor.data.copy(order="K"), tensor.device)


def matched(tensor: Tensor, other: Tensor) -> Array:
    """The array of ``tensor`` (shape as ``other``) seen in the memory order of ``other``; a copy only where the orders
    differ.
    """
    if lie_alike(tensor.data, other.data):
        return layout.memory_view(tensor.data)
    with tensor.backend.context():
        return layout.contiguous(tensor.data.transpose(layout.memory_axes(other.data)))


def suits(tensor: Tensor, parameter: Tensor) -> bool:
    """Whether an optimizer's tensor still lies as its parameter does (a module may have been moved since)."""
    return (
        tensor.device == parameter.device and tensor.dtype == parameter.dtype and lie_alike(tensor.data, parameter.data)
    )


def lie_alike(array: Array, other: Array) -> bool:
    """Whether two arrays of one shape have their elements in the same order. Strides of axes of one element say
    nothing: NumPy and CuPy put there what they like.
    """
    strides = zip(array.strides, other.strides, array.shape, strict=True)
    return all(mine == its or size == 1 for mine, its, size in strides)


def kept_place(known: Any, value: Any) -> Any:
    """``value``, which was loaded, in the memory of ``known``, what was there before, if that is a tensor like it: a
    captured step goes on with what it knows.
    """
    if isinstance(known, Tensor) and isinstance(value, Tensor) and suits(known, value):
        return known.copy_(value)
    return value


class _Before:
    """What is done before each replay of a captured step, and whose it is."""

    def __init__(self, owner: Any, work: Callable[[], None]) -> None:
        self.owner, self.work = owner, work

    def __call__(self) -> None:
        self.work()


def replayed(owner: Any, tensors: Iterable[Tensor], work: Callable[[], None]) -> bool:
    """Whether launches on the device of any of ``tensors`` are being captured, so that the host may only launch. Then
    ``work``, the host's part of this step of ``owner``, is done before each replay.

    Raises RuntimeError for a second step of the same owner in one capture, whose numbers would be the first's.
    """
    for tensor in tensors:
        engine = getattr(tensor.backend, "engine", None)
        if engine is None or not engine.capturing:
            continue
        if any(getattr(known, "owner", None) is owner for known in engine.capture.before):
            raise RuntimeError(
                f"{type(owner).__name__}: it steps twice in a step that is captured; capture each on its own"
            )
        engine.capture.before_replay(_Before(owner, work))
        return True
    return False
