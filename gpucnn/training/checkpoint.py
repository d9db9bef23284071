"""Checkpoints: everything that a run needs to go on as if it had never stopped, in one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import gpucnn
from gpucnn.device import Device
from gpucnn.training.callbacks import Callback
from gpucnn.training.config import Config
from gpucnn.training.errors import TrainingError
from gpucnn.training.loop import EpochRecord, Trainer
from gpucnn.training.run_folder import RunFolder

VERSION = 1
_KEYS = ("version", "config", "classes", "metrics_bytes", "trainer")


class Checkpoints(Callback):
    """Writes ``checkpoint.safetensors`` at the start, every ``steps`` steps and after each epoch; never with a weight
    that is not finite, so that the last good one stays."""

    def __init__(self, folder: RunFolder, config: Config, classes: tuple[str, ...]) -> None:
        self.folder, self.config, self.classes = folder, config, classes
        self.step: int | None = None  # of the checkpoint that is there

    def on_start(self, trainer: Trainer) -> None:
        if self.folder.checkpoint.exists():
            self.step = trainer.step
        else:
            self.save(trainer)

    def on_step(self, trainer: Trainer) -> None:
        if self.config.checkpoint_steps and trainer.step % self.config.checkpoint_steps == 0:
            self.save(trainer)

    def on_epoch_end(self, trainer: Trainer, record: EpochRecord) -> None:
        self.save(trainer)

    def kept(self) -> str:
        """What there is to go on from, for the message of a run that failed."""
        return f"the checkpoint of step {self.step} stays: {self.folder.checkpoint}"

    def save(self, trainer: Trainer) -> None:
        """Writes the checkpoint, atomically.

        Raises:
            TrainingError: the loss or a weight is not finite.
            OSError: the file cannot be written; the one before is as it was.
        """
        state = trainer.state_dict()
        for name, value in state["model"].items():
            array = value.numpy()
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise TrainingError(f"the weights {name} are no longer finite after step {trainer.step}", trainer.step)
        gpucnn.save(
            {
                "version": VERSION,
                "config": self.config.to_dict(),
                "classes": list(self.classes),
                "metrics_bytes": self.folder.metrics_size(),
                "trainer": state,
            },
            self.folder.checkpoint,
        )
        self.step = trainer.step


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
    if not isinstance(version, int) or version > VERSION:
        raise ValueError(f"{path}: a checkpoint of version {version}, this gpucnn reads up to version {VERSION}")
    missing = [key for key in _KEYS if key not in content]
    if missing:
        raise ValueError(f"{path}: damaged: it has no {', '.join(missing)}")
    classes, written = content["classes"], content["metrics_bytes"]
    for key, right in (
        ("config", isinstance(content["config"], Mapping)),
        ("classes", isinstance(classes, list) and bool(classes) and all(isinstance(name, str) for name in classes)),
        ("metrics_bytes", isinstance(written, int) and written >= 0),
        ("trainer", isinstance(content["trainer"], Mapping)),
    ):
        if not right:
            raise ValueError(f"{path}: damaged: its {key} cannot be {content[key]!r:.80}")
    return {**content, "config": Config.from_dict(content["config"], str(path))}
