"""The wheel and the sdist, installed outside the checkout and used there: training steps on cpu and emulated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.xdist_group("package")

TRAIN_A_STEP = """
import json, sys
import gpucnn
from gpucnn import functional as F, models, optim, settings

losses = {}
for device in sys.argv[1:]:
    gpucnn.manual_seed(3)
    model = models.lenet5(device=device)
    optimizer = optim.SGD(model.parameters(), lr=0.05)
    images = gpucnn.randn(3, 1, 28, 28, device="cpu").to(device)
    labels = gpucnn.tensor([1, 7, 4], device=device)
    for step in range(2):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    losses[device] = loss.item()
told = {"file": gpucnn.__file__, "kernels": str(settings.kernels_path()), "version": gpucnn.__version__}
print(json.dumps({**told, "losses": losses}))
"""


def run(*command: str | Path, **options: object) -> str:
    """Standard output of a command that must succeed, run without this checkout on the module path."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "GPUCNN_DEVICE")}
    done = subprocess.run(
        [str(part) for part in command],
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        **options,
    )  # type: ignore[call-overload]
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """{"wheel": path, "sdist": path}, each built from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--sdist", "--outdir", folder, ROOT, cwd=folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


def contents(archive: Path) -> dict[str, bytes]:
    """The files of a wheel or sdist; the sdist's own top folder is left out of their names."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as files:
            return {name: files.read(name) for name in files.namelist()}
    with tarfile.open(archive) as files:
        return {
            member.name.partition("/")[2]: files.extractfile(member).read()  # type: ignore[union-attr]
            for member in files.getmembers()
            if member.isfile()
        }


def below(folder: str, *suffixes: str) -> set[str]:
    """Paths of the checkout's files below a folder, as they are tracked or would be."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in suffixes and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_package_its_kernels_and_the_emulators_sources(archives: dict[str, Path]) -> None:
    names = set(contents(archives["wheel"]))
    kernels = below("kernels", ".cu", ".cuh")
    assert len(kernels) > 5
    assert {f"gpucnn/{kernel}" for kernel in kernels} <= names
    assert below("gpucnn", ".py", ".h", ".cpp") <= names
    assert "gpucnn/py.typed" in names
    assert not [name for name in names if not name.startswith(("gpucnn/", "gpucnn-"))]
    metadata = next(text for name, text in contents(archives["wheel"]).items() if name.endswith("/METADATA")).decode()
    assert "License-Expression: MIT" in metadata
    assert "Requires-Python: >=3.11" in metadata
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert not [line for line in required if "cupy" in line or "torch" in line or "nvidia" in line]


def test_the_sdist_holds_what_builds_and_tests_it(archives: dict[str, Path]) -> None:
    names = set(contents(archives["sdist"]))
    assert below("kernels", ".cu", ".cuh") | below("gpucnn", ".py", ".h", ".cpp") | below("tests", ".py") <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "Makefile", "CHANGELOG.md"} <= names


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_no_file_speaks_of_the_machine_that_built_it(archives: dict[str, Path], kind: str) -> None:
    places = {str(ROOT), str(Path.home()), sys.prefix} - {"/", "/root"}
    told = [name for name, text in contents(archives[kind]).items() for place in places if place.encode() in text]
    assert told == []


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_installed_outside_the_checkout_it_trains_a_step(archives: dict[str, Path], kind: str, tmp_path: Path) -> None:
    devices = ["cpu", "emulated"] if sys.platform == "linux" else ["cpu"]
    home = tmp_path / "environment"
    venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt").create(home)
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    paths = json.loads(run(python, "-c", "import json, sysconfig; print(json.dumps(sysconfig.get_paths()))"))
    # The dependencies are borrowed from the environment that runs the tests, behind what is installed here; an editable
    # gpucnn there is not borrowed, because the .pth files in a folder that a .pth file names are not read.
    borrowed = sysconfig.get_paths()["purelib"]
    Path(paths["purelib"], "borrowed.pth").write_text(borrowed + "\n")
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet")
    run(*pip, "--no-index", "--no-deps", "--no-build-isolation", archives[kind], cwd=tmp_path)

    told = json.loads(run(python, "-c", TRAIN_A_STEP, *devices, cwd=tmp_path).splitlines()[-1])

    assert Path(told["file"]).is_relative_to(home)
    assert Path(told["kernels"]).is_relative_to(home)
    command = Path(paths["scripts"]) / ("gpucnn.exe" if os.name == "nt" else "gpucnn")
    assert run(command, "--version", cwd=tmp_path) == f"gpucnn {told['version']}\n"
    assert run(python, "-m", "gpucnn", "--version", cwd=tmp_path) == f"gpucnn {told['version']}\n"
    for device in devices:
        assert told["losses"][device] == pytest.approx(told["losses"]["cpu"], rel=1e-4)
    assert 0.5 < told["losses"]["cpu"] < 5.0
