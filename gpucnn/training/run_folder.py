"""A run's folder: config.json, metrics.jsonl, curves.png, checkpoint.safetensors."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from gpucnn.serialization import atomic_write

CHECKPOINT = "checkpoint.safetensors"
RUNS = Path("runs")


class RunFolder:
    """The files of one run, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.csv = path / "metrics.csv"
        self.tensorboard = path / "tensorboard"
        self.curves = path / "curves.png"
        self.checkpoint = path / CHECKPOINT

    def create(self, overwrite: bool = False) -> None:
        """Makes the folder, and sees that it can be written.

        Raises:
            FileExistsError: there is a run in it, and it is not to be overwritten.
            OSError: it cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(f"{self.path}: the output folder is a file") from None
        except OSError as error:
            raise _unwritable(self.path, error) from None
        if self.checkpoint.exists() or self.metrics.exists():
            if not overwrite:
                raise FileExistsError(
                    f"{self.path}: there is a run in this folder: resume it, overwrite it, or name another"
                )
            for file in (self.config, self.metrics, self.csv, self.curves, self.checkpoint):
                file.unlink(missing_ok=True)
        self.remove_leftovers()
        self.check_writable()

    def check_writable(self) -> None:
        """Writes and removes a file. Raises OSError that names the folder and the reason."""
        probe = self.path / f".probe-{os.getpid()}"
        try:
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def remove_leftovers(self) -> None:
        """Removes what a process that was killed while it wrote has left; a file's own name is never half-written."""
        for left in self.path.glob(".*.tmp"):
            if left.name.startswith((f".{self.checkpoint.name}.", f".{self.curves.name}.", f".{self.config.name}.")):
                with contextlib.suppress(OSError):
                    left.unlink()

    def write_config(self, values: dict[str, Any]) -> None:
        """config.json."""
        atomic_write(self.config, (json.dumps(values, indent=2) + "\n").encode())

    def append(self, record: dict[str, Any]) -> None:
        """A line of metrics.jsonl, in one write."""
        line = json.dumps(record, allow_nan=False) + "\n"
        with self.metrics.open("ab") as file:
            file.write(line.encode())

    def metrics_size(self) -> int:
        """Bytes of metrics.jsonl, synced to disk: what a checkpoint that is written now knows of it."""
        if not self.metrics.exists():
            return 0
        with self.metrics.open("ab") as file:
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)

    def truncate_metrics(self, size: int) -> None:
        """Takes back the lines that were written after a checkpoint."""
        if self.metrics.exists() and self.metrics.stat().st_size > size:
            with self.metrics.open("r+b") as file:
                file.truncate(size)


def _unwritable(path: Path, error: OSError) -> OSError:
    return type(error)(f"{path}: the output folder cannot be written ({error.strerror or error})")


def default_path(model: str, data: str) -> Path:
    """runs/<model>-<data>-<time>, a name that is free."""
    path = RUNS / f"{model}-{data}-{time.strftime('%Y%m%d-%H%M%S')}"
    number = 2
    while path.exists():
        path = path.with_name(f"{path.name.split('+')[0]}+{number}")
        number += 1
    return path


def check_output(path: Path) -> None:
    """That a folder could be made at ``path``, as far as can be said without making it: a run that cannot be kept
    should say so before its data is loaded. Raises OSError that names the folder."""
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise NotADirectoryError(f"{path}: the output folder cannot be made: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"{path}: the output folder cannot be written (no permission to write in {existing})")
