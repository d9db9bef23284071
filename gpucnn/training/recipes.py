"""How each model is trained when nobody says otherwise, and how images become its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn import models
from gpucnn.data.transforms import LectureEval, LectureTrain, MNISTNormalize, Normalize, Transform
from gpucnn.nn import Module
from gpucnn.training.config import Config

_OTHER: dict[str, Any] = {"lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4, "average_decay": None}

RECIPES: dict[str, dict[str, Any]] = {
    # TensorFlow's CIFAR-10 tutorial
    "lecture_cnn": {
        "epochs": 10,
        "batch_size": 128,
        "lr": 0.1,
        "momentum": 0.0,
        "weight_decay": 0.004,
        "lr_decay": 0.1,
        "lr_decay_epochs": 350,
        "average_decay": 0.9999,
    },
    "lenet5": {
        "epochs": 10,
        "batch_size": 64,
        "lr": 0.02,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "lr_decay": 0.7,
        "lr_decay_epochs": 1,
        "average_decay": None,
    },
}

DATA = {"lecture_cnn": models.LectureCNN.data_set, "lenet5": models.LeNet5.data_set}
"""What a model trains on where no data set is named."""


def config_for(model: str = "lecture_cnn", **changes: Any) -> Config:
    """The recipe of ``model`` with ``changes``; those that are None leave the recipe as it is.

    Raises:
        ValueError, TypeError: an unknown model or key, or a value out of range.
    """
    name = models.canonical_name(model)
    given = {key: value for key, value in changes.items() if value is not None}
    return Config.from_dict({**RECIPES.get(name, _OTHER), **given, "model": name})


class Adapt:
    """Brings images uint8 (N, H, W, C) to ``channels``, and to at least ``height`` x ``width``, before ``transform``
    sees them.

    Colour becomes grey by (77 R + 150 G + 29 B) / 256 (ITU-R BT.601), grey becomes colour by repetition, a smaller
    image gets a border of zeros. Images that fit pass through as they are.
    """

    def __init__(self, transform: Transform, channels: int, height: int, width: int, crop: bool) -> None:
        self.transform = transform
        self.channels, self.height, self.width, self.crop = channels, height, width, crop

    def __call__(self, images: NDArray[np.uint8], seed: int = 0, step: int = 0) -> NDArray[np.float32]:
        return self.transform(self._sized(self._coloured(images)), seed=seed, step=step)

    def _coloured(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        c = images.shape[3]
        if c == self.channels:
            return images
        if c == 3 and self.channels == 1:
            weighted = images.astype(np.uint32) * np.array([77, 150, 29], dtype=np.uint32)
            return (weighted.sum(axis=3, keepdims=True, dtype=np.uint32) >> 8).astype(np.uint8)
        if c == 1:
            return np.repeat(images, self.channels, axis=3)
        raise ValueError(f"the model takes {self.channels} channels, the images have {c}")

    def _sized(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        _, h, w, _ = images.shape
        if h < self.height or w < self.width:
            rows, columns = max(self.height - h, 0), max(self.width - w, 0)
            images = np.pad(
                images, ((0, 0), (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0))
            )
        if self.crop:
            top, left = (images.shape[1] - self.height) // 2, (images.shape[2] - self.width) // 2
            images = images[:, top : top + self.height, left : left + self.width]
        return images


def transforms(model: Module, data: str) -> tuple[Transform, Transform]:
    """What turns images into ``model``'s input, in training and in evaluation, whatever the data set.

    A model made for MNIST takes MNIST's normalisation (other data: mean 0.5, deviation 0.25, of 1) of the middle of
    the image; the lecture network its crops, distortions and standardisation.

    Raises:
        ValueError: a model that does not say its ``input_shape`` (C, H, W).
    """
    shape: Sequence[int] | None = getattr(model, "input_shape", None)
    if shape is None or len(shape) != 3:
        raise ValueError(
            f"{type(model).__name__} does not say its input_shape (C, H, W): give the loaders their transform"
        )
    c, h, w = shape
    if isinstance(model, models.LectureCNN):
        return Adapt(LectureTrain(h), c, h, w, crop=False), Adapt(LectureEval(h), c, h, w, crop=False)
    normalize = MNISTNormalize() if data == "mnist" else Normalize(0.5, 0.25)
    adapted = Adapt(normalize, c, h, w, crop=True)
    return adapted, adapted
