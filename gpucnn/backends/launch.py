"""The one way to start a kernel: every argument is checked against the kernel's declaration first.

A GPU checks nothing: a Python float handed to a ``float`` parameter, a transposed view or an array of another dtype
is silently wrong. So the launcher casts scalars to the C types, with a range check, and refuses arrays of the wrong
dtype, device, memory order or alignment, before anything runs. What it hands to the engine, in order, one for each
parameter:

* scalar: a NumPy scalar of the C type;
* array: the array itself, or None for a null pointer;
* table: what ``engine.pointer_table(arrays)`` gives where the engine has that (a device array of addresses), else the
  list of arrays; None for a null pointer, and as an entry for one in the table;
* struct: a NumPy array of one element of the struct's dtype, which CuPy passes by value (it takes a host array as an
  argument only if it has one element).
"""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.backends.declarations import Declaration, Parameter, declarations, source_path

GRID_LIMITS = (2**31 - 1, 65535, 65535)
BLOCK_LIMITS = (1024, 1024, 64)
SHARED_LIMIT = 227 * 1024  # bytes of one block, the most of any architecture (sm_90)

Binder = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch as an engine's ``record()`` lists it."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_mem: int


class LaunchRecords:
    """What both engines are besides: ``record()`` lists the launches made while it is open, and ``capture`` is the
    capture that is open, if one is (:mod:`gpucnn.backends.capture`)."""

    def __init__(self) -> None:
        self._records: list[list[Launch]] = []
        self.capture: Any = None

    @property
    def capturing(self) -> bool:
        """Whether what this thread launches is captured, and not run."""
        return self.capture is not None and self.capture.thread == threading.get_ident()

    @contextmanager
    def record(self) -> Iterator[list[Launch]]:
        """``with engine.record() as launches:`` lists what is launched meanwhile."""
        launches: list[Launch] = []
        self._records.append(launches)
        try:
            yield launches
        finally:
            self._records = [record for record in self._records if record is not launches]

    def launched(self, kernel: str, grid: tuple[int, int, int], block: tuple[int, int, int], shared_mem: int) -> None:
        """Adds a launch to the records that are open."""
        for record in self._records:
            record.append(Launch(kernel, grid, block, shared_mem))


class Launcher:
    """Starts the kernels of ``folder`` (by default the package's) on an engine.

    An engine has ``name``, ``xp`` (the module of its arrays), ``kernel(declaration) -> callable(grid, block, args,
    shared_mem=0)``, and may have ``pointer_table(arrays)`` and ``index`` (the number of its GPU).
    """

    def __init__(self, engine: Any, folder: str | Path | None = None) -> None:
        self.engine = engine
        self.folder = None if folder is None else Path(folder)
        self._bound: dict[tuple[str, str], _BoundKernel] = {}
        self.observers: list[
            Callable[..., None]
        ] = []  # told (declaration, grid, block, args, shared_mem) of each launch

    def __call__(
        self,
        source: str,
        name: str,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        *args: Any,
        shared_mem: int = 0,
    ) -> None:
        """Launch kernel ``name`` of the file ``source`` over ``grid`` blocks of ``block`` threads.

        A grid of no blocks launches nothing, and is an error if the kernel should have written an array that has
        elements. Raises TypeError for a wrong kind or number of arguments and ValueError for wrong values, naming
        kernel and argument.
        """
        kernel = self._bound.get((source, name)) or self._bind(source, name)
        kernel.launch(three_sizes(grid), three_sizes(block), args, shared_mem)
        for observer in self.observers:
            observer(kernel.declaration, grid, block, args, shared_mem)

    def declaration(self, source: str, name: str) -> Declaration:
        """The declaration of a kernel. Raises FileNotFoundError and ValueError, listing what there is."""
        path = source_path(source if self.folder is None else self.folder / source)
        found = declarations(path)
        if name not in found:
            raise ValueError(f"{source} has no kernel {name}; it has {', '.join(found) or 'none'}")
        return found[name]

    def _bind(self, source: str, name: str) -> _BoundKernel:
        bound = _BoundKernel(self.engine, self.declaration(source, name))
        self._bound[source, name] = bound
        return bound


