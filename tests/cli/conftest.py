"""A short run on few generated images, and the command line as a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from gpucnn.cli import main


class Done(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def gpucnn(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Done]:
    """`gpucnn(*arguments)`, run in this process, in an empty folder, on a Shapes set of 96 and 48 images."""
    from gpucnn.data import shapes

    monkeypatch.setattr(shapes, "TRAIN_IMAGES", 96)
    monkeypatch.setattr(shapes, "TEST_IMAGES", 48)
    monkeypatch.setenv("GPUCNN_DEVICE", "cpu")
    monkeypatch.delenv("GPUCNN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Done:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Done(code, out, err)

    return run


SHORT = ("--model", "lenet5", "--data", "shapes", "--batch-size", 16, "--epochs", 2)


@pytest.fixture
def run_folder(gpucnn: Callable[..., Done], tmp_path: Path) -> Path:
    """A finished run of two epochs."""
    done = gpucnn("train", *SHORT, "--out", tmp_path / "run", "--quiet")
    assert done.code == 0, done.err
    return tmp_path / "run"
