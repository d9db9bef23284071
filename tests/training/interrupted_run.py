"""Run as a process by tests that kill and stop it: a small run, each of whose steps and writes takes a while and says
so. `start FOLDER CONFIG` or `resume FOLDER CONFIG`, CONFIG a name in CONFIGS; BLINK=seconds is how long a moment takes.

Said on standard output, a word a line: step, evaluating, and of each file that is written beside its place opened,
half, written, synced, renamed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpucnn import models, serialization, training
from gpucnn.models.airbench94 import Airbench94
from gpucnn.viz import curves
from tests.training.training_support import Recorder, small

CONFIGS: dict[str, Callable[[], training.Config]] = {
    "small": lambda: small(checkpoint_steps=2),
    "long": lambda: small(checkpoint_steps=2, epochs=14),
    "rich": lambda: rich(2),
    "long rich": lambda: rich(14),
}
BLINK = float(os.environ.get("BLINK", "0.02"))


def rich(epochs: int) -> training.Config:
    """airbench94's recipe with few channels: batch norm, whitening, Muon and SGD, a set that is frozen after some
    steps; besides, a moving average, images held out, parts of a batch, clipping, and an early stop that counts."""
    models.register("narrow")(lambda *args, **options: Airbench94(*args, widths=(8, 12, 12), **options))
    return training.config_for(
        "narrow",
        "airbench94",
        data="shapes",
        device="cpu",
        epochs=epochs,
        batch_size=16,
        train_images=120,  # six steps an epoch of what is not held out
        test_images=24,
        val_split=24,
        accumulate=2,
        clip_norm=50.0,
        average_decay=0.9,
        early_stop=50,
        log_steps=4,
        checkpoint_steps=2,
    )


def said(word: str) -> None:
    """The word is out before anything else happens."""
    print(word, flush=True)
    time.sleep(BLINK)


class Slow(Recorder):
    def step(self, *args) -> None:
        said("step")

    def evaluating(self, done: int, total: int) -> None:
        said("evaluating")

    def message(self, text: str) -> None:
        print(text, flush=True)


class SlowFile:
    """A file that is written in two halves."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> SlowFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, content: bytes) -> int:
        said("opened")
        middle = len(content) // 2
        self._file.write(content[:middle])
        self._file.flush()
        said("half")
        written = middle + self._file.write(content[middle:])
        self._file.flush()
        said("written")
        return written


class SlowSystem:
    """``os``, with moments after a file is synced and after it is renamed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)
        said("synced")

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)
        said("renamed")


def slow_open(path: Any, mode: str = "r", **options: Any) -> Any:
    file = open(path, mode, **options)  # noqa: SIM115 - the caller closes it
    return SlowFile(file) if mode == "xb" else file


def main() -> None:
    action, folder = sys.argv[1], Path(sys.argv[2])
    curves.draw = lambda *_, **__: True
    serialization.open = slow_open
    serialization.os = SlowSystem()
    try:
        config = CONFIGS[sys.argv[3]]()
        if action == "start":
            training.train(config, out=folder, progress=Slow())
        else:
            training.train(resume=folder, progress=Slow())
    except training.TrainingInterrupted as stopped:
        print(stopped, flush=True)
        sys.exit(128 + stopped.signum)


if __name__ == "__main__":
    main()
