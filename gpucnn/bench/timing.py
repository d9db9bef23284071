"""How single calls are timed, and how a record gets to its file while it grows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FLUSH_BYTES = 512 * 2**20  # more than any GPU's L2
FLUSHES = 6  # about 0.1 ms each on the fastest GPU: work during which the host launches ahead
SETTLE_SECONDS = 0.04
"""OpenMP's threads spin for a while after their last work and take a core from whoever comes next: after 0.012 s a max
pooling of ours on two threads took 6.0 ms, after this 3.3 and alone 3.5."""


class HostTimer:
    """Times calls on the host's clock: for devices that are done when a call returns."""

    def __call__(self, call: Callable[[], Any]) -> float:
        """Runs ``call``; what it gives, :meth:`seconds` makes seconds of."""
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    def seconds(self, taken: Any) -> float:
        """Seconds of a call."""
        return float(taken)


class EventTimer:
    """Times calls on a GPU between two events, with its L2 cache overwritten before. Nothing is waited for until
    :meth:`seconds` is asked: a call is launched while the GPU still fills, so that the host's time is not in it.

    PyTorch's calls and ours both go to CUDA's default stream, in which the events stand.
    """

    def __init__(self, index: int) -> None:
        import cupy

        self._cuda = cupy.cuda
        self._device = cupy.cuda.Device(index)
        with self._device:
            self._stream = cupy.cuda.Stream.null
            self._flush = cupy.empty(FLUSH_BYTES, cupy.uint8)

    def __call__(self, call: Callable[[], Any]) -> Any:
        """Runs ``call`` between two events."""
        with self._device, self._stream:
            for _ in range(FLUSHES):
                self._flush.fill(1)
            start, end = self._cuda.Event(), self._cuda.Event()
            start.record()
            call()
            end.record()
        return start, end

    def seconds(self, taken: Any) -> float:
        """Seconds between the events of a call; waits for the second."""
        start, end = taken
        end.synchronize()
        return float(self._cuda.get_elapsed_time(start, end)) / 1e3


def timer(device: str) -> Any:
    """The timer for calls on ``device``."""
    if not device.startswith("cuda"):
        return HostTimer()
    return EventTimer(int(device.partition(":")[2] or 0))


def keep(path: Path | None, record: dict[str, Any]) -> None:
    """Writes ``record`` to ``path``, all or nothing."""
    from gpucnn.serialization import atomic_write

    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, (json.dumps(record, indent=1) + "\n").encode())
