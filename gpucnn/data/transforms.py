"""From stored bytes to a network's input, a whole batch at a time.

A transform takes images uint8 (N, H, W, C) and where they come from, and returns float32 (N, H', W', C), C-contiguous:

    seed     of the loader
    step     batches since the first epoch's beginning
    epoch    counts from 0
    indices  int64 (N,), the images' places in the data set; 0 .. N-1 where it is None

What it draws comes from the Philox stream (seed, step, AUGMENT), row i for image i: batch ``step`` is augmented in the
same way whatever happened before it, on whichever thread, and a run that is resumed sees what it would have seen. What
must not depend on how images are put into batches is drawn from streams (seed, index, ...) instead
(``gpucnn/data/augment.py``).
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpucnn.random import Purpose, uniform

Images = NDArray[np.uint8]
Batch = NDArray[np.float32]
Indices = NDArray[np.int64]
AnyFloat = TypeVar("AnyFloat", bound=np.floating)

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Mean and standard deviation of CIFAR-10's training pixels by channel, of 1."""


class Transform(Protocol):
    """images uint8 (N, H, W, C), seed, step, epoch, indices int64 (N,) -> float32 (N, H', W', C)."""

    def __call__(
        self, images: NDArray[Any], seed: int = 0, step: int = 0, epoch: int = 0, indices: Indices | None = None
    ) -> Batch: ...


class Normalize:
    """(x / 255 - mean) / std, as torchvision's ToTensor and Normalize; one mean and std, or one a channel.

    In float32: x * (1 / (255 std)) + (-mean / std), the two constants computed in float64 and then rounded.

    Raises:
        ValueError: a std that is not positive; images that are no uint8 (N, H, W, C), or of other channels than these.
    """

    def __init__(self, mean: float | tuple[float, ...] = 0.0, std: float | tuple[float, ...] = 1.0) -> None:
        means, stds = np.asarray(mean, dtype=np.float64), np.asarray(std, dtype=np.float64)
        if not np.all(stds > 0):
            raise ValueError(f"Normalize: std must be positive, got {std}")
        self.mean, self.std = means, stds
        self._scale = (1.0 / (255.0 * stds)).astype(np.float32)
        self._shift = (-means / stds).astype(np.float32)

    def __call__(
        self, images: Images, seed: int = 0, step: int = 0, epoch: int = 0, indices: Indices | None = None
    ) -> Batch:
        _, _, _, c = checked(images)
        return affine(images, self.by_channel(self._scale, c), self.by_channel(self._shift, c))

    @staticmethod
    def by_channel(values: NDArray[AnyFloat], c: int) -> NDArray[AnyFloat]:
        """One number for all channels, or one a channel, as (C,)."""
        if values.size not in (1, c):
            raise ValueError(f"Normalize: mean and std have {values.size} channels, the images {c}")
        return np.broadcast_to(values, (c,))


class AsIs:
    """Images that are a network's input already, float32 (N, H, W, C): they stay what they are.

    Raises:
        ValueError: images of another dtype.
    """

    def __call__(
        self, images: Batch, seed: int = 0, step: int = 0, epoch: int = 0, indices: Indices | None = None
    ) -> Batch:
        if images.ndim != 4 or images.dtype != np.float32:
            raise ValueError(f"AsIs: expected images float32 (N, H, W, C), got {images.dtype} {images.shape}")
        return images


class MNISTNormalize(Normalize):
    """Mean 0.1307 and standard deviation 0.3081 of MNIST's training pixels, of 1."""

    def __init__(self) -> None:
        super().__init__(0.1307, 0.3081)


class LectureEval:
    """The lecture network's input in evaluation: the middle ``size`` x ``size`` pixels, standardised image by image.

    Raises:
        ValueError: images smaller than ``size``.
    """

    def __init__(self, size: int = 24) -> None:
        self.size = size

    def __call__(
        self, images: Images, seed: int = 0, step: int = 0, epoch: int = 0, indices: Indices | None = None
    ) -> Batch:
        _, h, w, _ = checked(images, self.size)
        top, left = (h - self.size) // 2, (w - self.size) // 2
        return standardize(images[:, top : top + self.size, left : left + self.size])


class LectureTrain:
    """The lecture network's input in training (TensorFlow's CIFAR-10 tutorial, ``distorted_inputs``), in this order:

    random ``size`` x ``size`` crop; horizontal flip with probability 1/2; brightness: one number in [-brightness,
    brightness), of 255, added to all pixels; contrast: each channel's distances from its mean times a number in
    [contrast[0], contrast[1]); standardisation, :func:`standardize`. Nothing is clipped in between, as there.

    Raises:
        ValueError: images smaller than ``size``, or a range that is none.
    """

    DRAWS = 5  # per image: top, left, flip, brightness, contrast

    def __init__(self, size: int = 24, brightness: float = 63.0, contrast: tuple[float, float] = (0.2, 1.8)) -> None:
        if brightness < 0 or not 0 < contrast[0] <= contrast[1]:
            raise ValueError(
                f"LectureTrain: brightness must be >= 0 and contrast a range above 0, got {brightness}, {contrast}"
            )
        self.size, self.brightness, self.contrast = size, brightness, contrast

    def __call__(
        self, images: Images, seed: int = 0, step: int = 0, epoch: int = 0, indices: Indices | None = None
    ) -> Batch:
        n, h, w, _ = checked(images, self.size)
        draws = uniform((n, self.DRAWS), (seed, step, Purpose.AUGMENT)).astype(np.float64)
        top = (draws[:, 0] * (h - self.size + 1)).astype(np.int64)
        left = (draws[:, 1] * (w - self.size + 1)).astype(np.int64)
        cropped = crop(images, top, left, self.size, flip=draws[:, 2] < 0.5)
        low, high = self.contrast
        return standardize(
            cropped,
            brightness=(2.0 * draws[:, 3] - 1.0) * self.brightness,
            contrast=low + draws[:, 4] * (high - low),
        )


