"""Whole runs: the folder, resuming bit by bit, checkpoints of other kinds, and runs that must not begin."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

import gpucnn
from gpucnn import data, training
from gpucnn.training import run as run_module
from gpucnn.training.run_folder import RunFolder, default_path
from gpucnn.viz import curves
from tests.training.training_support import SMALL, Recorder, contents, lines, small, weights


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing takes longer than these runs; the whole run, and the tests of curves, draw."""
    monkeypatch.setattr(curves, "draw", lambda *_: True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    progress = Recorder()
    return training.train(small(), out=folder, progress=progress), progress


def test_a_run_fills_its_folder(whole):
    summary, progress = whole
    assert sorted(p.name for p in summary.folder.iterdir()) == [
        "checkpoint.safetensors",
        "config.json",
        "curves.png",
        "metrics.csv",
        "metrics.jsonl",
    ]
    config = json.loads((summary.folder / "config.json").read_text())
    assert config["model"] == "lenet5" and config["data"] == "shapes" and config["source"] == "generated"
    assert config["gpucnn"] == gpucnn.__version__
    assert (summary.data, summary.device, summary.epochs, summary.steps) == ("shapes", "cpu", 2, 20)
    records = [json.loads(line) for line in (summary.folder / "metrics.jsonl").read_text().splitlines()]
    assert [(r["kind"], r["epoch"], r["step"]) for r in records] == [("epoch", 1, 10), ("epoch", 2, 20)]
    assert records[1].pop("rss_mib") > 10 and records[1].pop("kind") == "epoch"
    assert records[1] == summary.last.to_dict() == progress.records[1]
    assert (summary.folder / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert progress.epochs == [(1, 2, 10, 0), (2, 2, 10, 0)] and progress.evaluations[-1] == (6, 6)


def test_two_runs_are_bit_identical_and_another_seed_is_not(whole, tmp_path):
    again = training.train(small(), out=tmp_path / "again")
    assert contents(again.folder) == contents(whole[0].folder)
    assert lines(again.folder) == lines(whole[0].folder)
    other = training.train(small(seed=1), out=tmp_path / "other")
    assert contents(other.folder) != contents(whole[0].folder)


def test_prefetching_and_checkpoints_in_between_change_nothing(whole, tmp_path):
    other = training.train(small(prefetch=0, checkpoint_steps=3), out=tmp_path / "run")
    assert contents(other.folder) == contents(whole[0].folder)


class _Stop(Exception):
    pass


class _StopAt(Recorder):
    """Ends a run as a crash would, after a step or in an evaluation."""

    def __init__(self, step: int, evaluations: int = 10**9) -> None:
        super().__init__()
        self.step_to_stop, self.evaluations_left = step, evaluations
        self.count = 0

    def step(self, *args) -> None:
        self.count += 1
        if self.count == self.step_to_stop:
            raise _Stop

    def evaluating(self, done: int, total: int) -> None:
        self.evaluations_left -= 1
        if not self.evaluations_left:
            raise _Stop


@pytest.mark.parametrize(
    ("step", "evaluation", "checkpoint_steps"),
    [
        (1, 99, 3),
        (2, 99, 1),
        (7, 99, 3),
        (7, 99, 1),
        (10, 99, None),
        (11, 99, 1),
        (20, 99, 3),
        (99, 1, 1),
        (99, 5, 3),
        (99, 11, 1),
    ],
)
def test_a_run_that_broke_off_anywhere_ends_bit_identical_when_it_is_resumed(
    whole, tmp_path, step, evaluation, checkpoint_steps
):
    folder = tmp_path / "run"
    with pytest.raises(_Stop):
        training.train(small(checkpoint_steps=checkpoint_steps), out=folder, progress=_StopAt(step, evaluation))
    progress = Recorder()
    summary = training.train(resume=folder, progress=progress)
    assert contents(folder) == contents(whole[0].folder)
    assert lines(folder) == lines(whole[0].folder)
    assert (summary.epochs, summary.steps) == (2, 20)
    if checkpoint_steps == 1 and step == 7:
        assert progress.epochs[0] == (1, 2, 10, 6)


def test_a_run_resumed_with_more_epochs_is_the_longer_run(whole, tmp_path):
    shutil.copytree(whole[0].folder, tmp_path / "short")
    training.train(resume=tmp_path / "short" / "checkpoint.safetensors", changes={"epochs": 3})
    long = training.train(small(epochs=3), out=tmp_path / "long")
    assert contents(tmp_path / "short") == contents(long.folder)
    assert lines(tmp_path / "short") == lines(long.folder)
    assert json.loads((tmp_path / "short" / "config.json").read_text())["epochs"] == 3


def test_a_finished_run_has_nothing_left_to_do(whole, tmp_path):
    shutil.copytree(whole[0].folder, tmp_path / "run")
    summary = training.train(resume=tmp_path / "run")
    assert (summary.steps, summary.last) == (20, None)
    assert contents(tmp_path / "run") == contents(whole[0].folder)


def test_lines_of_fifty_steps_survive_a_resume(tmp_path):
    config = {"epochs": 1, "batch_size": 2, "train_images": 240}  # 120 steps
    whole = training.train(small(**config), out=tmp_path / "whole")
    records = lines(whole.folder)
    assert [(r["kind"], r["step"]) for r in records] == [("steps", 50), ("steps", 100), ("epoch", 120)]
    with pytest.raises(_Stop):
        training.train(small(**config, checkpoint_steps=33), out=tmp_path / "broken", progress=_StopAt(110))
    assert [r["step"] for r in lines(tmp_path / "broken")] == [50, 100]  # the checkpoint is of step 99
    training.train(resume=tmp_path / "broken")
    assert lines(tmp_path / "broken") == records


def test_a_run_loads_for_evaluation_with_average_or_weights(whole):
    summary, _ = whole
    test = data.create("shapes", train=False).subset(slice(40))
    for average, loss, accuracy in (
        (True, summary.last.average_loss, summary.last.average_accuracy),
        (False, summary.last.test_loss, summary.last.test_accuracy),
    ):
        loaded = training.load_run(summary.folder, device="cpu", average=average)
        assert (loaded.averaged, loaded.epoch, loaded.step) == (average, 2, 20)
        assert loaded.classes == test.classes and not loaded.model.training
        metrics = training.evaluate(loaded.model, loaded.test_loader(test))
        assert (metrics.loss, metrics.accuracy) == (loss, accuracy)
    model, config = training.load_run(summary.folder / "checkpoint.safetensors", device="cpu")
    assert config == summary.config and model.input_shape == (1, 28, 28)


def _with(folder, tmp_path, **changes):
    """A copy of the run whose checkpoint has other contents."""
    shutil.copytree(folder, tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.safetensors"
    content = gpucnn.load(path, device="cpu")
    gpucnn.save({**content, **changes}, path)
    return tmp_path / "run"


def test_a_checkpoint_of_another_model_is_refused(whole, tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint.safetensors: a checkpoint of lenet5, not of lecture_cnn"):
        training.load_run(whole[0].folder, device="cpu", model="lecture")
    with pytest.raises(ValueError, match="--resume: model is 'lenet5' in this run and cannot become 'lecture_cnn'"):
        training.train(resume=whole[0].folder, changes={"model": "lecture_cnn"})
    config = {**whole[0].config.to_dict(), "model": "lecture_cnn"}
    folder = _with(whole[0].folder, tmp_path, config=config)
    before = weights(folder)
    for use in (lambda: training.train(resume=folder), lambda: training.load_run(folder, device="cpu")):
        with pytest.raises(ValueError, match=r"checkpoint.safetensors: not a checkpoint of lecture_cnn[^~]*conv1"):
            use()
    for a, b in zip(before, weights(folder), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"version": 3}, r"version 3, written by a newer gpucnn; this gpucnn, [\d.]+, reads up to version 2"),
        ({"version": 0}, "damaged: its version cannot be 0"),
        ({"version": True}, "damaged: its version cannot be True"),
        ({"config": {"model": "lenet5", "nix": 1}}, "checkpoint.safetensors: unknown key 'nix'"),
        ({"config": {"model": "nix"}}, "unknown model 'nix'"),
        ({"trainer": {}}, "damaged"),
        ({"trainer": 3}, "checkpoint.safetensors: damaged: its trainer cannot be 3"),
        ({"config": [1]}, r"checkpoint.safetensors: damaged: its config cannot be \[1\]"),
        ({"classes": []}, r"checkpoint.safetensors: damaged: its classes cannot be \[\]"),
    ],
)
def test_a_checkpoint_with_wrong_contents_is_refused(whole, tmp_path, changes, problem):
    folder = _with(whole[0].folder, tmp_path, **changes)
    with pytest.raises(ValueError, match=problem):
        training.load_run(folder, device="cpu")


@pytest.mark.parametrize("key", ["loader", "optimizers", "schedulers", "callbacks", "random", "epoch_metrics", "step"])
def test_a_checkpoint_with_a_part_of_another_kind_is_refused(whole, tmp_path, key):
    state = gpucnn.load(whole[0].folder / "checkpoint.safetensors", device="cpu")["trainer"]
    folder = _with(whole[0].folder, tmp_path, trainer={**state, key: [3]})
    with pytest.raises(ValueError, match=r"checkpoint.safetensors: not a checkpoint of lenet5 on shapes, or damaged"):
        training.train(resume=folder)


def test_a_run_on_a_device_that_is_not_here_is_bad_input_and_can_go_on_elsewhere(whole, tmp_path):
    folder = _with(whole[0].folder, tmp_path, config={**whole[0].config.to_dict(), "device": "cuda:99"})
    with pytest.raises(ValueError, match=r"checkpoint.safetensors: the run's device cannot be used: .*--device names"):
        training.train(resume=folder)
    assert training.train(resume=folder, changes={"device": "cpu"}).device == "cpu"


def test_a_damaged_checkpoint_is_refused(whole, tmp_path):
    shutil.copytree(whole[0].folder, tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.safetensors"
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[-100] ^= 1
    for content in (b"", good[: len(good) // 2], bytes(flipped), b"x" * 1000):
        path.write_bytes(content)
        for use in (lambda: training.train(resume=path), lambda: training.load_run(path, device="cpu")):
            with pytest.raises(ValueError, match=r"checkpoint.safetensors: damaged"):
                use()
    gpucnn.save({"weights": gpucnn.zeros(3, device="cpu")}, path)
    with pytest.raises(ValueError, match="not a checkpoint of a training run"):
        training.load_run(path, device="cpu")


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none: no such run or checkpoint"):
        training.train(resume=tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"no run to go on with: it has no checkpoint.safetensors"):
        training.load_run(tmp_path)
    with pytest.raises(ValueError, match="has its config and its folder"):
        training.train(small(), resume=tmp_path)


def test_an_output_folder_that_cannot_be_written_is_an_error_before_anything_is_loaded(tmp_path, monkeypatch):
    def no_data(*_args, **_kwargs):
        raise AssertionError("the data was loaded")

    monkeypatch.setattr(run_module.data, "find", no_data)
    (tmp_path / "file").write_bytes(b"")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError, match=r"file.*: the output folder cannot be made: .*file is a file"):
            training.train(small(), out=out)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(PermissionError, match=r"deep: the output folder cannot be written \(no permission"):
        training.train(small(), out=tmp_path / "new" / "deep")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_a_folder_that_turns_out_unwritable_says_so(tmp_path, monkeypatch):
    def refuse(self, _data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    with pytest.raises(OSError, match=r"run: the output folder cannot be written \(No space left on device\)"):
        RunFolder(tmp_path / "run").create()


def test_a_folder_with_a_run_is_not_overwritten_unasked(whole, tmp_path):
    shutil.copytree(whole[0].folder, tmp_path / "run")
    with pytest.raises(FileExistsError, match=r"there is a run in this folder: --resume .*, --overwrite .*, or name"):
        training.train(small(), out=tmp_path / "run")
    assert contents(tmp_path / "run") == contents(whole[0].folder)
    summary = training.train(small(epochs=1), out=tmp_path / "run", overwrite=True)
    assert summary.steps == 10 and len(lines(tmp_path / "run")) == 1


def test_bad_names_leave_no_folder(tmp_path):
    for changes, problem in (
        ({"data": "nix"}, "unknown data set 'nix', known are cifar10, cifar100, fashion_mnist"),
        ({"data": "mnist", "data_dir": str(tmp_path)}, "no MNIST there"),
        ({"device": "tpu"}, "'tpu' is unknown"),
    ):
        with pytest.raises(ValueError, match=problem):
            training.train(small(**changes), out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"batch_size": 151}, "batch_size 151 is larger than the 150 training images"),
        ({"optimizer": {"name": "adam", "betas": [0.9]}}, "Adam: betas must be two numbers"),
        ({"optimizer": {"head": {"name": "sgd"}}}, "lenet5's sets are none"),
        ({"augmentation": {"translate": 40}}, "images of 28x28 have no reflected border of 40 pixels"),
        ({"val_split": 150}, "150 images cannot be held out of 150"),
    ],
)
def test_what_turns_out_wrong_leaves_no_folder_and_replaces_no_run(whole, tmp_path, changes, problem):
    config = training.config_for("lenet5", **{**SMALL, "momentum": None, "lr": None, **changes})
    with pytest.raises(ValueError, match=problem):
        training.train(config, out=tmp_path / "new")
    shutil.copytree(whole[0].folder, tmp_path / "run")
    with pytest.raises(ValueError, match=problem):
        training.train(config, out=tmp_path / "run", overwrite=True)
    assert contents(tmp_path / "run") == contents(whole[0].folder) and (tmp_path / "run" / "curves.png").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_files_that_no_run_has_written_stay(tmp_path):
    """A project's own config.json and its pictures, where somebody trains with --out ."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "holiday.png").write_bytes(b"ours")
    (tmp_path / "config.json").write_text('{"name": "ours"}')
    with pytest.raises(FileExistsError, match=r"there is a config.json in this folder that no run of gpucnn has"):
        training.train(small(epochs=0), out=tmp_path)
    assert (tmp_path / "config.json").read_text() == '{"name": "ours"}'
    (tmp_path / "config.json").unlink()
    training.train(small(epochs=0), out=tmp_path)
    training.train(small(epochs=0), out=tmp_path, overwrite=True)
    assert (tmp_path / "pictures" / "holiday.png").read_bytes() == b"ours"


def test_without_data_it_trains_on_shapes_and_says_so(tmp_path, clean_environment):
    clean_environment.setenv("GPUCNN_CACHE_DIR", str(tmp_path / "cache"))
    clean_environment.setattr(data.mnist, "MIRRORS", ())
    clean_environment.setattr(data.mnist, "fetch", _no_network)
    progress = Recorder()
    summary = training.train(
        training.config_for("lenet5", epochs=1, train_images=64, test_images=8, device="cpu"),
        out=tmp_path / "run",
        progress=progress,
    )
    assert summary.data == summary.config.data == "shapes" and len(progress.messages) == 2
    assert re.search(
        r"^mnist cannot be had \(.*no network.*\): training on the generated set shapes instead", progress.messages[0]
    )
    with pytest.raises(data.NotFoundError, match="no network"):
        training.train(training.config_for("lenet5", data="mnist", device="cpu"), out=tmp_path / "other")


def _no_network(*_args):
    raise data.NotFoundError("no network")


def test_the_default_folder_is_named_after_model_data_and_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = default_path("lecture_cnn", "cifar10")
    assert re.fullmatch(r"runs/lecture_cnn-cifar10-\d{8}-\d{6}", first.as_posix())
    monkeypatch.setattr("time.strftime", lambda _: "20300101-000000")
    names = []
    for _ in range(3):
        path = default_path("m", "d")
        path.mkdir(parents=True)
        names.append(path.name)
    assert names == ["m-d-20300101-000000", "m-d-20300101-000000+2", "m-d-20300101-000000+3"]


def test_a_loss_that_becomes_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(training.TrainingError, match=r"the loss became (nan|inf) at step (\d+)") as raised:
        training.train(small(lr=1e4), out=tmp_path / "bad")
    assert "the checkpoint of step 0 stays" in str(raised.value)
    content = gpucnn.load(tmp_path / "bad" / "checkpoint.safetensors", device="cpu")
    assert content["trainer"]["step"] == 0
    assert all(np.isfinite(w).all() for w in weights(tmp_path / "bad"))


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    """The loss of the last step was fine, the update after it was not."""

    class Poison(training.Report):
        def on_read(self, trainer):
            if trainer.step == 3:
                with gpucnn.no_grad():
                    next(iter(trainer.model.parameters())).fill_(np.inf)

    run = run_module._Run.new(small(checkpoint_steps=3), tmp_path / "run", False, training.Silent())
    run.trainer.callbacks.insert(0, Poison(training.Silent()))
    with pytest.raises(
        training.TrainingError,
        match=r"weights conv1.weight are no longer finite after step 3; the checkpoint of step 0",
    ):
        run.execute()
    assert all(np.isfinite(w).all() for w in weights(tmp_path / "run"))


def test_weights_that_overflow_in_the_evaluation_stop_the_run(tmp_path):
    """The loss of the epoch's last step was fine, and the weights after it are finite: only the test part tells."""

    class Enlarge(training.Report):
        def on_read(self, trainer):
            if trainer.step == 10:
                with gpucnn.no_grad():
                    for parameter in trainer.model.parameters():
                        parameter.fill_(1e30)

    run = run_module._Run.new(small(), tmp_path / "run", False, training.Silent())
    run.trainer.callbacks.insert(0, Enlarge(training.Silent()))
    with pytest.raises(
        training.TrainingError,
        match=r"the loss of an evaluation became nan after step 10 \(epoch 1\); the checkpoint of step 0 stays",
    ) as raised:
        run.execute()
    assert raised.value.step == 10
    assert training.train(resume=tmp_path / "run").steps == 20


def test_leftovers_of_a_process_killed_while_it_wrote_are_removed(whole, tmp_path):
    shutil.copytree(whole[0].folder, tmp_path / "run")
    (tmp_path / "run" / ".checkpoint.safetensors.123-abc.tmp").write_bytes(b"half")
    (tmp_path / "run" / ".mine.tmp").write_bytes(b"not ours")
    training.train(resume=tmp_path / "run")
    assert [p.name for p in (tmp_path / "run").glob(".*")] == [".mine.tmp"]
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".checkpoint.safetensors.123-abc.tmp").write_bytes(b"half of the first one")
    training.train(small(epochs=0), out=tmp_path / "new")
    assert list((tmp_path / "new").glob(".*")) == []


@pytest.mark.data
def test_the_lecture_network_takes_real_cifar10(cifar10_root, tmp_path):
    config = training.config_for(
        data="cifar10", data_dir=str(cifar10_root), epochs=1, train_images=384, test_images=128, device="cpu"
    )
    summary = training.train(config, out=tmp_path / "run")
    assert summary.data == "cifar10" and summary.steps == 3
    assert 2.0 < summary.last.train_loss < 2.6


def test_a_network_with_batch_norm_is_read_back_with_the_averaged_statistics(tmp_path):
    config = training.config_for(
        "resnet20", data="shapes", epochs=1, batch_size=8, train_images=32, test_images=16, average_decay=0.5,
        device="cpu",
    )  # fmt: skip
    last = training.train(config, out=tmp_path / "run").last
    loaded = training.load_run(tmp_path / "run", device="cpu")
    test = gpucnn.data.create("shapes", train=False, limit=16)
    assert training.evaluate(loaded.model, loaded.test_loader(test)).loss == last.average_loss != last.test_loss
