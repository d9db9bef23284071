"""A plugin of pytest for tests that share a GPU: after an error that stays (an illegal access) CUDA answers every later
call of that process with it. So the process ends, and pytest-xdist starts a new one for the tests that are left.

    python -m pytest -n 4 -p benchmarks.gpu_report.fresh_process
"""

from __future__ import annotations

import os
from typing import Any

STAYS = (  # as CuPy, the driver and PyTorch name them
    "IllegalAddress", "ILLEGAL_ADDRESS", "illegal memory access", "MisalignedAddress", "MISALIGNED_ADDRESS",
    "misaligned address", "LaunchFailure", "LAUNCH_FAILED", "unspecified launch failure", "IllegalInstruction",
    "ILLEGAL_INSTRUCTION", "illegal instruction", "LaunchTimeout", "LAUNCH_TIMEOUT",
)  # fmt: skip
_broken: list[str] = []
_is_worker = False


def pytest_configure(config: Any) -> None:
    """Finds out whether pytest-xdist started this process."""
    global _is_worker
    _is_worker = hasattr(config, "workerinput")


def pytest_runtest_logreport(report: Any) -> None:
    """Notes a test that failed so."""
    if report.failed and any(name in report.longreprtext for name in STAYS):
        _broken.append(report.nodeid)


def pytest_runtest_logfinish() -> None:
    """Ends a process of pytest-xdist in which one did."""
    if _broken and _is_worker:
        os._exit(70)
