"""One recipe with several seeds: the figures, the folders, and what is there already."""

from __future__ import annotations

import json

import pytest

from gpucnn import training
from gpucnn.viz import curves
from tests.training.training_support import contents, small


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing has tests of its own."""
    monkeypatch.setattr(curves, "draw", lambda *_: True)


def test_each_run_is_that_of_its_seed_alone(tmp_path):
    config = small(epochs=1, seed=3, tta="mirror", lr=0.05)
    repeated = training.repeat(config, 3, out=tmp_path / "three")
    alone = training.train(small(epochs=1, seed=4, tta="mirror", lr=0.05), out=tmp_path / "alone")
    assert contents(tmp_path / "three" / "seed-4") == contents(alone.folder)
    assert [summary.config.seed for summary in repeated.summaries] == [3, 4, 5]
    assert repeated.accuracies[1] == alone.last.tta_accuracy


def test_the_figures_are_those_of_a_sample(tmp_path):
    repeated = training.repeat(small(average_decay=None), 3, out=tmp_path / "three")
    a, b, c = repeated.accuracies
    assert len({a, b, c}) > 1 and [a, b, c] == [s.last.test_accuracy for s in repeated.summaries]
    mean = (a + b + c) / 3
    deviation = (((a - mean) ** 2 + (b - mean) ** 2 + (c - mean) ** 2) / 2) ** 0.5
    saved = json.loads((tmp_path / "three" / "runs.json").read_text())
    assert saved["count"] == 3 and [run["seed"] for run in saved["runs"]] == [0, 1, 2]
    assert saved["accuracy"]["mean"] == pytest.approx(mean, rel=1e-12)
    assert saved["accuracy"]["std"] == pytest.approx(deviation, rel=1e-12)
    for summary, seconds in zip(repeated.summaries, repeated.seconds, strict=True):
        assert 0 < summary.last.train_seconds + summary.last.evaluation_seconds <= seconds <= summary.seconds
    told = repeated.told()
    assert f"mean {mean:.2%} (standard deviation {deviation:.2%})" in told
    assert "3 runs of 2 epochs, seeds 0 to 2" in told and "in the timer: first weights from data" in told


def test_a_single_run_has_no_deviation(tmp_path):
    repeated = training.repeat(small(epochs=1), 1, out=tmp_path / "one")
    assert repeated.to_dict()["accuracy"]["std"] is None
    assert "1 run of 1 epoch" in repeated.told() and "deviation" not in repeated.told()


def test_runs_that_are_there_are_not_replaced_unasked(tmp_path):
    folder = tmp_path / "runs"
    training.repeat(small(epochs=1), 1, out=folder)
    before = (folder / "runs.json").read_bytes()
    with pytest.raises(FileExistsError, match=r"seed-0: there is a run in this folder"):
        training.repeat(small(epochs=1), 2, out=folder)
    with pytest.raises(FileExistsError, match=r"runs: there are runs in this folder: --overwrite replaces those"):
        training.repeat(small(epochs=1, seed=7), 1, out=folder)  # other seeds, the same runs.json
    with pytest.raises(FileExistsError, match=r"seed-0: there is a run in this folder"):
        training.repeat(small(epochs=1, seed=7), 1, out=folder / "seed-0")
    assert (folder / "runs.json").read_bytes() == before and not (folder / "seed-7").exists()
    assert len(training.repeat(small(epochs=1), 2, out=folder, overwrite=True).summaries) == 2


@pytest.mark.parametrize(
    ("changes", "runs", "problem"),
    [
        ({"epochs": 0}, 2, "at least one run of at least one epoch, got 2 of 0"),
        ({}, 0, "at least one run of at least one epoch, got 0 of 2"),
        ({"seed": (1 << 64) - 1}, 2, r"seed must be below 2\*\*64"),
        ({"batch_size": 151}, 2, "batch_size 151 is larger than the 150 training images"),
    ],
)
def test_bad_input_leaves_no_folder(tmp_path, changes, runs, problem):
    with pytest.raises(ValueError, match=problem):
        training.repeat(small(**changes), runs, out=tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []
