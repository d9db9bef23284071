"""Where NVRTC does not exist (macOS), what compiles CUDA is not collected."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gpucnn.backends.cuda.cache import KernelCache

if sys.platform == "darwin":
    collect_ignore = [
        "test_compiler.py",
        "test_cupy_arrays.py",
        "test_engine.py",
        "test_every_architecture.py",
        "test_precompile.py",
        "test_sass.py",
    ]


@pytest.fixture
def kernels() -> Path:
    """The folder of these tests' own kernels."""
    return Path(__file__).parent / "kernels"


@pytest.fixture
def empty_cache(tmp_path: Path) -> KernelCache:
    """A cache with nothing in it."""
    return KernelCache(tmp_path / "compiled")
