"""What this machine is: processor, BLAS, GPU, driver, library versions, commit. For records and for `gpucnn doctor`.

Nothing here fails where something is missing: it is then None, or not in the list.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

RECORDS = ":(exclude)benchmarks/results"
VERSIONS_IN_RECORDS = ("gpucnn", "numpy", "cupy-cuda12x", "cupy-cuda13x", "cupy", "torch", "safetensors")


@dataclass(frozen=True)
class Blas:
    """A BLAS library loaded into this process, as threadpoolctl sees it."""

    name: str
    version: str | None
    threads: int
    architecture: str | None

    def __str__(self) -> str:
        kind = f" for {self.architecture}" if self.architecture else ""
        return f"{self.name} {self.version or ''}{kind}, {self.threads} thread{'s' if self.threads != 1 else ''}"


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU as nvidia-smi lists it; memory in MiB, power limit in watts."""

    name: str
    driver: str
    memory_mib: float | None
    power_limit_watts: float | None


def cpu_name() -> str:
    """The processor's name, for example "Intel(R) Core(TM) i7-7500U CPU @ 2.70GHz"."""
    if sys.platform == "linux":
        try:
            listed = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            listed = ""
        for key in ("model name", "Model", "Hardware"):
            if found := re.search(rf"^{key}\s*:\s*(.+)$", listed, re.MULTILINE):
                return found[1].strip()
    elif sys.platform == "darwin":
        if name := output_of("sysctl", "-n", "machdep.cpu.brand_string"):
            return name.strip()
    return platform.processor() or platform.machine() or "unknown processor"


def blas_libraries() -> list[Blas]:
    """The BLAS libraries in this process and their thread counts (NumPy's, and PyTorch's where it is loaded)."""
    import numpy as np  # noqa: F401  (its BLAS must be loaded to be seen)
    from threadpoolctl import threadpool_info

    return [
        Blas(
            name=str(pool.get("internal_api", "unknown")),
            version=pool.get("version"),
            threads=int(pool["num_threads"]),
            architecture=pool.get("architecture"),
        )
        for pool in threadpool_info()
        if pool.get("user_api") == "blas"
    ]


def gpus() -> list[Gpu]:
    """NVIDIA GPUs by nvidia-smi; empty where there is none."""
    listed = output_of(
        "nvidia-smi", "--query-gpu=name,driver_version,memory.total,power.limit", "--format=csv,noheader,nounits"
    )
    found = []
    for line in (listed or "").splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 4:
            found.append(Gpu(fields[0], fields[1], _number(fields[2]), _number(fields[3])))
    return found


def version_of(distribution: str) -> str | None:
    """The installed version of a distribution, without importing it."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str:
    """The commit of the checkout that the package runs from, with "+changes" after it where tracked files were changed
    (but for the records of benchmarks, which are being written).

    "unknown" outside a checkout of the project, an installed package included.
    """
    top = Path(__file__).resolve().parent.parent
    if not (top / ".git").exists() or not (top / "kernels").is_dir():
        return "unknown"
    revision = output_of("git", "-C", str(top), "rev-parse", "HEAD")
    if not revision:
        return "unknown"
    changed = output_of("git", "-C", str(top), "status", "--porcelain", "--untracked-files=no", "--", ".", RECORDS)
    return revision.strip() + ("+changes" if changed and changed.strip() else "")


def describe() -> dict[str, Any]:
    """All of it as plain values for a JSON record."""
    import gpucnn
    from gpucnn import settings

    versions = {name: version for name in VERSIONS_IN_RECORDS if (version := version_of(name))}
    versions["gpucnn"] = gpucnn.__version__
    torch = sys.modules.get("torch")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "cores": settings.available_cores(),
        "threads": settings.threads() or settings.available_cores(),
        "blas": [vars(blas) for blas in blas_libraries()],
        "torch_threads": torch.get_num_threads() if torch is not None else None,
        "gpus": [vars(gpu) for gpu in gpus()],
        "versions": versions,
        "commit": commit(),
    }


def output_of(*command: str) -> str | None:
    """Standard output of a command, or None where it is missing, fails or takes longer than a minute."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _number(field: str) -> float | None:
    try:
        return float(field)
    except ValueError:
        return None
