"""Training steps of a recipe, ours and PyTorch's in turn, each with its data set on the device: examples/sec.

    python -m gpucnn.bench.training resnet9 --batch-size 512 --precision float16 --json FILE

Both sides do the whole step: choice and augmentation of a batch out of a resident data set of random images, forward,
loss, backward, optimizers, moving average; the learning rate stays. A repeat is timed from an idle device to an idle
device. Each is timed once as soon as it is ready (torch.compile may take a minute), which does not count, and then
they take turns; the record is written after each repeat, so that what is measured stays if the rest takes too long.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.bench import timing
from gpucnn.bench.contestants import torch_installed
from gpucnn.bench.sections import percentile
from gpucnn.bench.workload import RATE, Workload
from gpucnn.precision import PRECISIONS
from gpucnn.training import Callback

STEPS, REPEATS, WARM_UP_STEPS = 100, 7, 12
MAKING_SECONDS = 150.0  # after which nobody else is made: torch.compile may take minutes for each
IMAGES = 50_000
OURS = {"one CUDA graph": True, "eager": False}  # by mode: Trainer's ``graph``


class _Enough(Exception):
    """So many steps as were asked for are done."""


class _Count(Callback):
    """Ends a run after ``left`` steps, in the middle of an epoch."""

    def __init__(self) -> None:
        self.left = 0

    def on_step(self, trainer: Any) -> None:
        self.left -= 1
        if not self.left:
            raise _Enough


class OurTraining:
    """Training steps of a recipe in gpucnn, by the trainer that ``gpucnn train`` has. Arguments: see TorchTraining;
    ``graph`` is Trainer's, ``options`` are the network's."""

    def __init__(
        self, config: Any, images: Any, labels: Any, precision: str, device: str, graph: bool | None, rate: float = 1.0,
        **options: Any,
    ) -> None:  # fmt: skip
        import gpucnn
        from gpucnn import backends, models, training
        from gpucnn.data import Dataset, loader_for
        from gpucnn.training import build

        gpucnn.manual_seed(0)
        self._backend: Any = backends.get(gpucnn.device(device))
        self.model = model = models.create(config.model, device=device, **options)
        data = Dataset(images, labels, tuple(map(str, range(10))), name="random images")
        transform = _transform(config, model)
        loader = loader_for(data, config.batch_size, True, transform, drop_last=True, seed=0, device=device)
        optimizers = build.optimizers(config, model)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * rate
        self._count = _Count()
        self._trainer = training.Trainer(
            model, loader, None, optimizers, build.average(config, model), callbacks=[self._count],
            reduction=config.reduction, label_smoothing=config.label_smoothing, clip_norm=config.clip_norm,
            precision=precision, graph=graph,
        )  # fmt: skip

    def run(self, steps: int) -> None:
        """So many training steps."""
        self._count.left = steps
        try:
            self._trainer.run(sys.maxsize)
        except _Enough:
            return

    def synchronize(self) -> None:
        """Waits until the device has done all that it was given."""
        self._backend.synchronize()

    def last_loss(self) -> float:
        """The mean loss of the steps since the epoch began. Raises TrainingError for one that is not finite."""
        self._trainer.read()
        return self._trainer.epoch_metrics.loss


def _transform(config: Any, model: Any) -> Any:
    from gpucnn.training.inputs import transforms

    return transforms(model, config.default_data or "cifar10", config.augmentation)[0]


def contestants(
    network: str, batch_size: int | None, precision: str, device: str, count: int, peers: bool, backend: str | None
) -> dict[str, Callable[[], Any]]:
    """Everybody by name, each made when it is called. Raises ValueError for a network without a form in PyTorch."""
    from gpucnn import models, training

    name = models.canonical_name(network)
    config = training.config_for(name)
    config = replace(config, batch_size=batch_size or config.batch_size)
    if config.batch_size > count:
        raise ValueError(f"training: a batch of {config.batch_size} needs as many images, got {count}")
    model = models.create(name, device="cpu")
    c, h, w = model.input_shape
    sides = (32, 32) if name == "lecture_cnn" else (h, w)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, *sides, c), dtype=np.uint8)
    labels = generator.integers(0, 10, count)
    modes = {mode: graph for mode, graph in OURS.items() if device != "cpu" or mode == "eager"}
    made: dict[str, Callable[[], Any]] = {
        f"gpucnn {mode}": lambda graph=graph: OurTraining(config, images, labels, precision, device, graph, RATE)  # type: ignore[misc]
        for mode, graph in modes.items()
    }
    if peers:
        from gpucnn.bench.torch_networks import network_for
        from gpucnn.bench.torch_training import MODES, TorchTraining

        network_for(name)  # or an error
        workload = Workload.of(name)
        theirs = device if device.startswith("cuda") else "cpu"
        transform = _transform(config, model).transform  # without the adaption: images have the network's channels
        for mode, how in MODES.items():
            if not how.suits(precision):
                continue
            made[f"PyTorch {mode}"] = lambda how=how: TorchTraining(  # type: ignore[misc]
                workload, config.batch_size, images, labels, transform, precision, theirs, how, RATE, backend
            )
    return made


def measure(
    made: dict[str, Callable[[], Any]], batch_size: int, steps: int, repeats: int,
    keep: Callable[[dict[str, Any]], None] = lambda results: None, say: Callable[[str], None] = lambda line: None,
    making_seconds: float = MAKING_SECONDS,
) -> dict[str, Any]:  # fmt: skip
    """By name: examples/sec of each repeat, median, 20th and 80th percentile, last loss, "first" (examples/sec when
    it was ready), seconds of making; or "error". They take turns, a repeat each; ``keep`` gets the results after each
    round, and whenever one is ready. Who comes when ``making_seconds`` are gone is "left_out"."""
    results: dict[str, Any] = {}
    running: dict[str, Any] = {}
    speeds: dict[str, list[float]] = {}

    def timed(name: str) -> float | None:
        try:
            start = time.perf_counter()
            running[name].run(steps)
            running[name].synchronize()
            return steps * batch_size / (time.perf_counter() - start)
        except Exception as error:  # it is this one's result, and the others go on
            failed(name, error)
            return None

    def failed(name: str, error: Exception) -> None:
        running.pop(name, None)
        results[name] = {**results.get(name, {}), "error": f"{type(error).__name__}: {error}"}
        say(f"{name}: {results[name]['error']}")

    began = time.perf_counter()
    for name, make in made.items():
        start = time.perf_counter()
        if start - began > making_seconds:
            results[name] = {"left_out": f"making the others took {start - began:.0f} s"}
            say(f"{name}: left out, {results[name]['left_out']}")
            continue
        try:
            running[name] = make()
            running[name].run(WARM_UP_STEPS)
            running[name].synchronize()
        except Exception as error:
            failed(name, error)
            continue
        seconds = time.perf_counter() - start
        first = timed(name)
        if first is not None:
            speeds[name] = []
            results[name] = {"first": round(first, 1), "making_seconds": round(seconds, 1)}
            say(f"{name}: ready in {seconds:.1f} s, {first:,.0f} examples/sec at first")
        keep(results)
    for repeat in range(repeats):
        for name in list(running):
            speed = timed(name)
            if speed is not None:
                speeds[name].append(speed)
                say(f"{repeat + 1}/{repeats} {name}: {speed:,.0f} examples/sec")
        for name in running:
            mine = speeds[name]
            results[name] |= {
                "examples_per_second": [round(speed, 1) for speed in mine], "median": statistics.median(mine),
                "p20": percentile(tuple(mine), 20), "p80": percentile(tuple(mine), 80),
            }  # fmt: skip
        keep(results)
    for name in list(running):
        try:
            results[name]["loss"] = running[name].last_loss()
        except Exception as error:
            failed(name, error)
    keep(results)
    return results


def ratio(results: dict[str, Any]) -> float | None:
    """Our best median by PyTorch's best; None where one of them is missing."""
    best = {"gpucnn": 0.0, "PyTorch": 0.0}
    for name, result in results.items():
        side = name.split()[0]
        if "error" not in result and "median" in result:
            best[side] = max(best[side], result["median"])
    return best["gpucnn"] / best["PyTorch"] if all(best.values()) else None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 where somebody failed."""
    parser = argparse.ArgumentParser(prog="python -m gpucnn.bench.training", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("network", help="lecture, resnet9 or airbench94")
    parser.add_argument("--batch-size", type=int, help="default: the recipe's")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--steps", type=int, default=STEPS, help="of a repeat")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--images", type=int, default=IMAGES, help="of the data set")
    parser.add_argument("--only", default="", help="contestants whose names contain this")
    parser.add_argument("--making-seconds", type=float, default=MAKING_SECONDS, help="after which nobody else is made")
    parser.add_argument("--no-peers", action="store_true", help="leave PyTorch out")
    parser.add_argument("--compile-backend", help="of torch.compile, in the place of its own, to try the command out")
    parser.add_argument("--json", type=Path, help="the file to write, anew after each repeat")
    given = parser.parse_args(arguments)
    for name in ("steps", "repeats", "images"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(given, name)}")
    peers = not given.no_peers and torch_installed()
    try:
        made = contestants(
            given.network, given.batch_size, given.precision, given.device, given.images, peers, given.compile_backend
        )
    except ValueError as error:
        parser.error(str(error))
    made = {name: make for name, make in made.items() if given.only in name}
    if not made:
        parser.error(f"no contestant's name contains {given.only!r}")
    head = _head(given)

    def keep(results: dict[str, Any]) -> None:
        timing.keep(given.json, {**head, "ratio": ratio(results), "results": results})

    results = measure(
        made, head["batch_size"], given.steps, given.repeats, keep, lambda text: print(text, flush=True),
        given.making_seconds,
    )  # fmt: skip
    keep(results)
    found = ratio(results)
    print(f"gpucnn's best / PyTorch's best: {'not measured' if found is None else f'{found:.2f}'}")
    return 1 if any("error" in result for result in results.values()) else 0


def _head(given: argparse.Namespace) -> dict[str, Any]:
    from gpucnn import machine, models, training
    from gpucnn.bench.throughput import device_name

    name = models.canonical_name(given.network)
    versions: dict[str, str] = {}
    if torch_installed():
        import torch

        versions["PyTorch"] = str(torch.__version__)
    return {
        "network": name, "batch_size": given.batch_size or training.config_for(name).batch_size,
        "precision": given.precision, "steps": given.steps, "repeats": given.repeats, "images": given.images,
        "device": device_name(given.device), "date": datetime.date.today().isoformat(), "versions": versions,
        "machine": machine.describe(),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
