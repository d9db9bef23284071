"""A data set: images and labels as NumPy arrays in memory, whatever they came from."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray


class DataError(ValueError):
    """A data set that cannot be had or is not what it claims to be: says which file, what was expected and what was
    found."""


class Dataset:
    """Images uint8 (N, H, W, C), labels int64 (N,), and the names of the classes.

    Args:
        images: uint8 (N, H, W, C), C-contiguous after construction.
        labels: (N,) integers in [0, len(classes)).
        classes: one name a class, in the order of the labels.
        name: what the data set is called on the command line and in a run's summary.
        train: True for the training part, False for the test part.
        source: where the data came from, for people: a folder, an archive, "generated".

    Raises:
        TypeError: images are not uint8 or labels are not integers.
        ValueError: shapes that do not fit, or a label without a class.
    """

    DTYPES: ClassVar[tuple[type[np.generic], ...]] = (np.uint8,)
    images: NDArray[Any]
    labels: NDArray[np.int64]

    def __init__(
        self,
        images: NDArray[Any],
        labels: NDArray[np.integer],
        classes: Sequence[str],
        *,
        name: str = "arrays",
        train: bool = True,
        source: str | Path = "memory",
    ) -> None:
        images, labels = np.asarray(images), np.asarray(labels)
        if images.dtype not in self.DTYPES:
            allowed = " or ".join(np.dtype(kind).name for kind in self.DTYPES)
            raise TypeError(f"{name}: images must be {allowed}, got {images.dtype}")
        if labels.dtype.kind not in "iu":
            raise TypeError(f"{name}: labels must be integers, got {labels.dtype}")
        if images.ndim != 4 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{name}: images must be (N, H, W, C) and labels (N,), got {images.shape} and {labels.shape}"
            )
        check_labels(labels, len(classes), name)
        self.images = np.ascontiguousarray(images)
        self.labels = labels.astype(np.int64)
        self.classes = tuple(classes)
        self.name = name
        self.train = train
        self.source = str(source)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[NDArray[Any], int]:
        """Image (H, W, C) and label of example ``index``."""
        return self.images[index], int(self.labels[index])

    def subset(self, indices: slice | Sequence[int] | NDArray[np.integer]) -> Self:
        """The examples at ``indices``, in that order, copied, as a data set of their own."""
        part = indices if isinstance(indices, slice) else np.asarray(indices, dtype=None if len(indices) else np.int64)
        chosen = copy.copy(self)
        chosen.images, chosen.labels = np.array(self.images[part]), np.array(self.labels[part])
        return chosen

    def __repr__(self) -> str:
        n, h, w, c = self.images.shape
        part = "train" if self.train else "test"
        size = f"{n} images {h}x{w}x{c}, {len(self.classes)} classes"
        return f"{type(self).__name__}({self.name}, {part}: {size}, from {self.source})"


def check_labels(labels: NDArray[np.integer], classes: int, where: str) -> None:
    """Raises DataError, naming ``where`` and the first bad example, unless every label is in [0, classes)."""
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if bad.size:
        raise DataError(
            f"{where}: label {int(labels[bad[0]])} of example {int(bad[0])} is out of range,"
            f" expected 0 to {classes - 1} ({bad.size} such labels)"
        )
