"""The report of a machine with a GPU: what it reads from programs' output, and that no step takes others along."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from benchmarks.gpu_report import __main__ as command
from benchmarks.gpu_report import steps, workload
from benchmarks.gpu_report.steps import Place
from gpucnn.backends.cuda import driver
from gpucnn.bench import operators, training
from gpucnn.data import DataError

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


SEVERAL = """\
[gw0] [ 12%] PASSED tests/kernels/test_gemm.py::test_a[cuda-64x64] 
[gw11] [  3%] FAILED tests/kernels/test_gemm.py::test_b[cuda-a b] 
[gw1] [100%] ERROR tests/kernels/test_gemm.py::test_d Fatal Python error: Aborted
[gw1] [ 99%] SKIPPED tests/kernels/test_gemm.py::test_c 
FAILED tests/kernels/test_gemm.py::test_b[cuda-a b] - assert 1 == 2
"""  # noqa: W291


def test_counts_of_pytest_in_several_processes() -> None:
    found = steps.outcomes(SEVERAL)
    assert [found[key] for key in ("passed", "failed", "skipped", "error")] == [1, 1, 1, 1]
    assert found["failures"] == SEVERAL.splitlines()[-1:]
    again = ["tests/kernels/test_gemm.py::test_b[cuda-a b]", "tests/kernels/test_gemm.py::test_d"]
    assert steps.failed(SEVERAL + SEVERAL) == again


def test_what_failed_among_others_is_tested_once_more_alone(tmp_path: Path, monkeypatch) -> None:
    commands: list[list[str]] = []

    def run(command, place, log):
        commands.append(command)
        output, status = (SEVERAL, 1) if command[-2] == "-n" else ("tests/a.py::test_a PASSED [100%]\n", 0)
        return steps.Finished(status, output, 1.0)

    monkeypatch.setattr(steps, "run", run)
    monkeypatch.setattr(steps, "_installed", lambda module: True)
    monkeypatch.setattr(steps.os, "cpu_count", lambda: 16)
    found = steps.tests(Place(tmp_path, 5.0))
    assert found["ok"] and [part["failed"] for part in found["parts"]] == [0, 1, 0]
    assert commands[1][-2:] == ["-n", str(steps.MOST_WORKERS)]
    assert commands[2][-4:] == ["-n", "1", *steps.failed(SEVERAL)]
    monkeypatch.setattr(steps, "_installed", lambda module: False)
    commands.clear()
    assert steps.tests(Place(tmp_path, 5.0))["ok"] and len(commands) == 2


def test_after_an_error_that_stays_a_new_process_tests_the_rest(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    (tmp_path / "test_made_up.py").write_text(MADE_UP)
    command = steps.python("-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "benchmarks.gpu_report.fresh_process")
    done = steps.run([*command, "-n", "1", str(tmp_path)], Place(tmp_path, 60.0), "log")
    found = steps.outcomes(done.output)
    assert (found["passed"], found["skipped"]) == (2, 0), done.output
    assert [name.split("::")[1] for name in steps.failed(done.output)] == ["test_breaks"]


MADE_UP = """\
broken = False

def test_before():
    assert not broken

def test_breaks():
    global broken
    broken = True
    raise RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

def test_after():
    assert not broken
"""


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


def test_what_a_program_has_started_ends_with_it(tmp_path: Path) -> None:
    """compute-sanitizer starts the program that it watches, which would go on and hold the GPU."""
    waits = "import time; time.sleep(60)"
    program = f"import subprocess, sys\nc = subprocess.Popen([sys.executable, '-c', {waits!r}])\nprint(c.pid)\nc.wait()"
    done = steps.run(steps.python("-c", program), Place(tmp_path, 2.0), "log")
    assert done.status is None
    for _ in range(100):
        state = Path(f"/proc/{int(done.output)}/stat")
        if not state.exists() or ") Z " in state.read_text():
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child lives on")


@pytest.mark.parametrize("third", ["a weights 1", "a weights 2"])
def test_two_runs_and_one_captured_are_compared(third: str, tmp_path: Path, monkeypatch) -> None:
    def run(command, place, log):
        return steps.Finished(0, f"noise {log}\n{third if '--graph' in command else 'a weights 1'}\n", 1.0)

    monkeypatch.setattr(steps, "run", run)
    found = steps.identical(Place(tmp_path, 5.0))
    assert found["ok"] == (third == "a weights 1")
    assert [part["precision"] for part in found["parts"]] == list(steps.PRECISIONS)


def test_the_sanitized_workload_runs_and_gives_the_same_bits_captured(capsys) -> None:
    lines = []
    for graph in (False, True):
        lines.append(workload.line("lenet5", {}, 3, "float16", "emulated", graph))
    assert lines[0] == lines[1] and "nan" not in lines[0]
    workload.main(["float32", "--device", "cpu"])
    assert [each.split()[0] for each in capsys.readouterr().out.splitlines()] == [
        name for name, *_ in workload.NETWORKS
    ]


def test_every_step_that_measures_has_arguments_that_its_program_takes(monkeypatch) -> None:
    """Down to the device, which is not here."""
    taken: list[list[str]] = []
    monkeypatch.setattr(steps, "run", lambda command, place, log: taken.append(command) or steps.Finished(1, "", 0.0))
    for name, step in steps.STEPS.items():
        if name.split("-")[0] in ("operators", "training", "profile"):
            step(Place(Path("/nowhere"), 1.0))
    reached = []
    monkeypatch.setattr(
        operators, "measure", lambda *a, **k: reached.append("operators") or {"geometric_means": {}, "rows": []}
    )
    monkeypatch.setattr(training, "contestants", lambda *a, **k: reached.append(a[0]) or {"gpucnn a": lambda: None})
    monkeypatch.setattr(training, "measure", lambda *a, **k: {})
    monkeypatch.setattr(training.timing, "keep", lambda *a: None)
    monkeypatch.setattr(operators.timing, "keep", lambda *a: None)
    for given in taken:
        module, *arguments = given[2:]
        if module == "gpucnn":
            continue
        assert {"gpucnn.bench.operators": operators, "gpucnn.bench.training": training}[module].main(arguments) == 0
    assert reached.count("operators") == 2 and len(reached) == 8


def test_a_measurement_is_what_the_program_wrote(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(steps, "python", lambda *arguments: steps_python(tmp_path, *arguments))
    for program, ok in ((WRITES, True), (WRITES + "\nsys.exit(3)", False), ("", False)):
        (tmp_path / "program.py").write_text(program)
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


def test_logs_may_lie_elsewhere(tmp_path: Path, monkeypatch) -> None:
    seen: list[Path] = []
    monkeypatch.setattr(driver, "unavailable_reason", lambda: None)
    monkeypatch.setattr(command, "STEPS", {"one": lambda place: seen.append(place.folder) or {"ok": True}})
    command.main(["--out", str(tmp_path / "out"), "--logs", str(tmp_path / "logs")])
    command.main(["--out", str(tmp_path / "out")])
    assert seen == [tmp_path / "logs" / "one", tmp_path / "out" / "logs" / "one"]


def test_without_cifar10_its_step_is_left_out(tmp_path: Path, monkeypatch) -> None:
    def find(*arguments, **options):
        raise DataError("no network")

    monkeypatch.setattr("gpucnn.data.find", find)
    assert steps.recipe(Place(tmp_path, 1.0)) == {"ok": True, "left_out": "CIFAR-10 cannot be had: no network"}


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
