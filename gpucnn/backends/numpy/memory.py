"""Arrays in memory that was used before, so that large ones cost no page faults.

The first touch of a page takes the kernel about as long as forty passes over it take NumPy, and a training step asks
for the same sizes again and again. So memory is handed out in buffers, each of them lent to one array: the views of
the array keep the array alive, and when it goes, a weak reference's callback puts its buffer into a queue, from which
the next call takes it back. The callback takes no lock and touches nothing else, because it runs wherever the last
reference is dropped, in any thread and in the middle of anything.

Buffers come in sizes an eighth of an octave apart. What is lent and what is kept for the next array are together no
more than was lent at once in the last one to two thousand calls, and a little: a buffer more, and the one that has
lain idle longest goes back to the system.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import sys
import threading
import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LEAST = 64 << 10  # bytes of an array that is lent a buffer; the C library keeps smaller ones at hand itself
PAGES = 1 << 20  # bytes from which a buffer is a mapping of its own
HUGE_PAGE = 2 << 20  # bytes
ALIGNMENT = 64  # bytes: a cache line
NEARBY = 1.3  # an array may be lent a buffer so many times its size, where there is none that fits better
SPARE = 4 << 20  # bytes kept at any rate
WINDOW = 1000  # calls, after which a new peak is begun


class _Pages(mmap.mmap):
    """Memory of its own, in huge pages where the system has them."""

    lent = True  # for layout.owner
    start = 0


class _Block(np.ndarray):
    """Memory from the C library."""

    lent = True
    start: int  # of the first cache line


class _Lease(weakref.ref):
    """The array that has a buffer."""

    __slots__ = ("buffer", "size")
    buffer: Any
    size: int


class _Memory:
    """The buffers; ``size`` is always that of a buffer."""

    def __init__(self) -> None:
        # Collecting garbage may call this from anywhere, from within itself too: one lock a thread, and a mark.
        self.lock = threading.RLock()
        self.busy = False
        self.free: dict[int, list[tuple[int, Any]]] = {}  # by size: when it came back, and the buffer
        self.leases: dict[int, _Lease] = {}  # a weak reference must live to call back
        self.returned: deque[_Lease] = deque()
        self.lent = self.kept = self.clock = 0
        self.peak = self.earlier_peak = 0

    def empty(self, shape: Any, dtype: Any, size: int) -> Array:
        """An array lent a buffer of ``size`` bytes, or of a little more."""
        with self.lock:
            if self.busy:
                return np.empty(shape, dtype)
            self.busy = True
            try:
                self._take_back()
                size, buffer = self._find(size)
                if buffer is None:
                    self._drop(self._most() - size)
                    buffer = self._make(size)
                array = np.ndarray(shape, dtype, buffer, buffer.start)
                lease = _Lease(array, self.returned.append)
                lease.buffer, lease.size = buffer, size
                self.leases[id(lease)] = lease
                self.lent += size
                if self.lent > self.peak:
                    self.peak = self.lent
                return array
            finally:
                self.busy = False

    def _take_back(self) -> None:
        """Keeps the buffers whose arrays are gone, as many as may be kept."""
        while self.returned:
            lease = self.returned.popleft()
            del self.leases[id(lease)]
            self.clock += 1
            self.lent -= lease.size
            self.free.setdefault(lease.size, []).append((self.clock, lease.buffer))
            self.kept += lease.size  # last, as an interrupt may come in between: never more than there is
            if self.clock % WINDOW == 0:
                self.earlier_peak, self.peak = self.peak, self.lent
        if self.kept:
            self._drop(self._most())

    def _most(self) -> int:
        peak = max(self.peak, self.earlier_peak)
        return peak + peak // 8 + SPARE

    def _find(self, size: int) -> tuple[int, Any]:
        """A kept buffer, the one that came back last of the smallest size that does, and its size; or None."""
        if not self.free.get(size):
            larger = [other for other, buffers in self.free.items() if buffers and size < other <= NEARBY * size]
            if not larger:
                return size, None
            size = min(larger)
        self.kept -= size
        return size, self.free[size].pop()[1]

    def _drop(self, most: int) -> None:
        """Gives buffers back to the system until no more than ``most`` bytes are lent or kept."""
        while self.kept and self.lent + self.kept > most:
            size = min((buffers[0][0], size) for size, buffers in self.free.items() if buffers)[1]
            self.kept -= size
            del self.free[size][0]

    def _make(self, size: int) -> Any:
        try:
            return _new_buffer(size)
        except (MemoryError, OSError):
            self._drop(0)
            return _new_buffer(size)

    def release(self) -> None:
        """Gives back to the system what no array has."""
        with self.lock:
            if not self.busy:
                self._take_back()
                self._drop(0)
                self.peak = self.earlier_peak = self.lent


def _new_buffer(size: int) -> Any:
    if size < PAGES:
        block = _Block(size + ALIGNMENT, np.uint8)
        block.start = -block.ctypes.data % ALIGNMENT
        return block
    if sys.platform == "win32":
        return _Pages(-1, size)
    pages = _Pages(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON)
    if size >= HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


def _rounded(size: int) -> int:
    """The next of eight sizes an octave."""
    step = 1 << (size.bit_length() - 4)
    return (size + step - 1) & -step


_memory = _Memory()


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """Like ``np.empty(shape, dtype)``, in C order; a large array gets memory that was used before, its base."""
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if size < LEAST:
        return np.empty(shape, kind)
    try:
        return _memory.empty(shape, kind, _rounded(size))
    except (MemoryError, OSError, OverflowError):
        return np.empty(shape, kind)  # raises NumPy's error, which names the shape


def release() -> None:
    """Gives back to the system the memory that is kept for the next arrays."""
    _memory.release()


if hasattr(os, "register_at_fork"):  # so that a child finds the buffers as one call left them, and the lock free
    os.register_at_fork(
        before=_memory.lock.acquire, after_in_parent=_memory.lock.release, after_in_child=_memory.lock.release
    )
