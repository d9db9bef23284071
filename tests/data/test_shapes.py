"""The generated data set: the same everywhere and always, balanced, and neither trivial nor unlearnable."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from gpucnn.data import Shapes, shapes


def test_it_is_a_data_set_like_the_others():
    dataset = Shapes(count=100)
    assert dataset.images.shape == (100, 32, 32, 3) and dataset.images.dtype == np.uint8
    assert dataset.labels.dtype == np.int64 and set(dataset.labels.tolist()) == set(range(10))
    assert (dataset.name, dataset.train, len(dataset.classes)) == ("shapes", True, 10)
    counts = np.bincount(Shapes(train=False).labels)
    assert counts.sum() == 2000 and counts.min() > 150


def test_the_bytes_are_the_same_on_every_machine():
    """Taken down once; the images are made of integers and correctly rounded operations only."""
    digest = hashlib.sha256(Shapes(count=200, seed=3).images.tobytes()).hexdigest()
    assert digest == "7e8e47779bdddf247eba276fb36eecf9a74b35d89be0f9d7cf7ef7480bf38683"


def test_the_first_images_do_not_depend_on_the_count_and_parts_and_seeds_differ():
    whole = Shapes(count=150)
    np.testing.assert_array_equal(Shapes(count=70).images, whole.images[:70])
    np.testing.assert_array_equal(Shapes(count=70).labels, whole.labels[:70])
    for other in (Shapes(train=False, count=150), Shapes(count=150, seed=1)):
        same = (other.images == whole.images).reshape(150, -1).all(axis=1)
        assert not same.any()
    images = {image.tobytes() for image in whole.images}
    assert len(images) == 150
    with pytest.raises(ValueError, match="count must not be negative, got -1"):
        Shapes(count=-1)


@pytest.mark.parametrize("kind", range(10))
def test_every_shape_stays_inside_its_circle_and_differs_from_the_others_when_turned(kind):
    grid = np.linspace(-1.5, 1.5, 151, dtype=np.float32)
    u, v = np.meshgrid(grid, grid)
    here = shapes.inside(kind, u, v)
    assert not here[u * u + v * v > 1.15**2].any()
    assert 0.02 < here.mean() < 0.4
    for other in range(10):
        if other != kind:
            best = max(
                _overlap(here, shapes.inside(other, np.cos(a) * u + np.sin(a) * v, np.cos(a) * v - np.sin(a) * u))
                for a in np.linspace(0, 2 * np.pi, 24, endpoint=False)
            )
            assert best < 0.9, (shapes.CLASSES[kind], shapes.CLASSES[other])


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_colours_alone_do_not_give_the_class_away():
    """A linear classifier on each image's mean colour and deviation stays near chance."""
    train, test = Shapes(count=2000), Shapes(train=False, count=1000)

    def features(part):
        pixels = part.images.reshape(len(part), -1, 3) / 255
        return np.hstack([pixels.mean(axis=1), pixels.std(axis=1), np.ones((len(part), 1))])

    weights, *_ = np.linalg.lstsq(features(train), np.eye(10)[train.labels], rcond=None)
    accuracy = ((features(test) @ weights).argmax(axis=1) == test.labels).mean()
    assert accuracy < 0.3


def test_a_picture_shows_its_shape_on_its_background():
    """Undo nothing, just look: with the noise averaged out, the pixels covered differ from the rest."""
    dataset = Shapes(count=64)
    draws = shapes.uniform((shapes.BLOCK, 12), (0, 2, shapes.Purpose.SHAPES))
    cover = shapes._cover(dataset.labels, draws)
    assert cover.min() == 0 and cover.max() == 1
    for image, covered in zip(dataset.images.astype(float), cover, strict=True):
        if (covered == 1).sum() < 8:
            continue
        difference = image[covered == 1].mean(axis=0) - image[covered == 0].mean(axis=0)
        assert np.abs(difference).max() > 0.7 * 255 * shapes.MIN_CONTRAST
