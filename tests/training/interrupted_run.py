"""Run as a process by test_interruption: a small run, each of whose steps takes a while. `start FOLDER` or `resume
FOLDER`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from gpucnn import training
from gpucnn.viz import curves
from tests.training.training_support import Recorder, small

STEP_SECONDS = 0.02


class Slow(Recorder):
    def step(self, *args) -> None:
        print("step", flush=True)
        time.sleep(STEP_SECONDS)

    def evaluating(self, done: int, total: int) -> None:
        print("evaluating", flush=True)
        time.sleep(STEP_SECONDS)

    def message(self, text: str) -> None:
        print(text, flush=True)


def main() -> None:
    action, folder = sys.argv[1], Path(sys.argv[2])
    curves.draw = lambda *_: True
    try:
        if action == "start":
            training.train(small(checkpoint_steps=2), out=folder, progress=Slow())
        else:
            training.train(resume=folder, progress=Slow())
    except training.TrainingInterrupted as stopped:
        print(stopped, flush=True)
        sys.exit(128 + stopped.signum)


if __name__ == "__main__":
    main()
