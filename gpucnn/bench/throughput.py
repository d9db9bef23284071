"""Training speed: contestants in turn, repeat by repeat, each fed by the same source inside the same timer."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn import machine, settings
from gpucnn.bench.contestants import Contestant, Trainer, synthetic_batches
from gpucnn.bench.sections import Steps, StepsResult
from gpucnn.bench.timing import SETTLE_SECONDS
from gpucnn.bench.workload import Workload

WARM_UP_STEPS = 2
SYNTHETIC = "synthetic"

Batches = Callable[[int], Iterator[tuple[Any, Any]]]  # how many -> batches, made while the timer runs
Say = Callable[[str], None]


class Feeds:
    """Where batches come from: a data set's training pipeline, or batches made before.

    Args:
        name: the data set's, or "synthetic".
        by_device: for each device that batches are handed over on a source of them.
    """

    def __init__(self, name: str, by_device: Mapping[str, Batches]) -> None:
        self.name, self._by_device = name, by_device

    def of(self, contestant: Contestant) -> Batches:
        """The source of a contestant's batches."""
        return self._by_device[contestant.feed]

    @classmethod
    def synthetic(cls, workload: Workload, batch_size: int, measured: Sequence[Contestant]) -> Feeds:
        """A few random batches, ready before the timer starts."""
        arrays = synthetic_batches(workload, batch_size)
        return cls(SYNTHETIC, {place: _ready(arrays, place) for place in _places(measured)})

    @classmethod
    def pipeline(
        cls, workload: Workload, batch_size: int, measured: Sequence[Contestant], data_dir: str | Path | None, say: Say
    ) -> Feeds:
        """The recipe's data set with its augmentation, or generated images where it cannot be had.

        Raises ValueError or DataError where ``data_dir`` was given and does not hold it.
        """
        from gpucnn import models
        from gpucnn.data import DataLoader, find
        from gpucnn.training.inputs import transforms

        train, _ = find(workload.data if data_dir is not None else None, data_dir, say, workload.data)
        model = models.create(workload.model, device="cpu")
        transform, _ = transforms(model, train.name, workload.augmentation)

        def source(place: str) -> Batches:
            return _endless(
                DataLoader(train, batch_size, True, transform, drop_last=True, seed=0, device=place)
            )  # fmt: skip

        return cls(train.name, {place: source(place) for place in _places(measured)})


def _places(measured: Sequence[Contestant]) -> set[str]:
    return {contestant.feed for contestant in measured}


def _endless(loader: Any) -> Batches:
    def batches(count: int) -> Iterator[tuple[Any, Any]]:
        left = count
        while left:
            epoch = iter(loader)
            for batch in itertools.islice(epoch, left):
                left -= 1
                yield batch
            epoch.close()  # its thread stops while another contestant is timed

    return batches


def _ready(arrays: Sequence[tuple[Any, Any]], device: str) -> Batches:
    from gpucnn import tensor

    ready = [(tensor(images, device=device), tensor(labels, device=device)) for images, labels in arrays]
    return lambda count: itertools.islice(itertools.cycle(ready), count)


def timed(trainer: Trainer, batches: Batches, steps: int) -> float:
    """Seconds of so many training steps, the making of their batches included; the device has finished at both ends.

    Raises RuntimeError for a loss that is not finite.
    """
    trainer.synchronize()
    start = time.perf_counter()
    loss: Any = None
    for images, labels in batches(steps):
        loss = trainer.step(images.data, labels.data) if trainer.takes_arrays else trainer.step(images, labels)
    trainer.synchronize()
    seconds = time.perf_counter() - start
    if not np.isfinite(float(loss.item())):
        raise RuntimeError(f"bench: the loss of {type(trainer).__name__} became {float(loss.item())}")
    return seconds


def in_turn(
    workload: Workload,
    trainers: Mapping[Contestant, Trainer],
    feeds: Feeds,
    batch_size: int,
    steps: int | None,
    repeats: int,
    threads: int,
    seconds: float = 0.0,
) -> Steps:
    """Everybody's training speed; they take turns, a repeat of ``steps`` steps each.

    Without ``steps``, as many as the fastest takes in ``seconds``.
    """
    warm = [timed(trainer, feeds.of(who), WARM_UP_STEPS) / WARM_UP_STEPS for who, trainer in trainers.items()]
    if steps is None:
        again = [timed(trainer, feeds.of(who), 1) for who, trainer in trainers.items()]
        steps = max(1, round(seconds / min(warm + again)))
    speeds: dict[Contestant, list[float]] = {who: [] for who in trainers}
    for _ in range(repeats):
        for who, trainer in trainers.items():
            time.sleep(SETTLE_SECONDS)
            speeds[who].append(steps * batch_size / timed(trainer, feeds.of(who), steps))
    results = tuple(
        StepsResult(
            who.framework, who.version, who.device, device_name(who.device), who.layout,
            tuple(round(speed, 2) for speed in mine),
        )
        for who, mine in speeds.items()
    )  # fmt: skip
    return Steps(workload.network, batch_size, threads, steps, feeds.name, results)


def device_name(device: str) -> str:
    """A device as the table names it: a processor with the cores in use, or a GPU."""
    if device == "cpu":
        return f"{machine.cpu_name()}, {settings.available_cores()} cores"
    if device.startswith("cuda"):
        from gpucnn.backends.cuda import driver

        index = int(device.partition(":")[2] or 0)
        return next((gpu.name for gpu in driver.devices() if gpu.index == index), device)
    return f"{device} on {machine.cpu_name()}"
