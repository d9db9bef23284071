"""The steps of the report. Each is a function of a :class:`Place` that returns what its JSON file holds.

A step works through other programs (pytest, compute-sanitizer, our own benchmarks), each in a process of its own, so
that a crash or a hang of one leaves the others' results alone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TAIL = 4000  # characters of a program's output that are kept
PRECISIONS = ("float32", "tf32", "float16", "bfloat16")
RECIPE_RUNS = 10
MAKING_SECONDS = 100  # of a training comparison: who is not compiled by then is left out
MOST_WORKERS = 6  # processes that share the GPU in the tests
TEST_SECONDS = 120  # of one test, the first launches' compiling included


@dataclass(frozen=True)
class Place:
    """Where a step writes its logs, and the most seconds that each program of it may take."""

    folder: Path
    seconds: float


@dataclass(frozen=True)
class Finished:
    """A program that ended: its exit status (None where time ran out), all that it printed, its seconds."""

    status: int | None
    output: str
    seconds: float

    def summary(self) -> dict[str, Any]:
        """For the JSON: the end of the output stands for all of it."""
        return {"status": self.status, "seconds": round(self.seconds, 1), "output": self.output[-TAIL:]}


def run(command: Sequence[str], place: Place, log: str) -> Finished:
    """Run a program from the repository's root; its output also goes to ``log`` in the step's folder, as it comes.

    Where time runs out it is killed with all that it has started: compute-sanitizer's program would hold the GPU.
    """
    path = place.folder / log
    path.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with (
        path.open("wb") as file,
        subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as program,
    ):  # fmt: skip
        status: int | None = None
        try:
            status = program.wait(place.seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGKILL)
    return Finished(status, path.read_text(errors="replace"), time.perf_counter() - started)


def python(*arguments: str) -> list[str]:
    """This Python with ``arguments``."""
    return [sys.executable, *arguments]


# ---- machine ----


def machine(place: Place) -> dict[str, Any]:
    """GPU, driver, versions and commit; what importing takes with a cold and with a warm kernel cache."""
    from gpucnn import machine as this

    with tempfile.TemporaryDirectory() as cache:
        program = f"import os; os.environ['GPUCNN_CACHE_DIR'] = {cache!r}; import time; t = time.perf_counter();"
        program += "import cupy; a = time.perf_counter(); import gpucnn; print(a - t, time.perf_counter() - a)"
        seconds = []
        for turn in ("cold", "warm"):
            done = run(python("-c", program), place, f"import-{turn}.log")
            numbers = [float(word) for word in done.output.split()[-2:]] if done.status == 0 else [None, None]
            seconds.append({"cache": turn, "cupy": numbers[0], "gpucnn": numbers[1], **done.summary()})
    return {"ok": all(one["status"] == 0 for one in seconds), "machine": this.describe(), "import_seconds": seconds}


# ---- tests ----


def tests(place: Place) -> dict[str, Any]:
    """The tests marked ``gpu``, those of the launcher first: counts, and each failure in a line.

    Where pytest-xdist is installed the others run in several processes, and those that failed once more in one; after
    an illegal access a process begins anew, see fresh_process.py.
    """
    first = "tests/cuda_build/test_on_gpu.py"
    parts: list[dict[str, Any]] = []

    def part(name: str, *arguments: str) -> Finished:
        command = python("-m", "pytest", "-v", "-m", "gpu and not full", "-p", "no:cacheprovider", "-W", "default")
        limit = [f"--timeout={TEST_SECONDS}", "--timeout-method=thread"] if _installed("pytest_timeout") else []
        done = run([*command, *limit, *arguments], place, f"pytest-{name}.log")
        parts.append({"part": name, **outcomes(done.output), **done.summary()})
        return done

    part("launcher", first)
    workers = min(MOST_WORKERS, os.cpu_count() or 1)
    fresh = ["-p", "benchmarks.gpu_report.fresh_process", "--max-worker-restart=500"] if _installed("xdist") else []
    once = part("all", "tests", f"--ignore={first}", *fresh, *(["-n", str(workers)] if fresh else []))
    again = failed(once.output) if fresh and once.status == 1 else []
    if again:
        part("failed ones again, alone", *fresh, "-n", "1", *again)
    good = [one["status"] == 0 and bool(one["passed"]) for one in parts]
    return {"ok": good[0] and good[-1], "parts": parts}


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


WORDS = "PASSED|FAILED|ERROR|SKIPPED"
SEVERAL = r"^\[gw\d+\] \[ *\d+%\] "  # how a line of pytest -v begins where several processes test


def outcomes(output: str) -> dict[str, Any]:
    """Counts from the lines of ``pytest -v``, whole or cut off, and the lines of those that failed."""
    counts = dict.fromkeys(WORDS.split("|"), 0)
    for match in re.finditer(rf"^\S+::.*? ({WORDS})\b|{SEVERAL}({WORDS}) \S+::", output, re.MULTILINE):
        counts[match[1] or match[2]] += 1
    failures = re.findall(r"^(?:FAILED|ERROR) \S+::.*$", output, re.MULTILINE)
    return {**{word.lower(): count for word, count in counts.items()}, "failures": failures}


def failed(output: str) -> list[str]:
    """The tests that failed, from the lines of ``pytest -v -n``, each once."""
    found = re.findall(rf"{SEVERAL}(?:FAILED|ERROR) (\S+::[^\s\[]+(?:\[.*\])?)", output, re.MULTILINE)
    return list(dict.fromkeys(found))


# ---- compute-sanitizer ----


def sanitizer(tool: str) -> Callable[[Place], dict[str, Any]]:
    """A step that runs training steps of small networks in each precision, at the same time, under a tool of
    compute-sanitizer."""

    def step(place: Place) -> dict[str, Any]:
        program = shutil.which("compute-sanitizer") or shutil.which(CUDA_SANITIZER)
        if program is None:
            return {"ok": False, "why": "compute-sanitizer is not on the path"}

        def watched(precision: str) -> dict[str, Any]:
            command = [program, "--tool", tool, "--print-limit", "20", "--error-exitcode", "9"]
            command += python("-m", "benchmarks.gpu_report.workload", precision)
            done = run(command, place, f"{tool}-{precision}.log")
            count = findings(done.output)
            return {"precision": precision, "findings": count, "first": first_lines(done.output), **done.summary()}

        with ThreadPoolExecutor(len(PRECISIONS)) as several:
            parts = list(several.map(watched, PRECISIONS))
        return {"ok": all(part["status"] == 0 and part["findings"] == 0 for part in parts), "parts": parts}

    step.__doc__ = f"compute-sanitizer --tool {tool} over training steps of small networks in each precision."
    return step


CUDA_SANITIZER = "/usr/local/cuda/bin/compute-sanitizer"  # where the toolkit puts it


def first_lines(output: str) -> str:
    """The first of what compute-sanitizer says itself."""
    return "\n".join(line for line in output.splitlines() if line.startswith("========="))[:TAIL]


def findings(output: str) -> int | None:
    """How many errors compute-sanitizer counted (racecheck counts hazards); None where it did not come to a count."""
    numbers = re.findall(r"(?:ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard)", output)
    return sum(int(a or b) for a, b in numbers) if numbers else None


# ---- the same bits ----


def identical(place: Place) -> dict[str, Any]:
    """Training steps of small networks in each precision, twice launch by launch and once captured: the same bits?"""
    turns = ("one", "two", "captured")

    def told(precision: str) -> dict[str, Any]:
        logs = {turn: f"{precision}-{turn}.log" for turn in turns}
        options = {"captured": ["--graph"]}
        done = [
            run(python("-m", "benchmarks.gpu_report.workload", precision, *options.get(turn, [])), place, log)
            for turn, log in logs.items()
        ]
        lines = [[line for line in one.output.splitlines() if " weights " in line] for one in done]
        same = all(one.status == 0 for one in done) and bool(lines[0]) and lines[0] == lines[1] == lines[2]
        return {"precision": precision, "identical": same, "runs": [one.summary() for one in done]}

    with ThreadPoolExecutor(len(PRECISIONS)) as several:
        parts = list(several.map(told, PRECISIONS))
    return {"ok": all(part["identical"] for part in parts), "parts": parts}


# ---- our own benchmarks ----


def measured(*arguments: str) -> Callable[[Place], dict[str, Any]]:
    """A step that runs one of our programs with ``--json FILE`` behind its arguments, and keeps that file's content."""

    def step(place: Place) -> dict[str, Any]:
        path = place.folder / "result.json"
        path.unlink(missing_ok=True)  # of an earlier run
        done = run(python("-m", *arguments, "--json", str(path)), place, "output.log")
        result = json.loads(path.read_text()) if path.is_file() else None
        ok = done.status == 0 and result is not None
        return {"ok": ok, "command": list(arguments), "result": result, **done.summary()}

    step.__doc__ = f"python -m {' '.join(arguments)}"
    return step


