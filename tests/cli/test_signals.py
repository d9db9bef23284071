"""Ctrl-C and SIGTERM, sent to real processes: a checkpoint, the exit code for the shell, and a run that goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gpucnn

if os.name != "posix":
    pytest.skip("signals are POSIX's", allow_module_level=True)

TRAIN = [sys.executable, "-m", "gpucnn", "train"]
STEPS = 200  # in an epoch
LONG = ["--model", "lenet5", "--data", "shapes", "--batch-size", "16", "--train-images", str(16 * STEPS)]
LONG += ["--test-images", "32", "--epochs", "500"]
PATIENCE = 120.0


def environment() -> dict[str, str]:
    return {**os.environ, "GPUCNN_DEVICE": "cpu"}


def start(folder: Path) -> subprocess.Popen[str]:
    """A run that has done fifty steps and has thousands to go."""
    process = subprocess.Popen(
        [*TRAIN, *LONG, "--out", str(folder)],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE
    while not (folder / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run has not begun"
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_a_checkpoint_and_the_run_goes_on(tmp_path: Path, signum: signal.Signals, code: int) -> None:
    folder = tmp_path / "run"
    process = start(folder)
    process.send_signal(signum)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, (out, err)
    assert "Traceback" not in err
    assert err.count("\n") == 1
    assert f"--resume {folder}" in err  # also under --quiet
    step = gpucnn.load(folder / "checkpoint.safetensors", device="cpu")["trainer"]["step"]
    assert step >= 50
    epoch = step // STEPS
    resumed = subprocess.run(
        [*TRAIN, "--resume", str(folder), "--epochs", str(epoch + 1)],
        env=environment(), capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    assert f"{(epoch + 1) * STEPS} steps" in resumed.stdout


def test_sigterm_outside_of_training_ends_with_143(tmp_path: Path) -> None:
    code = "import os, signal, sys; from gpucnn.cli.errors import guarded; import typer\n"
    code += "@guarded\ndef wait(): os.kill(os.getpid(), signal.SIGTERM)\n"
    code += "try: wait()\nexcept typer.Exit as done: sys.exit(done.exit_code)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (143, "gpucnn: stopped\n")


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    """`gpucnn doctor | head -1`"""
    process = subprocess.Popen(
        [sys.executable, "-m", "gpucnn", "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(PATIENCE) == 1
    assert err == ""
