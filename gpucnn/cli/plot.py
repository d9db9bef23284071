"""`gpucnn plot`: the curves of several runs in one picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from gpucnn.cli.options import Quiet, check_writable
from gpucnn.cli.output import Output, count

METRICS = "metrics.jsonl"
NAMES = 3  # of runs that a picture's name names


def plot(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or their metrics.jsonl.", metavar="RUN...")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The picture, a PNG; default: curves-<names>.png in this folder.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Draw the loss and accuracy of runs over each other in one picture."""
    output = Output(quiet)
    files = dict(zip(run_names(runs), (metrics_file(run) for run in runs), strict=True))
    target = out if out is not None else Path(picture_name(list(files)))
    check_writable(target)

    from gpucnn.viz import curves

    found = {name: curves.read_metrics(file) for name, file in files.items()}
    for name, (steps, epochs) in list(found.items()):
        if not steps and not epochs:
            output.say(f"{name}: nothing to draw yet: {files[name]} has no lines")
            del found[name]
    if not found:
        raise ValueError("there is nothing to draw: no run has finished an epoch, or fifty steps, yet")
    curves.overlay(found, target)
    output.result(f"curves of {count(len(found), 'run')}: {target}")


def metrics_file(run: Path) -> Path:
    """The metrics of a run's folder, or the file itself. Raises ValueError or OSError that say what is there."""
    if run.is_file():
        if run.suffix != ".jsonl":
            raise ValueError(f"{run}: expected a run's folder or its {METRICS}")
        return run
    if not run.exists():
        raise FileNotFoundError(f"{run}: no such run")
    if (run / METRICS).is_file():
        return run / METRICS
    below = sorted(str(file.parent) for file in run.glob(f"*/{METRICS}"))
    if below:
        more = f" and {len(below) - NAMES} more" if len(below) > NAMES else ""
        raise ValueError(f"{run}: not a run, but a folder of runs: name {', '.join(below[:NAMES])}{more}")
    raise ValueError(f"{run}: not a run's folder: it has no {METRICS}")


def run_names(runs: Sequence[Path]) -> list[str]:
    """A name for each run: its folder's, with as many of the folders above it as tell it from the others."""
    folders = [(run.parent if run.suffix == ".jsonl" else run).resolve() for run in runs]
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    twice = next(run for run, folder in zip(runs, folders, strict=True) if folders.count(folder) > 1)
    raise ValueError(f"{twice}: this run is named twice")


def picture_name(names: Sequence[str]) -> str:
    """curves-<names>.png, of letters that any file system takes, and not too many of them."""
    shown = "-".join(names[:NAMES]) + (f"-and-{len(names) - NAMES}-more" if len(names) > NAMES else "")
    plain = re.sub(r"[^\w.+-]+", "-", shown)
    return f"curves-{plain[:120].strip('-.')}.png"
