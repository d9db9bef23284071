"""What stops a training run."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path


class TrainingError(RuntimeError):
    """Training cannot go on although its input was right, such as a loss that became NaN; ``step`` counts from 1."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after the checkpoint was written; the message says where it is and how to go on."""

    def __init__(self, signum: int, step: int, checkpoint: Path) -> None:
        name = "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name
        super().__init__(
            f"stopped by {name} after step {step}; the checkpoint is saved,"
            f" go on with: gpucnn train --resume {shlex.quote(str(checkpoint.parent))}"
        )
        self.signum = signum
        self.step = step
        self.checkpoint = checkpoint
