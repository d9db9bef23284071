"""One recipe with several seeds: mean, deviation and time of the runs, as airbench reports them."""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpucnn
from gpucnn import backends
from gpucnn.machine import describe
from gpucnn.serialization import atomic_write
from gpucnn.training.callbacks import Progress, Silent
from gpucnn.training.config import Config
from gpucnn.training.run import Summary, train
from gpucnn.training.run_folder import RunFolder, check_output, default_path

RESULTS = "runs.json"
TIMER = (
    "first weights from data, all training steps with their batches, and the last evaluation; not the loading of the"
    " data, the making of the network, evaluations in between, checkpoints and pictures"
)
WARM_UP = "; on cuda a short run before the first takes the kernels' first launches"


@dataclass(frozen=True)
class Repeated:
    """What N runs came to: a :class:`Summary` for each, and the folder with ``runs.json`` and a folder a run."""

    folder: Path
    summaries: tuple[Summary, ...]

    @property
    def accuracies(self) -> list[float]:
        """The last test accuracy of each run, in [0, 1]: with views where the recipe has them, else of the moving
        average where there is one, else of the weights."""
        return [best_of(summary) for summary in self.summaries]

    @property
    def seconds(self) -> list[float]:
        """Seconds of each run; :data:`TIMER` says what they count."""
        return [summary.timed_seconds for summary in self.summaries]

    def to_dict(self) -> dict[str, Any]:
        """Everything, fit for JSON; deviations are those of a sample (n - 1), None of a single run."""
        first = self.summaries[0]
        return {
            "config": {**first.config.to_dict(), "seed": None},
            "machine": describe(),
            "data": first.data,
            "source": first.source,
            "count": len(self.summaries),
            "accuracy": _spread(self.accuracies),
            "seconds": _spread(self.seconds),
            "timer": self._timer(),
            "runs": [
                {"seed": summary.config.seed, "accuracy": accuracy, "seconds": seconds}
                for summary, accuracy, seconds in zip(self.summaries, self.accuracies, self.seconds, strict=True)
            ],
        }

    def told(self) -> str:
        """The result in a few lines."""
        first, accuracy, seconds = self.summaries[0], _spread(self.accuracies), _spread(self.seconds)
        views = f", {first.config.tta} views" if first.config.tta != "none" else ""
        spread = f" (standard deviation {accuracy['std']:.2%})" if accuracy["std"] is not None else ""
        over = f" (standard deviation {seconds['std']:.2f} s)" if seconds["std"] is not None else ""
        return "\n".join(
            [
                f"{first.config.recipe or first.config.model} on {first.data} ({first.source}), device {first.device}:"
                f" {_counted('run', [len(self.summaries)])} of {_counted('epoch', [s.epochs for s in self.summaries])},"
                f" seeds {first.config.seed} to {self.summaries[-1].config.seed}",
                f"test accuracy{views}: mean {accuracy['mean']:.2%}{spread}",
                f"time to that accuracy: mean {seconds['mean']:.2f} s a run{over}",
                f"in the timer: {self._timer()}",
                f"runs: {self.folder}",
            ]
        )

    def _timer(self) -> str:
        return TIMER + (WARM_UP if self.summaries[0].device.startswith("cuda") else "")


def best_of(summary: Summary) -> float:
    """A run's last test accuracy, in [0, 1]. Raises ValueError for a run without an epoch."""
    last = summary.last
    if last is None:
        raise ValueError("a run of no epochs has no accuracy")
    for accuracy in (last.tta_accuracy, last.average_accuracy, last.test_accuracy):
        if accuracy is not None:
            return accuracy
    raise ValueError("a run without a test part has no accuracy")


def _spread(values: list[float]) -> dict[str, float | None]:
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
    }


def _counted(thing: str, numbers: Sequence[int]) -> str:
    """1 epoch, 2 epochs, 2 to 5 epochs."""
    least, most = min(numbers), max(numbers)
    return f"{least if least == most else f'{least} to {most}'} {thing}{'s' if most != 1 else ''}"


def repeat(
    config: Config,
    runs: int,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Repeated:
    """Trains ``config`` ``runs`` times with the seeds ``config.seed``, ``config.seed`` + 1, ...; each run has a folder
    of its own in ``out``, and runs.json, written anew after each, has the figures of all so far.

    Raises:
        ValueError: fewer than one run, or none of an epoch.
        FileExistsError: runs in the folder already, and they are not to be overwritten.
        Besides, all that :func:`gpucnn.training.train` raises.
    """
    if runs < 1 or config.epochs < 1:
        raise ValueError(f"repeat: expected at least one run of at least one epoch, got {runs} of {config.epochs}")
    progress = progress if progress is not None else Silent()
    folder = Path(out) if out is not None else default_path(f"{config.recipe or config.model}-x{runs}", "runs")
    check_output(folder)
    configs = [dataclasses.replace(config, seed=config.seed + number) for number in range(runs)]
    places = [folder / f"seed-{one.seed}" for one in configs]
    if not overwrite:
        for place in (folder, *places):
            RunFolder(place).check_free()
        if (folder / RESULTS).exists():
            raise FileExistsError(
                f"{folder}: there are runs in this folder: --overwrite replaces those of the same seeds and {RESULTS}"
                " (from Python: overwrite=True), or name another folder"
            )
    _warm_up(config)
    summaries: list[Summary] = []
    for number, (one, place) in enumerate(zip(configs, places, strict=True)):
        progress.message(f"run {number + 1} of {runs}, seed {one.seed}")
        summaries.append(train(one, out=place, overwrite=overwrite, progress=progress))
        result = Repeated(folder, tuple(summaries))
        atomic_write(folder / RESULTS, (json.dumps(result.to_dict(), indent=2) + "\n").encode())
    return result


def _warm_up(config: Config) -> None:
    """On a GPU, two steps and an evaluation, so that no run pays for the first launch of a kernel."""
    device = backends.default_device() if config.device is None else gpucnn.device(config.device)
    if device.type != "cuda":
        return
    few = 2 * config.batch_size + config.val_split
    with tempfile.TemporaryDirectory() as folder:
        train(
            dataclasses.replace(config, epochs=1, train_images=few, test_images=config.batch_size, log_steps=1),
            out=Path(folder) / "warm-up",
        )
