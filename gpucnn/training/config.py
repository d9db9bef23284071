"""All that a run was asked for, in one value that is checked when it is made and saved beside the run as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_Check = tuple[tuple[type, ...], str]
_POSITIVE, _NOT_NEGATIVE, _FRACTION, _ANY = "above 0", "0 or more", "in [0, 1)", ""

_CHECKS: dict[str, _Check] = {  # the types that a key takes, and the range
    "model": ((str,), _ANY),
    "data": ((str, type(None)), _ANY),
    "data_dir": ((str, type(None)), _ANY),
    "epochs": ((int,), _NOT_NEGATIVE),
    "batch_size": ((int,), _POSITIVE),
    "lr": ((float, int), _NOT_NEGATIVE),
    "momentum": ((float, int), _FRACTION),
    "nesterov": ((bool,), _ANY),
    "weight_decay": ((float, int), _NOT_NEGATIVE),
    "lr_decay": ((float, int), _POSITIVE),
    "lr_decay_epochs": ((int,), _POSITIVE),
    "average_decay": ((float, int, type(None)), _FRACTION),
    "seed": ((int,), _NOT_NEGATIVE),
    "device": ((str, type(None)), _ANY),
    "checkpoint_steps": ((int, type(None)), _POSITIVE),
    "train_images": ((int, type(None)), _POSITIVE),
    "test_images": ((int, type(None)), _POSITIVE),
    "prefetch": ((int,), _NOT_NEGATIVE),
}

RESUMABLE = ("epochs", "device", "data_dir", "checkpoint_steps", "prefetch")
"""What a run that is resumed may change: nothing that its steps so far depended on."""


@dataclass(frozen=True)
class Config:
    """A training run. :func:`gpucnn.training.config_for` gives each model's recipe.

    Args:
        model: a name that ``gpucnn.models.create`` knows.
        data: a name that ``gpucnn.data.create`` knows; None takes the model's own data set, or Shapes where that
            cannot be had.
        data_dir: the folder of the data set's files; None looks in GPUCNN_DATA and in the user's cache.
        epochs: passes over the training part.
        batch_size: examples a step.
        lr: learning rate of SGD.
        momentum, nesterov, weight_decay: of SGD; the model says which weights decay.
        lr_decay: what lr is multiplied by after every ``lr_decay_epochs`` epochs.
        average_decay: largest decay of the moving average of the weights; None for no average.
        seed: of initial weights, order, augmentation and dropout.
        device: "cpu", "cuda", "cuda:N" or "emulated"; None for the default device.
        checkpoint_steps: a checkpoint every so many steps, besides the one after each epoch.
        train_images, test_images: only the first so many images of each part; None for all.
        prefetch: batches prepared ahead.

    Raises:
        TypeError, ValueError: a value of the wrong type or out of range, naming the key.
    """

    model: str = "lecture_cnn"
    data: str | None = None
    data_dir: str | None = None
    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.004
    lr_decay: float = 0.1
    lr_decay_epochs: int = 350
    average_decay: float | None = 0.9999
    seed: int = 0
    device: str | None = None
    checkpoint_steps: int | None = None
    train_images: int | None = None
    test_images: int | None = None
    prefetch: int = 2

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field.name, getattr(self, field.name))
        if self.nesterov and self.momentum == 0:
            raise ValueError("config: nesterov needs a momentum above 0, got 0")
        if self.seed >= 1 << 64:
            raise ValueError(f"config: seed must be below 2**64, got {self.seed}")

    def to_dict(self) -> dict[str, Any]:
        """Every key and its value, fit for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config") -> Config:
        """The config of ``values``; keys that are left out have their defaults.

        Raises:
            TypeError, ValueError: an unknown key (the message lists the known ones), a wrong type, a value out of
                range; each message begins with ``where``.
        """
        unknown = [key for key in values if key not in _CHECKS]
        if unknown:
            raise ValueError(f"{where}: unknown key {unknown[0]!r}, known are {', '.join(_CHECKS)}")
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{where}: {str(error).removeprefix('config: ')}") from None

    def changed(self, changes: Mapping[str, Any]) -> Config:
        """This config with ``changes``, for a run that is resumed.

        Raises:
            ValueError: a key that a resumed run may not change, with another value than the run's.
        """
        for key, value in changes.items():
            if key in _CHECKS and key not in RESUMABLE and value != getattr(self, key):
                raise ValueError(
                    f"--resume: {key} is {getattr(self, key)!r} in this run and cannot become {value!r};"
                    f" a resumed run may change {', '.join(RESUMABLE)}"
                )
        return Config.from_dict({**self.to_dict(), **changes})


def _check(key: str, value: Any) -> None:
    types, limits = _CHECKS[key]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        expected = " or ".join("None" if kind is type(None) else kind.__name__ for kind in types)
        raise TypeError(f"config: {key} must be {expected}, got {value!r} ({type(value).__name__})")
    if not limits or not isinstance(value, (int, float)):
        return
    fits = {_POSITIVE: value > 0, _NOT_NEGATIVE: value >= 0, _FRACTION: 0 <= value < 1}[limits]
    if not fits or not math.isfinite(value):
        raise ValueError(f"config: {key} must be {limits}, got {value!r}")
