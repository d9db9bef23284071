"""NumPy arrays that record what is done with them while a step is captured.

On a GPU the array module's own work (a sum of two gradients, a copy, a fill) goes into the stream as kernels do, and
so into a captured graph. On the device ``emulated`` the array module is NumPy, which computes at once. So while a step
is captured there, the arrays of tensors are seen through this class: what NumPy is asked to do is noted, to be done at
each replay between the launches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn import layout
from gpucnn.backends.capture import refuse_read

Plain = np.ndarray[Any, Any]
_recording: list[Any] = []  # the Recording that is open, if one is

# Functions of NumPy that change their first argument and give nothing.
_IN_PLACE = (np.copyto, np.put, np.place, np.putmask, np.fill_diagonal, np.put_along_axis)
# Methods that ask for a value, or whose result's shape depends on values.
_READS = ("item", "tolist", "tobytes", "nonzero", "__bool__", "__float__", "__int__", "__index__", "__complex__")
_METHODS = (
    "copy", "astype", "reshape", "ravel", "flatten", "take", "repeat", "argmax", "argmin", "argsort", "dot", "cumsum",
    "round", "clip", "__getitem__",
)  # fmt: skip
_METHODS_IN_PLACE = ("__setitem__", "fill", "sort", "put")


def recording() -> Any:
    """The Recording of this thread, or None."""
    return _recording[-1] if _recording and _recording[-1].engine.capturing else None


def plain(value: Any) -> Any:
    """``value`` with NumPy's own class in the place of this file's, inside tuples, lists and dicts too."""
    if isinstance(value, RecordedArray):
        return value.view(np.ndarray)
    if isinstance(value, (tuple, list)):
        return type(value)(map(plain, value)) if type(value) in (tuple, list) else value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


class RecordedArray(np.ndarray[Any, Any]):
    """A view of an array that records while a step is captured, and is an ordinary array otherwise."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        targets = kwargs.pop("out", None)
        call, given, options = getattr(ufunc, method), plain(inputs), plain(kwargs)
        record = recording()
        if targets is not None or method == "at":
            into = plain(targets) if targets is not None else None
            written = into if into is not None else (given[0],)
            if record is None:
                call(*given, **options) if into is None else call(*given, out=into, **options)
            elif into is None:
                record.note(lambda: call(*given, **options), given, written)
            else:
                record.note(lambda: call(*given, out=into, **options), given, written)
            return None if targets is None else targets[0] if len(targets) == 1 else targets
        return _computed(record, lambda: call(*given, **options), given)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        given, options = plain(args), plain(kwargs)
        record = recording()
        if record is not None and (func in _IN_PLACE or options.get("out") is not None):
            target = args[0] if func in _IN_PLACE else kwargs["out"]
            record.note(lambda: func(*given, **options), given, (plain(target),))
            return None if func in _IN_PLACE else target
        if record is not None and func in (np.nonzero, np.flatnonzero, np.array_equal, np.unique):
            refuse_read(record.engine)
        return _computed(record, lambda: func(*given, **options), (*given, *options.values()))

    def __iter__(self) -> Any:
        if self.ndim < 2 and (record := recording()) is not None:
            refuse_read(record.engine)
        return super().__iter__()


def _computed(record: Any, call: Callable[[], Any], given: Any) -> Any:
    """What ``call()`` gives, recorded where it is new memory and not a view of what it was given."""
    with np.errstate(all="ignore"):
        result = call()
    if record is None:
        return result
    several = isinstance(result, (tuple, list))
    values = list(result) if several else [result]
    owners = {id(layout.owner(array)) for array in _arrays(given)}
    fresh: list[tuple[int, Plain]] = []
    for index, value in enumerate(values):
        if isinstance(value, (np.ndarray, np.generic)):
            array = np.asarray(value)
            if id(layout.owner(array)) not in owners:
                fresh.append((index, array))
            values[index] = array.view(RecordedArray)
    if fresh:
        record.note(lambda: _store(call(), fresh, several), given, [array for _, array in fresh], made=True)
    return type(result)(values) if several and type(result) in (tuple, list) else values if several else values[0]


def _store(result: Any, fresh: list[tuple[int, Plain]], several: bool) -> None:
    for index, array in fresh:
        array[...] = result[index] if several else result


def _arrays(value: Any) -> list[Plain]:
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, (tuple, list)):
        return [array for item in value for array in _arrays(item)]
    return []


def _reading(name: str) -> Callable[..., Any]:
    original = getattr(np.ndarray, name)

    def read(self: RecordedArray, *args: Any) -> Any:
        record = recording()
        if record is not None:
            refuse_read(record.engine)
        return original(self, *args)

    return read


def _method(name: str) -> Callable[..., Any]:
    original = getattr(np.ndarray, name)

    def computed(self: RecordedArray, *args: Any, **kwargs: Any) -> Any:
        given, options = plain(args), plain(kwargs)
        target = options.get("out")
        if target is not None:
            raise TypeError(f"{name}: out= is not recorded")
        mine = self.view(np.ndarray)
        return _computed(recording(), lambda: original(mine, *given, **options), (mine, *given))

    return computed


def _method_in_place(name: str) -> Callable[..., Any]:
    original = getattr(np.ndarray, name)

    def change(self: RecordedArray, *args: Any, **kwargs: Any) -> None:
        mine, given, options = self.view(np.ndarray), plain(args), plain(kwargs)
        record = recording()
        if record is None:
            original(mine, *given, **options)
        else:
            record.note(lambda: original(mine, *given, **options), given, (mine,))

    return change


for _name in _READS:
    setattr(RecordedArray, _name, _reading(_name))
for _name in _METHODS:
    setattr(RecordedArray, _name, _method(_name))
for _name in _METHODS_IN_PLACE:
    setattr(RecordedArray, _name, _method_in_place(_name))
