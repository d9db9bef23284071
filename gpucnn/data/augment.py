"""Flips, shifts, jitter and holes for small images: what the fast CIFAR-10 recipes do to a batch.

Sources: D. Page, "How to train your ResNet" (2018): crops out of the reflected border, flips, cutout by 8 x 8. K.
Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (arXiv 2404.00498): alternating flips. T. DeVries, G. Taylor,
"Improved regularization of convolutional neural networks with cutout" (arXiv 1708.04552).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpucnn.data.transforms import Batch, Images, Indices, Normalize, affine, checked, crop
from gpucnn.random import Purpose, philox, uniform

FLIPS = ("none", "random", "alternating")


class Augment:
    """Augmentation of images uint8 (N, H, W, C) in this order, sizes unchanged; what is 0 or "none" is left out.

    1. ``flip``, left to right. "random": with probability 1/2, drawn anew whenever an image is seen. "alternating":
       image i starts, in epoch 0, as the coin of the stream (seed, i, FLIP) says, whatever batch it is in, and is
       mirrored in every epoch after: two epochs in a row show both of its sides.
    2. ``translate``: the image gets a border of that many pixels by reflection (the outermost pixel is not repeated),
       and an H x W crop of it is taken, each of the (2 translate + 1)**2 with the same probability.
    3. ``brightness`` and ``contrast``, on pixels of 0 to 1: x becomes (x - m) f + m + u, where m is the mean over all
       H W C numbers of the image, f uniform in [1 - contrast, 1 + contrast), u uniform in [-brightness, brightness);
       one f and one u an image. Nothing is clipped. (The recipe of hiverge/cifar10-speedrun jitters what is normalised
       already: there u counts in standard deviations, and f stretches about the data set's mean.)
    4. ``normalize``.
    5. ``cutout``: a square of that side becomes 0, at any place where it lies wholly inside, each as probable.

    An image takes eight uniforms, its row of the batch's stream (seed, step, AUGMENT): flip, top, left, brightness,
    contrast, the hole's top and left, and one that is left over. They are the same draws whichever options are on.

    Args:
        normalize: mean and standard deviation by channel.
        translate: pixels, less than H and W.
        flip: "none", "random" or "alternating".
        cutout: pixels, at most H and W.
        brightness: of 1, at least 0.
        contrast: of 1, in [0, 1].

    Raises:
        ValueError: an argument out of its range; images that are too small or no uint8 (N, H, W, C).
    """

    DRAWS = 8

    def __init__(
        self,
        normalize: Normalize,
        translate: int = 0,
        flip: str = "none",
        cutout: int = 0,
        brightness: float = 0.0,
        contrast: float = 0.0,
    ) -> None:
        if flip not in FLIPS:
            raise ValueError(f"Augment: flip must be one of {', '.join(FLIPS)}, got {flip!r}")
        if translate < 0 or cutout < 0 or translate != int(translate) or cutout != int(cutout):
            raise ValueError(f"Augment: translate and cutout must be whole and >= 0, got {translate} and {cutout}")
        if not 0 <= brightness < np.inf or not 0 <= contrast <= 1:
            raise ValueError(
                f"Augment: brightness must be >= 0 and contrast from 0 to 1, got {brightness} and {contrast}"
            )
        self.normalize = normalize
        self.translate, self.flip, self.cutout = int(translate), flip, int(cutout)
        self.brightness, self.contrast = float(brightness), float(contrast)

    def __repr__(self) -> str:
        options = ("translate", "flip", "cutout", "brightness", "contrast")
        return f"Augment({', '.join(f'{name}={getattr(self, name)!r}' for name in options)})"

    def __call__(
        self, images: Images, seed: int = 0, step: int = 0, epoch: int = 0, indices: Indices | None = None
    ) -> Batch:
        n, h, w, _ = checked(images)
        if self.cutout > min(h, w):
            raise ValueError(f"Augment: a cutout of {self.cutout} pixels does not fit into images of {h}x{w}")
        if self.translate >= min(h, w):
            raise ValueError(f"Augment: images of {h}x{w} have no reflected border of {self.translate} pixels")
        draws = uniform((n, self.DRAWS), (seed, step, Purpose.AUGMENT)).astype(np.float64)
        batch = self._coloured(self._placed(images, draws, self._flips(draws, seed, epoch, indices)), draws)
        if self.cutout:
            top, left = (
                places(draws[:, 5 + axis], size - self.cutout + 1).tolist() for axis, size in enumerate((h, w))
            )
            for image, row, column in zip(batch, top, left, strict=True):
                image[row : row + self.cutout, column : column + self.cutout] = 0.0
        return batch

    def _flips(
        self, draws: NDArray[np.float64], seed: int, epoch: int, indices: Indices | None
    ) -> NDArray[np.bool_] | None:
        if self.flip == "none":
            return None
        if self.flip == "random":
            return draws[:, 0] < 0.5
        return coins(seed, np.arange(len(draws)) if indices is None else indices) ^ (epoch % 2 == 1)

    def _placed(self, images: Images, draws: NDArray[np.float64], flip: NDArray[np.bool_] | None) -> Images:
        """Mirrored and moved. The border of a mirrored image is the mirrored border, so the border comes first."""
        _, h, w, _ = images.shape
        border = self.translate
        if not border and flip is None:
            return images
        if border:
            images = np.pad(images, ((0, 0), (border, border), (border, border), (0, 0)), mode="reflect")
        top, left = (places(draws[:, column], 2 * border + 1) for column in (1, 2))
        if flip is not None:
            left = np.where(flip, 2 * border - left, left)  # counted from the right of an image yet to be mirrored
        return crop(images, top, left, (h, w), flip)

    def _coloured(self, images: Images, draws: NDArray[np.float64]) -> Batch:
        """Jittered and normalised, both at once: a x + b with numbers a and b for each image and channel, computed in
        float64 and rounded to float32 once. The sum in m is an exact integer."""
        if not self.brightness and not self.contrast:
            return self.normalize(images)
        n, h, w, c = images.shape
        mean, std = (self.normalize.by_channel(values, c) for values in (self.normalize.mean, self.normalize.std))
        own = images.reshape(n, h * w * c).sum(axis=1, dtype=np.int64)[:, None] / (255.0 * h * w * c)
        shift = (2.0 * draws[:, 3:4] - 1.0) * self.brightness
        factor = 1.0 + (2.0 * draws[:, 4:5] - 1.0) * self.contrast
        a = factor / (255.0 * std)
        b = (own * (1.0 - factor) + shift - mean) / std
        return affine(images, a.astype(np.float32), b.astype(np.float32))


def places(draws: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Uniforms in [0, 1) as whole numbers from 0 to ``count`` - 1."""
    return (draws * count).astype(np.int64)


def coins(seed: int, indices: Indices) -> NDArray[np.bool_]:
    """(N,) bool, with probability 1/2 each: the first word of the stream (seed, index, FLIP) is below 2**31."""
    counter = np.zeros((len(indices), 4), dtype=np.uint64)
    counter[:, 1] = Purpose.FLIP << 16
    counter[:, 2] = indices & 0xFFFFFFFF
    counter[:, 3] = indices >> 32
    return philox(counter, (seed & 0xFFFFFFFF, seed >> 32))[:, 0] < 1 << 31
