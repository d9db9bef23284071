"""How images become a model's input, in training and in evaluation, whatever data set they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpucnn import models
from gpucnn.data.adapt import Adapt
from gpucnn.data.augment import Augment
from gpucnn.data.transforms import LectureEval, LectureTrain, Normalize, Transform
from gpucnn.nn import Module

_STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {  # of the training pixels, of 1
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def normalization(data: str, channels: int) -> Normalize:
    """The normalisation for a data set: its training pixels' mean and deviation where they are known and have as many
    channels, else mean 0.5 and deviation 0.25, of 1."""
    mean, std = _STATISTICS.get(data, ((), ()))
    return Normalize(mean, std) if len(mean) == channels else Normalize(0.5, 0.25)


def transforms(model: Module, data: str, augmentation: Mapping[str, Any] | None = None) -> tuple[Transform, Transform]:
    """What turns images of the data set called ``data`` into ``model``'s input, in training and in evaluation.

    The lecture network takes its crops, distortions and standardisation; others the middle of the image, normalised
    with the data set's statistics (:func:`normalization`), in training after ``augmentation``, which are arguments of
    :class:`gpucnn.data.Augment`.

    Raises:
        ValueError: a model that does not say its ``input_shape`` (C, H, W); augmentation of the lecture network.
    """
    shape: Sequence[int] | None = getattr(model, "input_shape", None)
    if shape is None or len(shape) != 3:
        raise ValueError(
            f"{type(model).__name__} does not say its input_shape (C, H, W): give the loaders their transform"
        )
    c, h, w = shape
    if isinstance(model, models.LectureCNN):
        if augmentation:
            raise ValueError(f"the lecture network has augmentation of its own, got {dict(augmentation)}")
        return Adapt(LectureTrain(h), c, h, w, crop=False), Adapt(LectureEval(h), c, h, w, crop=False)
    evaluate = normalization(data, c)
    train: Transform = Augment(evaluate, **augmentation) if augmentation else evaluate
    return Adapt(train, c, h, w, crop=True), Adapt(evaluate, c, h, w, crop=True)
