"""Options that several commands share."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gpucnn.device import Device

DeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="cpu, cuda, cuda:1 or emulated; default: cuda where a GPU is usable, else cpu."),
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="A folder that holds the data set.")]
WeightsOption = Annotated[bool, typer.Option("--weights", help="The weights themselves, not their moving average.")]
BestOption = Annotated[bool, typer.Option("--best", help="The run's best checkpoint, not its last.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")]


def usable_device(name: str | None) -> Device:
    """The device that was asked for, or the default; ValueError with the reason where it cannot be used."""
    from gpucnn import backends, device

    chosen = device(name) if name is not None else backends.default_device()
    try:
        backends.get(chosen)
    except RuntimeError as error:
        raise ValueError(f"--device {name}: {error}" if name is not None else str(error)) from error
    return chosen


def check_writable(file: Path) -> None:
    """Whether `file` can be written at the end of a long run, before it starts; OSError naming the path where not."""
    folder = file.parent
    for wrong, number in (
        (file.is_dir(), errno.EISDIR),
        (not folder.exists(), errno.ENOENT),
        (folder.exists() and not folder.is_dir(), errno.ENOTDIR),
        (not os.access(file if file.exists() else folder, os.W_OK), errno.EACCES),
    ):
        if wrong:
            raise OSError(number, os.strerror(number), str(file))
