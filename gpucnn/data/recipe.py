"""Which transforms the device can do itself, and how they read there: as a :class:`BatchRecipe`.

Only the package's own classes are known, by their very type: what a class of a user's does is not to be seen from here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpucnn.backends.cuda.augment import FLIPS, BatchRecipe
from gpucnn.data.adapt import Adapt
from gpucnn.data.augment import Augment
from gpucnn.data.transforms import LectureEval, LectureTrain, MNISTNormalize, Normalize, Transform


def recipe(transform: Transform, shape: tuple[int, int, int]) -> BatchRecipe | None:
    """What the device has to do with stored images uint8 (H, W, C) to give what ``transform`` gives, bit by bit.

    None where it cannot: a transform of another class, more channels than the kernel has, or arguments that the
    transform itself refuses (the host says what is wrong with them).
    """
    h, w, c = shape
    if c not in (1, 3):
        return None
    stored = BatchRecipe(H=h, W=w, C=c, height=h, width=w, top=0, left=0, border=0, P=h, Q=w, channels=c)
    try:
        if type(transform) is Adapt:
            view = _adapted(transform, stored)
            return None if view is None else _transformed(transform.transform, view)
        return _transformed(transform, stored)
    except ValueError:  # images too large for the kernel's sums
        return None


def _adapted(adapt: Adapt, image: BatchRecipe) -> BatchRecipe | None:
    """Channels, a border of zeros where the image is too small, and the middle of it where ``adapt`` crops."""
    if adapt.channels not in (1, 3):
        return None
    height, width = max(image.H, adapt.height), max(image.W, adapt.width)
    top, left = -((height - image.H) // 2), -((width - image.W) // 2)
    if adapt.crop:
        top, left = top + (height - adapt.height) // 2, left + (width - adapt.width) // 2
        height, width = adapt.height, adapt.width
    return _sized(replace(image, channels=adapt.channels), height, width, top, left)


def _sized(image: BatchRecipe, height: int, width: int, top: int, left: int) -> BatchRecipe:
    return replace(image, height=height, width=width, top=top, left=left, P=height, Q=width)


def _transformed(transform: Transform, view: BatchRecipe) -> BatchRecipe | None:
    if type(transform) in (Normalize, MNISTNormalize):
        return _normalized(transform, view)
    if type(transform) is LectureEval:
        rows, columns = view.height - transform.size, view.width - transform.size
        if min(rows, columns) < 0:
            return None
        size = transform.size
        return replace(_sized(view, size, size, view.top + rows // 2, view.left + columns // 2), standardize=True)
    if type(transform) is LectureTrain:
        if transform.size > min(view.height, view.width):
            return None
        low, high = transform.contrast
        return replace(
            view, P=transform.size, Q=transform.size, draws=transform.DRAWS, place_draw=0, flip_draw=2,
            flip=FLIPS["random"], standardize=True, jitter=True,
            brightness=transform.brightness, contrast_low=low, contrast_range=high - low,
        )  # fmt: skip
    if type(transform) is Augment:
        return _augmented(transform, view)
    return None


def _normalized(normalize: Any, view: BatchRecipe) -> BatchRecipe | None:
    if type(normalize) not in (Normalize, MNISTNormalize):
        return None
    if not all(values.size in (1, view.channels) for values in (normalize.mean, normalize.std)):
        return None
    mean, std = (np.broadcast_to(values, (view.channels,)).tolist() for values in (normalize.mean, normalize.std))
    named = {f"mean{c}": value for c, value in enumerate(mean)} | {f"std{c}": value for c, value in enumerate(std)}
    return replace(view, **named)


def _augmented(augment: Augment, view: BatchRecipe) -> BatchRecipe | None:
    if augment.cutout > min(view.height, view.width) or augment.translate >= min(view.height, view.width):
        return None
    normalized = _normalized(augment.normalize, view)
    return normalized and replace(
        normalized, border=augment.translate, draws=augment.DRAWS, place_draw=1, flip_draw=0, flip=FLIPS[augment.flip],
        mirror_left=True, cutout=augment.cutout, jitter=bool(augment.brightness or augment.contrast),
        brightness=augment.brightness, contrast_range=augment.contrast,
    )  # fmt: skip
