"""The sheet of the worst mistakes shows the right images in the right order; tiles lie where they belong."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gpucnn.viz import sheet

CLASSES = ("cat", "dog", "bird")
PROBABILITIES = np.array(
    [
        [0.90, 0.05, 0.05],  # a cat for a dog: 0.90
        [0.10, 0.80, 0.10],  # right
        [0.02, 0.00, 0.98],  # a bird for a dog: 0.98, and no chance for the dog
        [0.40, 0.30, 0.30],  # a cat for a bird: 0.40
        [0.05, 0.90, 0.05],  # a dog for a cat: 0.90, as the first
        [0.9999, 0.0001, 0.0],  # right
        [0.00, 0.9999, 0.0001],  # a dog for a bird: 0.9999
    ]
)
LABELS = np.array([1, 1, 1, 2, 0, 0, 2])
WORST = [6, 2, 0, 4, 3]


def images(channels: int) -> np.ndarray:
    """Image i is i everywhere."""
    return np.broadcast_to(np.arange(7, dtype=np.uint8)[:, None, None, None], (7, 5, 6, channels)).copy()


def test_the_most_confident_mistakes_come_first_and_equal_ones_in_their_order():
    assert sheet.worst_mistakes(PROBABILITIES, LABELS).tolist() == WORST
    assert sheet.worst_mistakes(PROBABILITIES, LABELS, 2).tolist() == WORST[:2]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_sheet_shows_each_mistake_with_what_it_was_taken_for(tmp_path, figures, channels):
    drawn = sheet.draw_mistakes(images(channels), PROBABILITIES, LABELS, CLASSES, tmp_path / "m.png", "a network")
    assert drawn.tolist() == WORST
    (figure,) = figures
    assert [int(axes.images[0].get_array().max()) for axes in figure.axes] == WORST
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [
        ["dog >99.9%", "bird <0.1%", "no. 6"],
        ["bird 98.0%", "dog 0.0%", "no. 2"],
        ["cat 90.0%", "dog 5.0%", "no. 0"],
        ["dog 90.0%", "cat 5.0%", "no. 4"],
        ["cat 40.0%", "bird 30.0%", "no. 3"],
    ]
    with Image.open(tmp_path / "m.png") as image:
        assert (image.format, image.width) == ("PNG", int(120 * (5 * 1.55 + 0.3)))


def test_captions_of_neighbours_do_not_touch(tmp_path, figures):
    classes = ("automobile", "airplane or so", "an even longer name")
    sheet.draw_mistakes(images(3), PROBABILITIES, LABELS, classes, tmp_path / "m.png", "a network")
    (figure,) = figures
    boxes = [text.get_window_extent() for axes in figure.axes for text in axes.texts]
    overlapping = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert overlapping == []


def test_a_network_without_mistakes_has_a_sheet_that_says_so(tmp_path, figures):
    right = np.eye(3)[LABELS]
    assert sheet.draw_mistakes(images(3), right, LABELS, CLASSES, tmp_path / "m.png").tolist() == []
    assert [text.get_text() for text in figures[0].texts] == ["no mistakes"]


def test_sizes_that_do_not_fit_are_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"probabilities \(N, 2\)"):
        sheet.draw_mistakes(images(3), PROBABILITIES, LABELS, CLASSES[:2], tmp_path / "m.png")
    with pytest.raises(ValueError, match="images"):
        sheet.draw_mistakes(images(3)[:4], PROBABILITIES, LABELS, CLASSES, tmp_path / "m.png")


def test_tiles_lie_in_rows_with_gaps_around_them():
    tiles = np.stack([np.full((2, 3, 1), float(i)) for i in range(3)])
    got = sheet.tiled(tiles, columns=2, gap=1, background=9.0)
    expected = [
        [9, 9, 9, 9, 9, 9, 9, 9, 9],
        [9, 0, 0, 0, 9, 1, 1, 1, 9],
        [9, 0, 0, 0, 9, 1, 1, 1, 9],
        [9, 9, 9, 9, 9, 9, 9, 9, 9],
        [9, 2, 2, 2, 9, 9, 9, 9, 9],
        [9, 2, 2, 2, 9, 9, 9, 9, 9],
        [9, 9, 9, 9, 9, 9, 9, 9, 9],
    ]
    assert got[:, :, 0].tolist() == expected
