"""Test-time augmentation: which views, and how much each weighs."""

from __future__ import annotations

import numpy as np
import pytest

import gpucnn
from gpucnn import nn
from gpucnn.training import views


class Seen(nn.Module):
    """Keeps the images it is shown; its logits are weighted sums of the pixels."""

    def __init__(self, weights):
        super().__init__()
        self.weights, self.seen = weights, []

    def forward(self, images):
        pixels = images.numpy()
        self.seen.append(pixels)
        return gpucnn.tensor(np.einsum("nchw,chwk->nk", pixels, self.weights), device=images.device)


def _case(device="cpu"):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 2, 5, 4)).astype(np.float32)
    return images, Seen(rng.normal(size=(2, 5, 4, 7)).astype(np.float32)), gpucnn.tensor(images, device=device)


def _shift(images, down, right):
    """out[y, x] = images[y - down, x - right], reflected at the border without repeating it."""
    _, _, h, w = images.shape
    rows = [abs(y - down) if y - down < h else 2 * (h - 1) - (y - down) for y in range(h)]
    columns = [abs(x - right) if x - right < w else 2 * (w - 1) - (x - right) for x in range(w)]
    return images[:, :, rows][:, :, :, columns]


@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_six_views_are_the_image_and_two_shifts_and_their_mirror_images(device):
    images, model, tensor = _case(device)
    result = views.logits(model, tensor, "six").numpy()
    wanted = [
        (0.25, images),
        (0.25, images[..., ::-1]),
        *[
            (0.125, view)
            for shifted in (_shift(images, 1, 1), _shift(images, -1, -1))
            for view in (shifted, shifted[..., ::-1])
        ],
    ]
    assert len(model.seen) == 6
    for seen, (_, view) in zip(model.seen, wanted, strict=True):
        np.testing.assert_array_equal(seen, view)
    expected = sum(
        weight * np.einsum("nchw,chwk->nk", view.astype(np.float64), model.weights) for weight, view in wanted
    )
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_mirror_is_two_views_and_none_is_one():
    images, model, tensor = _case()
    mean = views.logits(model, tensor, "mirror").numpy()
    np.testing.assert_array_equal(model.seen[1], images[..., ::-1])
    one, other = (np.einsum("nchw,chwk->nk", view, model.weights) for view in model.seen)
    np.testing.assert_allclose(mean, (one + other) / 2, rtol=1e-5, atol=1e-5)
    model.seen.clear()
    views.logits(model, tensor)
    assert len(model.seen) == 1


def test_words_and_sizes_that_have_no_views():
    _, model, tensor = _case()
    with pytest.raises(ValueError, match="views must be one of none, mirror, six, got 'ten'"):
        views.logits(model, tensor, "ten")
    with pytest.raises(ValueError, match=r"six views need images of at least 2x2 pixels, got \(3, 2, 1, 4\)"):
        views.logits(model, tensor[:, :, :1], "six")