def checked(images: Images, size: int = 0) -> tuple[int, int, int, int]:
    """N, H, W, C. Raises ValueError for what is no batch of images, or has no room for a crop of ``size``."""
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(f"transform: expected images uint8 (N, H, W, C), got {images.dtype} {images.shape}")
    n, h, w, c = images.shape
    if size > h or size > w:
        raise ValueError(f"transform: a crop of {size}x{size} does not fit into images of {h}x{w}")
    return n, h, w, c


def affine(images: Images, scale: Batch, shift: Batch) -> Batch:
    """images * scale + shift, float32 (N, H, W, C), a multiplication and an addition an element.

    Args:
        images: uint8 (N, H, W, C).
        scale, shift: float32 (C,) for all images, or (N, C).
    """
    n, h, w, c = images.shape
    rows = images.reshape(n, h, w * c)  # NumPy is several times as fast along W C numbers as along C of them
    batch = rows * np.tile(scale, w).reshape(-1, 1, w * c)
    batch += np.tile(shift, w).reshape(-1, 1, w * c)
    return batch.reshape(n, h, w, c)


def crop(
    images: Images,
    top: NDArray[np.int64],
    left: NDArray[np.int64],
    size: int | tuple[int, int],
    flip: NDArray[np.bool_] | None = None,
) -> Images:
    """Of image i the ``size`` (rows, columns; one number for both) pixels from (top[i], left[i]) on, mirrored left to
    right where flip[i]."""
    n, _, _, c = images.shape
    height, width = (size, size) if isinstance(size, int) else size
    pixel = np.dtype(f"V{c}")  # a pixel is moved as one element
    pixels = np.ascontiguousarray(images).view(pixel)[..., 0]
    out = np.empty((n, height, width), dtype=pixel)
    mirrored = np.zeros(n, dtype=bool) if flip is None else flip
    for i, (row, column, mirror) in enumerate(zip(top.tolist(), left.tolist(), mirrored.tolist(), strict=True)):
        window = pixels[i, row : row + height, column : column + width]
        out[i] = window[:, ::-1] if mirror else window
    return out.view(np.uint8).reshape(n, height, width, c)


def standardize(
    images: Images, brightness: NDArray[np.float64] | float = 0.0, contrast: NDArray[np.float64] | float = 1.0
) -> Batch:
    """Brightness, contrast and standardisation image by image: y = (z - mean(z)) / max(std(z), 1 / sqrt(n)).

    z = (x + brightness - m_c) * contrast + m_c, where m_c is the mean of x + brightness over the pixels of channel c;
    mean and std (the population's) are over all n = H W C numbers of an image, as in TensorFlow's
    ``per_image_standardization``.

    Every step is affine in x, so y = a x + b_c, one a for an image and a b_c for each channel. They follow from the
    sums of x and x**2 over each channel, which are exact integers in any order of summation; they are computed in
    float64 and rounded to float32 once. y is then one float32 multiplication and one addition an element: the same
    bits on every machine, and a third of the passes over memory that the steps would take one by one. (Brightness
    leaves y alone but for its last bit: the mean that is subtracted contains it.)

    Args:
        images: uint8 (N, H, W, C).
        brightness: (N,) or one number for all, of 255.
        contrast: (N,) or one number for all.

    Returns:
        float32 (N, H, W, C).
    """
    n, h, w, c = images.shape
    pixels = h * w
    rows = images.reshape(n, pixels, c).astype(np.float32)
    sums = np.einsum("npc->nc", rows, dtype=np.float64)
    squares = np.einsum("npc,npc->nc", rows, rows, dtype=np.float64)
    factor = np.broadcast_to(np.asarray(contrast, dtype=np.float64), (n,))[:, None]
    shift = np.broadcast_to(np.asarray(brightness, dtype=np.float64), (n,))[:, None]
    channel_mean = sums / pixels + shift
    channel_variance = (squares - sums * sums / pixels) / pixels
    mean = channel_mean.mean(axis=1, keepdims=True)
    variance = (factor**2 * channel_variance + (channel_mean - mean) ** 2).mean(axis=1, keepdims=True)
    std = np.maximum(np.sqrt(np.maximum(variance, 0.0)), 1.0 / np.sqrt(pixels * c))
    a = factor / std
    b = ((shift - channel_mean) * factor + channel_mean - mean) / std
    rows *= a.astype(np.float32)[:, None]
    rows += b.astype(np.float32)[:, None]
    return rows.reshape(n, h, w, c)
