"""The report of a machine with a GPU: what it reads from programs' output, and that no step takes others along."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu_report import __main__ as command
from benchmarks.gpu_report import steps
from benchmarks.gpu_report.steps import Place
from gpucnn.backends.cuda import driver

PYTEST = """\
tests/kernels/test_gemm.py::test_a[cuda-64x64] PASSED                    [ 25%]
tests/kernels/test_gemm.py::test_b[cuda] FAILED                          [ 50%]
tests/kernels/test_gemm.py::test_c SKIPPED (two GPUs are wanted)         [ 75%]
tests/kernels/test_gemm.py::test_d ERROR                                 [100%]
=========================== short test summary info ============================
FAILED tests/kernels/test_gemm.py::test_b[cuda] - assert 1 == 2
ERROR tests/kernels/test_gemm.py::test_d - RuntimeError: out of memory
"""


def test_counts_of_pytest() -> None:
    found = steps.outcomes(PYTEST)
    assert {key: found[key] for key in ("passed", "failed", "skipped", "error")} == dict.fromkeys(
        ("passed", "failed", "skipped", "error"), 1
    )
    assert found["failures"] == PYTEST.splitlines()[-2:]
    cut = steps.outcomes("\n".join(PYTEST.splitlines()[:2]))
    assert (cut["passed"], cut["failed"], cut["failures"]) == (1, 1, [])


@pytest.mark.parametrize(
    ("output", "count"),
    [
        ("========= ERROR SUMMARY: 0 errors\n", 0),
        ("x\n========= ERROR SUMMARY: 1 error\n", 1),
        ("========= RACECHECK SUMMARY: 3 hazards displayed (2 errors, 1 warning)\n", 3),
        ("Segmentation fault\n", None),
    ],
)
def test_counts_of_compute_sanitizer(output, count) -> None:
    assert steps.findings(output) == count


def test_a_program_that_hangs_is_ended_and_its_output_kept(tmp_path: Path) -> None:
    program = "print('began', flush=True)\nimport time\ntime.sleep(60)"
    done = steps.run(steps.python("-c", program), Place(tmp_path, 1.0), "log")
    assert done.status is None
    assert done.output == "began\n"


def test_a_measurement_is_what_the_program_wrote(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(steps, "python", lambda *arguments: steps_python(tmp_path, *arguments))
    for program, ok in ((WRITES, True), (WRITES + "\nsys.exit(3)", False), ("", False)):
        (tmp_path / "program.py").write_text(program)
        (tmp_path / "result.json").unlink(missing_ok=True)
        found = steps.measured("anything")(Place(tmp_path, 30.0))
        assert found["ok"] == ok
        assert found["result"] == ({"speed": 3} if program else None)


WRITES = "import sys, pathlib\npathlib.Path(sys.argv[-1]).write_text('{\"speed\": 3}')"


def steps_python(folder: Path, *arguments: str) -> list[str]:
    import sys

    return [sys.executable, str(folder / "program.py"), *arguments[1:]]


def test_steps_are_written_as_they_end_and_a_failure_stops_none(tmp_path: Path, monkeypatch, capsys) -> None:
    def broken(place: Place) -> dict[str, object]:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(driver, "unavailable_reason", lambda: None)
    given = {"one": lambda place: {"ok": True, "speed": 1}, "two": broken, "three": lambda place: {"ok": True}}
    monkeypatch.setattr(command, "STEPS", given)
    assert command.main(["--out", str(tmp_path)]) == 1
    records = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in given}
    assert [records[name]["ok"] for name in given] == [True, False, True]
    assert "no such thing" in records["two"]["why"]
    assert records["one"]["speed"] == 1 and records["one"]["machine"]["versions"]
    assert "two: NOT in order" in capsys.readouterr().out
    (tmp_path / "three.json").unlink()
    assert command.main(["--out", str(tmp_path), "--missing"]) == 0
    assert capsys.readouterr().out.startswith("three ...")


def test_bad_input(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(["nonsense"])
    assert stop.value.code == 2
    assert "unknown step 'nonsense'; the steps are machine, tests, memcheck" in capsys.readouterr().err


@pytest.mark.skipif(driver.unavailable_reason() is None, reason="there is a GPU here")
def test_without_a_gpu_it_says_so(tmp_path: Path, capsys) -> None:
    assert command.main(["--out", str(tmp_path / "out")]) == 2
    assert "needs a GPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
