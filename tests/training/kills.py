"""A run that is killed with SIGKILL again and again and must end with the bits of one that nothing disturbed.

`python -m tests.training.kills --kills 20 --seed 1 --config "long rich"` is the same from a shell, with a line a kill.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from gpucnn import load
from tests.training.interrupted_run import CONFIGS
from tests.training.training_support import contents, lines, table

HERE = Path(__file__).parent
WRITING = ("opened", "half", "written", "synced", "renamed")
CHECKPOINTS = ("checkpoint.safetensors", "best.safetensors")
BLINK = 0.02


class Kill(NamedTuple):
    """One kill: after which word it came, what was left half-written, at which step the run goes on."""

    word: str
    delay: float
    leftovers: int
    step: int | None


def start(action: str, folder: Path, config: str = "small", blink: float = BLINK) -> subprocess.Popen[str]:
    """A process of :mod:`tests.training.interrupted_run`."""
    paths = [str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OPENBLAS_NUM_THREADS": "1",
        "BLINK": str(blink),
    }
    return subprocess.Popen(
        [sys.executable, str(HERE / "interrupted_run.py"), action, str(folder), config],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], word: str, count: int = 1) -> bool:
    """Whether the process said ``word`` so many times more before it ended well."""
    assert process.stdout is not None
    while count:
        line = process.stdout.readline()
        if not line:
            _, errors = process.communicate()
            assert process.returncode == 0, errors
            return False
        count -= line.startswith(word)
    return True


def undisturbed(config: str, folder: Path) -> Path:
    """The run that every other one is held against."""
    finished("start", folder, config)
    return folder


def finished(action: str, folder: Path, config: str) -> None:
    """Lets a process run to its end, without pauses."""
    process = start(action, folder, config, blink=0.0)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors


def killed_again_and_again(
    whole: Path, folder: Path, config: str, kills: int, generator: random.Random, words: tuple[str, ...] = ()
) -> list[Kill]:
    """Kills a run ``kills`` times and lets it end.

    The moments are random: after the n-th step, batch of an evaluation, or piece of a file that it writes, and a
    random part of what follows; the first of them come after ``words``. After each kill every file under its own name
    must be whole. In the end checkpoint, best checkpoint and metrics must be those of ``whole``, and nothing else may
    be left in the folder.
    """
    done: list[Kill] = []
    while len(done) < kills:
        action = "resume" if (folder / CHECKPOINTS[0]).exists() else "start"
        process = start(action, folder, config)
        if len(done) < len(words):
            word, count = words[len(done)], generator.randint(2, 8)
        else:
            word = generator.choice(("step", "evaluating", *WRITING))
            count = generator.randint(1, 3 if word == "evaluating" else 5)
        going = wait_for(process, word, count)
        assert going, f"the run was over before {kills} kills: {done}"
        delay = generator.uniform(0.0, 1.5 * BLINK)
        time.sleep(delay)
        process.kill()
        process.communicate()
        leftovers = len(list(folder.glob(".*")))
        done.append(Kill(word, delay, leftovers, _all_whole(folder)))
    finished("resume", folder, config)
    same_as(whole, folder)
    return done


def _all_whole(folder: Path) -> int | None:
    """Sees that no file under its own name is half-written; the last checkpoint's step."""
    step = None
    for name in CHECKPOINTS:
        if (folder / name).exists():  # load checks every checksum
            state = load(folder / name, device="cpu")["trainer"]
            step = state["step"] if name == CHECKPOINTS[0] else step
    if (folder / "config.json").exists():
        json.loads((folder / "config.json").read_text())
    if (folder / "metrics.jsonl").exists():
        for line in (folder / "metrics.jsonl").read_text().splitlines(keepends=True):
            assert line.endswith("\n") and json.loads(line)
    if (folder / "metrics.csv").exists():
        with (folder / "metrics.csv").open(newline="") as file:
            rows = list(csv.reader(file))
        assert {len(row) for row in rows} <= {len(rows[0])}
    return step


def same_as(whole: Path, folder: Path) -> None:
    """Asserts that two runs' checkpoints and metrics are bit-identical, and that nothing else is in the folder."""
    names = {path.name for path in whole.iterdir()} - {"curves.png"}
    assert {path.name for path in folder.iterdir()} - {"curves.png"} == names
    for name in CHECKPOINTS:
        if name in names:
            assert contents(folder, name) == contents(whole, name)
    assert lines(folder) == lines(whole)
    assert table(folder) == table(whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--config", choices=CONFIGS, default="long")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    with tempfile.TemporaryDirectory() as scratch:
        whole = undisturbed(options.config, Path(scratch) / "whole")
        kills = killed_again_and_again(whole, Path(scratch) / "run", options.config, options.kills, random.Random(seed))
    for number, kill in enumerate(kills, start=1):
        left = f", {kill.leftovers} half-written left over" if kill.leftovers else ""
        print(f"{number:3d}. killed {1000 * kill.delay:4.1f} ms after {kill.word!r}{left}; goes on at step {kill.step}")
    print(f"seed {seed}, {options.config!r}: after {len(kills)} kills bit-identical, every file whole")


if __name__ == "__main__":
    main()
