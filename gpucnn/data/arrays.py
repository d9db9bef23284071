"""Arrays and tensors of one's own as a data set, and data sets taken apart at random."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from gpucnn import random
from gpucnn.data.dataset import Dataset
from gpucnn.random import Generator, Purpose
from gpucnn.tensor import Tensor


class TensorDataset(Dataset):
    """Images and labels that are in memory already, as arrays or tensors of any device (copied to the host).

    What the images are follows from their dtype: uint8 is pixels, (N, H, W, C), which a loader's transform turns into
    a network's input, like any other data set's; float32 is a network's input as it is, (N, C, H, W), which a loader
    hands out unchanged and which transforms of pixels refuse.

    Args:
        images: uint8 (N, H, W, C) or float32 (N, C, H, W).
        labels: (N,) integers in [0, len(classes)).
        classes: one name a class; "0", "1", ... up to the largest label where it is None.
        name: what the data set calls itself.
        train: whether it calls itself a training part.

    Raises:
        TypeError: images of another dtype, or labels that are no integers.
        ValueError: shapes that do not fit, or a label without a class.

    After construction ``images`` is channels-last, (N, H, W, C), for both.
    """

    DTYPES: ClassVar[tuple[type[np.generic], ...]] = (np.uint8, np.float32)

    def __init__(
        self, images: Any, labels: Any, classes: Sequence[str] | None = None, name: str = "arrays", train: bool = True
    ) -> None:
        images, labels = (
            array.detach().numpy() if isinstance(array, Tensor) else np.asarray(array) for array in (images, labels)
        )
        if images.ndim == 4 and images.dtype == np.float32:
            images = images.transpose(0, 2, 3, 1)
        if classes is None and labels.dtype.kind in "iu":
            classes = [str(label) for label in range(int(labels.max()) + 1 if labels.size else 0)]
        super().__init__(images, labels, classes or (), name=name, train=train)


def random_split(
    dataset: Dataset,
    lengths: Sequence[int] | Sequence[float],
    generator: Generator | None = None,
    *,
    seed: int | None = None,
) -> list[Dataset]:
    """``dataset`` in parts that have no example in common, drawn at random (``torch.utils.data.random_split``).

    The parts are pieces of one permutation, that of the stream (seed, 0, SPLIT) or, without a seed, of ``generator``'s
    next stream.

    Args:
        dataset: what is taken apart.
        lengths: the sizes of the parts, which add up to len(dataset); or fractions, which add up to 1. Those are
            rounded down, and what is left over goes to the first parts, one example each.
        generator: gpucnn's default generator where it is None.
        seed: the same seed takes data sets of the same length apart in the same way.

    Raises:
        ValueError: lengths that do not add up, a negative one, or both a generator and a seed.
    """
    if generator is not None and seed is not None:
        raise ValueError("random_split: expected a generator or a seed, got both")
    n = len(dataset)
    sizes = _sizes(lengths, n)
    if seed is not None:
        key = (seed, 0, int(Purpose.SPLIT))
    else:
        key = (generator or random.default_generator).next_key(Purpose.SPLIT)
    ends = np.cumsum(sizes)
    return [dataset.subset(part) for part in np.split(random.permutation(n, key), ends[:-1])] if sizes else []


def _sizes(lengths: Sequence[int] | Sequence[float], n: int) -> list[int]:
    total = sum(lengths)
    if math.isclose(total, 1) and total <= 1:
        if not all(0 <= length <= 1 for length in lengths):
            raise ValueError(f"random_split: fractions must be from 0 to 1, got {list(lengths)}")
        sizes = [math.floor(n * length) for length in lengths]
        for i in range(n - sum(sizes)):
            sizes[i % len(sizes)] += 1
    else:
        sizes = [int(length) for length in lengths]
        if any(length < 0 or length != size for length, size in zip(lengths, sizes, strict=True)) or total != n:
            raise ValueError(
                f"random_split: lengths must be whole and add up to {n}, or be fractions that add up to 1,"
                f" got {list(lengths)}"
            )
    for i, size in enumerate(sizes):
        if not size:
            warnings.warn(f"random_split: part {i} of {list(lengths)} is empty", stacklevel=3)
    return sizes
