"""What `eval`, `show` and `plot` say and draw, on a run with a moving average, a best checkpoint and two views."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gpucnn as package
from gpucnn import training
from gpucnn.training.predictions import predict
from tests.cli.conftest import Done

Command = Callable[..., Done]


@pytest.fixture
def run(gpucnn: Command, tmp_path: Path) -> Path:
    """Two epochs of lenet5 on few shapes, sixteen of them held out."""
    config = training.config_for(
        "lenet5", data="shapes", batch_size=16, epochs=2, val_split=16, tta="mirror", average_decay=0.9, device="cpu"
    )
    training.train(config, out=tmp_path / "run")
    return tmp_path / "run"


def pictures(folder: Path) -> list[str]:
    """The names of what is in a folder of pictures, all of it whole PNGs."""
    for file in folder.iterdir():
        with Image.open(file) as image:
            image.load()
            assert image.format == "PNG"
    return sorted(file.name for file in folder.iterdir())


def last_epoch(run: Path) -> dict:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]


def test_eval_prints_a_table_of_classes_that_adds_up(gpucnn: Command, run: Path) -> None:
    told = gpucnn("eval", run)
    assert (told.code, told.err) == (0, "")
    first, result, header, _, *rows, _, whole, last = told.out.splitlines()
    assert first == (
        "lenet5 after 2 epochs, the moving average of the weights, each image and its mirror image,"
        " on the 48 test images of shapes"
    )
    assert result.endswith(f"accuracy {last_epoch(run)['tta_accuracy']:.2%}")
    assert header.split() == ["class", "images", "right", "accuracy", "most", "often", "taken", "for"]
    cells = [row.split() for row in rows]
    assert [row[0] for row in cells] == list(package.data.Shapes(count=0).classes)
    labels = package.data.Shapes(train=False).labels
    assert [int(row[1]) for row in cells] == np.bincount(labels, minlength=10).tolist()
    assert whole.split()[:2] == ["all", "48"]
    assert int(whole.split()[2]) == sum(int(row[2]) for row in cells)
    assert whole.split()[3] == result.split()[-1]
    assert last == f"pictures: {run / 'pictures'}"
    assert pictures(run / "pictures") == ["accuracy.png", "confusion.png", "mistakes.png"]


def test_evals_table_is_that_of_the_runs_predictions(gpucnn: Command, run: Path) -> None:
    loaded = training.load_run(run, "cpu", average=False)
    images = package.data.Shapes(train=False)
    found = predict(loaded.model, loaded.test_loader(images, 48))
    told = gpucnn("eval", run, "--weights", "--tta", "none", "--no-pictures", "--quiet")
    rows = told.out.splitlines()[3:13]
    for k, row in enumerate(rows):
        mine = found.labels == k
        taken = np.bincount(found.predicted[mine & (found.predicted != k)], minlength=10)
        expected = [images.classes[k], str(mine.sum()), str((found.predicted[mine] == k).sum())]
        assert row.split()[:3] == expected
        if taken.any():
            assert row.endswith(f"{images.classes[taken.argmax()]} ({taken.max()})")


def test_eval_takes_the_weights_views_and_checkpoint_that_it_is_told(gpucnn: Command, run: Path) -> None:
    last = last_epoch(run)
    for options, accuracy in (
        (("--tta", "none"), last["average_accuracy"]),
        (("--tta", "none", "--weights"), last["test_accuracy"]),
    ):
        told = gpucnn("eval", run, "--no-pictures", "--quiet", *options)
        assert told.out.splitlines()[0].endswith(f"accuracy {accuracy:.2%}")
    assert not (run / "pictures").exists()
    best = package.load(run / "best.safetensors", device="cpu")["trainer"]["epoch"]
    assert gpucnn("eval", run, "--best", "--no-pictures").out.startswith(f"lenet5 after {best} epoch")
    (run / "best.safetensors").unlink()
    told = gpucnn("eval", run, "--best")
    assert told.code == 2
    assert "--val-split" in told.err
    assert gpucnn("eval", run / "checkpoint.safetensors", "--best").code == 2


def test_evals_pictures_go_where_they_are_told_to(gpucnn: Command, run: Path, tmp_path: Path) -> None:
    told = gpucnn("eval", run / "checkpoint.safetensors", "--out", tmp_path / "new" / "folder", "--quiet")
    assert told.code == 0
    assert len(pictures(tmp_path / "new" / "folder")) == 3
    assert not (run / "pictures").exists()
    (tmp_path / "file").write_text("")
    told = gpucnn("eval", run, "--out", tmp_path / "file")
    assert (told.code, told.out) == (2, "")
    assert str(tmp_path / "file") in told.err


def test_a_run_whose_folder_cannot_take_pictures_is_evaluated_all_the_same(gpucnn: Command, run: Path) -> None:
    (run / "pictures").write_text("in the way")
    told = gpucnn("eval", run)
    assert told.code == 0
    assert told.out.splitlines()[-1].startswith("no pictures: ")


def test_show_draws_filters_and_for_an_image_the_maps_of_every_convolution(gpucnn: Command, run: Path) -> None:
    told = gpucnn("show", run)
    folder = run / "pictures"
    assert (told.code, told.err) == (0, "")
    assert told.out == f"conv1: 6 filters of 5x5, grey: {folder / 'filters.png'}\n"
    told = gpucnn("show", run, 5, "--maps", 4)
    assert told.code == 0, told.err
    _, likeliest, first, second = told.out.splitlines()
    images = package.data.Shapes(train=False)
    assert likeliest.startswith(f"test image 5 of shapes, {images.classes[images.labels[5]]}: ")
    assert first == f"conv1: 4 of 6 maps of 14x14, those that vary most: {folder / 'maps-1-conv1.png'}"
    assert second == f"conv2: 4 of 16 maps of 5x5, those that vary most: {folder / 'maps-2-conv2.png'}"
    assert pictures(folder) == ["filters.png", "maps-1-conv1.png", "maps-2-conv2.png"]


def test_show_takes_a_file_for_what_it_takes_an_image_of_the_set(gpucnn: Command, run: Path, tmp_path: Path) -> None:
    Image.fromarray(package.data.Shapes(train=False).images[5]).save(tmp_path / "five.png")
    by_number = gpucnn("show", run, 5).out.splitlines()[1]
    by_file = gpucnn("show", run, tmp_path / "five.png", "--out", tmp_path / "there").out.splitlines()[1]
    assert by_file == f"{tmp_path / 'five.png'}: {by_number.partition(': ')[2]}"
    assert len(pictures(tmp_path / "there")) == 3


@pytest.mark.parametrize(("image", "says"), [("48", "48 test images"), ("nowhere.png", "nowhere.png"), ("-1", "-1")])
def test_show_names_an_image_that_is_not_there(gpucnn: Command, run: Path, image: str, says: str) -> None:
    told = gpucnn("show", run, "--", image)
    assert told.code == 2
    assert says in told.err
    assert not (run / "pictures").exists()


def test_plot_overlays_runs_by_the_names_of_their_folders(gpucnn: Command, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "other")
    lines = (tmp_path / "other" / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "other" / "metrics.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    told = gpucnn("plot", run, tmp_path / "other" / "metrics.jsonl")
    assert told == (0, "curves of 2 runs: curves-run-other.png\n", "")
    told = gpucnn("plot", run, tmp_path / "other", "--out", tmp_path / "both.png")
    assert (told.code, told.err) == (0, "")
    same = (tmp_path / "both.png").read_bytes() == (tmp_path / "curves-run-other.png").read_bytes()
    assert same


def test_plot_tells_runs_of_one_name_apart_and_leaves_out_what_has_not_begun(
    gpucnn: Command, run: Path, tmp_path: Path
) -> None:
    from gpucnn.cli.plot import picture_name, run_names

    for name in ("a", "b"):
        shutil.copytree(run, tmp_path / name / "run")
    assert run_names([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]
    (tmp_path / "b" / "run" / "metrics.jsonl").write_text("")
    told = gpucnn("plot", tmp_path / "a" / "run", tmp_path / "b" / "run")
    assert told.code == 0
    first, last = told.out.splitlines()
    assert first.startswith("b/run: nothing to draw yet")
    assert last == "curves of 1 run: curves-a-run-b-run.png"
    assert picture_name(["x" * 300]) == f"curves-{'x' * 120}.png"
    assert picture_name(["a b", "ü:c", "d", "e", "f"]) == "curves-a-b-ü-c-d-and-2-more.png"


def test_plot_says_what_is_wrong_with_a_folder(gpucnn: Command, run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged)
    (damaged / "metrics.jsonl").write_bytes(b"{\n" + (run / "metrics.jsonl").read_bytes())
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "metrics.jsonl").write_text("")
    for arguments, says in (
        ([tmp_path / "empty"], "it has no metrics.jsonl"),
        ([tmp_path], f"a folder of runs: name {damaged}"),
        ([run, run], "named twice"),
        ([run / "config.json"], "expected a run's folder"),
        ([damaged], "metrics.jsonl, line 1"),
        ([tmp_path / "new"], "nothing to draw"),
        ([run, "--out", tmp_path / "no" / "folder.png"], "folder.png"),
    ):
        told = gpucnn("plot", *arguments)
        assert told.code == 2, arguments
        assert says in told.err
        assert told.err.count("\n") == 1
