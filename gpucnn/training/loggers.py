"""Loggers: callbacks that write a run's figures as JSON lines, as CSV, or for TensorBoard.

All write the same: a row for every ``log_steps`` steps (kind "steps": their means) and one for every epoch (kind
"epoch"), each with ``rss_mib``, the memory of the process.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpucnn.training.callbacks import Callback
from gpucnn.training.errors import TrainingError
from gpucnn.training.loop import EpochRecord, Trainer
from gpucnn.training.memory import rss_mib
from gpucnn.training.metrics import StepsRecord


class Logger(Callback):
    """Makes rows of what happens; what is done with them is the subclass's :meth:`write`."""

    def on_steps(self, trainer: Trainer, record: StepsRecord) -> None:
        self.write({"kind": "steps", **record.to_dict(), "rss_mib": rss_mib()})

    def on_epoch_end(self, trainer: Trainer, record: EpochRecord) -> None:
        self.write({"kind": "epoch", **record.to_dict(), "rss_mib": rss_mib()})

    def write(self, row: dict[str, Any]) -> None:
        """A row, every value fit for JSON."""
        raise NotImplementedError


class FileLogger(Logger):
    """Appends to a file. Its length is part of the checkpoint, so that a run that is resumed takes back what was
    written after it; a run from the start empties the file.

    A row that cannot be written whole is taken back, and ends the run with a TrainingError.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._length: int | None = None  # of a checkpoint that was loaded
        self._begun = False

    @property
    def name(self) -> str:
        return f"{type(self).__name__} {self.path.name}"

    def on_start(self, trainer: Trainer) -> None:
        if self._length is None and trainer.step == 0 and not self._begun:
            self._length = 0
        if self._length is not None and self._size() > self._length:
            os.truncate(self.path, self._length)
        self._length, self._begun = None, True

    def append(self, text: str, step: int) -> None:
        """Appends a row.

        Raises:
            TrainingError: the file cannot be written; names it, the step and the reason. It is as it was.
        """
        try:
            with open(self.path, "ab", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                rest = memoryview(text.encode())
                try:
                    while rest:
                        rest = rest[file.write(rest) :]
                except OSError:
                    with contextlib.suppress(OSError):
                        file.truncate(end)
                    raise
        except OSError as error:
            reason = error.strerror or str(error)
            raise TrainingError(f"{self.path} cannot be written after step {step}: {reason}", step) from error

    def state_dict(self) -> dict[str, Any]:
        if not self.path.exists():
            return {"bytes": 0}
        with open(self.path, "ab") as file:
            os.fsync(file.fileno())
            return {"bytes": file.seek(0, os.SEEK_END)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        length = state["bytes"]
        if isinstance(length, bool) or not isinstance(length, int) or length < 0:
            raise ValueError(f"the length of {self.path.name} cannot be {length!r}")
        self._length = length

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0


class JSONLines(FileLogger):
    """A JSON object on a line for each row, such as metrics.jsonl."""

    def write(self, row: dict[str, Any]) -> None:
        self.append(json.dumps(row, allow_nan=False) + "\n", row["step"])


class CSVLog(FileLogger):
    """A table with a header (RFC 4180, but lines end in LF alone): the rows of epochs, and with ``steps`` those of
    steps besides, whose loss and accuracy stand in the columns train_loss and train_accuracy, and whose epoch is a
    fraction. A value that there is not is left empty.
    """

    COLUMNS = ("kind", *(field.name for field in dataclasses.fields(EpochRecord)), "rss_mib")

    def __init__(self, path: str | os.PathLike[str], steps: bool = False) -> None:
        super().__init__(path)
        self.steps = steps

    def on_steps(self, trainer: Trainer, record: StepsRecord) -> None:
        if self.steps:
            super().on_steps(trainer, record)

    def write(self, row: dict[str, Any]) -> None:
        if row["kind"] == "steps":
            row = {**row, "train_loss": row["loss"], "train_accuracy": row["accuracy"]}
        columns = self._header()
        text = io.StringIO()
        table = csv.DictWriter(text, columns or self.COLUMNS, extrasaction="ignore", lineterminator="\n")
        if columns is None:
            table.writeheader()
        table.writerow(row)
        self.append(text.getvalue(), row["step"])

    def _header(self) -> list[str] | None:
        """The columns that the file has, which another version may have written; None for a file without any."""
        if not self._size():
            return None
        with open(self.path, newline="", encoding="utf-8") as file:
            return next(csv.reader(file), None)


class TensorBoard(Logger):
    """Event files that TensorBoard reads, written by tensorboardX (the extra ``gpucnn[tensorboard]``) into ``folder``.

    The horizontal axis counts steps. A run that is resumed writes a further file, which tells TensorBoard to forget
    what came after its first step.

    Raises:
        ImportError: tensorboardX is not installed; says how it is.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            import tensorboardX  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"logs for TensorBoard need tensorboardX, which cannot be imported ({error}):"
                " pip install 'gpucnn[tensorboard]'"
            ) from None
        self.folder = Path(folder)
        self._writer: Any = None

    def on_start(self, trainer: Trainer) -> None:
        from tensorboardX import SummaryWriter

        self.on_end(trainer)
        self._writer = SummaryWriter(
            str(self.folder),
            purge_step=trainer.step + 1 if trainer.step else None,
            filename_suffix=f".{os.getpid()}-{trainer.step}",  # its names are of a second, and it overwrites
        )

    def write(self, row: dict[str, Any]) -> None:
        for key, value in row.items():
            if key in ("kind", "step", "epoch") or value is None:
                continue
            self._writer.add_scalar(_tag(row["kind"], key), value, row["step"])

    def state_dict(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def on_end(self, trainer: Trainer) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _tag(kind: str, key: str) -> str:
    """``loss`` of steps is "steps/loss"; ``train_loss`` of an epoch is "loss/train", so that the losses share a
    chart's heading."""
    if kind == "steps":
        return f"steps/{key}"
    part, _, what = key.rpartition("_")
    return f"{what}/{part}" if what in ("loss", "accuracy") else f"epochs/{key}"
