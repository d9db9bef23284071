"""Runs the steps of the report and writes each one's JSON as it ends.

    python -m benchmarks.gpu_report                          every step, into benchmarks/results/gpu-report
    python -m benchmarks.gpu_report tests memcheck           these two
    python -m benchmarks.gpu_report --list                   what steps there are
    python -m benchmarks.gpu_report --missing                those that have no JSON yet
    python -m benchmarks.gpu_report --table DIR              a report's figures as Markdown, measuring nothing

A step that fails is recorded, and the next one begins. Exit status 0 where every step that ran was in order, 1 where
one was not, 2 for bad input or a machine without a GPU.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu_report import table
from benchmarks.gpu_report.steps import ROOT, STEPS, Place

FOLDER = ROOT / "benchmarks" / "results" / "gpu-report"
SECONDS = 540.0  # that one program may take: a hang ends, and the next step begins


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line above."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_report", description="Measure a machine's GPU.")
    parser.add_argument("steps", nargs="*", metavar="STEP", help="steps to run; default: all, in their order")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where each STEP.json goes")
    parser.add_argument("--logs", type=Path, help="where the programs' output goes; default: logs in the same folder")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="the most that one program of a step may take")
    parser.add_argument("--missing", action="store_true", help="leave out steps that have their JSON")
    parser.add_argument("--list", action="store_true", help="name the steps and what they do")
    parser.add_argument("--table", type=Path, metavar="DIR", help="print the report in DIR as Markdown")
    given = parser.parse_args(arguments)
    if given.table is not None:
        try:
            print(table.as_markdown(table.read(given.table)), end="")
        except ValueError as error:
            parser.error(str(error))
        return 0
    if given.list:
        for name, step in STEPS.items():
            print(f"{name:32} {(step.__doc__ or '').splitlines()[0]}")
        return 0
    unknown = [name for name in given.steps if name not in STEPS]
    if unknown:
        parser.error(f"unknown step {unknown[0]!r}; the steps are {', '.join(STEPS)}")
    if not given.seconds > 0:
        parser.error(f"--seconds must be positive, got {given.seconds}")
    from gpucnn.backends.cuda import driver

    reason = driver.unavailable_reason()
    if reason is not None:
        print(f"gpu-report: needs a GPU: {reason}", file=sys.stderr)
        return 2
    wanted = [name for name in STEPS if name in given.steps or not given.steps]
    if given.missing:
        wanted = [name for name in wanted if not (given.out / f"{name}.json").is_file()]
    return report(wanted, given.out, given.logs or given.out / "logs", given.seconds)


def report(wanted: Sequence[str], out: Path, logs: Path, seconds: float) -> int:
    """Run the steps ``wanted``; 1 where one was not in order."""
    from gpucnn import machine
    from gpucnn.serialization import atomic_write

    out, logs = out.absolute(), logs.absolute()
    status = 0
    for name in wanted:
        print(f"{name} ...", flush=True)
        started = time.perf_counter()
        try:
            found = STEPS[name](Place(logs / name, seconds))
        except Exception:  # whatever it is: it is this step's result, and the others go on
            found = {"ok": False, "why": traceback.format_exc()}
        took = time.perf_counter() - started
        head = {"step": name, "date": datetime.date.today().isoformat(), "seconds": round(took, 1)}
        record = {**head, "machine": machine.describe(), **found}
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / f"{name}.json", (json.dumps(record, indent=1) + "\n").encode())
        if "left_out" in found:
            print(f"{name}: left out: {found['left_out']}", flush=True)
        print(f"{name}: {'in order' if found['ok'] else 'NOT in order'} in {took:.1f} s", flush=True)
        status = status if found["ok"] else 1
    return status


if __name__ == "__main__":
    sys.exit(main())