def recipe(place: Place) -> dict[str, Any]:
    """airbench94's recipe in float16, several runs: mean accuracy with its deviation, seconds a run; left out where
    CIFAR-10 cannot be had."""
    from gpucnn.data import DataError, find

    try:
        find("cifar10", None, say=lambda line: None)
    except DataError as error:
        return {"ok": True, "left_out": f"CIFAR-10 cannot be had: {error}"}
    out = place.folder / "runs"
    command = python("-m", "gpucnn", "train", "--recipe", "airbench94", "--precision", "float16", "--device", "cuda")
    found = out / "runs.json"  # written anew after each run
    found.unlink(missing_ok=True)  # of an earlier report
    done = run([*command, "--runs", str(RECIPE_RUNS), "--out", str(out), "--overwrite"], place, "train.log")
    result = json.loads(found.read_text()) if found.is_file() else None
    return {"ok": done.status == 0, "result": result, **done.summary()}


STEPS: dict[str, Callable[[Place], dict[str, Any]]] = {
    "machine": machine,
    "tests": tests,
    "memcheck": sanitizer("memcheck"),
    "racecheck": sanitizer("racecheck"),
    "initcheck": sanitizer("initcheck"),
    "identical": identical,
    **{f"operators-{p}": measured("gpucnn.bench.operators", "--precision", p) for p in ("float16", "float32")},
    **{
        f"training-{network}-{batch}-{p}": measured(
            *("gpucnn.bench.training", network, "--batch-size", str(batch), "--precision", p, "--steps", str(steps)),
            *("--repeats", "5", "--making-seconds", str(MAKING_SECONDS)),
        )
        for network, batch, p, steps in (  # steps of a repeat: some tenths of a second
            ("lecture", 128, "float32", 300),
            ("lecture", 1024, "float32", 200),
            ("lecture", 128, "float16", 300),
            ("lecture", 1024, "float16", 200),
            ("resnet9", 512, "float16", 60),
            ("airbench94", 2000, "float16", 50),
        )
    },
    **{
        f"profile-{network}-{p}": measured(
            "gpucnn", "profile", network, "--batch-size", str(batch), "--precision", p, "--device", "cuda"
        )
        for network, batch, p in (
            ("lecture", 1024, "float32"),
            ("lecture", 128, "float16"),
            ("resnet9", 512, "float16"),
            ("airbench94", 2000, "float16"),
        )
    },
    "recipe": recipe,
}
