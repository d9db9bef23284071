"""The confusion matrix and each class's accuracy, by hand computation, and what the pictures of them show."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gpucnn.viz import matrix as drawing
from gpucnn.viz.figure import DPI

LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
PREDICTED = np.array([0, 1, 0, 1, 1, 0, 2, 0, 1])
MATRIX = np.array([[2, 1, 0, 0], [0, 2, 0, 0], [2, 1, 1, 0], [0, 0, 0, 0]])  # class 3 has no images
CLASSES = ("cat", "dog", "bird", "a class without any images at all")


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_the_matrix_has_true_classes_down_and_predicted_ones_across():
    assert drawing.confusion_matrix(LABELS, PREDICTED, 4).tolist() == MATRIX.tolist()


def test_the_matrix_of_many_classes_counts_every_image_once():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 100, 5000), rng.integers(0, 100, 5000)
    expected = np.zeros((100, 100), dtype=int)
    for i, j in zip(labels, predicted, strict=True):
        expected[i, j] += 1
    assert (drawing.confusion_matrix(labels, predicted, 100) == expected).all()


@pytest.mark.parametrize(
    ("labels", "predicted", "says"),
    [
        ([0, 1], [0], "two arrays"),
        ([0, 4], [0, 1], "labels must be in"),
        ([0, 1], [0, -1], "predicted must be in"),
    ],
)
def test_the_matrix_refuses_what_does_not_fit(labels, predicted, says):
    with pytest.raises(ValueError, match=says):
        drawing.confusion_matrix(np.array(labels), np.array(predicted), 4)


def test_the_accuracy_of_a_class_is_the_part_of_its_images_that_is_right():
    accuracy = drawing.class_accuracy(MATRIX)
    assert accuracy[:3].tolist() == [2 / 3, 1.0, 0.25]
    assert np.isnan(accuracy[3])


def test_the_picture_of_the_matrix_shows_counts_names_and_shares(tmp_path, figures):
    drawing.draw_confusion(MATRIX, CLASSES, tmp_path / "confusion.png", "a network")
    axes, bar = figures[0].axes
    assert texts(axes) == [str(count) for count in MATRIX.ravel()]
    cut = "a class without any ima\u2026"
    assert [label.get_text() for label in axes.get_yticklabels()] == [*CLASSES[:3], cut]
    assert [label.get_text() for label in axes.get_xticklabels()] == [*CLASSES[:3], cut]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    shares = [[2 / 3, 1 / 3, 0, 0], [0, 1, 0, 0], [0.5, 0.25, 0.25, 0], [0, 0, 0, 0]]
    assert np.asarray(axes.images[0].get_array()) == pytest.approx(np.array(shares))
    assert "share" in bar.get_ylabel()
    check_size(tmp_path / "confusion.png", figures[0])


def test_a_hundred_classes_leave_zeros_out_and_have_room_for_every_count(tmp_path, figures):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 100, 600)
    matrix = drawing.confusion_matrix(labels, np.where(rng.random(600) < 0.8, labels, 7), 100)
    names = [f"class {i}" for i in range(100)]
    drawing.draw_confusion(matrix, names, tmp_path / "hundred.png")
    (figure,) = figures
    axes = figure.axes[0]
    assert texts(axes) == [str(count) for count in matrix.ravel() if count]
    cell = axes.get_window_extent().width / 100
    assert max(text.get_window_extent().width for text in axes.texts) < cell
    assert max(label.get_window_extent().height for label in axes.get_yticklabels()) < cell
    check_size(tmp_path / "hundred.png", figure)


def test_the_bars_are_sorted_and_say_what_they_stand_for(tmp_path, figures):
    drawing.draw_accuracy(MATRIX, CLASSES, tmp_path / "accuracy.png", "a network")
    (axes,) = figures[0].axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([100, 200 / 3, 25, 0])
    assert texts(axes) == ["100.0%  (2 of 2)", "66.7%  (2 of 3)", "25.0%  (1 of 4)", "no images"]
    assert [label.get_text() for label in axes.get_yticklabels()][:3] == ["dog", "cat", "bird"]
    assert axes.lines[0].get_xdata()[0] == pytest.approx(100 * 5 / 9)
    assert "55.56%" in axes.get_xlabel()
    check_size(tmp_path / "accuracy.png", figures[0])


@pytest.mark.parametrize("draw", [drawing.draw_confusion, drawing.draw_accuracy])
def test_a_matrix_of_other_classes_is_an_error_and_no_picture(tmp_path, draw):
    with pytest.raises(ValueError, match="3 x 3 for 3 classes"):
        draw(MATRIX, CLASSES[:3], tmp_path / "none.png")
    assert list(tmp_path.iterdir()) == []


def check_size(path, figure) -> None:
    """The file is a PNG of the figure's size."""
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert image.size == tuple(int(side * DPI) for side in figure.get_size_inches())
