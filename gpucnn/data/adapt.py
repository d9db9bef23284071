"""Images of one data set for a network that was made for another's: channels and sizes brought together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.data.transforms import Transform

GREY = (77, 150, 29)  # shares of red, green and blue, of 256


class Adapt:
    """Brings images uint8 (N, H, W, C) to ``channels``, and to at least ``height`` x ``width``, before ``transform``
    sees them.

    Colour becomes grey by (77 R + 150 G + 29 B) / 256 (ITU-R BT.601), grey becomes colour by repetition, a smaller
    image gets a border of zeros. Images that fit pass through as they are.
    """

    def __init__(self, transform: Transform, channels: int, height: int, width: int, crop: bool) -> None:
        self.transform = transform
        self.channels, self.height, self.width, self.crop = channels, height, width, crop

    def __call__(self, images: NDArray[np.uint8], *args: Any, **place: Any) -> NDArray[np.float32]:
        """The rest are seed, step, epoch and indices, see :mod:`gpucnn.data.transforms`."""
        return self.transform(self._sized(self._coloured(images)), *args, **place)

    def _coloured(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        c = images.shape[3]
        if c == self.channels:
            return images
        if c == 3 and self.channels == 1:
            weighted = images.astype(np.uint32) * np.array(GREY, dtype=np.uint32)
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
