"""Import fills the cache for the GPUs there are, and survives whatever goes wrong; the doctor hears of it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from gpucnn import backends, cuda, device, settings
from gpucnn.backends.cuda import compiler, driver, precompile
from gpucnn.backends.cuda.cache import KernelCache

GPUS = (
    driver.Device(0, "A", (8, 6), 1 << 30),
    driver.Device(1, "B", (8, 6), 1 << 30),
    driver.Device(2, "C", (7, 5), 1 << 30),
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernels: Path) -> Path:
    """Three GPUs of two architectures, two kernel files of which one is rare, and an empty cache, whose folder is
    returned."""
    folder = tmp_path / "kernels"
    folder.mkdir()
    shutil.copy(settings.kernels_path() / "common.cuh", folder)
    shutil.copy(kernels / "values.cu", folder)
    (folder / "seldom.cu").write_text(f'{compiler.RARE}\nextern "C" __global__ void seldom(int n) {{}}\n')
    monkeypatch.setattr(settings, "kernels_path", lambda: folder)
    monkeypatch.setenv("GPUCNN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("GPUCNN_COMPILE", raising=False)
    monkeypatch.setattr(driver, "query", lambda: driver.Driver(True, (12, 9), GPUS, None))
    monkeypatch.setattr(driver, "is_available", lambda: True)
    monkeypatch.setattr(precompile, "_failures", {})
    monkeypatch.setattr(precompile, "_failure", None)
    return tmp_path / "cache" / "kernels"


def images(folder: Path) -> list[str]:
    return sorted(path.name.rsplit("-", 1)[0] for path in folder.glob("*.cubin")) if folder.is_dir() else []


def test_import_compiles_the_default_path_once_for_each_architecture(machine) -> None:
    cuda.on_import()
    assert images(machine) == ["values-sm_75", "values-sm_86"]
    before = {path: path.stat().st_mtime_ns for path in machine.iterdir()}
    cuda.on_import()
    assert {path: path.stat().st_mtime_ns for path in machine.iterdir()} == before


def test_a_gpu_too_old_for_this_nvrtc_does_not_keep_the_others_waiting(machine, monkeypatch) -> None:
    gpus = (driver.Device(0, "old", (3, 5), 1 << 30), *GPUS[:1])
    monkeypatch.setattr(driver, "query", lambda: driver.Driver(True, (13, 0), gpus, None))
    cuda.on_import()
    assert images(machine) == ["values-sm_86"]
    monkeypatch.setattr(driver, "query", lambda: driver.Driver(True, (13, 0), gpus[:1], None))
    with pytest.raises(compiler.CompileError, match=r"does not compile for compute capability 3\.5"):
        precompile.visible_architectures()


def test_lazy_leaves_it_to_the_first_launch(machine, monkeypatch) -> None:
    monkeypatch.setenv("GPUCNN_COMPILE", "lazy")
    cuda.on_import()
    assert images(machine) == []


def test_a_value_that_makes_no_sense_waits_for_the_first_use_of_a_device(machine, monkeypatch) -> None:
    monkeypatch.setenv("GPUCNN_COMPILE", "sometimes")
    cuda.on_import()
    assert images(machine) == []
    with pytest.raises(ValueError, match="GPUCNN_COMPILE must be import or lazy, got 'sometimes'"):
        backends._made.__wrapped__(device("cpu"))


def test_without_a_gpu_nothing_is_compiled(machine, monkeypatch) -> None:
    monkeypatch.setattr(driver, "query", lambda: driver.Driver(False, None, (), "no NVIDIA driver"))
    cuda.on_import()
    assert images(machine) == []


def test_a_source_that_fails_does_not_break_import(machine, caplog) -> None:
    (settings.kernels_path() / "wrong.cu").write_text('extern "C" __global__ void wrong(int n) { oops; }\n')
    with caplog.at_level(logging.WARNING):
        cuda.on_import()
    assert "wrong.cu was not compiled for sm_86" in caplog.text
    assert images(machine) == ["values-sm_75", "values-sm_86"]
    states = {(s.source, s.architecture): s for s in cuda.compile_state()}
    assert states["wrong.cu", "86"].state == "failed"
    assert '"oops" is undefined' in (states["wrong.cu", "86"].error or "")
    assert states["values.cu", "75"].state == "compiled"
    assert states["values.cu", "75"].kernels["read_struct"].spills == 0
    assert states["seldom.cu", "86"].state == "not compiled"
    assert states["seldom.cu", "86"].kernels == {"seldom": None}


def test_a_cache_that_cannot_be_written_does_not_break_import(machine, monkeypatch, tmp_path, caplog) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GPUCNN_CACHE_DIR", str(tmp_path / "file" / "below"))
    with caplog.at_level(logging.WARNING):
        cuda.on_import()
    assert "cannot be created" in caplog.text
    states = cuda.compile_state()
    assert {s.state for s in states} == {"failed"}
    assert all("GPUCNN_CACHE_DIR" in (s.error or "") for s in states)


def test_a_missing_nvrtc_does_not_break_import(machine, monkeypatch, caplog) -> None:
    def missing() -> None:
        raise compiler.CompileError("kernels cannot be compiled: CuPy or NVRTC is missing")

    monkeypatch.setattr(compiler, "load_nvrtc", missing)
    with caplog.at_level(logging.WARNING):
        cuda.on_import()
    assert "NVRTC is missing" in caplog.text
    (state,) = cuda.compile_state()
    assert (state.state, state.architecture) == ("failed", None)


def test_the_state_of_named_architectures_needs_no_gpu(machine, monkeypatch) -> None:
    monkeypatch.setattr(driver, "query", lambda: driver.Driver(False, None, (), "no NVIDIA driver"))
    assert {(s.source, s.architecture, s.state) for s in cuda.compile_state()} == {
        ("values.cu", None, "not compiled"),
        ("seldom.cu", None, "not compiled"),
    }
    cuda.compile_all("80")
    assert {(s.source, s.state) for s in cuda.compile_state(["80"])} == {
        ("values.cu", "compiled"),
        ("seldom.cu", "compiled"),
    }
    assert {s.state for s in precompile.compile_state(["80"], KernelCache(machine / "another"))} == {"not compiled"}
