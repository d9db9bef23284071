"""Finished runs, as the commands that look at them choose and name them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gpucnn.cli.output import count

if TYPE_CHECKING:
    from gpucnn.training import LoadedRun


def newest_run() -> Path:
    """The run in runs/ that was written to last, those of ``--runs N`` among them. Raises ValueError where there is
    none."""
    from gpucnn.training.run_folder import CHECKPOINT, RUNS

    found = [file for pattern in ("*", "*/seed-*") for file in RUNS.glob(f"{pattern}/{CHECKPOINT}")]
    checkpoints = sorted(found, key=lambda file: file.stat().st_mtime)
    if not checkpoints:
        raise ValueError("there is no run in runs/ yet: train one with `gpucnn train`, or name one")
    return checkpoints[-1].parent


def chosen_checkpoint(run: Path, best: bool) -> Path:
    """The checkpoint of a run's folder, the best one where `best` is asked for; or the file itself.

    Raises FileNotFoundError that says what is missing, and ValueError for the best of a file.
    """
    from gpucnn.training.run import checkpoint_path
    from gpucnn.training.run_folder import BEST

    if not best:
        return checkpoint_path(run)
    if run.is_file():
        raise ValueError(f"{run}: --best is for a run's folder, and this is a file")
    if not run.exists():
        raise FileNotFoundError(f"{run}: no such run")
    if not (run / BEST).is_file():
        raise FileNotFoundError(
            f"{run}: it has no {BEST}: only a run that holds images out (`gpucnn train --val-split N`) keeps one"
        )
    return run / BEST


def picture_folder(checkpoint: Path, out: Path | None) -> Path:
    """The folder for pictures of a run, made if need be: `out`, or pictures/ beside the checkpoint. OSError where it
    cannot be made or written."""
    import os

    from gpucnn.training.run_folder import RunFolder

    folder = out if out is not None else RunFolder(checkpoint.parent).pictures
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(f"{folder}: the folder for the pictures is a file") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder}: pictures cannot be written here: --out names another folder")
    return folder


def told(loaded: LoadedRun) -> str:
    """Which network, and which of its weights."""
    kind = "the moving average of the weights" if loaded.averaged else "the weights"
    return f"{loaded.config.model} after {count(loaded.epoch, 'epoch')}, {kind}"
