"""The memory order of arrays: four-axis tensors have PyTorch's shape (N, C, H, W) over memory in the order N, H, W, C.

Strides do not look after themselves: CuPy's ufuncs allocate C order whatever their inputs are, and NumPy falls back
to it for mixed inputs. So whatever makes a four-axis array goes through this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Array = Any

_copies = 0


@contextmanager
def count_copies() -> Iterator[list[int]]:
    """Counts, into the one-element list that it gives, the arrays copied to change their memory order."""
    count = [0]
    before = _copies
    try:
        yield count
    finally:
        count[0] = _copies - before


def contiguous(array: Array) -> Array:
    """``array`` in C order: itself where it is so already, else a copy."""
    global _copies
    if array.flags.c_contiguous:
        return array
    _copies += 1
    return array.copy(order="C")


def note_copy() -> None:
    """Counts a copy to another memory order that a backend made."""
    global _copies
    _copies += 1


def as_array(xp: Any, value: Any) -> Array:
    """``value``, what a function of the array module ``xp`` gave, as an array: of NumPy's it may be a scalar."""
    return value if isinstance(value, xp.ndarray) else xp.asarray(value)


def owner(array: Array) -> Array:
    """The array whose memory ``array`` views, itself where that is its own, or lent to it until it goes."""
    while (base := getattr(array, "base", None)) is not None and not getattr(base, "lent", False):
        array = base
    return array


def nhwc(array: Array) -> Array:
    """The C-contiguous (N, H, W, C) array of one of shape (N, C, H, W): a view of channels-last memory, else a copy."""
    return contiguous(array.transpose(0, 2, 3, 1))


def nchw(array: Array) -> Array:
    """(N, H, W, C) seen as (N, C, H, W); always a view."""
    return array.transpose(0, 3, 1, 2)


def is_channels_last(array: Array) -> bool:
    """Whether a four-axis array lies in memory as N, H, W, C."""
    return array.ndim == 4 and bool(array.transpose(0, 2, 3, 1).flags.c_contiguous)


def canonical(array: Array) -> Array:
    """``array`` in the memory order of new tensors, copied only where needed.

    That is channels-last for four axes, else C order.
    """
    return nchw(nhwc(array)) if array.ndim == 4 else contiguous(array)


def allocate(make: Callable[..., Array], shape: tuple[int, ...], dtype: Any) -> Array:
    """``make(shape, dtype=dtype)``, an array module's ``zeros`` or its like, in the memory order of new tensors."""
    if len(shape) != 4:
        return make(shape, dtype=dtype)
    n, c, h, w = shape
    return nchw(make((n, h, w, c), dtype=dtype))


def settled(array: Array) -> Array:
    """Like :func:`canonical`, but an array that is dense in C order stays as it is (an (N, H, W, C) tensor, say)."""
    return array if array.flags.c_contiguous or is_channels_last(array) else canonical(array)


def memory_axes(array: Array) -> list[int]:
    """The axes of ``array`` in the order of memory, slowest first; where strides of axes of length 1 leave a choice,
    those of channels-last.
    """
    if is_channels_last(array):
        return [0, 2, 3, 1]
    return sorted(range(array.ndim), key=lambda axis: (-abs(array.strides[axis]), -array.shape[axis]))


def memory_view(array: Array) -> Array:
    """The C-contiguous view of a dense array, its axes put in the order of memory.

    Raises ValueError where there is none.
    """
    if array.flags.c_contiguous:
        return array
    if array.ndim == 4:
        view = array.transpose(0, 2, 3, 1)
        if view.flags.c_contiguous:
            return view
    view = array.transpose(memory_axes(array))
    if not view.flags.c_contiguous:
        raise ValueError(f"an array of shape {array.shape} and strides {array.strides} is not dense")
    return view


def is_dense(array: Array) -> bool:
    """Whether the elements lie side by side, in whatever order of the axes, as :func:`memory_view` wants them."""
    return bool(array.flags.c_contiguous) or bool(array.transpose(memory_axes(array)).flags.c_contiguous)


def from_memory(view: Array, array: Array) -> Array:
    """``view``, an array like the :func:`memory_view` of ``array``, with the axes of ``array``; always a view."""
    if array.flags.c_contiguous:
        return view
    axes = memory_axes(array)
    return view.transpose([axes.index(axis) for axis in range(array.ndim)])


def like(array: Array, other: Array) -> Array:
    """``array`` in the memory order of the dense array ``other`` of the same shape; a copy only where needed."""
    if array.strides == other.strides or array.size == 0:
        return array
    if is_channels_last(other):
        return nchw(nhwc(array))
    return contiguous(array) if other.flags.c_contiguous else array


def elementwise(function: Callable[..., Array], *operands: Array) -> Array:
    """``function`` of broadcast operands (arrays and scalars), its four-axis result channels-last.

    The result is in C order instead where the four-axis operands are, as tensors of shape (N, H, W, C) may be.
    """
    ranks = [getattr(operand, "ndim", 0) for operand in operands]
    if max(ranks) != 4 or not _runs_channels_last(operands):
        return function(*operands)
    # NumPy orders the result of mixed operands as it likes.
    return nchw(contiguous(function(*(_to_channels_last(operand) for operand in operands))))


def _runs_channels_last(operands: tuple[Array, ...]) -> bool:
    full = [operand for operand in operands if getattr(operand, "ndim", 0) == 4]
    return any(map(is_channels_last, full)) or not any(operand.flags.c_contiguous for operand in full)


def _to_channels_last(operand: Array) -> Array:
    rank = getattr(operand, "ndim", 0)
    if rank == 0:
        return operand
    if rank < 4:
        operand = operand.reshape((1,) * (4 - rank) + operand.shape)
    return operand.transpose(0, 2, 3, 1)
