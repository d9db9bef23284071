"""Processes that are killed, stopped and resumed end with the bits of the run that nothing disturbed."""

from __future__ import annotations

import os
import random
import signal

import pytest

from gpucnn import training
from gpucnn.viz import curves
from tests.training.kills import finished, killed_again_and_again, same_as, start, undisturbed, wait_for
from tests.training.training_support import Recorder, small

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs signals")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(curves, "draw", lambda *_: True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What every interrupted run must end with."""
    return undisturbed("small", tmp_path_factory.mktemp("whole") / "run")


def test_killed_in_the_middle_of_writes_and_at_random_moments(whole, tmp_path):
    kills = killed_again_and_again(whole, tmp_path / "run", "small", 3, random.Random(20), words=("half", "synced"))
    assert kills[0].leftovers or kills[1].leftovers


@pytest.mark.parametrize(
    ("config", "signum", "word", "count"),
    [
        ("small", signal.SIGINT, "evaluating", 2),
        ("small", signal.SIGTERM, "step", 5),
        ("rich", signal.SIGTERM, "half", 4),  # of a checkpoint: it is written to its end
    ],
)
def test_ctrl_c_saves_a_checkpoint_and_the_run_goes_on(whole, tmp_path, config, signum, word, count):
    expected = whole if config == "small" else undisturbed(config, tmp_path / "whole")
    folder = tmp_path / "run"
    process = start("start", folder, config)
    assert wait_for(process, word, count)
    before = (folder / "checkpoint.safetensors").stat().st_mtime_ns
    process.send_signal(signum)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == (130 if signum == signal.SIGINT else -signal.SIGTERM), errors
    name = "Ctrl-C" if signum == signal.SIGINT else "SIGTERM"
    assert f"stopped by {name} after step" in out and f"gpucnn train --resume {folder}" in out
    assert (folder / "checkpoint.safetensors").stat().st_mtime_ns > before
    finished("resume", folder, config)
    same_as(expected, folder)


def test_a_second_ctrl_c_does_not_wait(monkeypatch, tmp_path):
    class Impatient(training.Silent):
        def step(self, *args) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt) as raised:
            training.train(small(), out=tmp_path / "run", progress=Impatient())
        assert not isinstance(raised.value, training.TrainingInterrupted)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("moment", "step", "evaluated"), [("evaluating", 10, 2), ("end_epoch", 10, 6), ("step", 4, 0)])
def test_a_signal_stops_the_run_at_the_next_occasion(monkeypatch, tmp_path, moment, step, evaluated):
    """After the step that is under way, after the batch of an evaluation, after the lines of an epoch."""

    class Signals(Recorder):
        def step(self, *args) -> None:
            super().step(*args)
            if moment == "step" and len(self.steps) == 4:
                signal.raise_signal(signal.SIGINT)

        def evaluating(self, done: int, total: int) -> None:
            super().evaluating(done, total)
            if moment == "evaluating" and done == 2:
                signal.raise_signal(signal.SIGINT)

        def end_epoch(self, record) -> None:
            super().end_epoch(record)
            if moment == "end_epoch":
                signal.raise_signal(signal.SIGINT)

    progress = Signals()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(training.TrainingInterrupted, match=f"stopped by Ctrl-C after step {step}"):
            training.train(small(), out=tmp_path / "run", progress=progress)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (len(progress.steps), len(progress.evaluations)) == (step, evaluated)
    assert training.train(resume=tmp_path / "run").steps == 20


def test_handlers_are_as_they_were_after_a_run(tmp_path):
    def mine(*_):
        raise AssertionError

    before = {s: signal.signal(s, mine) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        training.train(small(epochs=1), out=tmp_path / "run")
        assert signal.getsignal(signal.SIGINT) is mine and signal.getsignal(signal.SIGTERM) is mine
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
