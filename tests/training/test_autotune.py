"""Runs whose kernels were chosen by time: the choices go on with the run, and with no other."""

from __future__ import annotations

from pathlib import Path

import pytest

import gpucnn
from gpucnn import backends, cli, training
from gpucnn.backends.cuda import tuning
from gpucnn.backends.cuda.tuning import Tuner
from gpucnn.training import Config, TrainingError

EMULATED = gpucnn.device("emulated")


@pytest.fixture
def backend(monkeypatch, tmp_path):
    """The emulated device with a clock that finds the scalar kernels fastest."""
    backend = backends.get(EMULATED)

    def clock(run) -> float:
        with backend.engine.record() as launches:
            run()
        return 1.0 if any("scalar" in launch.kernel for launch in launches) else 2.0

    monkeypatch.setenv("GPUCNN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("GPUCNN_EMULATOR", "fast")
    monkeypatch.setattr(tuning, "WARM_UP", 0)
    monkeypatch.setattr(tuning, "REPEATS", 1)
    monkeypatch.setattr(backend, "tuner", Tuner(lambda: "emulated", clock))
    return backend


def config(**changes: object) -> Config:
    values = {
        "model": "lenet5", "data": "shapes", "epochs": 1, "batch_size": 4, "train_images": 12, "test_images": 4,
        "device": "emulated", "checkpoint_steps": 1,
    }  # fmt: skip
    return Config.from_dict({**values, **changes})


def kernels(backend, run) -> set[str]:
    with backend.engine.record() as launches:
        run()
    return {launch.kernel for launch in launches}


def test_choices_are_used_and_go_on_with_the_run(backend, tmp_path: Path) -> None:
    out = tmp_path / "run"
    training.train(config(autotune=True), out=out)
    used = dict(backend.tuner.used)
    assert used and all(name.endswith("scalar") for name in used.values())
    backend.tuner.forget()
    backend.tuner._timer = None  # a machine that cannot time them
    seen = kernels(backend, lambda: training.train(resume=out, changes={"epochs": 2, "autotune": False}))
    assert backend.tuner.used == used
    assert not any("vec4" in kernel for kernel in seen if kernel.startswith(("conv2d", "gemm")))


def test_another_run_has_none_of_them(backend, tmp_path: Path) -> None:
    training.train(config(autotune=True), out=tmp_path / "tuned")
    seen = kernels(backend, lambda: training.train(config(), out=tmp_path / "plain"))
    assert any("vec4" in kernel for kernel in seen if kernel.startswith("gemm"))
    assert backend.tuner.used == {}


@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_where_nothing_can_be_timed(device, tmp_path: Path, capsys) -> None:
    with pytest.raises(ValueError, match=f"autotune: kernels can be timed on a GPU only, not on {device}"):
        training.train(config(autotune=True, device=device), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    arguments = ["train", "--model", "lenet5", "--data", "shapes", "--device", device, "--autotune"]
    assert cli.main([*arguments, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "autotune: kernels can be timed on a GPU only" in error and error.count("\n") == 1
    assert not issubclass(TrainingError, ValueError)
