"""Every variable of the environment is read in one place, checked and documented; a home that cannot be written does
no harm."""

from __future__ import annotations

import logging
import os
import re
import stat
import sys
from pathlib import Path

import pytest

from gpucnn import settings

posix = pytest.mark.skipif(sys.platform == "win32", reason="owners and modes of files as POSIX has them")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("GPUCNN_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(settings, "_temporary", {})


@pytest.mark.parametrize(
    ("name", "read", "default", "good", "bad"),
    [
        (
            "GPUCNN_DEVICE",
            settings.device,
            None,
            {"cpu": "cpu", "cuda:1": "cuda:1", " CUDA ": "cuda"},
            ["gpu", "cuda:", "cuda:x"],
        ),
        ("GPUCNN_COMPILE", settings.compile_mode, "import", {"lazy": "lazy", "Import": "import"}, ["eager", "1"]),
        ("GPUCNN_EMULATOR", settings.emulator_mode, "fast", {"strict": "strict"}, ["slow"]),
        ("GPUCNN_THREADS", settings.threads, None, {"1": 1, " 12 ": 12}, ["0", "-1", "two", "1.5", "10000"]),
        ("GPUCNN_EMULATOR_ARCH", settings.emulator_arch, 80, {"61": 61, "120": 120}, ["sm_80", "0", "81"]),
    ],
)
def test_choices(monkeypatch, name, read, default, good, bad) -> None:
    assert read() == default
    monkeypatch.setenv(name, "")
    assert read() == default
    for text, value in good.items():
        monkeypatch.setenv(name, text)
        assert read() == value
    for text in bad:
        monkeypatch.setenv(name, text)
        with pytest.raises(ValueError, match=f"{name} must be .*, got '{re.escape(text)}'"):
            read()


def test_the_data_folder(monkeypatch, tmp_path) -> None:
    assert settings.data_dir() is None
    monkeypatch.setenv("GPUCNN_DATA", str(tmp_path))
    assert settings.data_dir() == tmp_path
    monkeypatch.setenv("GPUCNN_DATA", "~/data")
    assert settings.data_dir() == Path.home() / "data"


def test_no_other_file_reads_the_environment_for_itself() -> None:
    """A variable of ours that is read elsewhere would be missing from the documentation."""
    package = Path(settings.__file__).parent
    reads = re.compile(r"(?:environ|getenv)[^\n]*GPUCNN_")
    readers = [p.name for p in package.rglob("*.py") if reads.search(p.read_text("utf-8"))]
    assert readers == ["settings.py"]
    documented = {variable.name for variable in settings.VARIABLES}
    assert set(re.findall(r'"(GPUCNN_\w+)"', Path(settings.__file__).read_text("utf-8"))) == documented


def test_a_cache_folder_that_is_named(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("GPUCNN_CACHE_DIR", str(tmp_path / "a" / "b"))
    assert settings.cache_dir() == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GPUCNN_CACHE_DIR", str(tmp_path / "file" / "below"))
    with pytest.raises(OSError, match="GPUCNN_CACHE_DIR names cannot be created"):
        settings.cache_dir()


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user's cache folder that cannot be made (a file is in its way), and a temporary directory of the test's
    own."""
    (tmp_path / "home").write_text("not a folder")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path / "home" / "gpucnn")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def test_the_users_cache_folder(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path / "cache" / "gpucnn")
    assert settings.cache_dir() == tmp_path / "cache" / "gpucnn"


def test_a_home_that_cannot_be_written(homeless, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        first, second = settings.cache_dir(), settings.cache_dir()
    assert first == second
    assert first.parent == homeless
    (record,) = caplog.records  # told once
    assert "cannot be written" in record.getMessage()
    assert "GPUCNN_CACHE_DIR" in record.getMessage()


def test_a_read_only_cache_folder(monkeypatch, tmp_path, homeless) -> None:
    """As on a read-only file system, where even root may not write: the answer of os.access is what counts."""
    folder = tmp_path / "readonly"
    folder.mkdir()
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: folder)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder and real(path, mode))
    assert settings.cache_dir().parent == homeless


@posix
def test_the_temporary_folder_is_the_users_alone(homeless) -> None:
    folder = settings.private_temporary_folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.stat().st_uid == os.getuid()
    assert settings.private_temporary_folder() == folder  # other processes find it too


@posix
@pytest.mark.parametrize("trap", ["open to others", "a link", "a file", "somebody else's"])
def test_a_folder_that_somebody_else_prepared_is_not_used(homeless, monkeypatch, tmp_path, trap) -> None:
    usual = homeless / f"gpucnn-{os.getuid()}"
    if trap == "open to others":
        usual.mkdir()
        usual.chmod(0o777)
    elif trap == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        usual.symlink_to(tmp_path / "elsewhere")
    elif trap == "a file":
        usual.write_text("")
    else:
        usual.mkdir(mode=0o700)
        user = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: user + 1)
        usual.rename(homeless / f"gpucnn-{user + 1}")
        usual = homeless / f"gpucnn-{user + 1}"
    folder = settings.private_temporary_folder()
    assert folder != usual
    assert folder.parent == homeless
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_kernels_are_found_in_the_source_tree_and_in_a_wheel(monkeypatch, tmp_path) -> None:
    assert (settings.kernels_path() / "common.cuh").is_file()
    package = tmp_path / "site-packages" / "gpucnn"
    (package / "kernels").mkdir(parents=True)
    monkeypatch.setattr(settings, "__file__", str(package / "settings.py"))
    (tmp_path / "site-packages" / "kernels").mkdir()  # somebody else's package of that name
    with pytest.raises(FileNotFoundError, match="the CUDA sources are missing"):
        settings.kernels_path()
    (package / "kernels" / "common.cuh").write_text("")
    assert settings.kernels_path() == package / "kernels"


def test_without_platformdirs_the_cache_is_in_the_home(clean_environment, monkeypatch, tmp_path) -> None:
    """A checkout on a machine that has CuPy and little else."""
    monkeypatch.delenv("GPUCNN_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    assert settings.cache_dir() == tmp_path / ".cache" / "gpucnn"
