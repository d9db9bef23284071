"""What this machine offers gpucnn, what it lacks, and the command that mends it: the findings behind `gpucnn doctor`.

Every check stands alone and turns whatever goes wrong into a finding, so that a broken CuPy does not hide a missing
compiler. Only `default_device_works` decides the exit code: a missing GPU is no fault on a machine that trains on
its CPU.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpucnn.backends.cuda.precompile import KernelState

OK, MISSING, NOTE = "ok", "missing", "note"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        subject: what, in a word or two.
        status: "ok", "missing" (something cannot be used) or "note" (nothing is wrong).
        text: what was found.
        mend: the command that mends it, or None.
    """

    subject: str
    status: str
    text: str
    mend: str | None = None


def examine() -> list[Finding]:
    """All findings, in the order in which they are printed."""
    findings: list[Finding] = []
    for subject, check in _CHECKS:
        try:
            findings.extend(check())
        except Exception as error:
            findings.append(Finding(subject, MISSING, " ".join(f"{type(error).__name__}: {error}".split())))
    return findings


def default_device_works() -> tuple[bool, Finding]:
    """Whether an operator and its gradient run on the default device; and the finding that says so."""
    subject = "default device"
    try:
        import gpucnn
        from gpucnn import backends
        from gpucnn import functional as F

        device = backends.default_device()
        x = gpucnn.tensor([[1.0, -2.0], [3.0, -4.0]], device=device, requires_grad=True)
        F.relu(x).sum().backward()
        if x.grad is None or x.grad.numpy().tolist() != [[1.0, 0.0], [1.0, 0.0]]:
            return False, Finding(subject, MISSING, f"{device}: relu's gradient is wrong")
    except Exception as error:
        text = " ".join(str(error).split())
        variable = re.match(r"GPUCNN_\w+(?= must be)", text)
        mend = f"unset {variable[0]}" if variable else "GPUCNN_DEVICE=cpu gpucnn doctor"
        return False, Finding(subject, MISSING, text, mend)
    return True, Finding(subject, OK, f"{device}: an operator and its gradient ran")


def _python() -> Iterator[Finding]:
    import gpucnn

    yield Finding(
        "Python", OK, f"{platform.python_version()} ({sys.executable}) on {platform.system()} {platform.machine()}"
    )
    yield Finding("gpucnn", OK, f"{gpucnn.__version__} in {os.path.dirname(gpucnn.__file__)}")


def _numpy() -> Iterator[Finding]:
    import numpy as np

    from gpucnn import machine, settings

    yield Finding("processor", OK, f"{machine.cpu_name()}, {settings.available_cores()} cores for this process")
    blas = machine.blas_libraries()
    if blas:
        yield Finding("NumPy", OK, f"{np.__version__} with {'; '.join(map(str, blas))}")
    else:
        yield Finding(
            "NumPy", NOTE, f"{np.__version__}; threadpoolctl does not know its BLAS, so its threads cannot be set"
        )


def _driver() -> Iterator[Finding]:
    from gpucnn.backends.cuda import driver

    found = driver.query()
    if found.problem is not None:
        yield Finding("GPU", NOTE, found.problem)
    else:
        cuda = ".".join(map(str, found.cuda)) if found.cuda else "unknown"
        yield Finding("driver", OK, f"serves CUDA up to {cuda}")
    for gpu in found.devices:
        capability = ".".join(map(str, gpu.capability))
        yield Finding(
            f"GPU {gpu.index}", OK, f"{gpu.name}, compute capability {capability}, {gpu.memory / 2**30:.1f} GiB"
        )


def _cupy() -> Iterator[Finding]:
    from gpucnn import cupy_choice, machine
    from gpucnn.backends.cuda import driver

    installed = cupy_choice.installed_cupy()
    for problem in driver.installation_problems():
        text, _, mend = problem.partition(": ")
        yield Finding("CuPy", MISSING, text, mend)
    if installed:
        yield Finding("CuPy", OK, ", ".join(f"{name} {machine.version_of(name)}" for name in installed))
    reason = driver.unavailable_reason()
    if reason is None:
        return
    if driver.query().devices:
        yield Finding("cuda", MISSING, reason, None if installed else driver.install_command(driver.query()))
    elif not installed:
        yield Finding("CuPy", NOTE, "not installed: only a GPU, or compiling kernels without one, needs it")


def _nvrtc() -> Iterator[Finding]:
    from gpucnn import cupy_choice
    from gpucnn.backends.cuda import compiler

    if not cupy_choice.installed_cupy():
        return
    try:
        version = compiler.nvrtc_version()
    except compiler.CompileError as error:
        text = " ".join(str(error).split())
        yield Finding("NVRTC", MISSING, text, text.rpartition("; ")[2].removesuffix(" brings both"))
        return
    yield Finding("NVRTC", OK, version)


