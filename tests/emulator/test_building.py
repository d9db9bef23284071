"""The emulator's compiler and its cache: what is missing is said plainly, and what is there is not built twice."""

from __future__ import annotations

import platform
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from gpucnn.backends.emulator import EmulatorEngine, build
from gpucnn.backends.launch import Launcher

SOURCE = """
extern "C" __global__ void __launch_bounds__(32) fill(OUT float* __restrict__ y, float value) {
  y[threadIdx.x] = value FACTOR;
}
"""


def write_kernel(folder: Path, factor: str) -> Launcher:
    (folder / "head.cuh").write_text(f"#define IN const\n#define OUT\n#define INOUT\n#define FACTOR {factor}\n")
    (folder / "fill.cu").write_text('#include "head.cuh"\n' + SOURCE)
    return Launcher(EmulatorEngine("fast"), folder)


def fill(launch: Launcher) -> float:
    y = np.zeros(32, np.float32)
    launch("fill.cu", "fill", 1, 32, y, 2.0)
    assert (y == y[0]).all()
    return float(y[0])


def test_an_included_file_that_changes_is_compiled_again(tmp_path: Path) -> None:
    assert fill(write_kernel(tmp_path, "")) == 2.0
    assert fill(write_kernel(tmp_path, "* 3.0f")) == 6.0
    assert fill(write_kernel(tmp_path, "* 3.0f")) == 6.0


def test_the_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "a", tmp_path / "cache"
    first.mkdir()
    monkeypatch.setenv("GPUCNN_CACHE_DIR", str(second))
    assert fill(write_kernel(first, "")) == 2.0
    built = {path.name: path.stat().st_mtime_ns for path in (second / "emulator").iterdir()}
    assert len(built) == 2, "the runtime and one kernel file, no temporary folder left"
    script = f"""
import numpy as np
from gpucnn.backends.emulator import EmulatorEngine
from gpucnn.backends.launch import Launcher
y = np.zeros(32, np.float32)
Launcher(EmulatorEngine("fast"), {str(first)!r})("fill.cu", "fill", 1, 32, y, 2.0)
assert y.sum() == 64
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name: path.stat().st_mtime_ns for path in (second / "emulator").iterdir()} == built


def test_a_kernel_that_does_not_compile(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)fill.cu does not compile for the emulator.*fill.cu:4"):
        fill(write_kernel(tmp_path, "+ undeclared"))
    assert fill(write_kernel(tmp_path, "")) == 2.0


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"needs a C\+\+ compiler, and none of g\+\+, c\+\+, clang\+\+ is there"):
        EmulatorEngine()
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    with pytest.raises(RuntimeError, match=r"CXX names 'no-such-compiler', which cannot be run"):
        EmulatorEngine()


def test_cxx_names_the_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler, log = shutil.which(build.find_compiler()[0]), tmp_path / "log"
    script = tmp_path / "my-compiler"
    script.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {compiler} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", f"{script} -DUNUSED")
    assert fill(write_kernel(tmp_path, "* 5.0f")) == 10.0
    assert "-DUNUSED" in log.read_text() and "kernels.cpp" in log.read_text()


@pytest.mark.parametrize(("system", "machine"), [("win32", "AMD64"), ("darwin", "arm64"), ("linux", "riscv64")])
def test_other_platforms(monkeypatch: pytest.MonkeyPatch, system: str, machine: str) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(RuntimeError, match=f"`emulated` needs Linux on x86-64 or aarch64; this is .* on {machine}"):
        EmulatorEngine()


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match=r"mode must be 'strict' or 'fast', got 'quick'"):
        EmulatorEngine("quick")
    with pytest.raises(ValueError, match=r"arch must be one of 50, .* got 42"):
        EmulatorEngine(arch=42)


def test_the_environment_chooses_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = EmulatorEngine()
    monkeypatch.setenv("GPUCNN_EMULATOR", "fast")
    monkeypatch.setenv("GPUCNN_EMULATOR_ARCH", "61")
    assert (engine.mode, engine.arch) == ("fast", 61)
    monkeypatch.setenv("GPUCNN_EMULATOR", "strict")
    assert engine.mode == "strict"


def test_launches_from_several_threads(tmp_path: Path) -> None:
    """Launches take turns; each thread's results are its own."""
    launch = write_kernel(tmp_path, "")
    assert fill(launch) == 2.0
    wrong: list[float] = []

    def work(value: float) -> None:
        y = np.zeros(32, np.float32)
        for _ in range(50):
            launch("fill.cu", "fill", 1, 32, y, value)
            if not (y == value).all():
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(float(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_segmentation_fault_elsewhere_is_passed_on() -> None:
    """Outside of a launch the process dies of SIGSEGV as it would without the emulator."""
    script = """
import ctypes, numpy as np
from pathlib import Path
from gpucnn.backends.emulator import EmulatorEngine, OutOfBounds
from gpucnn.backends.launch import Launcher
import sys
launch = Launcher(EmulatorEngine("fast"), Path(sys.argv[1]))
try:
    launch("broken.cu", "read_at", 1, 32, np.ones(64, np.float32), np.ones(32, np.float32), 1 << 28)
except OutOfBounds:
    print("caught", flush=True)
ctypes.string_at(8)
"""
    kernels = Path(__file__).parent / "kernels"
    done = subprocess.run([sys.executable, "-c", script, str(kernels)], capture_output=True, text=True, check=False)
    assert done.stdout == "caught\n", done.stderr
    assert done.returncode == -11


def test_guards_are_a_gigabyte() -> None:
    """The promise that the tests of out-of-bounds accesses rest on, read from the process's own memory map."""
    x = np.ones(64, np.float32)
    Launcher(EmulatorEngine("fast"), Path(__file__).parent / "kernels")(
        "broken.cu", "read_at", 1, 32, x, np.ones(32, np.float32), 0
    )
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    guards = [
        int(line[0].split("-")[1], 16) - int(line[0].split("-")[0], 16)
        for line in lines
        if line[1] == "---p" and len(line) == 5
    ]
    assert sum(size >= 2**30 for size in guards) >= 4, "two arrays, each with a guard below and one above"
