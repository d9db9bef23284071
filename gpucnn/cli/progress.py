"""How a training run shows itself: a bar on a terminal, lines elsewhere. Both are a `gpucnn.training.Progress`."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from gpucnn.cli.output import Output, duration, rate

LINE_SECONDS = 30.0  # where there is no bar, a sign of life this often within an epoch


class Lines:
    """Plain lines: one an epoch, and within a long epoch one every half minute."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._epoch = self._epochs = self._steps = 0
        self._spoke = time.monotonic()

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left to close."""

    def message(self, text: str) -> None:
        self._output.say(text)

    def start_epoch(self, epoch: int, epochs: int, steps: int, done: int) -> None:
        self._epoch, self._epochs, self._steps = epoch, epochs, steps
        self._spoke = time.monotonic()

    def step(
        self, done: int, examples_per_second: float, loss: float, accuracy: float, seconds_left: float | None
    ) -> None:
        if time.monotonic() - self._spoke < LINE_SECONDS:
            return
        self._spoke = time.monotonic()
        left = f", {duration(seconds_left)} left" if seconds_left is not None else ""
        self._output.say(
            f"epoch {self._epoch}/{self._epochs}, step {done}/{self._steps}: loss {loss:.4f}, accuracy {accuracy:.2%},"
            f" {rate(examples_per_second)}{left}"
        )

    def evaluating(self, done: int, total: int) -> None:
        """An evaluation is short: it has no line of its own."""

    def end_epoch(self, record: dict[str, Any]) -> None:
        self._output.say(epoch_line(record, self._epochs))


class Bar:
    """A bar for the epoch with examples/sec, loss, accuracy and time left; above it a line for each epoch before."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            transient=True,
        )
        self._task = self._bar.add_task("preparing", total=None, told="")
        self._epochs = 0
        self._name = ""

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def message(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def start_epoch(self, epoch: int, epochs: int, steps: int, done: int) -> None:
        self._epochs = epochs
        self._name = f"epoch {epoch}/{epochs}"
        self._bar.update(self._task, description=self._name, total=steps, completed=done, told="")

    def step(
        self, done: int, examples_per_second: float, loss: float, accuracy: float, seconds_left: float | None
    ) -> None:
        left = f"  {duration(seconds_left)} left" if seconds_left is not None else ""
        told = f"{rate(examples_per_second)}  loss {loss:.3f}  accuracy {accuracy:.1%}{left}"
        self._bar.update(self._task, completed=done, told=told)

    def evaluating(self, done: int, total: int) -> None:
        description = f"{self._name}, testing" if self._name else "testing"
        self._bar.update(self._task, description=description, total=total, completed=done, told="")

    def end_epoch(self, record: dict[str, Any]) -> None:
        self.message(epoch_line(record, self._epochs))


def display(output: Output) -> Lines | Bar:
    """What suits the place that is written to."""
    return Bar() if output.rich else Lines(output)


def epoch_line(record: dict[str, Any], epochs: int) -> str:
    """An epoch's line of metrics.jsonl for a person."""
    parts = [f"loss {record['train_loss']:.4f}", f"accuracy {record['train_accuracy']:.2%}"]
    if record["test_accuracy"] is not None:
        parts.append(f"test accuracy {record['test_accuracy']:.2%}")
    if record["average_accuracy"] is not None:
        parts.append(f"with averaged weights {record['average_accuracy']:.2%}")
    if record["tta_accuracy"] is not None:
        parts.append(f"with views {record['tta_accuracy']:.2%}")
    if record["val_accuracy"] is not None:
        parts.append(f"validation accuracy {record['val_accuracy']:.2%}")
    parts.append(rate(record["examples_per_second"]))
    return f"epoch {record['epoch']}/{epochs}: {', '.join(parts)}"