def _cpp_compiler() -> Iterator[Finding]:
    from gpucnn.backends.emulator import build

    try:
        build.require_platform()
    except RuntimeError as error:
        yield Finding("emulated", NOTE, str(error))
        return
    try:
        command = build.find_compiler()
    except RuntimeError as error:
        mend = "unset CXX" if os.environ.get("CXX") else _install_compiler()
        yield Finding("C++ compiler", MISSING, str(error), mend)
        return
    yield Finding("C++ compiler", OK, f"{' '.join(command)} ({shutil.which(command[0])}), for the emulated device")


def _install_compiler() -> str:
    for manager, command in (
        ("apt-get", "sudo apt-get install g++"),
        ("dnf", "sudo dnf install gcc-c++"),
        ("pacman", "sudo pacman -S gcc"),
        ("zypper", "sudo zypper install gcc-c++"),
        ("apk", "sudo apk add g++"),
    ):
        if shutil.which(manager):
            return command
    return "install g++ with your system's package manager"


def _folders() -> Iterator[Finding]:
    from gpucnn import settings

    try:
        folder = settings.cache_dir()
    except OSError as error:
        yield Finding("cache", MISSING, " ".join(str(error).split()), "export GPUCNN_CACHE_DIR=$HOME/.cache/gpucnn")
    else:
        if os.access(folder, os.W_OK):
            yield Finding("cache", OK, f"{folder}")
        else:
            yield Finding(
                "cache", MISSING, f"{folder} cannot be written", "export GPUCNN_CACHE_DIR=$HOME/.cache/gpucnn"
            )
    for variable in settings.VARIABLES:
        if variable.name in os.environ:
            yield Finding("environment", NOTE, f"{variable.name}={os.environ[variable.name]}")


def _kernels() -> Iterator[Finding]:
    """Each source's state for the GPUs here or, without one, for every architecture; nothing is compiled."""
    from itertools import groupby

    from gpucnn import cuda
    from gpucnn.backends.cuda import compiler, driver

    has_gpu = bool(driver.devices())
    try:
        compiler.load_nvrtc()
        states = cuda.compile_state(None if has_gpu else compiler.ARCHITECTURES)
    except compiler.CompileError:
        states = cuda.compile_state()
    for source, group in groupby(states, key=lambda state: state.source):
        yield _source_finding(source, list(group), has_gpu)


def _source_finding(source: str, states: list[KernelState], has_gpu: bool) -> Finding:
    from gpucnn.backends.cuda.compiler import target_name

    failed = next((state for state in states if state.error is not None), None)
    if failed is not None:
        return Finding(source, MISSING, " ".join(str(failed.error).split()), "gpucnn doctor --compile")
    kernels = f"{len(states[0].kernels)} kernel{'s' if len(states[0].kernels) != 1 else ''}"
    compiled = [target_name(state.architecture) for state in states if state.state == "compiled" and state.architecture]
    if len(compiled) == len(states):
        return Finding(source, OK, f"{kernels} compiled for {', '.join(compiled)}")
    text = f"{kernels} compiled for {', '.join(compiled)} only" if compiled else f"{kernels} not compiled"
    if not has_gpu:
        return Finding(source, NOTE, f"{text}: there is no GPU")
    return Finding(source, NOTE, f"{text}: compiled on first use", "gpucnn doctor --compile")


def compile_kernels() -> Iterator[Finding]:
    """Compile every kernel for the GPUs here, or for every architecture where there is none, and say how that went."""
    from gpucnn import cuda
    from gpucnn.backends.cuda import compiler, precompile

    try:
        report = cuda.compile_all(precompile.visible_architectures() or None, check=False)
    except compiler.CompileError as error:
        yield Finding("compiling", MISSING, " ".join(str(error).split()))
        return
    for built in report.built:
        subject = f"{built.source} {compiler.target_name(built.architecture)}"
        if built.error is not None:
            yield Finding(subject, MISSING, " ".join(built.error.split()))
        else:
            usage = ", ".join(f"{name} {kernel.registers} registers" for name, kernel in built.kernels.items())
            yield Finding(subject, OK, f"{'cached' if built.cached else f'{built.seconds:.2f} s'}: {usage}")
    if report.left_out:
        yield Finding("left out", NOTE, f"{', '.join(report.left_out)}: NVRTC {report.nvrtc} does not build them")


_CHECKS: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
    ("Python", _python),
    ("NumPy", _numpy),
    ("driver", _driver),
    ("CuPy", _cupy),
    ("NVRTC", _nvrtc),
    ("C++ compiler", _cpp_compiler),
    ("cache", _folders),
    ("kernels", _kernels),
)
