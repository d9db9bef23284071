"""`gpucnn doctor`: every finding, on machines that lack one thing each, with the command that mends it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpucnn import backends, doctor
from gpucnn.backends.cuda import driver
from tests.cli.conftest import Done

Command = Callable[..., Done]


def found(subject: str) -> doctor.Finding:
    """The finding about `subject`."""
    (finding,) = [finding for finding in doctor.examine() if finding.subject == subject]
    return finding


def test_a_machine_whose_default_device_works_exits_0(gpucnn: Command) -> None:
    told = gpucnn("doctor")
    assert (told.code, told.err) == (0, "")
    for subject in ("Python", "gpucnn", "processor", "NumPy", "cache", "conv2d_simt.cu", "relu.cu", "default device"):
        assert f" {subject} " in told.out
    assert "cpu: an operator and its gradient ran" in told.out


def test_a_default_device_that_cannot_be_used_exits_1(gpucnn: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    if driver.is_available():
        monkeypatch.setenv("GPUCNN_DEVICE", "cuda:99")
    else:
        monkeypatch.setenv("GPUCNN_DEVICE", "cuda")
    backends.default_device.cache_clear()
    try:
        told = gpucnn("doctor")
    finally:
        backends.default_device.cache_clear()
    assert told.code == 1
    assert "[missing] default device" in told.out
    assert "mend it with: GPUCNN_DEVICE=cpu" in told.out


def test_set_variables_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_DATA", "/some/where")
    texts = [finding.text for finding in doctor.examine() if finding.subject == "environment"]
    assert "GPUCNN_DATA=/some/where" in texts


def test_no_compiler_names_the_command_that_installs_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        assert found("emulated").status == doctor.NOTE
        return
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    finding = found("C++ compiler")
    assert finding.status == doctor.MISSING
    assert "g++" in str(finding.mend)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert found("C++ compiler").mend == "unset CXX"


def test_a_gpu_without_cupy_names_the_wheel_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GeForce 1070 under a driver of CUDA 13: CUDA 13 dropped it, so the wheel is that of CUDA 12."""
    gtx = driver.Device(0, "NVIDIA GeForce GTX 1070", (6, 1), 8 << 30)
    machine = driver.Driver(True, (13, 0), (gtx,), None)
    driver.unavailable_reason.cache_clear()
    monkeypatch.setattr(driver, "query", lambda: machine)
    monkeypatch.setattr("gpucnn.cupy_choice.installed_cupy", list)
    monkeypatch.setitem(sys.modules, "cupy", None)
    try:
        finding = found("cuda")
        assert finding.status == doctor.MISSING
        assert "no CuPy" in finding.text
        assert finding.mend == "pip install 'gpucnn[cuda12]'"
        assert "compute capability 6.1" in found("GPU 0").text
    finally:
        driver.unavailable_reason.cache_clear()


def test_two_cupy_wheels_are_a_fault_with_its_mending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpucnn.cupy_choice.installed_cupy", lambda: ["cupy-cuda12x", "cupy-cuda13x"])
    faults = [f for f in doctor.examine() if f.subject == "CuPy" and f.status == doctor.MISSING]
    assert len(faults) == 1
    assert "pip uninstall -y cupy-cuda12x cupy-cuda13x" in str(faults[0].mend)


def test_a_check_that_breaks_is_a_finding_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError("the library is damaged")

    monkeypatch.setattr(driver, "query", broken)
    finding = found("driver")
    assert finding.status == doctor.MISSING
    assert "the library is damaged" in finding.text
    assert found("Python").status == doctor.OK


def test_a_cache_folder_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GPUCNN_CACHE_DIR", str(tmp_path / "file" / "cache"))
    finding = found("cache")
    assert finding.status == doctor.MISSING
    assert "GPUCNN_CACHE_DIR" in str(finding.mend)


def test_without_cupy_everything_but_the_kernels_state_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpucnn.backends.cuda import compiler

    def missing() -> None:
        raise compiler.CompileError("kernels cannot be compiled: CuPy or NVRTC is missing")

    monkeypatch.setattr("gpucnn.cupy_choice.installed_cupy", list)
    monkeypatch.setattr(compiler, "load_nvrtc", missing)
    findings = doctor.examine()
    assert not [finding for finding in findings if finding.status == doctor.MISSING]
    assert "not compiled" in next(finding.text for finding in findings if finding.subject == "relu.cu")
