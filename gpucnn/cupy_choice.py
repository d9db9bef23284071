"""Which CuPy belongs on this machine: `cuda12`, `cuda13` or none.

The Makefile runs this file by its path, before anything is installed, with the interpreter of the environment
that is to be filled; so it imports the standard library alone and nothing of gpucnn:

    python -I gpucnn/cupy_choice.py             # the extra for training: empty where nvidia-smi shows no GPU
    python -I gpucnn/cupy_choice.py --tests     # the same, but cuda12 where there is no GPU: the tests need NVRTC
    python -I gpucnn/cupy_choice.py --prepare   # also removes a CuPy wheel of another kind first

The rules:

* A GPU of compute capability below 7.5 takes cuda12, whatever its driver says: CUDA 13 dropped those GPUs.
* Otherwise the driver decides: CUDA 13 or newer takes cuda13, anything else cuda12.
* Two CuPy wheels in one environment overwrite each other's files. Where one is installed that does not fit the
  GPU here, it is removed before the other comes; with no GPU at all, the one that is there stays; a CuPy built
  from source (distribution `cupy`) is its owner's affair and stays too.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata

OLDEST_FOR_CUDA13 = (7, 5)
WHEEL_OF_EXTRA = {"cuda12": "cupy-cuda12x", "cuda13": "cupy-cuda13x"}
EXTRA_OF_WHEEL = {wheel: extra for extra, wheel in WHEEL_OF_EXTRA.items()}


@dataclass(frozen=True)
class Gpus:
    """What nvidia-smi says: the GPUs' compute capabilities, and the newest CUDA that the driver serves."""

    capabilities: tuple[tuple[int, int], ...]
    cuda_version: tuple[int, int] | None


def read_gpus() -> Gpus | None:
    """Ask nvidia-smi. None where it is missing, fails (no driver loaded) or lists no GPU."""
    listed = _output("nvidia-smi", "-L")
    if listed is None or not re.search(r"^GPU \d+", listed, re.MULTILINE):
        return None
    queried = _output("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader") or ""
    numbers = re.findall(r"^\s*(\d+)\.(\d+)\s*$", queried, re.MULTILINE)
    capabilities = tuple((int(major), int(minor)) for major, minor in numbers)
    version = re.search(r"CUDA[\w ]*Version\s*:\s*(\d+)\.(\d+)", _output("nvidia-smi") or "")
    return Gpus(capabilities, (int(version[1]), int(version[2])) if version else None)


def choose(gpus: Gpus | None) -> str | None:
    """The extra for these GPUs: "cuda12", "cuda13", or None where there is no GPU.

    Drivers too old to report a compute capability, or a CUDA version, predate CUDA 13 and take cuda12.
    """
    if gpus is None:
        return None
    if not gpus.capabilities or min(gpus.capabilities) < OLDEST_FOR_CUDA13:
        return "cuda12"
    if gpus.cuda_version is not None and gpus.cuda_version >= (13, 0):
        return "cuda13"
    return "cuda12"


def installed_cupy() -> list[str]:
    """The CuPy distributions in the running interpreter's environment, as pip names them."""
    names = {(found.metadata["Name"] or "").lower().replace("_", "-") for found in metadata.distributions()}
    return sorted(name for name in names if re.fullmatch(r"cupy(-cuda\w+|-rocm\S*)?", name))


def wheels_exist() -> bool:
    """Whether CuPy publishes wheels for this operating system and processor."""
    machine = platform.machine().lower()
    return (sys.platform == "linux" and machine in ("x86_64", "aarch64")) or (
        sys.platform == "win32" and machine == "amd64"
    )


def plan(gpus: Gpus | None, installed: list[str], for_tests: bool) -> tuple[str | None, list[str]]:
    """(extra to install or None, installed distributions to remove first)."""
    if "cupy" in installed:
        return None, []
    extra = choose(gpus)
    if len(installed) > 1:  # they have overwritten each other: neither is whole
        return extra or ("cuda12" if for_tests else None), installed
    if extra is None:
        if not for_tests:
            return None, []
        extra = EXTRA_OF_WHEEL.get(installed[0], "cuda12") if installed else "cuda12"
    return extra, [name for name in installed if name != WHEEL_OF_EXTRA[extra]]


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print the CuPy extra for this machine, if any.")
    parser.add_argument("--tests", action="store_true", help="cuda12 where there is no GPU, for its NVRTC")
    parser.add_argument("--prepare", action="store_true", help="remove CuPy wheels of another kind first")
    options = parser.parse_args(arguments)
    if not wheels_exist():
        print("")
        return 0
    extra, to_remove = plan(read_gpus(), installed_cupy(), options.tests)
    if to_remove and options.prepare:
        print(f"removing {', '.join(to_remove)}: two CuPy wheels overwrite each other", file=sys.stderr)
        command = [sys.executable, "-m", "pip", "uninstall", "--yes", "--quiet", *to_remove]
        if subprocess.run(command, stdout=sys.stderr).returncode != 0:
            return 1
    print(extra or "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
