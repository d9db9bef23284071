"""The counters by which kernels find out which of their blocks arrives last (kernels/last_block.cuh)."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from gpucnn.backends.base import Array

LEAST = 4096  # counters of an array: more than most launches need, so that it is made once


class Counters:
    """Zeros (uint32) on one device, an array for each stream: launches of one stream run in turn and may share them.

    An array stays where it is for good, because a captured graph goes on using it; where a launch needs more
    counters, a longer array comes beside it. It is zeroed on a stream of its own and is there before :meth:`get`
    returns, so that this may happen while another stream is captured.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._latest: dict[int, Array] = {}  # by the stream's address
        self._outgrown: list[Array] = []

    def get(self, count: int) -> Array:
        """At least ``count`` counters for the current stream; on ``emulated`` just as many, to find a kernel's
        overrun.
        """
        xp = self._engine.xp
        on_host = xp is np
        stream = 0 if on_host else int(xp.cuda.get_current_stream().ptr)
        counters = self._latest.get(stream)
        if counters is None or counters.size < count:
            counters = self._longer(stream, count)
        return counters[:count] if on_host else counters

    def _longer(self, stream: int, count: int) -> Array:
        with self._lock:
            before = self._latest.get(stream)
            if before is not None and before.size >= count:
                return before
            if before is not None:
                self._outgrown.append(before)
            counters = self._zeros(max(LEAST, 1 << (count - 1).bit_length()))
            self._latest[stream] = counters
        return counters

    def _zeros(self, count: int) -> Array:
        xp = self._engine.xp
        if xp is np:
            return np.zeros(count, np.uint32)
        with self._engine.device, xp.cuda.Stream(non_blocking=True) as own:
            counters = xp.zeros(count, np.uint32)
            own.synchronize()
        return counters
