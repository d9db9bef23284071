"""Test-time augmentation: logits averaged over several views of each image (K. Jordan's airbench).

"mirror" is the image and its mirror image. "six" adds both for two translations, by one pixel up-left and one
down-right over a reflected border; the untranslated pair weighs as much as the four others together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gpucnn import layout
from gpucnn.autograd import no_grad
from gpucnn.nn import Module
from gpucnn.tensor import Tensor

VIEWS = {"none": 1, "mirror": 2, "six": 6}


@contextmanager
def evaluation_mode(model: Module) -> Iterator[None]:
    """Within it ``model`` is in evaluation mode and nothing is recorded; after it, also after an exception, the mode is
    what it was."""
    training = model.training
    model.eval()
    try:
        with no_grad():
            yield
    finally:
        model.train(training)


def logits(model: Module, images: Tensor, views: str = "none") -> Tensor:
    """Logits (N, classes) of images (N, C, H, W), averaged over ``views``: "none", "mirror" or "six". Outside the tape.

    Raises:
        ValueError: an unknown word; "six" for images of a single row or column, which have no reflection.
    """
    if views not in VIEWS:
        raise ValueError(f"views must be one of {', '.join(VIEWS)}, got {views!r}")
    if views == "none":
        return model(images)
    centre = _mirrored(model, images)
    if views == "mirror":
        return centre
    xp, pixels = images.backend.xp, layout.nhwc(images.data)
    _, h, w, _ = pixels.shape
    if h < 2 or w < 2:
        raise ValueError(f"six views need images of at least 2x2 pixels, got {tuple(images.shape)}")
    padded = xp.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    shifted = [padded[:, :h, :w], padded[:, 2:, 2:]]
    first, second = (_mirrored(model, _tensor(layout.contiguous(view), images)) for view in shifted)
    return centre * 0.5 + first * 0.25 + second * 0.25


def _mirrored(model: Module, images: Tensor) -> Tensor:
    """The mean over the images and their mirror images."""
    pixels = layout.nhwc(images.data)
    mirror = _tensor(layout.contiguous(pixels[:, :, ::-1]), images)
    mean: Tensor = model(images) * 0.5 + model(mirror) * 0.5
    return mean


def _tensor(pixels: Any, like: Tensor) -> Tensor:
    return Tensor(layout.nchw(pixels), like.device)
