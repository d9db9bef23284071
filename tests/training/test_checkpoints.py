"""When checkpoints are written: by steps, by the clock, at the end of an epoch; and which one is the best."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import gpucnn
from gpucnn import load, training
from gpucnn.training import checkpoint as checkpoint_module
from gpucnn.training import run as run_module
from gpucnn.viz import curves
from tests.training.training_support import contents, lines, small, table

BEST, LAST = "best.safetensors", "checkpoint.safetensors"


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(curves, "draw", lambda *_: True)


class Written(list):
    """(step, name) of each file that is saved."""

    def __init__(self, monkeypatch) -> None:
        super().__init__()

        def save(content, path) -> None:
            self.append((content["trainer"]["step"], path.name.split(".")[0]))
            gpucnn.serialization.save(content, path)

        monkeypatch.setattr(checkpoint_module.gpucnn, "save", save)


def test_every_so_many_steps_and_after_each_epoch(monkeypatch, tmp_path):
    written = Written(monkeypatch)
    training.train(small(checkpoint_steps=4), out=tmp_path / "run")
    assert [step for step, _ in written] == [0, 4, 8, 10, 12, 16, 20, 20]
    assert {name for _, name in written} == {"checkpoint"}


class _Clock:
    """Each step takes seven and a half seconds."""

    def __init__(self, monkeypatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(checkpoint_module.time, "monotonic", lambda: self.now)


class _Ticks(training.Callback):
    def __init__(self, clock: _Clock) -> None:
        self.clock = clock

    def on_steps(self, trainer, record) -> None:
        self.clock.now += 7.5


def _clocked(run, clock: _Clock):
    run.trainer.callbacks.insert(0, _Ticks(clock))
    return run


def test_every_so_many_minutes_of_the_monotonic_clock(monkeypatch, tmp_path):
    clock, written = _Clock(monkeypatch), Written(monkeypatch)
    config = small(checkpoint_minutes=0.5, log_steps=1)  # 30 s are over at the fourth step after the last one
    _clocked(run_module._Run.new(config, tmp_path / "run", False, training.Silent()), clock).execute()
    assert [step for step, _ in written] == [0, 4, 8, 10, 14, 18, 20]
    del written[:]
    clock.now += 1e6  # the time between two processes does not count
    longer = {"epochs": 3, "checkpoint_minutes": 0.7}
    _clocked(run_module._Run.resumed(tmp_path / "run" / LAST, longer, training.Silent()), clock).execute()
    assert [step for step, _ in written] == [20, 26, 30]


def test_a_checkpoint_by_steps_starts_the_clock_anew(monkeypatch, tmp_path):
    clock, written = _Clock(monkeypatch), Written(monkeypatch)
    config = small(checkpoint_minutes=0.5, checkpoint_steps=3, epochs=1, log_steps=1)
    _clocked(run_module._Run.new(config, tmp_path / "run", False, training.Silent()), clock).execute()
    assert [step for step, _ in written] == [0, 3, 6, 9, 10]


# ---- the best --------------------------------------------------------------------------------------------------------

HELD_OUT = {"val_split": 30, "epochs": 5, "average_decay": None}


def _with_accuracies(monkeypatch, accuracies: list[float]) -> None:
    """The validation accuracies of epochs 1, 2, ... are these, whatever the network does."""
    real = training.Trainer._evaluate_epoch

    def evaluate(self):
        record = real(self)
        record.val_accuracy = accuracies[record.epoch - 1]
        return record

    monkeypatch.setattr(training.Trainer, "_evaluate_epoch", evaluate)


@pytest.mark.parametrize(
    ("accuracies", "kept", "best"),
    [
        ([0.5, 0.75, 0.75, 0.625, 0.875], [1, 2, 5], 0.875),
        ([0.0, 0.0, 0.0, 0.0, 0.0], [1], 0.0),  # a tie is the earlier one's
    ],
)
def test_the_best_is_that_of_the_highest_validation_accuracy(monkeypatch, tmp_path, accuracies, kept, best):
    _with_accuracies(monkeypatch, accuracies)
    written = Written(monkeypatch)
    folder = tmp_path / "run"
    training.train(small(**HELD_OUT), out=folder)
    assert [step // 8 for step, name in written if name == "best"] == kept
    for name, epoch in ((BEST, kept[-1]), (LAST, 5)):
        state = load(folder / name, device="cpu")["trainer"]
        assert state["epoch"] == epoch
        assert state["callbacks"]["Checkpoints"] == {"best_accuracy": best, "best_epoch": kept[-1]}
    assert training.load_run(folder / BEST, device="cpu").epoch == kept[-1]
    assert training.load_run(folder, device="cpu").epoch == 5


@pytest.mark.parametrize(("crash", "writing"), [(2, BEST), (2, LAST), (4, LAST)])
def test_the_best_is_remembered_over_a_resume(monkeypatch, tmp_path, crash, writing):
    """Also where the process dies before or between the best one and the last one: the epoch is done again."""
    _with_accuracies(monkeypatch, [0.5, 0.75, 0.625, 0.75, 0.5])
    whole = training.train(small(**HELD_OUT), out=tmp_path / "whole")
    folder = tmp_path / "run"
    real = gpucnn.serialization.save

    def dies(content, path) -> None:
        if content["trainer"]["epoch"] == crash and path.name == writing:
            raise RuntimeError("power cut")
        real(content, path)

    monkeypatch.setattr(checkpoint_module.gpucnn, "save", dies)
    with pytest.raises(RuntimeError, match="power cut"):
        training.train(small(**HELD_OUT), out=folder)
    monkeypatch.setattr(checkpoint_module.gpucnn, "save", real)
    assert load(folder / LAST, device="cpu")["trainer"]["epoch"] == crash - 1
    training.train(resume=folder)
    for name in (BEST, LAST):
        assert contents(folder, name) == contents(whole.folder, name)
    assert (lines(folder), table(folder)) == (lines(whole.folder), table(whole.folder))


def test_without_images_held_out_there_is_no_best_whatever_the_test_part_says(tmp_path):
    summary = training.train(small(), out=tmp_path / "run")
    assert summary.last is not None and summary.last.val_accuracy is None and summary.last.test_accuracy is not None
    assert not (tmp_path / "run" / BEST).exists()


def test_a_run_goes_on_from_its_best(monkeypatch, tmp_path):
    _with_accuracies(monkeypatch, [0.5, 0.75, 0.625, 0.25, 0.5])
    folder = tmp_path / "run"
    training.train(small(**HELD_OUT), out=folder)
    whole = contents(folder)
    shutil.copytree(folder, tmp_path / "again")
    training.train(resume=tmp_path / "again" / BEST)
    assert contents(tmp_path / "again") == whole
    assert lines(tmp_path / "again") == lines(folder)

    class Dies(training.Silent):
        def step(self, *_) -> None:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        training.train(resume=folder / BEST, progress=Dies())
    training.train(resume=folder)  # its last checkpoint is that of the second epoch now, and the lines agree with it
    assert contents(folder) == whole
    assert [record["epoch"] for record in lines(folder)] == [1, 2, 3, 4, 5]


# ---- what is never written -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["momentum", "average"])
def test_numbers_of_the_optimizer_that_are_not_finite_are_never_saved(tmp_path, part):
    """The weights are fine, but the next step would spoil them."""

    class Poison(training.Callback):
        def on_step(self, trainer) -> None:
            if trainer.step == 3:
                with gpucnn.no_grad():
                    if part == "average":
                        trainer.average.averages[0].fill_(np.nan)
                    else:
                        state = trainer.optimizers[0].state_dict()["state"]
                        state[0]["momentum_buffer"].fill_(np.inf)
                        trainer.optimizers[0].load_state_dict({**trainer.optimizers[0].state_dict(), "state": state})

    run = run_module._Run.new(small(checkpoint_steps=3), tmp_path / "run", False, training.Silent())
    run.trainer.callbacks.insert(0, Poison())
    with pytest.raises(
        training.TrainingError, match=r"the numbers .* are no longer finite after step 3; the check.* 0 "
    ):
        run.execute()
    assert load(tmp_path / "run" / LAST, device="cpu")["trainer"]["step"] == 0


def test_a_folder_with_a_best_alone_is_a_run_too(tmp_path):
    folder = tmp_path / "run"
    training.train(small(val_split=30, epochs=1), out=folder)
    for name in (LAST, "metrics.jsonl"):
        (folder / name).unlink()
    with pytest.raises(FileExistsError, match=r"run: there is a run in this folder: --resume .*, --overwrite"):
        training.train(small(epochs=1), out=folder)
    training.train(small(epochs=1), out=folder, overwrite=True)
    assert not (folder / BEST).exists()
    assert json.loads((folder / "config.json").read_text())["val_split"] == 0
