"""A run's folder: config.json, metrics.jsonl, metrics.csv, curves.png, checkpoint.safetensors, best.safetensors."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from pathlib import Path
from typing import Any

from gpucnn.serialization import atomic_write

CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"
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
        self.best = path / BEST
        self.pictures = path / "pictures"  # of eval and show

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
        if overwrite:
            self._remove_run()
        else:
            self.check_free()
        self.remove_leftovers()
        self.check_writable()

    def _files(self) -> tuple[Path, ...]:
        """All that a run writes, but for TensorBoard's folder."""
        return (self.config, self.metrics, self.csv, self.curves, self.checkpoint, self.best)

    def _remove_run(self) -> None:
        """Removes what a run, eval and show have written, and no other file."""
        for file in self._files():
            file.unlink(missing_ok=True)
        for folder, names in (
            (self.tensorboard, ("events.out.tfevents.*",)),
            (self.pictures, ("confusion.png", "accuracy.png", "mistakes.png", "filters.png", "maps-*.png")),
        ):
            for file in [file for name in names for file in folder.glob(name)]:
                file.unlink(missing_ok=True)

    def check_free(self) -> None:
        """Raises FileExistsError where there is a run in the folder, or a file of a name that a run writes."""
        if self.checkpoint.exists() or self.best.exists() or self.metrics.exists():
            raise FileExistsError(
                f"{self.path}: there is a run in this folder: --resume goes on with it, --overwrite replaces it"
                " (from Python: resume=, overwrite=True), or name another folder"
            )
        for file in (self.config, self.csv, self.curves):
            if file.exists() and not self._left_by_a_beginning(file):
                raise FileExistsError(
                    f"{self.path}: there is a {file.name} in this folder that no run of gpucnn has begun with:"
                    " --overwrite replaces it (from Python: overwrite=True), or name another folder"
                )

    def _left_by_a_beginning(self, file: Path) -> bool:
        """Whether ``file`` is a run's config.json, which is all that is left of one that stopped as it began."""
        try:
            return file == self.config and "gpucnn" in json.loads(file.read_bytes())
        except (OSError, ValueError, TypeError):
            return False

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
        ours = tuple(f".{file.name}." for file in self._files())
        for left in self.path.glob(".*.tmp"):
            if left.name.startswith(ours):
                with contextlib.suppress(OSError):
                    left.unlink()

    def write_config(self, values: dict[str, Any]) -> None:
        """config.json."""
        atomic_write(self.config, (json.dumps(values, indent=2) + "\n").encode())


def _unwritable(path: Path, error: OSError) -> OSError:
    return type(error)(f"{path}: the output folder cannot be written ({error.strerror or error})")


def default_path(model: str, data: str) -> Path:
    """runs/<model>-<data>-<time>, a name that is free."""
    name = re.sub(r"[^\w.]+", "-", f"{model}-{data}").strip("-")  # an image folder's name is its path
    path = RUNS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
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
