"""Which CuPy the Makefile installs, by what nvidia-smi says of the machine and pip of the environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpucnn import cupy_choice
from gpucnn.cupy_choice import plan, read_gpus

SCRIPT = Path(cupy_choice.__file__)

BANNER = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 570.124.06             Driver Version: 570.124.06     CUDA Version: {}     |
+-----------------------------------------------------------------------------------------+
"""

MACHINES = [
    (["5.0"], "12.4", "cuda12"),  # GeForce 940MX
    (["6.1"], "13.0", "cuda12"),  # GeForce 1070: CUDA 13 dropped it, whatever the driver says
    (["7.0"], "13.0", "cuda12"),
    (["7.5"], "13.0", "cuda13"),
    (["7.5"], "12.8", "cuda12"),
    (["9.0"], "12.9", "cuda12"),
    (["9.0"], "13.1", "cuda13"),
    (["10.0"], "13.0", "cuda13"),
    (["12.0", "12.0"], "14.0", "cuda13"),
    (["9.0", "6.1"], "13.0", "cuda12"),  # the oldest decides
]


def nvidia_smi(capabilities: list[str], cuda: str) -> str:
    """A shell script that answers as nvidia-smi does on a machine with these GPUs."""
    listing = "\n".join(f"GPU {i}: NVIDIA Something (UUID: GPU-{i})" for i in range(len(capabilities)))
    answers = {"-L)": listing, "*compute_cap*)": "\n".join(capabilities), "*)": BANNER.format(cuda)}
    cases = "".join(f"{pattern} cat <<'END'\n{answer}\nEND\n;;\n" for pattern, answer in answers.items())
    return f'#!/bin/sh\ncase "$*" in\n{cases}esac\n'


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Puts an nvidia-smi of the given text, or none, on the PATH."""
    if os.name != "posix":
        pytest.fail("the fake nvidia-smi is a shell script")
    folder = tmp_path / "bin"
    folder.mkdir()
    for needed in ("sh", "cat"):
        found = shutil.which(needed)
        assert found is not None
        (folder / needed).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))

    def put(text: str | None) -> None:
        if text is not None:
            (folder / "nvidia-smi").write_text(text)
            (folder / "nvidia-smi").chmod(0o755)

    return put


@pytest.mark.parametrize(("capabilities", "cuda", "extra"), MACHINES)
def test_gpu_and_driver_choose_the_extra(install, capabilities: list[str], cuda: str, extra: str) -> None:  # type: ignore[no-untyped-def]
    install(nvidia_smi(capabilities, cuda))
    assert plan(read_gpus(), [], for_tests=False) == (extra, [])
    assert plan(read_gpus(), [], for_tests=True) == (extra, [])


def test_without_nvidia_smi_training_needs_no_cupy_and_the_tests_take_cuda12(install) -> None:  # type: ignore[no-untyped-def]
    install(None)
    assert read_gpus() is None
    assert plan(None, [], for_tests=False) == (None, [])
    assert plan(None, [], for_tests=True) == ("cuda12", [])


@pytest.mark.parametrize(
    "text",
    [
        "#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'\nexit 9\n",
        "#!/bin/sh\necho 'No devices were found'\n",
    ],
)
def test_a_driver_without_a_gpu_is_no_gpu(install, text: str) -> None:  # type: ignore[no-untyped-def]
    install(text)
    assert read_gpus() is None


def test_a_driver_too_old_to_tell_the_compute_capability_takes_cuda12(install) -> None:  # type: ignore[no-untyped-def]
    install(nvidia_smi(['Field "compute_cap" is not a valid field to query.'], "11.4"))
    assert plan(read_gpus(), [], for_tests=False) == ("cuda12", [])


@pytest.mark.parametrize(
    ("capabilities", "cuda", "installed", "expected"),
    [
        (["9.0"], "13.0", ["cupy-cuda13x"], ("cuda13", [])),  # what fits stays
        (["9.0"], "13.0", ["cupy-cuda12x"], ("cuda13", ["cupy-cuda12x"])),  # what does not goes first
        (["6.1"], "13.0", ["cupy-cuda13x"], ("cuda12", ["cupy-cuda13x"])),
        (["9.0"], "12.4", ["cupy-cuda11x"], ("cuda12", ["cupy-cuda11x"])),
        # two have overwritten each other: both go
        (["9.0"], "13.0", ["cupy-cuda12x", "cupy-cuda13x"], ("cuda13", ["cupy-cuda12x", "cupy-cuda13x"])),
        (["9.0"], "13.0", ["cupy"], (None, [])),  # built from source: its owner's affair
    ],
)
def test_no_second_cupy_joins_the_first(  # type: ignore[no-untyped-def]
    install, capabilities: list[str], cuda: str, installed: list[str], expected: tuple[str | None, list[str]]
) -> None:
    install(nvidia_smi(capabilities, cuda))
    assert plan(read_gpus(), installed, for_tests=True) == expected


def test_with_no_gpu_the_cupy_that_is_there_stays() -> None:
    assert plan(None, ["cupy-cuda13x"], for_tests=True) == ("cuda13", [])
    assert plan(None, ["cupy-cuda13x"], for_tests=False) == (None, [])


def test_the_script_runs_by_its_path_and_prints_the_extra(install) -> None:  # type: ignore[no-untyped-def]
    """As the Makefile runs it: isolated, from a folder with a random.py in it, before gpucnn is installed."""
    install(nvidia_smi(["6.1"], "13.0"))
    done = subprocess.run([sys.executable, "-I", str(SCRIPT)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout == ("cuda12\n" if cupy_choice.wheels_exist() else "\n")


def test_prepare_removes_the_wheel_of_another_kind_and_says_so(  # type: ignore[no-untyped-def]
    install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(nvidia_smi(["9.0"], "13.0"))
    commands = []
    real = subprocess.run

    def run(command: list[str], **options: object):  # type: ignore[no-untyped-def]
        if command[0] == "nvidia-smi":
            return real(command, **options)  # type: ignore[call-overload]
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(cupy_choice, "installed_cupy", lambda: ["cupy-cuda12x"])
    monkeypatch.setattr(cupy_choice, "wheels_exist", lambda: True)
    assert cupy_choice.main(["--prepare"]) == 0
    assert [command[1:] for command in commands] == [["-m", "pip", "uninstall", "--yes", "--quiet", "cupy-cuda12x"]]
    said = capsys.readouterr()
    assert said.out == "cuda13\n"
    assert "cupy-cuda12x" in said.err


def test_installed_cupy_sees_this_environment() -> None:
    import importlib.metadata

    expected = [n for n in ("cupy", "cupy-cuda12x", "cupy-cuda13x") if _is_installed(importlib.metadata, n)]
    assert [n for n in cupy_choice.installed_cupy() if n in ("cupy", "cupy-cuda12x", "cupy-cuda13x")] == expected


def _is_installed(metadata, name: str) -> bool:  # type: ignore[no-untyped-def]
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
