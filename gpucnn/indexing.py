"""What may stand in the brackets of ``tensor[...]``, brought to the tensor's device and checked.

NumPy checks that integers in an array lie within their axis; CuPy wraps them around, and truncates a float that it is
given as an index. So both are checked here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.autograd import Recorded

Array = Any

_PLAIN = (int, np.integer, slice)


def is_basic(index: Any) -> bool:
    """Whether ``index`` is made of ints, slices, None and ... only, so that it gives a view."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(p is None or p is Ellipsis or (isinstance(p, _PLAIN) and not isinstance(p, bool)) for p in parts)


def prepared(index: Any, tensor: Any) -> Any:
    """``index`` with its lists, NumPy arrays and tensors as new arrays on the device of ``tensor``.

    Raises IndexError for what is no index, and for integers in arrays that lie outside their axis.
    """
    parts = index if isinstance(index, tuple) else (index,)
    found = tuple(_part(part, tensor) for part in parts)
    if tensor.backend.xp is not np:
        check_bounds(found, tensor.shape)
    return found if isinstance(index, tuple) else found[0]


def _part(part: Any, tensor: Any) -> Any:
    if part is None or part is Ellipsis or isinstance(part, (*_PLAIN, np.bool_)):
        return part
    if isinstance(part, Recorded):
        array = part.data.copy() if part.device == tensor.device else part.numpy()  # type: ignore[attr-defined]
    elif isinstance(part, (list, tuple, np.ndarray)):
        array = np.asarray(part)
        if not isinstance(part, np.ndarray) and not array.size:
            array = array.astype(np.int64)
    else:
        raise IndexError(f"{part!r} is no index; expected ints, slices, None, ..., or arrays of ints or bools")
    if array.dtype.kind not in "iub":
        raise IndexError(f"an array of {array.dtype} is no index; expected integers or bools")
    return tensor.backend.from_host(array) if isinstance(array, np.ndarray) else array


def check_bounds(parts: tuple[Any, ...], shape: tuple[int, ...]) -> None:
    """Raises IndexError where an array of integers among ``parts`` reaches beyond its axis. Waits for the device."""
    width = [_axes_taken(part) for part in parts]
    axis = 0
    for part, taken in zip(parts, width, strict=True):
        if part is Ellipsis:
            axis += len(shape) - sum(width)
        elif hasattr(part, "dtype") and part.dtype.kind in "iu" and part.size and axis < len(shape):
            low, high = int(part.min()), int(part.max())
            if low < -shape[axis] or high >= shape[axis]:
                wrong = high if high >= shape[axis] else low
                raise IndexError(f"index {wrong} is out of bounds for axis {axis} with size {shape[axis]}")
        axis += taken


def _axes_taken(part: Any) -> int:
    if part is None or part is Ellipsis or isinstance(part, (bool, np.bool_)):
        return 0
    return int(part.ndim) if hasattr(part, "dtype") and part.dtype.kind == "b" else 1
