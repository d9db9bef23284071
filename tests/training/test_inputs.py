"""Images of any size and number of channels become a model's input."""

from __future__ import annotations

import numpy as np
import pytest

from gpucnn import models, nn
from gpucnn.training import inputs


@pytest.mark.parametrize("name", ["lecture_cnn", "lenet5", "resnet9", "airbench94", "resnet20"])
@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (20, 40, 3)])
def test_every_model_takes_every_data_set(name, shape):
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    model = models.create(name, device="cpu")
    c, h, w = model.input_shape
    augmentation = {} if name == "lecture_cnn" else {"flip": "random", "translate": 2}
    for transform in inputs.transforms(model, "shapes", augmentation):
        out = transform(images, seed=1, step=2, epoch=0, indices=np.arange(2))
        assert out.shape == (2, h, w, c) and out.dtype == np.float32 and np.isfinite(out).all()


def test_colour_becomes_grey_and_small_images_get_a_border():
    seen = []

    def keep(images, seed=0, step=0, epoch=0, indices=None):
        seen.append(images)
        return images.astype(np.float32)

    colour = np.zeros((1, 3, 4, 3), np.uint8)
    colour[0, 0, 0] = (255, 0, 0)
    colour[0, 1, 1] = (10, 200, 30)
    inputs.Adapt(keep, 1, 5, 4, crop=True)(colour)
    assert seen[0].shape == (1, 5, 4, 1)
    assert seen[0][0, 1, 0, 0] == 255 * 77 // 256
    assert seen[0][0, 2, 1, 0] == (10 * 77 + 200 * 150 + 30 * 29) // 256
    assert seen[0][0, 0].max() == seen[0][0, 4].max() == 0
    with pytest.raises(ValueError, match="the model takes 3 channels, the images have 2"):
        inputs.Adapt(keep, 3, 2, 2, crop=False)(np.zeros((1, 4, 4, 2), np.uint8))


def test_a_data_set_is_normalised_by_its_own_pixels_where_they_are_known():
    grey, colour = np.full((1, 1, 1, 1), 255, np.uint8), np.full((1, 1, 1, 3), 255, np.uint8)
    assert inputs.normalization("mnist", 1)(grey).item() == pytest.approx((1 - 0.1307) / 0.3081, rel=1e-6)
    np.testing.assert_allclose(
        inputs.normalization("cifar10", 3)(colour).ravel(),
        [(1 - 0.4914) / 0.2470, (1 - 0.4822) / 0.2435, (1 - 0.4465) / 0.2616],
        rtol=1e-6,
    )
    assert inputs.normalization("mnist", 3)(colour).ravel().tolist() == [2.0] * 3  # mean 0.5, deviation 0.25
    assert inputs.normalization("shapes", 3)(colour).ravel().tolist() == [2.0] * 3


def test_the_lecture_network_has_augmentation_of_its_own():
    with pytest.raises(ValueError, match=r"the lecture network has augmentation of its own, got \{'cutout': 8\}"):
        inputs.transforms(models.create("lecture", device="cpu"), "cifar10", {"cutout": 8})


def test_a_model_of_ones_own_says_what_is_missing():
    with pytest.raises(ValueError, match=r"Sequential does not say its input_shape \(C, H, W\)"):
        inputs.transforms(nn.Sequential(), "mnist")
