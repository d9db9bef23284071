"""The report's figures as Markdown, from made-up records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_report import __main__ as command
from benchmarks.gpu_report import table

MACHINE = {"gpus": [{"name": "NVIDIA H200"}], "versions": {"torch": "2.11", "gpucnn": "1.0"}, "commit": "abc"}
ROWS = [
    {"shape": "a", "direction": "fprop", "ratio": 1.5, "results": {"gpucnn": {"median": 1.0, "roofline_share": 0.625}}},
    {"shape": "a", "direction": "wgrad", "error": "RuntimeError: no"},
    {"shape": "b", "direction": "fprop", "ratio": 0.5, "agrees": False, "results": {"gpucnn": {"median": 1.0}}},
]
RESULTS = {
    "gpucnn one CUDA graph": {"median": 301234.4},
    "gpucnn eager": {"median": 900000.0, "error": "ValueError: not finite"},
    "PyTorch eager": {"median": 100.0},
    "PyTorch max-autotune, captured": {"median": 150000.0},
    "PyTorch max-autotune": {"left_out": "making the others took 99 s"},
}
PART = {"passed": 1234, "failed": 1, "error": 2, "skipped": 3, "part": "all"}
CALL = {"seconds": 2e-6, "floor_seconds": 1e-6}


def records() -> dict[str, dict[str, Any]]:
    head = {"date": "2026-11-21", "machine": MACHINE, "ok": True}
    training = {
        "network": "lecture_cnn",
        "batch_size": 1024,
        "precision": "float32",
        "ratio": 2.0082,
        "results": RESULTS,
    }
    means = {"all": 1.234, "fprop": 0.987, "wgrad": 1.1}
    profile = {"launches": 2, "flops": 3e9, "bytes": 4e6, "calls": [CALL, CALL]}
    recipe = {"count": 10, "accuracy": {"mean": 0.94012, "std": 0.0011}, "seconds": {"mean": 2.345, "std": 0.1}}
    return {
        "machine": {**head, "import_seconds": [{"cache": "cold", "gpucnn": 3.456}]},
        "tests": {**head, "parts": [PART]},
        "memcheck": {**head, "parts": [{"precision": p, "findings": f} for p, f in (("tf32", 0), ("float16", 3))]},
        "racecheck": {**head, "parts": [{"precision": "tf32", "findings": None}]},
        "initcheck": {**head, "why": "compute-sanitizer is not on the path"},
        "identical": {**head, "parts": [{"precision": "tf32", "identical": True}]},
        "operators-float16": {**head, "result": {"precision": "float16", "geometric_means": means, "rows": ROWS}},
        "operators-float32": {**head, "result": None},
        "training-lecture-1024-float32": {**head, "result": training},
        "profile-lecture-1024-float32": {**head, "result": profile},
        "recipe": {**head, "result": recipe},
    }


def write(folder: Path, given: dict[str, dict[str, Any]]) -> None:
    for name, record in given.items():
        (folder / f"{name}.json").write_text(json.dumps({"step": name, **record}))


def test_every_figure_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, records())
    assert command.main(["--table", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for line in (
        "NVIDIA H200; 2026-11-21; torch 2.11, gpucnn 1.0, abc",
        "| import gpucnn, cold kernel cache | 3.46 s |",
        "| tests, all | 1,234 passed, 3 failed, 3 skipped |",
        "| memcheck, tf32 | no finding |",
        "| memcheck, float16 | 3 findings |",
        "| racecheck, tf32 | did not end |",
        "| initcheck | not measured: compute-sanitizer is not on the path |",
        "| two runs and one captured, tf32 | bit-identical |",
        "| float16 | 1.23 | 0.99 | not measured | 1.10 | 2 of 3 | 2 |",
        "| a | 1.50 (62%) | not measured | failed |",
        "| b | 0.50 | not measured | not measured |",
        "| lecture_cnn, batch 1,024, float32 | 301,234 (one CUDA graph) | 150,000 (max-autotune, captured) | 2.01 |",
        "| lecture-1024-float32 | 2 | 3.0 | 4.0 | 4 | 2 |",
        "airbench94 in float16, 10 runs: 94.01% (standard deviation 0.11) in 2.35 s a run",
    ):
        assert line in text.splitlines(), line
    for row in (line for line in text.splitlines() if line.startswith("|---")):
        heads = text.splitlines()[text.splitlines().index(row) - 1]
        assert heads.count("|") == row.count("|")


def test_a_report_of_one_step_has_its_table_alone(tmp_path: Path) -> None:
    write(tmp_path, {"recipe": {"date": "d", "machine": MACHINE, "ok": True, "left_out": "no data"}})
    text = table.as_markdown(table.read(tmp_path))
    assert text == "NVIDIA H200; d; torch 2.11, gpucnn 1.0, abc\n\nairbench94's accuracy: not measured (no data)\n"


@pytest.mark.parametrize("content", [None, "{}", "no JSON", "[]"])
def test_what_is_no_report_is_refused(content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(SystemExit) as stop:
        command.main(["--table", str(tmp_path)])
    assert stop.value.code == 2
    assert ("no record of gpu_report here" if content is None else "a.json: not a record") in capsys.readouterr().err
