from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpucnn.backends.emulator import EmulatorEngine
from gpucnn.backends.launch import Launcher

KERNELS = Path(__file__).parent / "kernels"


@pytest.fixture
def launcher() -> Callable[..., Launcher]:
    """Makes a launcher of the kernels in this folder: ``launcher(mode, **options of EmulatorEngine)``."""

    def make(mode: str, **options: Any) -> Launcher:
        return Launcher(EmulatorEngine(mode, **options), KERNELS)

    return make


@pytest.fixture
def strict(launcher: Callable[..., Launcher]) -> Launcher:
    return launcher("strict")


@pytest.fixture
def fast(launcher: Callable[..., Launcher]) -> Launcher:
    return launcher("fast")


@pytest.fixture(params=["strict", "fast"])
def either(request: pytest.FixtureRequest, launcher: Callable[..., Launcher]) -> Launcher:
    return launcher(request.param)


@pytest.fixture
def marked_line() -> Callable[[str], int]:
    """The number of the line of broken.cu that ends with ``// !name``."""

    def find(name: str) -> int:
        lines = (KERNELS / "broken.cu").read_text(encoding="utf-8").splitlines()
        return 1 + next(i for i, line in enumerate(lines) if line.endswith(f"// !{name}"))

    return find
