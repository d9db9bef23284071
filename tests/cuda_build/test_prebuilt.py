"""Kernels compiled before they are shipped: used without NVRTC, and only for the very sources they came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpucnn.backends.cuda import compiler, prebuilt, precompile, shipped
from gpucnn.backends.cuda.compiler import CompileError, Program

RELU = "relu.cu"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where kernels are shipped; one source stands for all."""
    monkeypatch.setattr(shipped, "folder", lambda: tmp_path / "built")
    monkeypatch.setattr(compiler, "kernel_sources", lambda: [compiler.source_path(RELU)])
    shipped.architectures.cache_clear()
    yield tmp_path / "built"
    shipped.architectures.cache_clear()


@pytest.fixture
def built(folder: Path) -> Path:
    """A folder with relu.cu for sm_80 and sm_90a."""
    assert prebuilt.main(["sm_80", "90a"]) == 0
    return folder


def no_nvrtc() -> None:
    raise CompileError("NVRTC is missing")


def test_what_is_shipped_needs_no_nvrtc(built, monkeypatch, empty_cache) -> None:
    monkeypatch.setattr(compiler, "load_nvrtc", no_nvrtc)
    assert compiler.architecture_of((8, 0)) == "80"
    assert compiler.architecture_of((9, 0)) == "90a"
    found = compiler.build([(Program.read(RELU), "80"), (Program.read(RELU), "90a")], empty_cache)
    assert [one.error for one in found] == [None, None]
    assert all(one.cached and one.path.parent == built for one in found)
    assert {"relu_forward", "relu_backward"} <= set(found[0].kernels)
    assert found[0].path.read_bytes()[:4] == b"\x7fELF"
    (state,) = (s for s in precompile.compile_state(["80"], empty_cache) if s.source == RELU)
    assert state.state == "compiled"
    with pytest.raises(CompileError, match="NVRTC is missing"):
        compiler.architecture_of((8, 6))


@pytest.mark.parametrize("change", ["source", "damage", "architecture"])
def test_anything_else_is_compiled(change, built, empty_cache, monkeypatch) -> None:
    program, architecture = Program.read(RELU), "80"
    if change == "source":
        program = Program(program.name, program.text + "\n", program.headers)
    elif change == "damage":
        (image,) = built.glob("relu-sm_80-*.cubin")
        image.write_bytes(image.read_bytes()[:-1])
    else:
        architecture = "86"
    (one,) = compiler.build([(program, architecture)], empty_cache)
    assert (one.error, one.cached, one.path.parent) == (None, False, empty_cache.folder)


def test_other_nvrtc_other_cache_same_shipment(built, monkeypatch) -> None:
    program = Program.read(RELU)
    cached, ships = program.cache_name("80"), program.shipped_name("80")
    monkeypatch.setattr(compiler, "nvrtc_version", lambda: "99.1")
    assert program.cache_name("80") != cached
    assert program.shipped_name("80") == ships


def test_a_new_shipment_takes_the_place_of_the_old_one(built, capsys) -> None:
    before = sorted(path.name for path in built.iterdir())
    assert prebuilt.main(["sm_86"]) == 0
    assert "1 images" in capsys.readouterr().out
    after = sorted(path.name for path in built.iterdir())
    assert len(after) == 2 and not set(after) & set(before)
    assert shipped.architectures() == {"86"}
    assert prebuilt.main(["--remove"]) == 0
    assert not built.exists() and shipped.architectures() == frozenset()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["sm_8x"], "sm_8x"), (["sm_99"], "sm_99"), ([], "name architectures"), (["sm_80", "--remove"], "name architec")],
)
def test_bad_input_leaves_nothing(arguments, told, folder, capsys) -> None:
    try:
        code = prebuilt.main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert told in capsys.readouterr().err
    assert not folder.exists()


def test_a_source_that_does_not_compile_leaves_nothing(folder, tmp_path, monkeypatch, capsys) -> None:
    broken = tmp_path / "broken.cu"
    broken.write_text("not C++")
    monkeypatch.setattr(compiler, "kernel_sources", lambda: [compiler.source_path(RELU), broken])
    assert prebuilt.main(["80"]) == 2
    assert "broken.cu for sm_80" in capsys.readouterr().err
    assert not folder.exists()
