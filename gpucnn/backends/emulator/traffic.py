"""How many bytes of its arrays a launch reads and writes, each byte once, and how many its threads ask for.

``with engine.traffic() as records:`` counts what is launched meanwhile, on the device ``emulated``::

    backend = gpucnn.backends.get(gpucnn.device("emulated"))
    with backend.engine.traffic() as records:
        step()
    print(sum(record.touched for record in records))

Kernels are compiled once more for it, so that each access to memory is seen (native/traffic.cpp), and run once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpucnn.backends.launch import Launch


@dataclass(frozen=True, slots=True)
class ArrayTraffic:
    """Bytes of one argument of a launch. ``size`` is the whole array's; ``read``, ``written`` and ``touched`` (read,
    written or both) count each byte once, ``requested`` counts it at every access of every thread."""

    name: str
    size: int
    read: int
    written: int
    touched: int
    requested: int


@dataclass(frozen=True, slots=True)
class Traffic(Launch):
    """One launch and the bytes of global memory that it moved.

    ``read``, ``written`` and ``touched`` count each byte once in the launch, also where two arguments share it;
    ``requested`` is what all threads' accesses add up to: what it has beyond the others, caches may absorb.
    """

    read: int
    written: int
    touched: int
    requested: int
    arrays: tuple[ArrayTraffic, ...] = field(repr=False)

    def array(self, name: str) -> ArrayTraffic:
        """The argument of this name (``parameters[2]`` is the third array of a table). Raises KeyError."""
        for array in self.arrays:
            if array.name == name:
                return array
        raise KeyError(f"{self.kernel} has no array {name!r}; it has {', '.join(a.name for a in self.arrays)}")


class Maps:
    """A bit for each byte of a launch's arrays, read and written. Arrays that overlap share their bits."""

    def __init__(self, packed: Any) -> None:
        self._packed = packed
        self._regions: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []  # read, written
        self._places: dict[int, tuple[int, int]] = {}  # of each buffer: its region and its first byte there
        order = sorted(
            (i for i, b in enumerate(packed.buffers) if b.nbytes),
            key=lambda i: (packed.buffers[i].address, i),
        )
        spans: list[list[int]] = []  # first and last byte + 1 of each region
        for i in order:
            buffer = packed.buffers[i]
            table = buffer.array is None  # a table's pointers are made by the launch, somewhere
            first, last = (0, buffer.nbytes) if table else (buffer.address, buffer.address + buffer.nbytes)
            if spans and not table and first < spans[-1][1]:
                spans[-1][1] = max(spans[-1][1], last)
            else:
                spans.append([first, last])
            self._places[i] = len(spans) - 1, first - spans[-1][0]
        for first, last in spans:
            words = -(-(last - first) // 64)
            self._regions.append((np.zeros(words, np.uint64), np.zeros(words, np.uint64)))
        for i, (region, offset) in self._places.items():
            array, (read, written) = packed.arrays[i], self._regions[region]
            array.read_map, array.written_map, array.map_offset = read.ctypes.data, written.ctypes.data, offset

    def traffic(self, launch: Launch) -> Traffic:
        """The counts after the run."""
        arrays = tuple(
            self._array(i, buffer)
            for i, buffer in enumerate(self._packed.buffers)
            if buffer.nbytes or buffer.array is not None
        )
        return Traffic(
            launch.kernel,
            launch.grid,
            launch.block,
            launch.shared_mem,
            read=sum(_ones(read) for read, _ in self._regions),
            written=sum(_ones(written) for _, written in self._regions),
            touched=sum(_ones(read | written) for read, written in self._regions),
            requested=sum(array.requested for array in arrays),
            arrays=arrays,
        )

    def _array(self, index: int, buffer: Any) -> ArrayTraffic:
        if index not in self._places:
            return ArrayTraffic(buffer.name, 0, 0, 0, 0, 0)
        region, offset = self._places[index]
        read, written = (_part(bits, offset, buffer.nbytes) for bits in self._regions[region])
        counts = self._packed.arrays[index]
        requested = int(counts.requested_read + counts.requested_written)
        return ArrayTraffic(buffer.name, buffer.nbytes, _ones(read), _ones(written), _ones(read | written), requested)


_ONES_OF = np.unpackbits(np.arange(2**16, dtype=np.uint16).view(np.uint8)).reshape(-1, 16).sum(1, dtype=np.uint8)


def _ones(words: np.ndarray[Any, Any]) -> int:
    """How many bits are set."""
    return int(_ONES_OF[words.view(np.uint16)].sum(dtype=np.int64))


def _part(words: np.ndarray[Any, Any], first: int, count: int) -> np.ndarray[Any, Any]:
    """A copy of the words around ``count`` bits from ``first``, with no other bit set."""
    start, stop = first // 64, -(-(first + count) // 64)
    part = words[start:stop].copy()
    part[0] &= np.uint64(2**64 - 2 ** (first % 64))
    beyond = 64 * stop - first - count
    part[-1] &= np.uint64(2 ** (64 - beyond) - 1)
    return part


def total(records: Sequence[Traffic]) -> int:
    """The bytes that the launches touch, each byte once in a launch."""
    return sum(record.touched for record in records)
