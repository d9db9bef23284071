"""Batches made on the device by one launch, out of a uint8 data set that lies there (kernels/augment.cuh)."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from gpucnn.backends.base import Array
from gpucnn.backends.cuda.grids import ceil_div
from gpucnn.random import FEISTEL_LEAST_WIDTH

THREADS = 256  # of a block, which makes one image
MAX_STAGED = 32 * 1024  # bytes of a stored image that a block keeps in shared memory
MAX_LANE_PIXELS = 2**32 // 255**2  # that one thread may sum the squares of in 32 bits
INSTANCES = {
    "float32": ("augment.cu", "make_batch"),
    "float16": ("augment_half.cu", "make_batch_float16"),
    "bfloat16": ("augment_half.cu", "make_batch_bfloat16"),
}
FLIPS = {"none": 0, "random": 1, "alternating": 2}


@dataclass(frozen=True)
class BatchRecipe:
    """What is done to an image (H, W, C); kernels/augment.cuh explains the fields, which stand in the same order.

    Raises:
        ValueError: images with other channels than 1 or 3, in or out; images that are too large for the kernel's sums.
    """

    H: int
    W: int
    C: int
    height: int
    width: int
    top: int
    left: int
    border: int
    P: int
    Q: int
    channels: int
    draws: int = 0
    place_draw: int = 0
    flip_draw: int = 0
    flip: int = 0
    mirror_left: bool = False
    cutout: int = 0
    standardize: bool = False
    jitter: bool = False
    brightness: float = 0.0
    contrast_low: float = 0.0
    contrast_range: float = 0.0
    mean0: float = 0.0
    mean1: float = 0.0
    mean2: float = 0.0
    std0: float = 1.0
    std1: float = 1.0
    std2: float = 1.0

    def __post_init__(self) -> None:
        if self.C not in (1, 3) or self.channels not in (1, 3):
            raise ValueError(
                f"make_batch: images and batch must have 1 or 3 channels, got {self.C} and {self.channels}"
            )
        lane_pixels = ceil_div(self.P, THREADS // 32) * ceil_div(self.Q, 32)
        if lane_pixels > MAX_LANE_PIXELS and (self.standardize or self.jitter):
            raise ValueError(f"make_batch: images of {self.P}x{self.Q} are too large, sums would not be exact")

    def as_struct(self) -> tuple[int | float, ...]:
        """The fields as kernels take them."""
        return astuple(self)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(P, Q, channels): an image of the batch."""
        return self.P, self.Q, self.channels


def make_batch(
    backend: Any,
    images: Array,
    labels: Array,
    recipe: BatchRecipe,
    out: Array,
    out_labels: Array,
    *,
    seed: int,
    epoch: int = 0,
    number: int = 0,
    batch_size: int,
    batches: int,
    shuffle: bool,
    state: Array | None = None,
) -> None:
    """Fills ``out`` with batch ``number`` of ``epoch``: one launch.

    Args:
        images: uint8 (N, H, W, C).
        labels: int64 (N,).
        out: float32, float16 or bfloat16 (n, P, Q, channels), where n is ``batch_size``, or less for a last batch.
        out_labels: int64 (n,).
        batches: of an epoch.
        shuffle: whether the order is the permutation of the stream (seed, epoch, SHUFFLE).
        state: int64, at least two words on the device: epoch and number, in the place of the arguments.
    """
    n, count = int(out.shape[0]), int(images.shape[0])
    if out.shape != (n, *recipe.shape) or out_labels.shape != (n,) or n > batch_size:
        raise ValueError(
            f"make_batch: expected a batch of at most {batch_size} images {recipe.shape} and as many labels, got"
            f" {out.shape} and {out_labels.shape}"
        )
    if images.shape[1:] != (recipe.H, recipe.W, recipe.C) or labels.shape != (count,):
        raise ValueError(f"make_batch: {recipe} does not fit images {images.shape} and labels {labels.shape}")
    width = max(count.bit_length(), FEISTEL_LEAST_WIDTH) if shuffle else 0
    source, kernel = INSTANCES[np.dtype(out.dtype).name]
    size = recipe.H * recipe.W * recipe.C
    staged = 16 * ceil_div(size, 16) if size <= MAX_STAGED else 0
    backend.launch(
        source, kernel, n, THREADS, images, labels, out, out_labels, state,
        count, batch_size, batches, epoch, number, width, seed, staged, recipe, shared_mem=staged,
    )  # fmt: skip
