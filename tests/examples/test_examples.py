"""The scripts under examples/ run as they stand, and show what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(script: str, *arguments: str, device: str = "cpu") -> str:
    environment = os.environ | {"GPUCNN_DEVICE": device, "GPUCNN_EMULATOR": "fast", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / script), *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_loop_by_hand_learns_the_generated_shapes() -> None:
    """Also the test that Shapes, the data set of machines without data, can be learned and not only by heart."""
    accuracy = re.search(r"accuracy on 1000 test images: ([\d.]+)% on cpu", run("train_by_hand.py"))
    assert accuracy is not None and float(accuracy[1]) > 80


@pytest.mark.parametrize("device", ["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_loop_by_hand_runs_on_the_kernels(device: str) -> None:
    assert re.search(r"step 2: loss [\d.]+\n.*on " + device, run("train_by_hand.py", "2", device=device))
