"""`import gpucnn`: quick, silent, and without the libraries that only some of its parts need."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

BUDGET = 0.15  # seconds over `import numpy`, on a machine without a GPU
HEAVY = ["cupy", "torch", "matplotlib", "PIL", "typer", "rich", "pooch", "requests", "safetensors", "threadpoolctl"]
HEAVY += ["ml_dtypes", "asyncio", "multiprocessing", "concurrent.futures", "unittest", "sqlite3"]


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A new interpreter that runs `code`, on a machine whose driver hides its GPUs."""
    variables = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment}
    return subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)


def test_import_prints_nothing_and_loads_nothing_heavy() -> None:
    """What NumPy itself loads is not ours to answer for."""
    listing = "import sys; import {}; print(*sorted(sys.modules))"
    numpys = set(python(listing.format("numpy")).stdout.split())
    done = python("import gpucnn, sys; print(*sorted(sys.modules))")
    assert done.stderr == ""
    ours = set(done.stdout.split("\n")[0].split()) - numpys
    assert "gpucnn" in ours
    assert sorted(ours & set(HEAVY)) == []


def test_warnings_as_errors_do_not_break_the_import() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", "import gpucnn"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(os.name != "posix", reason="children's processor time is read as POSIX has it")
@pytest.mark.parametrize("cupy", ["as installed", "hidden"])
def test_import_costs_little_more_than_numpy(cupy: str, tmp_path: Path) -> None:
    """Medians over interpreters started in turn, with the byte code compiled, as an installation does.

    It is processor time, which an import on an idle machine takes from start to end, so that other processes on this
    machine do not count.
    """
    hide = "import sys; sys.modules['cupy'] = None; " if cupy == "hidden" else ""

    def seconds(code: str) -> float:
        before = os.times()
        python(code, PYTHONDONTWRITEBYTECODE="", PYTHONPYCACHEPREFIX=str(tmp_path))
        after = os.times()
        return (after.children_user - before.children_user) + (after.children_system - before.children_system)

    seconds(f"{hide}import gpucnn")  # compiles the byte code
    differences = []
    for _ in range(9):
        alone = seconds(f"{hide}import numpy")
        differences.append(seconds(f"{hide}import gpucnn") - alone)
    cost = statistics.median(differences)
    assert cost <= BUDGET, f"import gpucnn costs {cost:.3f} s more than import numpy: {differences}"


def test_a_read_only_home_is_no_obstacle(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Neither the import nor a computation writes to the home folder."""
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o500)
    environment = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    done = python("import gpucnn; print((gpucnn.ones(2, device='cpu') + 1).numpy().tolist())", **environment)
    assert done.stdout == "[2.0, 2.0]\n"
    assert done.stderr == ""
    assert list(home.iterdir()) == []