def three_sizes(size: int | Sequence[int]) -> tuple[int, int, int]:
    """A grid's or a block's (x, y, z); sizes that are left out are 1. Raises ValueError for more than three."""
    sizes = (size,) if isinstance(size, (int, np.integer)) else tuple(size)
    if not 1 <= len(sizes) <= 3:
        raise ValueError(f"a grid or a block has one to three sizes, got {size!r}")
    x, y, z = (*map(operator.index, sizes), 1, 1)[:3]
    return x, y, z


class _BoundKernel:
    """A declaration with its checks made ready, so that a launch walks two tuples and little else."""

    def __init__(self, engine: Any, declaration: Declaration) -> None:
        self.declaration = declaration
        self.run = engine.kernel(declaration)
        self.binders = tuple(_binder(declaration, parameter, engine) for parameter in declaration.parameters)
        pointers = [(i, p) for i, p in enumerate(declaration.parameters) if p.kind == "array"]
        self.outputs = [i for i, p in pointers if p.direction == "out"]
        self.written = [(i, p.restrict) for i, p in pointers if p.written]
        self.pointers = [(i, p.restrict) for i, p in pointers]

    def launch(
        self, grid: tuple[int, int, int], block: tuple[int, int, int], args: tuple[Any, ...], shared_mem: int
    ) -> None:
        if len(args) != len(self.binders):
            raise TypeError(f"{self.declaration.signature} takes {len(self.binders)} arguments, got {len(args)}")
        bound = tuple(bind(argument) for bind, argument in zip(self.binders, args, strict=True))
        self._check_overlap(bound)
        self._check_sizes(grid, block, shared_mem)
        if 0 not in grid:
            self.run(grid, block, bound, shared_mem=shared_mem)
            return
        for i in self.outputs:
            if bound[i] is not None and bound[i].size:
                raise ValueError(
                    f"{self._name(i)} has shape {bound[i].shape} and would not be written by a grid {grid}"
                )

    def _name(self, index: int) -> str:
        return f"{self.declaration.name}: argument {self.declaration.parameters[index].name}"

    def _check_sizes(self, grid: tuple[int, int, int], block: tuple[int, int, int], shared_mem: int) -> None:
        name = self.declaration.name
        if not all(0 <= size <= limit for size, limit in zip(grid, GRID_LIMITS, strict=True)):
            raise ValueError(f"{name}: grid {grid} is outside 0 to {GRID_LIMITS} blocks")
        if not all(1 <= size <= limit for size, limit in zip(block, BLOCK_LIMITS, strict=True)):
            raise ValueError(f"{name}: block {block} is outside 1 to {BLOCK_LIMITS} threads")
        if math.prod(block) > self.declaration.max_threads:
            raise ValueError(
                f"{name}: block {block} has {math.prod(block)} threads, more than the {self.declaration.max_threads}"
                " of the kernel's launch bounds"
            )
        if not 0 <= shared_mem <= SHARED_LIMIT:
            raise ValueError(f"{name}: shared_mem must be 0 to {SHARED_LIMIT} bytes, got {shared_mem}")

    def _check_overlap(self, bound: tuple[Any, ...]) -> None:
        """``__restrict__`` promises the compiler that what is written is seen through no other pointer."""
        for i, restrict in self.written:
            if bound[i] is None:
                continue
            begin = address(bound[i])
            end = begin + bound[i].nbytes
            for j, other_restrict in self.pointers:
                if j == i or bound[j] is None or not (restrict or other_restrict):
                    continue
                other = address(bound[j])
                if other < end and begin < other + bound[j].nbytes:
                    raise ValueError(
                        f"{self._name(i)} (written) overlaps {self.declaration.parameters[j].name} in memory,"
                        " and the kernel declares __restrict__"
                    )


def address(array: Any) -> int:
    """Where a NumPy or CuPy array's first element lies; 0 for None, a null pointer."""
    if array is None:
        return 0
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)


def _binder(declaration: Declaration, parameter: Parameter, engine: Any) -> Binder:
    """The function that turns a Python argument into what the engine takes for ``parameter``, or raises."""
    where = f"{declaration.name}: argument {parameter.name}"
    if parameter.kind == "scalar":
        return (_float_binder if parameter.dtype.kind == "f" else _integer_binder)(where, parameter)
    if parameter.kind == "struct":
        return _struct_binder(where, parameter)
    check = _array_check(where, parameter, engine)
    if parameter.kind == "table":
        return _table_binder(where, check, getattr(engine, "pointer_table", list))
    return lambda array: None if array is None else check(array)


