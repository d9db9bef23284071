"""What all tests share: hypothesis profiles, a cache folder of their own, the emulator at its strictest, real data."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# `quick` draws the same few cases in every run; `--hypothesis-profile=full` (make test-full) draws many, and other
# ones each time.
_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "quick", max_examples=12, derandomize=True, database=None, deadline=None, suppress_health_check=_SLOW_IS_FINE
)
settings.register_profile(
    "full", max_examples=200, database=None, deadline=None, print_blob=True, suppress_health_check=_SLOW_IS_FINE
)
settings.load_profile("quick")

# Set before anything imports gpucnn. Workers of pytest-xdist inherit both from the process that starts them, so they
# share one cache.
os.environ.setdefault("GPUCNN_EMULATOR", "strict")
_own_cache = None
if "GPUCNN_CACHE_DIR" not in os.environ:
    _own_cache = tempfile.mkdtemp(prefix="gpucnn-tests-")
    os.environ["GPUCNN_CACHE_DIR"] = _own_cache


def pytest_unconfigure() -> None:
    """The process that made the cache folder removes it."""
    if _own_cache is not None:
        shutil.rmtree(_own_cache, ignore_errors=True)


def _real_data(*files: str) -> Path | None:
    """The folder that GPUCNN_DATA names, if it holds these files."""
    named = os.environ.get("GPUCNN_DATA", "")
    root = Path(named).expanduser()
    return root if named and all((root / file).is_file() for file in files) else None


@pytest.fixture(scope="session")
def cifar10_root() -> Path:
    """The folder with the real CIFAR-10 below it; for tests marked `data`."""
    root = _real_data("cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/test_batch")
    if root is None:
        pytest.skip("the real CIFAR-10 is not here: set GPUCNN_DATA to a folder that holds cifar-10-batches-py/")
    return root


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """The folder with the real MNIST below it; for tests marked `data`."""
    root = _real_data("mnist/train-images-idx3-ubyte.gz", "mnist/t10k-images-idx3-ubyte.gz")
    if root is None:
        pytest.skip("the real MNIST is not here: set GPUCNN_DATA to a folder that holds mnist/")
    return root


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """No GPUCNN_* variable set but the cache folder's."""
    for name in list(os.environ):
        if name.startswith("GPUCNN_") and name != "GPUCNN_CACHE_DIR":
            monkeypatch.delenv(name)
    yield monkeypatch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` or `data` say why they are skipped where the GPU or the data is missing."""
    gpu_problem = _gpu_problem() if any(item.get_closest_marker("gpu") for item in items) else None
    no_data = not os.environ.get("GPUCNN_DATA")
    for item in items:
        if gpu_problem and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=f"no usable GPU: {gpu_problem}"))
        if no_data and item.get_closest_marker("data"):
            item.add_marker(
                pytest.mark.skip(
                    reason="no real data: set GPUCNN_DATA to a folder with cifar-10-batches-py/ and mnist/"
                )
            )


def _gpu_problem() -> str | None:
    from gpucnn.backends.cuda import driver

    return driver.unavailable_reason()
