"""Several runs in one picture: each with its colour and its name, whatever their lengths and kinds of curves."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from gpucnn.viz import curves


def steps(number: int) -> list[dict]:
    return [{"kind": "steps", "epoch": 0.5 * k, "loss": 3.0 / k, "accuracy": 0.05 * k} for k in range(1, number + 1)]


def epochs(number: int, **more: float) -> list[dict]:
    base = {"train_loss": 1.5, "train_accuracy": 0.4, "test_loss": 1.0, "test_accuracy": 0.6, "val_loss": None}
    return [{"kind": "epoch", "epoch": e, **base, **more} for e in range(1, number + 1)]


RUNS = {
    "long": (steps(8), epochs(4, average_loss=0.9, average_accuracy=0.7)),
    "short": ([], epochs(2, val_loss=1.1, val_accuracy=0.55, tta_accuracy=0.65)),
    "begun": (steps(1), []),
}


def test_every_run_has_a_colour_and_every_kind_of_curve_a_style(tmp_path, figures):
    curves.overlay(RUNS, tmp_path / "curves.png")
    (figure,) = figures
    loss, accuracy = figure.axes
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss (mean cross-entropy)", "accuracy (%)")
    colours = {"long": curves.COLOURS[0], "short": curves.COLOURS[1], "begun": curves.COLOURS[2]}
    drawn = [(line.get_color(), line.get_linestyle(), line.get_xdata().tolist()) for line in accuracy.lines]
    assert drawn == [
        (colours["long"], "-", [0.5 * k for k in range(1, 9)]),  # training
        (colours["long"], "-", [1, 2, 3, 4]),
        (colours["long"], "--", [1, 2, 3, 4]),
        (colours["short"], "-", [1, 2]),  # training, by epochs
        (colours["short"], "--", [1, 2]),  # validation; its dashes are its own
        (colours["short"], "-", [1, 2]),
        (colours["short"], "-.", [1, 2]),
        (colours["begun"], "-", [0.5]),
    ]
    assert np.asarray(accuracy.lines[2].get_ydata()) == pytest.approx([70.0] * 4)
    assert np.asarray(loss.lines[0].get_ydata()) == pytest.approx([3.0 / k for k in range(1, 9)])
    assert len(loss.lines) == 7  # there is no loss with test-time augmentation
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "long: 70.0% after epoch 4 (test, moving average of the weights)",
        "short: 65.0% after epoch 2 (test, test-time augmentation)",
        "begun",
    ]
    with Image.open(tmp_path / "curves.png") as image:
        assert (image.format, image.size) == ("PNG", (1020, 1032))


def test_a_run_that_went_on_is_named_by_its_last_epoch(tmp_path, figures):
    """Views were taken after epoch 2, where it first ended."""
    earlier = [{**epochs(2)[-1], "tta_accuracy": 0.9}]
    curves.overlay({"longer": ([], [*epochs(1), *earlier, *epochs(3)[2:]])}, tmp_path / "a.png")
    (figure,) = figures
    (text,) = [text.get_text() for text in figure.legends[0].get_texts()]
    assert text.startswith("longer: ") and "after epoch 3" in text and "augmentation" not in text


def test_a_picture_of_many_runs_still_draws_each(tmp_path, figures):
    curves.overlay({f"run {i}": ([], epochs(3, test_accuracy=0.1 * i)) for i in range(9)}, tmp_path / "curves.png")
    looks = {(line.get_color(), line.get_marker()) for line in figures[0].axes[1].lines if line.get_marker() != "None"}
    assert len(looks) == 9
    widths = [text.get_window_extent().x1 for text in figures[0].legends[0].get_texts()]
    assert max(widths) < figures[0].bbox.width


def test_no_runs_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="no runs"):
        curves.overlay({}, tmp_path / "curves.png")


@pytest.mark.parametrize("rest", [b'{"kind": "ep', b"\x00\x00\x00\x00", b"\xff\xfe{"])
def test_a_last_line_that_a_power_cut_left_is_left_out(tmp_path, rest):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes("".join(json.dumps(record) + "\n" for record in epochs(3)).encode() + rest)
    assert len(curves.read_metrics(path)[1]) == 3


@pytest.mark.parametrize("line", [b"\xff\xfe{", b'{"kind": "epoch"}', b'{"kind": "epoch", "epoch": "1"}', b"[1]", b""])
def test_a_damaged_line_in_the_middle_names_itself(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    good = json.dumps(epochs(1)[0]).encode()
    path.write_bytes(good + b"\n" + line + b"\n" + good + b"\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: not a line of metrics"):
        curves.read_metrics(path)
