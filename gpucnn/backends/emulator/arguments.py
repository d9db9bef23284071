"""From a kernel's Python arguments to the runtime's arrays and values."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn.backends.declarations import Declaration, Parameter
from gpucnn.backends.emulator import runtime as rt
from gpucnn.backends.emulator.faults import AliasedArguments

DIRECTIONS = {"in": rt.IN, "out": rt.OUT, "inout": rt.INOUT}
ALIGNMENT = 16  # bytes: what the widest vector access needs


@dataclass(slots=True)
class Buffer:
    """One array of a launch, or a table's array of pointers (``array`` is None then)."""

    name: str
    array: np.ndarray[Any, Any] | None
    direction: int
    nbytes: int
    itemsize: int
    declared_alignment: int
    table_first: int = 0
    table_count: int = 0

    @property
    def written(self) -> bool:
        return self.direction in (rt.OUT, rt.INOUT)

    @property
    def address(self) -> int:
        return 0 if self.array is None else int(self.array.ctypes.data)

    def inside(self, offset: int) -> bool:
        """Whether the byte ``offset`` belongs to the array."""
        return 0 <= offset < self.nbytes

    def describe_access(self, access: str, offset: int) -> str:
        """The text for a faulting ``access`` ("read", "write") at byte ``offset`` from the start."""
        index, size = offset // self.itemsize, self.nbytes // self.itemsize
        what = "a table" if self.array is None else f"{self.array.dtype} {self.array.shape}"
        if self.inside(offset):
            return f"{access} of {self.name}[{index}], but {self.name} is IN ({what})"
        distance = f"{-index} before the start" if index < 0 else f"{index - size} past the last + 1"
        if index == size:
            distance = "one past the last"
        return (
            f"out-of-bounds {access} of {self.name}[{index}], element {distance}:"
            f" {self.name} has {size} elements ({what})"
        )


class Packed:
    """The arguments of one launch in the runtime's form."""

    def __init__(self, declaration: Declaration, args: Sequence[Any], exact: bool) -> None:
        if len(args) != len(declaration.parameters):
            raise TypeError(f"{declaration.signature} takes {len(declaration.parameters)} arguments, got {len(args)}")
        self.name = declaration.name
        self.buffers: list[Buffer] = []
        self._values: list[bytes | int] = []  # of each argument: its bytes, or the number of its buffer
        for parameter, argument in zip(declaration.parameters, args, strict=True):
            self._add(parameter, argument)
        self._check_aliases()
        self.arrays = (rt.Array * max(1, len(self.buffers)))()
        for array, buffer in zip(self.arrays, self.buffers, strict=False):
            array.host = buffer.address or None
            array.bytes = buffer.nbytes
            array.direction = buffer.direction
            array.alignment = buffer.declared_alignment if exact else ALIGNMENT
            array.phase = 0 if exact or not buffer.nbytes else buffer.address % ALIGNMENT
            array.table_first, array.table_count = buffer.table_first, buffer.table_count
        self._storage: list[Any] = []
        self.pointers = (ctypes.c_void_p * max(1, len(self._values)))()
        for i, value in enumerate(self._values):
            self.pointers[i] = self._address(value)

    def _address(self, value: bytes | int) -> int:
        if isinstance(value, int):
            return ctypes.addressof(self.arrays[value]) + rt.Array.device.offset
        aligned = (ctypes.c_uint64 * (len(value) // 8 + 1))()
        ctypes.memmove(aligned, value, len(value))
        self._storage.append(aligned)
        return ctypes.addressof(aligned)

    def _add(self, parameter: Parameter, argument: Any) -> None:
        if parameter.kind == "scalar":
            self._values.append(np.asarray(argument, parameter.dtype).tobytes())
        elif parameter.kind == "struct":
            self._values.append(_struct_bytes(parameter, argument))
        else:
            self._values.append(len(self.buffers))
            if parameter.kind == "table" and argument is not None:
                self._add_table(parameter, argument)
            else:
                self.buffers.append(self._buffer(parameter, parameter.name, argument))

    def _add_table(self, parameter: Parameter, arrays: Sequence[Any]) -> None:
        first = len(self.buffers) + 1
        self.buffers.append(Buffer(parameter.name, None, rt.TABLE, 8 * len(arrays), 8, 8, first, len(arrays)))
        self.buffers += [self._buffer(parameter, f"{parameter.name}[{i}]", array) for i, array in enumerate(arrays)]

    def _buffer(self, parameter: Parameter, name: str, array: Any) -> Buffer:
        if array is None:
            return Buffer(name, None, rt.NULL, 0, 1, 1)
        if not isinstance(array, np.ndarray) or array.dtype != parameter.dtype or not array.flags.c_contiguous:
            got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(
                f"{self.name}: argument {name} must be a C-contiguous NumPy array of {parameter.dtype}, got {got}"
            )
        direction = DIRECTIONS[parameter.direction or "inout"]
        return Buffer(name, array, direction, array.nbytes, array.itemsize, max(parameter.alignment, array.itemsize))

    def _check_aliases(self) -> None:
        """Each array gets memory of its own, so two that overlap would come apart."""
        known = sorted((b for b in self.buffers if b.array is not None and b.nbytes), key=lambda b: b.address)
        for low, high in itertools.pairwise(known):
            if high.address < low.address + low.nbytes and (low.written or high.written):
                raise AliasedArguments(
                    self.name,
                    f"arguments {low.name} and {high.name} overlap in memory, and the kernel writes one of them",
                )

    def results(self) -> list[np.ndarray[Any, Any] | None]:
        """Directs the next run's results into new arrays, one for each buffer that is written (else None)."""
        fresh: list[np.ndarray[Any, Any] | None] = []
        for array, buffer in zip(self.arrays, self.buffers, strict=False):
            fresh.append(np.empty(buffer.nbytes, np.uint8) if buffer.written else None)
            last = fresh[-1]
            array.result = last.ctypes.data if last is not None and last.size else None
        return fresh

    def write_through(self) -> None:
        """Directs the next run's results into the arguments themselves."""
        for array, buffer in zip(self.arrays, self.buffers, strict=False):
            array.result = buffer.address if buffer.written and buffer.nbytes else None


def _struct_bytes(parameter: Parameter, argument: Any) -> bytes:
    """The bytes of a struct by value: of a NumPy array or scalar of the struct's dtype, or of what has
    ``as_struct()``.
    """
    if isinstance(argument, (np.ndarray, np.void)):
        return argument.tobytes()
    values = argument.as_struct() if hasattr(argument, "as_struct") else tuple(argument)
    return np.array(values, parameter.dtype).tobytes()
