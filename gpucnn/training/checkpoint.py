"""Checkpoints: everything that a run needs to go on as if it had never stopped, in one safetensors file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import gpucnn
from gpucnn.device import Device
from gpucnn.tensor import Tensor
from gpucnn.training.callbacks import Callback
from gpucnn.training.checkpoint_v1 import upgraded
from gpucnn.training.config import Config
from gpucnn.training.errors import TrainingError
from gpucnn.training.loop import EpochRecord, Trainer
from gpucnn.training.run_folder import RunFolder

VERSION = 2
_KEYS = ("version", "config", "classes", "trainer")


class Checkpoints(Callback):
    """Keeps the last checkpoint of a run and the best one.

    ``checkpoint.safetensors`` is written at the start, every ``checkpoint_steps`` steps, at the first step that is
    ``checkpoint_minutes`` minutes after the one before, and after each epoch. ``best.safetensors``, as whole as the
    other, is that of the epoch with the highest accuracy on the validation part, the earlier of two that are equal;
    without a validation part there is none. Neither is written with a number that is not finite, so that the last good
    one stays.
    """

    def __init__(self, folder: RunFolder, config: Config, classes: tuple[str, ...]) -> None:
        self.folder, self.config, self.classes = folder, config, classes
        self.step: int | None = None  # of the checkpoint that is there
        self.best_accuracy: float | None = None
        self.best_epoch: int | None = None
        self._written = time.monotonic()

    def on_start(self, trainer: Trainer) -> None:
        """Writes one, also of a run that is resumed, which may go on from its best; and where the disk is full it is
        known at once."""
        if self.folder.checkpoint.exists():
            self.step = trainer.step
        self.save(trainer)

    def on_step(self, trainer: Trainer) -> None:
        if self._due(trainer.step):
            self.save(trainer)

    def _due(self, step: int) -> bool:
        steps, minutes = self.config.checkpoint_steps, self.config.checkpoint_minutes
        if steps is not None and step % steps == 0:
            return True
        return minutes is not None and time.monotonic() - self._written >= 60.0 * minutes

    def on_epoch_end(self, trainer: Trainer, record: EpochRecord) -> None:
        accuracy = record.val_accuracy
        best = accuracy is not None and (self.best_accuracy is None or accuracy > self.best_accuracy)
        if best:
            self.best_accuracy, self.best_epoch = accuracy, record.epoch
        self.save(trainer, best)

    def save(self, trainer: Trainer, best: bool = False) -> None:
        """Writes the checkpoint, atomically, and with ``best`` also the best one.

        Raises:
            TrainingError: the loss, a weight or a number that training goes on from is not finite; or the file cannot
                be written, with the reason. The one before is as it was.
        """
        state = trainer.state_dict()
        for name, array in _arrays(state):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                kind, _, rest = name.partition("/")
                what = f"the weights {rest}" if kind == "model" else f"the numbers {name}"
                raise TrainingError(f"{what} are no longer finite after step {trainer.step}", trainer.step)
        content = {
            "version": VERSION,
            "config": self.config.to_dict(),
            "classes": list(self.classes),
            "trainer": state,
        }
        # The best one first: a process that dies in between resumes before this epoch and does it again.
        for path in (self.folder.best, self.folder.checkpoint) if best else (self.folder.checkpoint,):
            try:
                gpucnn.save(content, path)
            except OSError as error:
                raise TrainingError(
                    f"{path} could not be written after step {trainer.step}: {error.strerror or error}", trainer.step
                ) from error
        self.step, self._written = trainer.step, time.monotonic()

    def kept(self) -> str:
        """Which checkpoint is there, for the end of an error's message."""
        if self.step is None:
            return "no checkpoint was written"
        return f"the checkpoint of step {self.step} stays: {self.folder.checkpoint}"

    def state_dict(self) -> dict[str, Any]:
        return {"best_accuracy": self.best_accuracy, "best_epoch": self.best_epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        accuracy, epoch = state["best_accuracy"], state["best_epoch"]
        self.best_accuracy = None if accuracy is None else float(accuracy)
        self.best_epoch = None if epoch is None else int(epoch)


def _arrays(value: Any, path: str = "") -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Every array in a state, with the path that leads to it."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _arrays(item, f"{path}/{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _arrays(item, f"{path}/{index}")
    elif isinstance(value, Tensor):
        yield path, value.numpy()
    elif isinstance(value, np.ndarray):
        yield path, value


def read_checkpoint(path: Path, device: str | Device | None = None) -> dict[str, Any]:
    """The contents of a checkpoint, its config as a :class:`Config`, its tensors on ``device``.

    Raises:
        ValueError: damaged, of a newer version, or no checkpoint; names the file.
        OSError: cannot be read.
    """
    content = gpucnn.load(path, device=device)
    if not isinstance(content, Mapping) or "trainer" not in content or "config" not in content:
        raise ValueError(f"{path}: not a checkpoint of a training run")
    version = content.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"{path}: damaged: its version cannot be {version!r:.80}")
    if version > VERSION:
        raise ValueError(
            f"{path}: a checkpoint of version {version}, written by a newer gpucnn;"
            f" this gpucnn, {gpucnn.__version__}, reads up to version {VERSION}"
        )
    if version == 1:
        try:
            content = upgraded(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path}: damaged, or no checkpoint of version 1: {error!r}") from error
    missing = [key for key in _KEYS if key not in content]
    if missing:
        raise ValueError(f"{path}: damaged: it has no {', '.join(missing)}")
    classes = content["classes"]
    for key, right in (
        ("config", isinstance(content["config"], Mapping)),
        ("classes", isinstance(classes, list) and bool(classes) and all(isinstance(name, str) for name in classes)),
        ("trainer", isinstance(content["trainer"], Mapping)),
    ):
        if not right:
            raise ValueError(f"{path}: damaged: its {key} cannot be {content[key]!r:.80}")
    return {**content, "config": Config.from_dict(content["config"], str(path))}
