"""Batches made on the GPU in PyTorch: the data set lies there, and augmentation is a few operators on whole batches.

It is how the fast CIFAR-10 recipes do it. Crop, flip and choice of the images are one indexing operation over bytes;
what follows torch.compile makes one kernel of. The distortions are those of gpucnn's transforms, with draws of
PyTorch's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpucnn.data.augment import Augment
from gpucnn.data.transforms import LectureTrain, Normalize


class Pipeline:
    """Batches of images uint8 (N, H, W, C) and labels (N,) on ``device``.

    ``transform`` is the training transform of gpucnn whose work is done: LectureTrain, Normalize, or Augment with
    crops, flips and cutout. Raises ValueError for another.
    """

    def __init__(self, images: Any, labels: Any, transform: Any, device: torch.device, channels_last: bool) -> None:
        if isinstance(transform, Normalize):
            transform = Augment(transform)
        jitter = isinstance(transform, Augment) and (transform.brightness or transform.contrast)
        if not isinstance(transform, (LectureTrain, Augment)) or jitter:
            raise ValueError(f"no PyTorch form of the transform {transform!r}")
        self.transform: Any = transform
        self.channels_last = channels_last
        border = transform.translate if isinstance(transform, Augment) else 0
        padded = np.pad(images, ((0, 0), (border, border), (border, border), (0, 0)), mode="reflect")
        self.images = torch.from_numpy(padded).to(device)
        self.labels = torch.from_numpy(labels).to(device)
        self.size = images.shape[1:3] if isinstance(transform, Augment) else (transform.size, transform.size)
        self.coins = torch.rand(len(images), device=device) < 0.5
        if isinstance(transform, Augment):
            mean, std = (
                torch.as_tensor(v, dtype=torch.float32) for v in (transform.normalize.mean, transform.normalize.std)
            )
            self.scale, self.shift = (1 / (255 * std)).to(device), (-mean / std).to(device)

    def tensors(self) -> list[Tensor]:
        """What lies on the device from the start and stays where it is."""
        return [value for value in vars(self).values() if isinstance(value, Tensor)]

    def __call__(self, chosen: Tensor, odd_epoch: Tensor) -> tuple[Tensor, Tensor]:
        """Images float32 (n, C, H', W') and labels of the data set's ``chosen`` (n,); ``odd_epoch``: bool ()."""
        images = self._lecture(chosen) if isinstance(self.transform, LectureTrain) else self._augment(chosen, odd_epoch)
        images = images.permute(0, 3, 1, 2)
        return images if self.channels_last else images.contiguous(), self.labels[chosen]

    def _crop(self, chosen: Tensor, flip: Tensor | None) -> Tensor:
        """(n, height, width, C) bytes, each image's at a random place, mirrored where ``flip``."""
        height, width = self.size
        n, place = len(chosen), chosen.device
        _, rows, columns, _ = self.images.shape
        top, left = (torch.randint(room + 1, (n, 1), device=place) for room in (rows - height, columns - width))
        across = torch.arange(width, device=place).expand(n, width)
        if flip is not None:
            across = torch.where(flip[:, None], width - 1 - across, across)
        down = torch.arange(height, device=place) + top
        return self.images[chosen[:, None, None], down[:, :, None], (across + left)[:, None, :]]

    def _lecture(self, chosen: Tensor) -> Tensor:
        transform, n, place = self.transform, len(chosen), chosen.device
        low, high = transform.contrast
        x = self._crop(chosen, torch.rand(n, device=place) < 0.5).float()
        x = x + (2 * torch.rand(n, 1, 1, 1, device=place) - 1) * transform.brightness
        own = x.mean(dim=(1, 2), keepdim=True)
        x = (x - own) * (low + (high - low) * torch.rand(n, 1, 1, 1, device=place)) + own
        std, mean = torch.std_mean(x, dim=(1, 2, 3), correction=0, keepdim=True)
        return (x - mean) / std.clamp_min(x[0].numel() ** -0.5)

    def _augment(self, chosen: Tensor, odd_epoch: Tensor) -> Tensor:
        augment, n, place = self.transform, len(chosen), chosen.device
        flips: Mapping[str, Any] = {
            "none": lambda: None,
            "random": lambda: torch.rand(n, device=place) < 0.5,
            "alternating": lambda: self.coins[chosen] ^ odd_epoch,
        }
        x = self._crop(chosen, flips[augment.flip]()).float() * self.scale + self.shift
        if not augment.cutout:
            return x
        inside = []
        for side in self.size:
            first = torch.randint(side - augment.cutout + 1, (n, 1), device=place)
            at = torch.arange(side, device=place)
            inside.append((at >= first) & (at < first + augment.cutout))
        return x.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[..., None], 0.0)
