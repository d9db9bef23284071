"""Checkpoints of version 1 go on as if they had been of today's version, and are evaluated."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import gpucnn
from gpucnn import training
from gpucnn.viz import curves
from tests.training.training_support import contents, lines, small

STEPS = 10  # in an epoch of the small run
GAMMA, EVERY = 0.5, 2
SCHEDULE = {"name": "step", "every": EVERY, "gamma": GAMMA}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(curves, "draw", lambda *_: True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    summary = training.train(small(epochs=3, schedule=SCHEDULE), out=tmp_path_factory.mktemp("whole") / "run")
    return summary.folder


def version_1(folder: Path) -> None:
    """Writes the folder's checkpoint as version 1 did: one SGD, StepLR counting epochs, the length of metrics.jsonl."""
    content = gpucnn.load(folder / "checkpoint.safetensors", device="cpu")
    config, state = dict(content["config"]), dict(content["trainer"])
    optimizer, schedule = config["optimizer"], config["schedule"]
    old = {key: config[key] for key in ("model", "data", "data_dir", "epochs", "batch_size", "average_decay", "seed")}
    old |= {key: config[key] for key in ("device", "checkpoint_steps", "train_images", "test_images", "prefetch")}
    old |= {"lr": optimizer["lr"], "momentum": optimizer["momentum"], "nesterov": False, "weight_decay": 0.0}
    old |= {"lr_decay": schedule["gamma"], "lr_decay_epochs": schedule["every"]}
    (sgd,), (steps,) = state.pop("optimizers"), state.pop("schedulers")
    written: dict[str, Any] = state.pop("callbacks")["JSONLines metrics.jsonl"]
    if state["trained"] and (state["epoch"] + 1) % EVERY == 0:  # it decayed after the evaluation
        steps = {**steps, "last_lr": [lr / GAMMA for lr in steps["last_lr"]]}
        sgd = {**sgd, "param_groups": [{**group, "lr": group["lr"] / GAMMA} for group in sgd["param_groups"]]}
    state |= {"optimizer": sgd, "scheduler": {**steps, "last_epoch": state["epoch"]}}
    gpucnn.save(
        {
            "version": 1,
            "config": old,
            "classes": content["classes"],
            "metrics_bytes": written["bytes"],
            "trainer": state,
        },
        folder / "checkpoint.safetensors",
    )


class _Stop(Exception):
    pass


class _StopAt(training.Silent):
    def __init__(self, step: int) -> None:
        self.left = step

    def step(self, *args) -> None:
        self.left -= 1
        if not self.left:
            raise _Stop


class _StopInEvaluation(training.Silent):
    def __init__(self, epoch: int) -> None:
        self.epoch, self.at = epoch, 0

    def start_epoch(self, epoch, *args) -> None:
        self.at = epoch

    def evaluating(self, done: int, total: int) -> None:
        if self.at == self.epoch and done == 2:
            import signal

            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("step", [4, 11, 23])
def test_a_run_of_version_1_goes_on_bit_identically(whole, tmp_path, step):
    folder = tmp_path / "run"
    with pytest.raises(_Stop):
        training.train(small(epochs=3, schedule=SCHEDULE, checkpoint_steps=2), out=folder, progress=_StopAt(step))
    version_1(folder)
    assert training.load_run(folder, device="cpu").step == (step - 1) // 2 * 2
    training.train(resume=folder)
    assert contents(folder) == contents(whole)
    assert lines(folder) == lines(whole)


@pytest.mark.parametrize("epoch", [1, 2])
def test_one_that_was_stopped_in_an_evaluation_decays_on_time(whole, tmp_path, epoch):
    folder = tmp_path / "run"
    with pytest.raises(training.TrainingInterrupted):
        training.train(small(epochs=3, schedule=SCHEDULE), out=folder, progress=_StopInEvaluation(epoch))
    version_1(folder)
    training.train(resume=folder)
    assert contents(folder) == contents(whole)
    assert lines(folder) == lines(whole)


def test_a_version_1_without_its_parts_is_refused(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    version_1(tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.safetensors"
    good = gpucnn.load(path, device="cpu")
    for part in ("metrics_bytes", "classes"):
        gpucnn.save({key: value for key, value in good.items() if key != part}, path)
        with pytest.raises(
            ValueError, match=f"checkpoint.safetensors: damaged, or no checkpoint of version 1: .*{part}"
        ):
            training.load_run(path, device="cpu")
    gpucnn.save({**good, "trainer": {**good["trainer"], "scheduler": 3}}, path)
    with pytest.raises(ValueError, match="damaged, or no checkpoint of version 1"):
        training.load_run(path, device="cpu")
