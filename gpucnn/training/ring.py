"""The losses of the last steps, kept on the device and fetched while it works on.

A captured step cannot hand anything to the host. Its last launch (kernels/step.cu) puts the step's loss and its count
of right answers into a ring on the device, at the place of the step's number, which the device counts itself. Every so
often the ring is copied to page-locked memory on a stream of its own, and read a while later: nobody waits.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn import backends
from gpucnn.backends.cuda.step import advance_step
from gpucnn.device import Device
from gpucnn.tensor import Tensor
from gpucnn.training.metrics import Batch, NotFiniteError


@dataclass(slots=True)
class _Copy:
    """Rings under way to the host: where they will be, what is in them, and the event behind the copy."""

    losses: Any
    corrects: Any
    noted: list[tuple[int, int, int, bool]]  # place, step, examples, whether the loss is a sum
    event: Any


class Ring:
    """Results of steps on ``cuda`` or ``emulated``, at most ``steps`` steps of ``parts`` parts at once.

    ``state`` is int64 (4,) on the device: epoch, batch and number of the next step; ``batches`` is an epoch's.
    """

    def __init__(self, device: Device, state: Any, batches: int, steps: int, parts: int) -> None:
        backend: Any = backends.get(device)
        self.backend = backend
        self.state, self.batches = state, batches
        self.size = steps * parts
        self.losses = backend.constant(np.zeros(self.size, np.float32))
        self.corrects = backend.constant(np.zeros(self.size, np.int32))
        self._noted: list[tuple[int, int, int, bool]] = []
        self._under_way: deque[_Copy] = deque()
        self._side: Any = None

    def __len__(self) -> int:
        return len(self._noted) + sum(len(copy.noted) for copy in self._under_way)

    def put(self, loss: Tensor, correct: Tensor, part: int, parts: int) -> None:
        """The launch that keeps a part's loss and count; after the last part the counters go on. May be captured."""
        with self.backend.context():
            advance_step(
                self.backend, loss.data.reshape(1), correct.data.reshape(1), self.losses, self.corrects, self.state,
                self.batches, part, parts,
            )  # fmt: skip

    def note(self, step: int, examples: list[int], summed: bool) -> None:
        """Step ``step`` (from 1) was started, with parts of so many examples."""
        first = (step - 1) * len(examples)
        for part, count in enumerate(examples):
            self._noted.append(((first + part) % self.size, step, count, summed))

    # ---- to the host ----

    def start(self) -> None:
        """Lets the results so far go to the host, without waiting for them."""
        if not self._noted:
            return
        noted, self._noted = self._noted, []
        xp = self.backend.xp
        if xp is np:
            self._under_way.append(_Copy(self.losses.copy(), self.corrects.copy(), noted, None))
            return
        with self.backend.context():
            cuda = xp.cuda
            if self._side is None:
                self._side = cuda.Stream(non_blocking=True)
            here = cuda.get_current_stream()
            # Copies within the device stand in the stream of the steps, so that the next step cannot overtake them.
            rings = self.losses.copy(), self.corrects.copy()
            ready = cuda.Event(disable_timing=True)
            ready.record(here)
            self._side.wait_event(ready)
            hosts = [_page_locked(cuda, ring) for ring in rings]
            for ring, host in zip(rings, hosts, strict=True):
                ring.get(stream=self._side, out=host, blocking=False)
            done = cuda.Event(disable_timing=True)
            done.record(self._side)
            # The rings' memory is of the other stream's pool: it is kept until the copies are done.
            self._under_way.append(_Copy(hosts[0], hosts[1], noted, (done, rings)))

    def ready(self) -> list[Batch]:
        """Results that have come."""
        return self._finish(lambda copy: copy.event is None or copy.event[0].done)

    def read(self) -> list[Batch]:
        """All results since the last call of this or of :meth:`ready`; waits for them.

        Raises:
            NotFiniteError: a loss is NaN or infinite.
            ValueError: what the data got wrong, such as a label out of range.
        """
        self.start()
        found = self._finish(lambda copy: True)
        with self.backend.context():
            self.backend.check_faults()
        return found

    def _finish(self, come: Any) -> list[Batch]:
        found = []
        while self._under_way and come(self._under_way[0]):
            copy = self._under_way.popleft()
            if copy.event is not None:
                copy.event[0].synchronize()
            for place, step, examples, summed in copy.noted:
                loss = float(copy.losses[place])
                if not math.isfinite(loss):
                    with self.backend.context():
                        self.backend.check_faults()
                    raise NotFiniteError(step, loss)
                found.append(Batch(step, loss / examples if summed else loss, int(copy.corrects[place]), examples))
        return found


def _page_locked(cuda: Any, array: Any) -> Any:
    memory = cuda.alloc_pinned_memory(array.nbytes)
    return np.frombuffer(memory, dtype=array.dtype, count=array.size).reshape(array.shape)
