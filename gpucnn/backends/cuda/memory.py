"""How much GPU memory arrays hold, and held at most.

CuPy's memory pool knows what is in use but keeps no high-water mark, its hooks are local to a thread, and asking it
after every allocation means a walk over all live arrays. So CuPy's allocator is wrapped: each piece of memory carries
a lease, which counts it when it is made and again when CuPy drops it, in whatever thread that happens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class MemoryTracker:
    """Bytes in use by device, now and at most, of the arrays that CuPy allocated since :meth:`install`.

    Sizes are the pool's, which rounds them up to 512 bytes.
    """

    def __init__(self) -> None:
        self.installed = False
        self._lock = threading.RLock()  # reentrant: a garbage collection inside the lock may drop an array
        self._now: dict[int, int] = {}
        self._most: dict[int, int] = {}

    def install(self, cupy: Any) -> None:
        """Wrap CuPy's present allocator, once."""
        with self._lock:
            if not self.installed:
                memory = cupy.cuda.memory
                allocator = self.wrap(cupy.cuda.get_allocator(), memory.MemoryPointer, memory.UnownedMemory)
                cupy.cuda.set_allocator(allocator)
                self.installed = True

    def wrap(self, allocate: Callable[[int], Any], pointer_class: Any, memory_class: Any) -> Callable[[int], Any]:
        """An allocator that gives what ``allocate`` gives, counted."""

        def counted(size: int) -> Any:
            pointer = allocate(size)
            memory = pointer.mem
            lease = _Lease(self, pointer, pointer.device_id, memory.size)
            return pointer_class(memory_class(pointer.ptr, memory.size, lease, pointer.device_id), 0)

        return counted

    def add(self, device: int, size: int) -> None:
        """``size`` bytes more are in use, or less where it is negative."""
        with self._lock:
            now = self._now.get(device, 0) + size
            self._now[device] = now
            if now > self._most.get(device, 0):
                self._most[device] = now

    def now(self, device: int) -> int:
        """Bytes in use on a device."""
        return self._now.get(device, 0)

    def most(self, device: int) -> int:
        """The most bytes that were in use at once, since the start or the last :meth:`reset`."""
        return self._most.get(device, 0)

    def reset(self, device: int) -> None:
        """Start the peak anew from what is in use now."""
        with self._lock:
            self._most[device] = self._now.get(device, 0)


class _Lease:
    """Keeps a piece of the pool alive, and counted, until CuPy drops the array's memory."""

    __slots__ = ("_device", "_pointer", "_size", "_tracker")

    def __init__(self, tracker: MemoryTracker, pointer: Any, device: int, size: int) -> None:
        self._tracker, self._pointer, self._device, self._size = tracker, pointer, device, size
        tracker.add(device, size)

    def __del__(self) -> None:
        self._tracker.add(self._device, -self._size)


tracker = MemoryTracker()
