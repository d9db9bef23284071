"""What a config names, made: loaders, optimizers and their schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpucnn.creation import tensor
from gpucnn.data import DataLoader, Dataset, loader_for
from gpucnn.data.arrays import random_split
from gpucnn.nn import Module
from gpucnn.optim import MovingAverage, Optimizer, tutorial_decay
from gpucnn.optim import lr_scheduler as schedules
from gpucnn.optim.lr_scheduler import LRScheduler
from gpucnn.tensor import Tensor
from gpucnn.training.callbacks import Callback
from gpucnn.training.config import Config
from gpucnn.training.inputs import transforms
from gpucnn.training.tables import OPTIMIZERS, Table, optimizer_sets

# ---- data ----


def split(dataset: Dataset, held_out: int, seed: int) -> tuple[Dataset, Dataset | None]:
    """The data set without ``held_out`` images chosen by ``seed``, and those; None where there are none.

    Raises:
        ValueError: nothing would be left to train on.
    """
    if not held_out:
        return dataset, None
    n = len(dataset)
    if held_out >= n:
        raise ValueError(f"val_split: {held_out} images cannot be held out of {n}")
    train, val = random_split(dataset, [n - held_out, held_out], seed=seed)
    return train, val


@dataclass(frozen=True)
class Loaders:
    """Batches for training, of the images held out (None without them), and of the test part."""

    train: DataLoader
    val: DataLoader | None
    test: DataLoader


def loaders(config: Config, model: Module, train: Dataset, val: Dataset | None, test: Dataset) -> Loaders:
    """The loaders of a run: the training part shuffled and augmented, the others as they are.

    Raises:
        ValueError: a batch that is larger than the training part; images that the augmentation or the model cannot
            take, as far as the first one shows.
    """
    for_training, for_evaluation = transforms(model, train.name, config.augmentation)
    common: dict[str, Any] = {"seed": config.seed, "prefetch": config.prefetch, "device": config.device}
    size = config.batch_size
    if size > len(train):
        raise ValueError(f"batch_size {size} is larger than the {len(train)} training images")
    for_training(train.images[:1])
    for_evaluation(test.images[:1])
    return Loaders(
        loader_for(train, size, shuffle=True, transform=for_training, drop_last=config.drop_last, **common),
        loader_for(val, size, transform=for_evaluation, **common) if val is not None else None,
        loader_for(test, size, transform=for_evaluation, **common),
    )


def start_from_data(model: Module, train: Dataset, device: Any) -> None:
    """Lets a model whose first weights come from data (whitening) see the first ``init_images`` training images,
    without augmentation."""
    wanted = getattr(model, "init_images", 0)
    if not wanted:
        return
    _, transform = transforms(model, train.name)
    part = train.subset(slice(wanted))
    model.init_from_data(tensor(transform(part.images).transpose(0, 3, 1, 2), device=device))


def choose_instances(config: Config, model: Module) -> None:
    """Which instances of the kernels the run takes: those of the heuristics or, with ``autotune``, the fastest.

    Raises:
        ValueError: ``autotune`` where nothing can be timed.
    """
    parameter = next(iter(model.parameters()))
    tuner = getattr(parameter.backend, "tuner", None)
    if tuner is None:
        if config.autotune:
            raise ValueError(f"autotune: kernels can be timed on a GPU only, not on {parameter.device}")
        return
    tuner.forget()  # what another run of this process chose is none of this one's
    if config.autotune:
        tuner.enable()


# ---- optimizers ----


def optimizers(config: Config, model: Module) -> list[Optimizer]:
    """The optimizers of ``config.optimizer``: one over the model's ``parameter_groups()``, or one for each of its
    ``parameter_sets()``.

    Raises:
        ValueError: sets that are not the model's.
    """
    tables = optimizer_sets(config.optimizer)
    if None in tables:
        return [_optimizer(tables[None], _groups(model, tables[None].get("weight_decay", 0.0)))]
    sets = parameter_sets(config, model)
    return [_optimizer(table, sets[str(name)]) for name, table in tables.items()]


def parameter_sets(config: Config, model: Module) -> dict[str, Sequence[Tensor]]:
    """The model's named sets of parameters, checked against the config's optimizers."""
    sets = model.parameter_sets() if hasattr(model, "parameter_sets") else {}
    wanted = [str(name) for name in optimizer_sets(config.optimizer)]
    if set(sets) != set(wanted):
        known = ", ".join(sets) if sets else "none: one optimizer takes all parameters"
        raise ValueError(f"config: optimizer has tables for {', '.join(wanted)}; {config.model}'s sets are {known}")
    return sets


def _groups(model: Module, weight_decay: float) -> Any:
    return model.parameter_groups(weight_decay) if hasattr(model, "parameter_groups") else model.parameters()


def _optimizer(table: Table, params: Any) -> Optimizer:
    kind = OPTIMIZERS[table["name"].lower()]
    options: Table = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in table.items()
        if key not in ("name", "epochs")
    }
    return kind(params, **options)


def average(config: Config, model: Module) -> MovingAverage | None:
    """The moving average of parameters and buffers; None where ``config.average_decay`` is."""
    if config.average_decay is None:
        return None
    return MovingAverage(model.parameters(), tutorial_decay(config.average_decay), model.buffers())


# ---- schedules ----

TINY = 1e-30  # stands for 0 where a factor is divided by


def schedulers(config: Config, made: Sequence[Optimizer], steps_per_epoch: int) -> list[LRScheduler]:
    """A schedule for each optimizer, to be stepped after every step."""
    tables = optimizer_sets(config.optimizer).values()
    return [
        _scheduler(config.schedule, optimizer, table.get("epochs", config.epochs), config.epochs, steps_per_epoch)
        for optimizer, table in zip(made, tables, strict=True)
    ]


def _scheduler(
    schedule: Table, optimizer: Optimizer, epochs: float, run_epochs: int, steps_per_epoch: int
) -> LRScheduler:
    """The schedule of an optimizer that trains for ``epochs`` of the run's epochs. Its rates are functions of the step
    alone, so that a run that is resumed for more epochs goes on where the longer schedule is then."""

    def steps(length: float) -> int:
        return round(length * steps_per_epoch)

    warmup = steps(schedule.get("warmup", 0))
    total = math.ceil(epochs * steps_per_epoch)
    after = max(total - warmup, 1)  # a run of no epochs has a schedule too
    name = schedule["name"]
    main: LRScheduler
    if name == "step":
        main = schedules.StepLR(optimizer, max(steps(schedule["every"]), 1), schedule["gamma"])
    elif name == "multistep":
        main = schedules.MultiStepLR(optimizer, [steps(epoch) for epoch in schedule["milestones"]], schedule["gamma"])
    elif name == "cosine":
        end = schedule.get("end", 0.0)
        main = schedules.LambdaLR(
            optimizer, lambda step: end + (1 - end) * (1 + math.cos(math.pi * min(step / after, 1.0))) / 2
        )
    elif name == "onecycle":
        peak, start, end = schedule.get("peak", 0.3), schedule.get("start", 0.04), schedule.get("end", 4e-6)
        main = schedules.OneCycleLR(
            optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=after + 1, pct_start=peak,
            div_factor=1 / start, final_div_factor=start / max(end, TINY), cycle_momentum=False,
        )  # fmt: skip
    else:
        main = schedules.PiecewiseLinearLR(optimizer, *_line(schedule, after))
    parts, milestones = [main], []
    if warmup:
        parts.insert(0, schedules.PiecewiseLinearLR(optimizer, [0, warmup], [0.0, 1.0]))
        milestones.append(warmup)
    if name == "onecycle" and epochs < run_epochs:  # a cycle refuses steps after its last
        parts.append(schedules.PiecewiseLinearLR(optimizer, [0, 1], [0.0, 0.0]))
        milestones.append(warmup + after)
    return schedules.SequentialLR(optimizer, parts, milestones) if milestones else main


def _line(schedule: Table, steps: int) -> tuple[list[float], list[float]]:
    """Steps and the factors there, of the schedules that are straight lines."""
    if schedule["name"] == "linear":
        return [0, steps], [1.0, schedule.get("end", 0.0)]
    if schedule["name"] == "piecewise":  # stretched to the run's length
        at = schedule["epochs"]
        return [epoch * steps / at[-1] for epoch in at], list(schedule["factors"])
    return [0, 1], [1.0, 1.0]


class Freeze(Callback):
    """Stops training ``parameters`` after ``step`` steps: their gradient is not computed any more."""

    def __init__(self, parameters: Sequence[Tensor], step: int) -> None:
        self.parameters, self.step = parameters, step

    def on_start(self, trainer: Any) -> None:
        self.on_step(trainer)

    def on_step(self, trainer: Any) -> None:
        if trainer.step >= self.step:
            for parameter in self.parameters:
                parameter.requires_grad_(False)
                parameter.grad = None


def freezes(config: Config, model: Module, steps_per_epoch: int) -> list[Freeze]:
    """For each set of parameters that is trained for some of the epochs only."""
    tables = optimizer_sets(config.optimizer)
    if None in tables:
        return []
    sets = parameter_sets(config, model)
    return [
        Freeze(sets[str(name)], math.ceil(table["epochs"] * steps_per_epoch))
        for name, table in tables.items()
        if "epochs" in table
    ]
