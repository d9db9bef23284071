"""Early stop: a run ends when the validation part has stopped to improve."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gpucnn.training.callbacks import Callback

if TYPE_CHECKING:
    from gpucnn.training.loop import EpochRecord, Trainer

_SIGNS = {"val_accuracy": 1.0, "val_loss": -1.0}


class EarlyStop(Callback):
    """Stops the run after ``patience`` epochs in a row without an improvement on the validation part.

    A value improves where it is better than the best before by more than ``min_delta``; an equal one does not. The
    count is part of the checkpoint. ``reason`` says afterwards why the run was stopped, None where it was not.

    Args:
        patience: epochs, 1 or more.
        monitor: "val_accuracy" (larger is better) or "val_loss" (smaller is better). The test part is not for this.
        min_delta: in the unit of what is monitored: a part in [0, 1], or a loss.

    Raises:
        ValueError, TypeError: a value out of range; and in a run without a validation part, when it starts.
    """

    def __init__(self, patience: int, monitor: str = "val_accuracy", min_delta: float = 0.0) -> None:
        if isinstance(patience, bool) or not isinstance(patience, int):
            raise TypeError(f"EarlyStop: patience must be int, got {patience!r}")
        if patience < 1:
            raise ValueError(f"EarlyStop: patience must be 1 or more epochs, got {patience}")
        if monitor not in _SIGNS:
            raise ValueError(f"EarlyStop: monitor must be one of {', '.join(_SIGNS)}, got {monitor!r}")
        if not (math.isfinite(min_delta) and min_delta >= 0):
            raise ValueError(f"EarlyStop: min_delta must be 0 or more, got {min_delta!r}")
        self.patience, self.monitor, self.min_delta = patience, monitor, min_delta
        self.best: float | None = None
        self.best_epoch = 0
        self.waited = 0  # epochs since the best
        self.reason: str | None = None

    def on_start(self, trainer: Trainer) -> None:
        if trainer.val_loader is None:
            raise ValueError("EarlyStop: the run has no validation part to look at (val_split)")
        self._decide(trainer)  # of a run that is resumed

    def stops(self, val_loss: float, val_accuracy: float) -> bool:
        value = val_loss if self.monitor == "val_loss" else val_accuracy
        return not self._better(value) and self.waited + 1 >= self.patience

    def _better(self, value: float) -> bool:
        return self.best is None or _SIGNS[self.monitor] * (value - self.best) > self.min_delta

    def on_epoch_end(self, trainer: Trainer, record: EpochRecord) -> None:
        value: float = getattr(record, self.monitor)
        if self._better(value):
            self.best, self.best_epoch, self.waited = value, record.epoch, 0
        else:
            self.waited += 1
        self._decide(trainer)

    def _decide(self, trainer: Trainer) -> None:
        self.reason = None
        if self.best is not None and self.waited >= self.patience:
            self.reason = (
                f"{self.monitor} has not improved in {self.waited} epoch{'s' if self.waited != 1 else ''}"
                f" since its best, {self.best:.4f}, after epoch {self.best_epoch}"
            )
            trainer.stop(self.reason)

    def state_dict(self) -> dict[str, Any]:
        return {
            "monitor": self.monitor,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "waited": self.waited,
            "reason": self.reason,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["monitor"] != self.monitor:
            raise ValueError(f"EarlyStop: the checkpoint's count is of {state['monitor']}, not of {self.monitor}")
        self.best = None if state["best"] is None else float(state["best"])
        self.best_epoch, self.waited = int(state["best_epoch"]), int(state["waited"])