def _float_binder(where: str, parameter: Parameter) -> Binder:
    most, scalar, c_type = float(np.finfo(parameter.dtype).max), parameter.dtype.type, parameter.c_type

    def bind(value: Any) -> Any:
        if not hasattr(value, "__float__") or (hasattr(value, "ndim") and value.ndim):
            raise TypeError(f"{where} ({c_type}) must be a number, got {_kind(value)}")
        number = float(value)
        if math.isfinite(number) and abs(number) > most:
            raise ValueError(f"{where} ({c_type}): {number} is out of the range of {parameter.dtype}")
        return scalar(number)

    return bind


def _integer_binder(where: str, parameter: Parameter) -> Binder:
    limits = np.iinfo(parameter.dtype)
    least, most, scalar, c_type = int(limits.min), int(limits.max), parameter.dtype.type, parameter.c_type

    def bind(value: Any) -> Any:
        try:
            number = operator.index(value)
        except TypeError:
            raise TypeError(f"{where} ({c_type}) must be an integer, got {_kind(value)}") from None
        if not least <= number <= most:
            raise ValueError(f"{where} ({c_type}): {number} is outside {least} to {most}")
        return scalar(number)

    return bind


def _struct_binder(where: str, parameter: Parameter) -> Binder:
    names = parameter.dtype.names or ()

    @lru_cache(maxsize=128)
    def pack(values: tuple[Any, ...]) -> Any:
        if len(values) != len(names):
            raise TypeError(f"{where} ({parameter.c_type}) has {len(names)} fields, got {len(values)} values")
        packed = np.zeros((), parameter.dtype)
        for name, value in zip(names, values, strict=True):
            dtype = parameter.dtype[name]
            limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
            least, most = dtype.type(limits.min).item(), dtype.type(limits.max).item()
            if math.isfinite(value) and not least <= value <= most:
                raise ValueError(f"{where} ({parameter.c_type}): field {name} = {value} does not fit {dtype}")
            packed[name] = value
        packed.flags.writeable = False
        return packed

    def bind(value: Any) -> Any:
        if not hasattr(value, "as_struct"):
            raise TypeError(f"{where} ({parameter.c_type}) must have as_struct(), got {_kind(value)}")
        return pack(value.as_struct())

    return bind


def _table_binder(where: str, check: Binder, pointer_table: Binder) -> Binder:
    def bind(arrays: Any) -> Any:
        if arrays is None:
            return None
        if not isinstance(arrays, (list, tuple)) or not arrays:
            raise TypeError(f"{where} must be a list of one or more arrays, got {_kind(arrays)}")
        return pointer_table([None if array is None else check(array) for array in arrays])

    return bind


def _array_check(where: str, parameter: Parameter, engine: Any) -> Binder:
    kind, dtype, alignment, vector = engine.xp.ndarray, parameter.dtype, parameter.alignment, parameter.vector
    index = getattr(engine, "index", None)
    on_gpu = kind is not np.ndarray

    def check(array: Any) -> Any:
        if not isinstance(array, kind):
            raise TypeError(f"{where} must be a {kind.__module__}.ndarray on {engine.name}, got {_kind(array)}")
        if array.dtype != dtype:
            raise TypeError(f"{where} must have dtype {dtype}, got {array.dtype} of shape {array.shape}")
        if not array.flags.c_contiguous:
            raise ValueError(f"{where} must be C-contiguous, got shape {array.shape} with strides {array.strides}")
        if on_gpu and index is not None and array.device.id != index:
            raise ValueError(f"{where} is on cuda:{array.device.id}, the kernel runs on {engine.name} (cuda:{index})")
        if not on_gpu and parameter.written and not array.flags.writeable:
            raise ValueError(f"{where} is written by the kernel, got a read-only array of shape {array.shape}")
        if array.size % vector:
            raise ValueError(
                f"{where} ({parameter.c_type}) must hold a multiple of {vector} elements, got shape {array.shape}"
            )
        if array.size and address(array) % alignment:
            raise ValueError(
                f"{where} ({parameter.c_type}) must start at a multiple of {alignment} bytes, got an array of shape"
                f" {array.shape} at an address that is {address(array) % alignment} bytes beyond one"
            )
        return array

    return check


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    text = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"{text} of shape {shape}" if shape is not None else f"{text} {value!r:.60}"
