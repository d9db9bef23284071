"""Early stop: its count, its checkpoint, and runs that it ends."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

import gpucnn
from gpucnn import training
from gpucnn.training import run as run_module
from gpucnn.training.early_stop import EarlyStop
from gpucnn.viz import curves
from tests.training.training_support import contents, lines, small


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(curves, "draw", lambda *_: True)


class _Trainer:
    """What EarlyStop sees of a trainer."""

    def __init__(self, val_loader: object = "there") -> None:
        self.epoch, self.val_loader = 0, val_loader
        self.stopped: str | None = None

    def stop(self, reason: str) -> None:
        self.stopped = reason


def epochs_until_stop(callback: EarlyStop, values: list[float]) -> int | None:
    """After how many epochs the callback stops a run whose epochs have these values."""
    trainer = _Trainer()
    callback.on_start(trainer)
    for epoch, value in enumerate(values, start=1):
        trainer.epoch = epoch
        callback.on_epoch_end(trainer, SimpleNamespace(epoch=epoch, val_accuracy=value, val_loss=value))
        if trainer.stopped:
            return epoch
    return None


@pytest.mark.parametrize(
    ("patience", "values", "epoch"),
    [
        (1, [0.5, 0.6, 0.6], 3),  # an equal one is no improvement
        (1, [0.5, 0.4], 2),
        (2, [0.5, 0.4, 0.6, 0.5, 0.6], 5),
        (2, [0.5, 0.4, 0.45, 0.9], 3),
        (3, [0.1, 0.2, 0.3, 0.4], None),
        (2, [0.0, 0.0, 0.0], 3),  # the first epoch counts as the best, whatever it is
    ],
)
def test_it_stops_after_so_many_epochs_without_improvement(patience, values, epoch):
    assert epochs_until_stop(EarlyStop(patience), values) == epoch
    assert epochs_until_stop(EarlyStop(patience, "val_loss"), [1 - value for value in values]) == epoch


def test_an_improvement_counts_from_min_delta_on():
    assert epochs_until_stop(EarlyStop(2, min_delta=0.25), [0.25, 0.5, 0.375]) == 3  # as large as min_delta: none
    assert epochs_until_stop(EarlyStop(2, min_delta=0.25), [0.25, 0.625, 0.75, 0.75]) == 4
    assert epochs_until_stop(EarlyStop(2, "val_loss", min_delta=0.25), [1.0, 0.625, 0.5, 0.25]) is None


def test_the_reason_says_what_was_seen():
    stop = EarlyStop(2)
    assert epochs_until_stop(stop, [0.25, 0.5, 0.5, 0.125]) == 4
    assert stop.reason == "val_accuracy has not improved in 2 epochs since its best, 0.5000, after epoch 2"
    assert stop.state_dict()["reason"] == stop.reason


def test_bad_arguments_are_refused():
    for arguments, problem in (
        ({"patience": 0}, "patience must be 1 or more epochs, got 0"),
        ({"patience": 1, "monitor": "test_accuracy"}, "monitor must be one of val_accuracy, val_loss, got 'test_acc"),
        ({"patience": 1, "min_delta": -1.0}, r"min_delta must be 0 or more, got -1\.0"),
        ({"patience": 1, "min_delta": math.nan}, "min_delta must be 0 or more, got nan"),
    ):
        with pytest.raises(ValueError, match=problem):
            EarlyStop(**arguments)
    for patience in (True, 2.0, "2"):
        with pytest.raises(TypeError, match="patience must be int"):
            EarlyStop(patience)
    with pytest.raises(ValueError, match="no validation part"):
        EarlyStop(1).on_start(_Trainer(val_loader=None))
    loss = EarlyStop(1, "val_loss")
    with pytest.raises(ValueError, match="the checkpoint's count is of val_accuracy, not of val_loss"):
        loss.load_state_dict(EarlyStop(1).state_dict())


# ---- in a run --------------------------------------------------------------------------------------------------------

STILL = {"val_split": 30, "epochs": 6, "lr": 0.0, "average_decay": None}  # nothing ever improves


def test_a_run_stops_says_why_and_stays_stopped(tmp_path):
    folder = tmp_path / "run"
    summary = training.train(small(**STILL, early_stop=2), out=folder)
    assert summary.epochs == 3 and len(lines(folder)) == 3
    assert summary.stopped is not None and "has not improved in 2 epochs since its best" in summary.stopped
    state = gpucnn.load(folder / "checkpoint.safetensors", device="cpu")["trainer"]["callbacks"]["EarlyStop"]
    assert (state["waited"], state["best_epoch"], state["reason"]) == (2, 1, summary.stopped)
    before = contents(folder)
    again = training.train(resume=folder)
    assert (again.epochs, again.stopped) == (3, summary.stopped)
    assert contents(folder) == before and len(lines(folder)) == 3
    longer = training.train(resume=folder, changes={"early_stop": 4})
    assert longer.epochs == 5 and "in 4 epochs" in str(longer.stopped)


def test_a_run_that_stops_is_evaluated_with_views_as_one_that_ends(tmp_path):
    stopped = training.train(small(**STILL, early_stop=2, tta="mirror"), out=tmp_path / "stopped")
    ended = training.train(small(**{**STILL, "epochs": 3}, tta="mirror"), out=tmp_path / "ended")
    assert stopped.stopped is not None and stopped.last is not None and ended.last is not None
    assert stopped.last.tta_accuracy == ended.last.tta_accuracy is not None
    assert [row["tta_accuracy"] is None for row in lines(tmp_path / "stopped")] == [True, True, False]


def test_the_count_survives_a_crash(tmp_path):
    class Crash(training.Silent):
        def start_epoch(self, epoch, *_) -> None:
            if epoch == 3:
                raise RuntimeError("power cut")

    whole = training.train(small(**STILL, early_stop=2), out=tmp_path / "whole")
    with pytest.raises(RuntimeError, match="power cut"):
        training.train(small(**STILL, early_stop=2), out=tmp_path / "run", progress=Crash())
    summary = training.train(resume=tmp_path / "run")
    assert (summary.epochs, summary.stopped) == (whole.epochs, whole.stopped) == (3, whole.stopped)
    assert contents(tmp_path / "run") == contents(whole.folder)


def test_it_looks_at_the_images_held_out_and_never_at_the_test_part(tmp_path):
    """A network that only learns its training part by heart: the test part is of other labels."""
    run = run_module._Run.new(small(**STILL, early_stop=2), tmp_path / "run", False, training.Silent())
    test = run.trainer.test_loader
    assert test is not None
    test.dataset.labels[:] = (test.dataset.labels + 1) % 4
    assert run.execute().epochs == 3
    reason = run.trainer.stopped
    other = training.train(small(**STILL, early_stop=2), out=tmp_path / "other")
    assert other.stopped == reason
    assert lines(tmp_path / "run")[0]["test_accuracy"] != lines(tmp_path / "other")[0]["test_accuracy"]


def test_without_a_validation_part_the_config_says_no():
    with pytest.raises(ValueError, match=r"early_stop .*val_split"):
        small(early_stop=2)
