"""curves.png: what is drawn is what the metrics say."""

from __future__ import annotations

import json

import pytest

from gpucnn.viz import curves

EPOCHS = [
    {"kind": "epoch", "epoch": e, "train_loss": 2.0 / e, "train_accuracy": 0.2 * e, "test_loss": 2.5 / e,
     "test_accuracy": 0.15 * e, "average_loss": 2.2 / e, "average_accuracy": 0.18 * e}
    for e in (1, 2, 3)
]  # fmt: skip
STEPS = [
    {"kind": "steps", "step": 50 * k, "epoch": 0.4 * k, "loss": 3.0 - 0.2 * k, "accuracy": 0.1 * k} for k in range(1, 8)
]


def _write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def _figure(monkeypatch):
    """Catches the figure that is drawn."""
    from matplotlib.figure import Figure

    figures = []
    real = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kwargs: (figures.append(self), real(self, *args, **kwargs))
    )
    return figures


def test_both_axes_show_every_line_with_its_label(tmp_path, monkeypatch):
    figures = _figure(monkeypatch)
    metrics = _write(tmp_path / "metrics.jsonl", [*STEPS, *EPOCHS])
    assert curves.draw(metrics, tmp_path / "curves.png", "a run")
    from PIL import Image

    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (840, 900)
    loss, accuracy = figures[0].axes
    assert loss.get_ylabel() == "loss (mean cross-entropy)" and accuracy.get_ylabel() == "accuracy (%)"
    assert accuracy.get_xlabel() == "epoch" and figures[0].get_suptitle() == "a run"
    assert [line.get_label() for line in accuracy.lines] == [
        "train", "test, weights (45.0%)", "test, moving average of the weights (54.0%)",
    ]  # fmt: skip
    assert accuracy.lines[0].get_xydata().tolist() == [pytest.approx([s["epoch"], 100 * s["accuracy"]]) for s in STEPS]
    assert loss.lines[2].get_xydata().tolist() == [pytest.approx([e["epoch"], e["average_loss"]]) for e in EPOCHS]


def test_a_run_without_step_lines_or_test_part_still_has_a_picture(tmp_path, monkeypatch):
    figures = _figure(monkeypatch)
    bare = [
        {**e, "test_loss": None, "test_accuracy": None, "average_loss": None, "average_accuracy": None} for e in EPOCHS
    ]
    assert curves.draw(_write(tmp_path / "metrics.jsonl", bare), tmp_path / "curves.png")
    assert [line.get_xydata()[:, 1].tolist() for line in figures[0].axes[0].lines] == [[2.0, 1.0, pytest.approx(2 / 3)]]


def test_nothing_to_draw_writes_nothing(tmp_path):
    assert not curves.draw(tmp_path / "none.jsonl", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_a_line_that_is_cut_off_is_left_out_and_a_damaged_one_is_an_error(tmp_path):
    path = _write(tmp_path / "metrics.jsonl", EPOCHS)
    path.write_text(path.read_text() + '{"kind": "ep')
    assert len(curves.read_metrics(path)[1]) == 3
    path.write_text('{"kind"\n' + path.read_text())
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 1: not a line of metrics"):
        curves.read_metrics(path)
