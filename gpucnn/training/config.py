"""All that a run was asked for, in one value that is checked when it is made and saved beside the run as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpucnn.precision import PRECISIONS
from gpucnn.training import tables
from gpucnn.training.tables import ANY, COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, Check, Table, check

_CHECKS: dict[str, Check] = {  # the types that a key takes, and the range
    "model": ((str,), ANY),
    "recipe": ((str, type(None)), ANY),
    "data": ((str, type(None)), ANY),
    "default_data": ((str,), ANY),
    "data_dir": ((str, type(None)), ANY),
    "epochs": ((int,), NOT_NEGATIVE),
    "batch_size": ((int,), COUNT),
    "drop_last": ((bool,), ANY),
    "accumulate": ((int,), COUNT),
    "val_split": ((int,), NOT_NEGATIVE),
    "reduction": ((str,), ("mean", "sum")),
    "label_smoothing": ((float, int), FRACTION),
    "clip_norm": ((float, int, type(None)), POSITIVE),
    "average_decay": ((float, int, type(None)), FRACTION),
    "tta": ((str,), ("none", "mirror", "six")),
    "early_stop": ((int, type(None)), COUNT),
    "seed": ((int,), NOT_NEGATIVE),
    "device": ((str, type(None)), ANY),
    "checkpoint_steps": ((int, type(None)), COUNT),
    "checkpoint_minutes": ((float, int, type(None)), POSITIVE),
    "log_steps": ((int,), COUNT),
    "tensorboard": ((bool,), ANY),
    "train_images": ((int, type(None)), COUNT),
    "test_images": ((int, type(None)), COUNT),
    "prefetch": ((int,), NOT_NEGATIVE),
    "precision": ((str,), PRECISIONS),
    "graph": ((bool, type(None)), ANY),
    "autotune": ((bool,), ANY),
    "optimizer": ((dict,), ANY),
    "schedule": ((dict,), ANY),
    "augmentation": ((dict,), ANY),
}

RESUMABLE = (
    "epochs", "device", "data_dir", "checkpoint_steps", "checkpoint_minutes", "early_stop", "tensorboard", "prefetch",
    "graph", "autotune",
)  # fmt: skip
"""What a run that is resumed may change: nothing that its steps so far depended on, but for ``epochs`` where the
schedule runs to the last one ("linear", "cosine", "onecycle", "piecewise"): it is stretched, and the steps so far stay.
"""

SHORT = ("lr", "momentum", "nesterov", "weight_decay")
"""Options of the optimizer that may be given as keys of their own, where the recipe has one optimizer."""


@dataclass(frozen=True)
class Config:
    """A training run. :func:`gpucnn.training.config_for` gives the recipes.

    Args:
        model: a name that ``gpucnn.models.create`` knows.
        recipe: the recipe that this config began as, for people.
        data: a name that ``gpucnn.data.create`` knows; None takes ``default_data``, or Shapes where that cannot be
            had.
        default_data: what is trained on where no data set is named.
        data_dir: the folder of the data set's files; None looks in GPUCNN_DATA and in the user's cache.
        epochs: passes over the training part.
        batch_size: examples a step.
        drop_last: leaves out an epoch's last batch where it is smaller than the others.
        accumulate: in how many parts a step's examples go through the network, their gradients adding up. Batch norm
            takes its statistics over each part.
        val_split: so many training images are held out; "best" and early stop look at them.
        reduction: "mean" or "sum" of the examples' losses is what is minimised.
        label_smoothing: of the training loss.
        clip_norm: largest norm of all gradients together; None for no limit.
        average_decay: largest decay of the moving average of the weights; None for no average.
        tta: test-time augmentation of the evaluation after the last epoch: "none", "mirror" or "six" views.
        early_stop: stop after so many epochs without a better accuracy on the images held out; None for never.
        seed: of initial weights, order, augmentation and dropout.
        device: "cpu", "cuda", "cuda:N" or "emulated"; None for the default device.
        checkpoint_steps, checkpoint_minutes: a checkpoint every so many steps or minutes, besides each epoch's.
        log_steps: steps that one line of the metrics stands for.
        tensorboard: also writes TensorBoard's event files (needs ``gpucnn[tensorboard]``).
        train_images, test_images: only the first so many images of each part; None for all.
        prefetch: batches prepared ahead.
        precision: of convolutions and matrix products, in training and in its evaluations: "float32", "tf32",
            "float16" or "bfloat16"; weights are float32. See :func:`gpucnn.precision`.
        graph: whether the steps are captured and replayed as one CUDA graph, with the same results: None where a GPU
            can, True always, False never.
        autotune: whether kernels' instances are chosen by time on this GPU; the choices are kept with the checkpoint,
            and a run that goes on has them again. Without it nothing depends on a clock.
        optimizer: ``{"name": "sgd", "lr": 0.1, ...}`` with the options of that class of ``gpucnn.optim``; or one such
            table for each of the model's ``parameter_sets()``, in which ``epochs`` trains that set for the first so
            many epochs only.
        schedule: ``{"name": "constant"}``, or "step" (every, gamma), "multistep" (milestones, gamma), "linear" (end),
            "cosine" (end), "onecycle" (peak, start, end), "piecewise" (epochs, factors); ``warmup`` epochs of linear
            increase go before any of them. Times are in epochs, learning rates are factors of the optimizer's. A
            piecewise schedule made for another number of epochs is stretched.
        augmentation: any of ``translate`` (pixels), ``flip`` ("none", "random", "alternating"), ``cutout`` (pixels),
            ``brightness``, ``contrast``: see :class:`gpucnn.data.Augment`. The lecture network has its own.

    Raises:
        TypeError, ValueError: a value of the wrong type or out of range, naming the key.
    """

    model: str = "lecture_cnn"
    recipe: str | None = None
    data: str | None = None
    default_data: str = "cifar10"
    data_dir: str | None = None
    epochs: int = 10
    batch_size: int = 128
    drop_last: bool = False
    accumulate: int = 1
    val_split: int = 0
    reduction: str = "mean"
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    average_decay: float | None = None
    tta: str = "none"
    early_stop: int | None = None
    seed: int = 0
    device: str | None = None
    checkpoint_steps: int | None = None
    checkpoint_minutes: float | None = None
    log_steps: int = 50
    tensorboard: bool = False
    train_images: int | None = None
    test_images: int | None = None
    prefetch: int = 2
    precision: str = "float32"
    graph: bool | None = None
    autotune: bool = False
    optimizer: Table = field(default_factory=lambda: {"name": "sgd", "lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4})
    schedule: Table = field(default_factory=lambda: {"name": "constant"})
    augmentation: Table = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in dataclasses.fields(self):
            check("config", key.name, getattr(self, key.name), _CHECKS[key.name])
        if self.seed >= 1 << 64:
            raise ValueError(f"config: seed must be below 2**64, got {self.seed}")
        if self.accumulate > self.batch_size:
            raise ValueError(f"config: accumulate {self.accumulate} parts of a batch of {self.batch_size} is too many")
        if self.early_stop is not None and not self.val_split:
            raise ValueError("config: early_stop looks at images held out: give val_split too")
        tables.check_optimizers(self.optimizer)
        tables.check_schedule(self.schedule, self.epochs)
        tables.check_set_epochs(self.optimizer, self.schedule)
        tables.check_augmentation(self.augmentation)

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

    def with_keys(self, changes: Mapping[str, Any], where: str = "config") -> Config:
        """This config with ``changes``: keys, ``"table.key"`` for a key in a table, and the short names of
        :data:`SHORT` for options of a single optimizer.

        Raises:
            TypeError, ValueError: as :meth:`from_dict`; a short name where there are several optimizers.
        """
        values = self.to_dict()
        for key, value in changes.items():
            if key in SHORT:
                if "name" not in values["optimizer"]:
                    sets = ", ".join(f"optimizer.{name}.{key}" for name in values["optimizer"])
                    raise ValueError(f"{where}: {key} is not one number here: set {sets}")
                values["optimizer"][key] = value
            else:
                tables.put(values, key, value, where)
        return Config.from_dict(values, where)

    def changed(self, changes: Mapping[str, Any]) -> Config:
        """This config with ``changes``, for a run that is resumed.

        Raises:
            ValueError: a key that a resumed run may not change, with another value than the run's.
        """
        wanted = self.with_keys(changes, "--resume")
        now, then = tables.flat(self.to_dict()), tables.flat(wanted.to_dict())
        for key in {**now, **then}:
            if key not in RESUMABLE and now.get(key) != then.get(key):
                raise ValueError(
                    f"--resume: {key} is {now.get(key)!r} in this run and cannot become {then.get(key)!r};"
                    f" a resumed run may change {', '.join(RESUMABLE)}"
                )
        return wanted
