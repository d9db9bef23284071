"""`gpucnn summary` prints a network's layers; published figures are the sums."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from gpucnn.cli import summary
from gpucnn.cli.tables import as_text
from tests.cli.conftest import Done

Command = Callable[..., Done]


@pytest.mark.parametrize(
    ("model", "parameters", "mflop"),
    [
        ("lecture", "1,068,298", "36.94"),  # the tutorial's layers: 5.5 + 29.5 + 1.8 + ...
        ("lenet5", "61,706", "0.83"),  # LeCun et al.'s widths
        ("resnet20", "269,722", "81.10"),  # He et al.: 0.27 M; 41 million multiply-adds
        ("airbench94", "1,972,792", "236.29"),
        ("resnet9", "6,573,120", "758.52"),
    ],
)
def test_the_totals_are_the_published_ones(gpucnn: Command, model: str, parameters: str, mflop: str) -> None:
    told = gpucnn("summary", model)
    assert (told.code, told.err) == (0, "")
    whole = next(line for line in told.out.splitlines() if line.startswith("total"))
    assert whole.split()[2:4] == [parameters, mflop]
    assert f"parameters: {parameters}, " in told.out


def test_a_layers_row_has_shape_parameters_flops_and_memory(gpucnn: Command) -> None:
    """conv1 of the lecture network: 64 (75 + 1) parameters, 2 * 75 * 64 * 24 * 24 FLOPs, no gradient of its input."""
    told = gpucnn("summary", "lecture_cnn", "--batch-size", 2)
    assert told.out.splitlines()[0] == "lecture_cnn: images 3x24x24, 10 classes"
    row = next(line for line in told.out.splitlines() if line.startswith("conv1")).split()
    assert row == ["conv1", "Conv2d", "+", "relu", "64x24x24", "4,864", "5.53", "11.06", "288.0", "KiB"]
    assert "FLOPs an example: 36,941,568 forward, 105,295,104 in training" in told.out
    assert "memory at batch size 2: weights 4.1 MiB, gradients 4.1 MiB, outputs of all layers" in told.out


def test_shape_and_classes_can_be_others(gpucnn: Command) -> None:
    told = gpucnn("summary", "resnet20", "--input-shape", "3x64x48", "--classes", 100)
    assert told.out.splitlines()[0] == "resnet20: images 3x64x48, 100 classes"
    assert "16x64x48" in told.out
    assert f"parameters: {269_722 + 65 * 90:,}, all trained" in told.out


@pytest.mark.parametrize("text", ["", "3", "3,32", "3,32,0", "3,-32,32", "3,32,32,1", "a,b,c", "3;32;32"])
def test_a_shape_is_three_positive_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="--input-shape must be C,H,W"):
        summary.parsed_shape(text)
    assert summary.parsed_shape("3, 32, 48") == summary.parsed_shape("3x32x48") == (3, 32, 48)


def test_sizes_are_for_people() -> None:
    assert [summary.size(n) for n in (0, 1023, 1024, 1 << 20, 3 << 29)] == [
        "0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.5 GiB",
    ]  # fmt: skip


def test_a_plain_table_has_aligned_columns() -> None:
    text = as_text(("name", "n"), [("a", "1"), ("long one", "1,000")], right=(1,), last=("all", "1,001"))
    assert text.splitlines() == [
        "name          n",
        "--------  -----",
        "a             1",
        "long one  1,000",
        "--------  -----",
        "all       1,001",
    ]


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX's")
def test_on_a_terminal_the_table_is_drawn_and_names_are_whole() -> None:
    import pty

    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "72", "GPUCNN_DEVICE": "cpu"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "gpucnn", "summary", "lenet5"]
    with subprocess.Popen(command, stdout=slave, env=environment) as process:
        os.close(slave)
        shown = b""
        while part := _read(master):
            shown += part
    os.close(master)
    assert process.returncode == 0
    assert "\u2500\u2500\u2500".encode() in shown  # a line of the box
    assert b"61,706" in shown
    assert b"max_pool" in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other end is closed
        return b""
