"""The measurement: contestants in turn, repeat by repeat, each fed by the same pipeline inside the same timer."""

from __future__ import annotations

import datetime
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn import machine, settings
from gpucnn.bench.contestants import Contestant, contestants, synthetic_batches
from gpucnn.bench.record import Record
from gpucnn.bench.sections import Steps, StepsResult

NETWORK = "lecture"
WARM_UP_STEPS = 3

Batches = Callable[[int], Iterator[tuple[Any, Any]]]  # how many -> batches, made while the timer runs


@dataclass(frozen=True)
class Options:
    """What to measure.

    Args:
        batch_size: examples a step; the lecture's is 128.
        steps: training steps in a repeat.
        repeats: how often each contestant is timed; they take turns.
        device: "cpu", "cuda", "cuda:1" or "emulated"; None measures the CPU and the GPU, where there is one.
        synthetic: leave the input pipeline out: train on a few random batches, ready before the timer starts.
        data_dir: a folder with CIFAR-10, as for training.
        peers: whether PyTorch is measured too, where it is installed.
        memory: whether each is also run in a process of its own, for its peak memory.

    Raises:
        ValueError: a size that is not positive.
    """

    batch_size: int = 128
    steps: int = 20
    repeats: int = 5
    device: str | None = None
    synthetic: bool = False
    data_dir: str | Path | None = None
    peers: bool = True
    memory: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"bench: {name} must be at least 1, got {getattr(self, name)}")


def measure(options: Options, say: Callable[[str], None] = lambda line: None) -> Record:
    """Measure everybody; `say` is told what is going on, a line each.

    Raises ValueError or DataError where data was asked for that cannot be had, and RuntimeError for a device without
    use.
    """
    from gpucnn import device

    place = str(device(options.device)) if options.device else None
    measured = contestants(place, options.peers)
    input_name, feeds = _feeds(options, measured, say)
    trainers = []
    for contestant in measured:
        trainer = contestant.trainer()
        _timed(trainer, feeds[contestant.feed], WARM_UP_STEPS)
        trainers.append(trainer)
    speeds: list[list[float]] = [[] for _ in measured]
    for repeat in range(options.repeats):
        for contestant, trainer, mine in zip(measured, trainers, speeds, strict=True):
            seconds = _timed(trainer, feeds[contestant.feed], options.steps)
            mine.append(options.steps * options.batch_size / seconds)
            say(
                f"{repeat + 1}/{options.repeats} {contestant.framework} {contestant.layout} on {contestant.device}:"
                f" {mine[-1]:,.0f} examples/sec"
            )
    results = tuple(
        StepsResult(
            framework=contestant.framework,
            version=contestant.version,
            device=contestant.device,
            device_name=device_name(contestant.device),
            layout=contestant.layout,
            examples_per_second=tuple(round(speed, 2) for speed in mine),
            peak_memory_bytes=_peak_memory(contestant, options, say) if options.memory else None,
        )
        for contestant, mine in zip(measured, speeds, strict=True)
    )
    threads = settings.threads() or settings.available_cores()
    steps = Steps(NETWORK, options.batch_size, threads, options.steps, input_name, results)
    return Record(datetime.date.today().isoformat(), machine.describe(), (steps,))


def device_name(device: str) -> str:
    """A device as the table names it: a processor with the cores in use, or a GPU."""
    if device == "cpu":
        return f"{machine.cpu_name()}, {settings.available_cores()} cores"
    if device.startswith("cuda"):
        from gpucnn.backends.cuda import driver

        index = int(device.partition(":")[2] or 0)
        return next((gpu.name for gpu in driver.devices() if gpu.index == index), device)
    return f"{device} on {machine.cpu_name()}"


def _feeds(options: Options, measured: list[Contestant], say: Callable[[str], None]) -> tuple[str, dict[str, Batches]]:
    """The input's name, and for each device that batches are handed over on a source of them."""
    places = {contestant.feed for contestant in measured}
    if options.synthetic:
        return "synthetic", {place: _ready(place, options.batch_size) for place in places}
    from gpucnn.data import find

    name = "cifar10" if options.data_dir is not None else None
    train, _ = find(name, options.data_dir, say=say)
    return train.name, {place: _pipeline(train, place, options.batch_size) for place in places}


def _pipeline(dataset: Any, device: str, batch_size: int) -> Batches:
    from gpucnn.data import DataLoader, transforms

    loader = DataLoader(
        dataset, batch_size, shuffle=True, transform=transforms.LectureTrain(), drop_last=True, seed=0, device=device
    )

    def batches(count: int) -> Iterator[tuple[Any, Any]]:
        left = count
        while left:
            epoch = iter(loader)
            for batch in itertools.islice(epoch, left):
                left -= 1
                yield batch
            epoch.close()  # its thread stops while another contestant is timed

    return batches


def _ready(device: str, batch_size: int) -> Batches:
    from gpucnn import tensor

    ready = [
        (tensor(images, device=device), tensor(labels, device=device))
        for images, labels in synthetic_batches(batch_size)
    ]
    return lambda count: itertools.islice(itertools.cycle(ready), count)


def _timed(trainer: Any, batches: Batches, steps: int) -> float:
    """Seconds of so many training steps, the making of their batches included; the device has finished at both ends."""
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


def _peak_memory(contestant: Contestant, options: Options, say: Callable[[str], None]) -> int | None:
    from gpucnn.bench.memory import peak_memory

    peak = peak_memory(contestant, options.batch_size)
    say(f"peak memory of {contestant.framework} {contestant.layout} on {contestant.device}: {peak / 2**20:,.0f} MiB")
    return peak
