"""How batches get from the host to a device. On a GPU the copy runs beside the host, out of page-locked memory.

From memory that the operating system may move (any array of NumPy's) CUDA copies by way of a page-locked buffer of its
own, and the host waits. So the thread that prepares batches leaves them in page-locked memory, and the thread that
trains only puts a copy into its stream: behind the kernels that it launched before, ahead of those that read the batch.
One stream orders all of it; no event is waited for in between.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from gpucnn import backends, layout
from gpucnn.device import Device
from gpucnn.tensor import Tensor

HostArray = np.ndarray[Any, Any]


class Transfer:
    """The way to a device of NumPy arrays, ``cpu`` or ``emulated``: a copy."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.backend = backends.get(device)

    def stage(self, array: HostArray) -> HostArray:
        """``array``, where copies start from best. For the thread that prepares batches."""
        return array

    def send(self, array: HostArray) -> Tensor:
        """A tensor of ``array`` on the device; four axes N, H, W, C become N, C, H, W, over the same memory. For the
        thread that uses the batches."""
        return self._tensor(np.array(array, order="C"))

    def _tensor(self, there: Any) -> Tensor:
        return Tensor(layout.nchw(there) if there.ndim == 4 else there, self.device)

    def close(self) -> None:
        """Waits for the copies that are under way."""


class PageLockedTransfer(Transfer):
    """The way to a GPU. Page-locked memory belongs to a copy until the event behind the copy has come: only then it is
    let go, and CuPy's pool may hand it to the next batch."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._under_way: deque[tuple[Any, HostArray]] = deque()  # (event, memory), in the order of the stream

    def stage(self, array: HostArray) -> HostArray:
        if not array.size:
            return array
        cuda = self.backend.xp.cuda
        try:
            with self.backend.context():
                memory = cuda.alloc_pinned_memory(array.nbytes)
        except cuda.runtime.CUDARuntimeError:
            return array  # there is none left: CUDA copies by way of its own buffer, and the host waits
        locked = np.frombuffer(memory, dtype=array.dtype, count=array.size).reshape(array.shape)
        locked[...] = array
        return locked

    def send(self, array: HostArray) -> Tensor:
        xp = self.backend.xp
        with self.backend.context():
            while self._under_way and self._under_way[0][0].done:
                self._under_way.popleft()
            stream = xp.cuda.get_current_stream()
            there = xp.empty(array.shape, dtype=array.dtype)
            there.set(array, stream=stream)
            event = xp.cuda.Event(disable_timing=True)
            event.record(stream)
            self._under_way.append((event, array))
        return self._tensor(there)

    def close(self) -> None:
        with self.backend.context():
            while self._under_way:
                self._under_way[0][0].synchronize()
                self._under_way.popleft()


def to(device: Device) -> Transfer:
    """The way to ``device``."""
    return Transfer(device) if backends.get(device).xp is np else PageLockedTransfer(device)
