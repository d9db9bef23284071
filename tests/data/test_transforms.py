"""Augmentation against the recipe applied image by image, pixel by pixel, in float64."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from gpucnn.data import transforms
from gpucnn.random import Purpose, bits


def _images(n=9, h=32, w=32, c=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, h, w, c), dtype=np.uint8)


def _standardized(z: np.ndarray) -> np.ndarray:
    """TensorFlow's per_image_standardization of one image, from its documentation."""
    n = z.size
    mean = sum(z.ravel().tolist()) / n
    variance = sum((value - mean) ** 2 for value in z.ravel().tolist()) / n
    return (z - mean) / max(math.sqrt(variance), 1 / math.sqrt(n))


def _uniforms(n: int, seed: int, step: int) -> np.ndarray:
    """The five draws of each image: the upper 24 bits of successive words of the stream."""
    words = bits(5 * n, (seed, step, Purpose.AUGMENT)).astype(object).reshape(n, 5)
    return np.array([[(int(word) >> 8) / 2**24 for word in row] for row in words])


def _lecture_train(image: np.ndarray, draws: np.ndarray, size: int) -> np.ndarray:
    """The recipe for one image, step by step."""
    h, w, _ = image.shape
    top, left = int(draws[0] * (h - size + 1)), int(draws[1] * (w - size + 1))
    z = image[top : top + size, left : left + size].astype(np.float64)
    if draws[2] < 0.5:
        z = z[:, ::-1]
    z = z + (-63 + draws[3] * 126)
    factor = 0.2 + draws[4] * 1.6
    for c in range(z.shape[2]):
        mean = z[:, :, c].mean()
        z[:, :, c] = (z[:, :, c] - mean) * factor + mean
    return _standardized(z)


@pytest.mark.parametrize(
    ("shape", "size"), [((9, 32, 32, 3), 24), ((3, 25, 31, 3), 24), ((2, 24, 24, 3), 24), ((4, 9, 8, 1), 5)]
)
def test_training_input_is_the_recipe(shape, size):
    images = _images(*shape)
    out = transforms.LectureTrain(size)(images, seed=11, step=3)
    assert out.dtype == np.float32 and out.shape == (shape[0], size, size, shape[3]) and out.flags.c_contiguous
    draws = _uniforms(shape[0], 11, 3)
    assert len({tuple(row) for row in draws}) == shape[0]
    for i in range(shape[0]):
        expected = _lecture_train(images[i], draws[i], size)
        np.testing.assert_allclose(out[i], expected, rtol=0, atol=4e-6)


def test_every_image_of_a_large_batch_is_the_recipe():
    """Enough draws to tell probabilities and ranges that are a little off."""
    images = _images(300, 8, 8)
    out = transforms.LectureTrain(5)(images, seed=1, step=0)
    draws = _uniforms(300, 1, 0)
    for i in range(300):
        np.testing.assert_allclose(out[i], _lecture_train(images[i], draws[i], 5), rtol=0, atol=4e-6)


def test_all_crops_and_both_flips_occur_and_the_ranges_are_kept():
    draws = np.concatenate([_uniforms(128, 0, step) for step in range(40)])
    for column, values in ((0, 9), (1, 9), (2, 2)):
        assert set((draws[:, column] * values).astype(int)) == set(range(values))
    images = np.zeros((1280, 32, 32, 1), np.uint8)
    images[:, 16, 16] = 200
    out = transforms.LectureTrain(24)(images, seed=2, step=0)
    places = {tuple(np.argwhere(o[..., 0] == o.max())[0]) for o in out}
    assert {row for row, _ in places} == set(range(8, 17))
    assert {column for _, column in places} == set(range(7, 17))  # 16 - left for left 0 to 8, or 23 - that


def test_evaluation_input_is_the_middle_standardised():
    for h, w, size in ((32, 32, 24), (31, 26, 24), (24, 24, 24)):
        images = _images(4, h, w)
        out = transforms.LectureEval(size)(images)
        top, left = (h - size) // 2, (w - size) // 2
        for i in range(4):
            expected = _standardized(images[i, top : top + size, left : left + size].astype(np.float64))
            np.testing.assert_allclose(out[i], expected, rtol=0, atol=4e-6)


@pytest.mark.parametrize("value", [0, 1, 255])
def test_images_of_one_colour_become_zeros_not_infinities(value):
    images = np.full((2, 32, 32, 3), value, np.uint8)
    images[1, 16, 16, 1] ^= 1  # nearly one colour: the deviation's lower bound 1 / sqrt(n) applies
    out = transforms.LectureEval()(images)
    assert np.abs(out[0]).max() < 1e-3
    np.testing.assert_allclose(out[1], _standardized(images[1, 4:28, 4:28].astype(np.float64)), atol=1.5e-3)
    assert np.isfinite(transforms.LectureTrain()(images)).all()


def test_a_batch_depends_on_seed_and_step_alone_and_an_image_on_its_place():
    images = _images(16)
    transform = transforms.LectureTrain()
    first = transform(images, seed=5, step=8)
    transform(images, seed=5, step=9)
    np.testing.assert_array_equal(transforms.LectureTrain()(images, seed=5, step=8), first)
    np.testing.assert_array_equal(transform(images[:7], seed=5, step=8), first[:7])
    for seed, step in ((5, 9), (6, 8)):
        assert not (transform(images, seed=seed, step=step) == first).reshape(16, -1).all(axis=1).any()


def test_the_callers_images_stay_as_they_are():
    images = _images(3)
    kept = images.copy()
    for transform in (transforms.LectureTrain(), transforms.LectureEval(), transforms.MNISTNormalize()):
        transform(images)
    np.testing.assert_array_equal(images, kept)


def test_normalisation_of_mnist():
    images = _images(3, 28, 28, 1)
    out = transforms.MNISTNormalize()(images)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, (images / 255.0 - 0.1307) / 0.3081, rtol=0, atol=5e-7)
    out = transforms.Normalize((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))(_images(2))
    np.testing.assert_allclose(out[..., 1], (_images(2)[..., 1] / 255.0 - 0.4) / 0.2, atol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match="a crop of 24x24 does not fit into images of 32x23"):
        transforms.LectureTrain()(_images(1, 32, 23))
    with pytest.raises(ValueError, match=r"expected images uint8 \(N, H, W, C\), got float64"):
        transforms.LectureEval()(np.zeros((1, 32, 32, 3)))
    with pytest.raises(ValueError, match="contrast"):
        transforms.LectureTrain(contrast=(0.0, 1.0))
    with pytest.raises(ValueError, match="std must be positive, got 0"):
        transforms.Normalize(0.0, 0.0)
    assert transforms.LectureTrain()(_images(0)).shape == (0, 24, 24, 3)


def test_a_batch_of_128_costs_little_of_a_step():
    """A training step of the lecture network takes about 150 ms on two cores; the budget leaves room for slow
    machines."""
    images = _images(128)
    transform = transforms.LectureTrain()
    seconds = []
    for step in range(12):
        started = time.perf_counter()
        transform(images, seed=0, step=step)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 8e-3
