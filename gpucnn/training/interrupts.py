"""Ctrl-C and SIGTERM: the step that is under way is finished, the checkpoint written, then the run stops."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from gpucnn.training.callbacks import Callback
from gpucnn.training.loop import Trainer


class StopRequested(Exception):
    """A signal came; ``signum`` says which."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Interrupts(Callback):
    """Within ``with``, the first SIGINT or SIGTERM is only noted, and raised as StopRequested after the step, or after
    the batch of an evaluation. A second signal acts as it did before: who presses Ctrl-C twice does not wait. In
    threads other than the main one signals are left alone."""

    def __init__(self) -> None:
        self._signum: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signum, handler = self._before.popitem()
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._signum = signum
        self._restore()

    def check(self) -> None:
        """Raises StopRequested where a signal came."""
        if self._signum is not None:
            signum, self._signum = self._signum, None
            raise StopRequested(signum)

    def on_step(self, trainer: Trainer) -> None:
        self.check()

    def on_evaluation_step(self, trainer: Trainer, done: int, total: int) -> None:
        self.check()

    def on_epoch_end(self, trainer: Trainer, record: object) -> None:
        self.check()
