"""What a trained network says of every image of a data set, for tables and pictures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import gpucnn
from gpucnn.data import DataLoader
from gpucnn.nn import Module
from gpucnn.tensor import Tensor
from gpucnn.training import views as _views
from gpucnn.training.evaluation import READ_STEPS_CUDA


@dataclass(frozen=True)
class Predictions:
    """The logits float32 (N, classes) and the labels int64 (N,) of N images, in the order of the data set."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """The softmax of the logits, (N, classes)."""
        return probabilities(self.logits)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The class of each image's largest logit, (N,); the first of equals."""
        return self.logits.argmax(axis=1).astype(np.int64)

    @property
    def loss(self) -> float:
        """The mean cross-entropy."""
        shifted = _shifted(self.logits)
        of_label = np.take_along_axis(shifted, self.labels[:, None], axis=1)[:, 0]
        return float((np.log(np.exp(shifted).sum(axis=1)) - of_label).mean())

    @property
    def accuracy(self) -> float:
        """The part of the images whose prediction is their label, in [0, 1]."""
        return float((self.predicted == self.labels).mean())


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """The softmax of logits (..., classes) over their last axis, in float64."""
    powers = np.exp(_shifted(logits))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _shifted(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """The logits in float64, the largest of each row 0."""
    wide = logits.astype(np.float64)
    return np.asarray(wide - wide.max(axis=-1, keepdims=True))


def predict(
    model: Module, loader: DataLoader, views: str = "none", watch: Callable[[int, int], None] | None = None
) -> Predictions:
    """What ``model`` says of one pass of ``loader``; the model's mode is left as it was.

    Args:
        loader: batches in the order of their data set, without shuffling.
        views: test-time augmentation: "none", "mirror" or "six".
        watch: ``watch(done, total)`` is called after each batch.

    Raises:
        ValueError: a loader that shuffles; logits that are NaN or infinite.
    """
    if loader.shuffle:
        raise ValueError("predict: expected a loader that does not shuffle")
    logits: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.int64]] = []
    pending: list[tuple[Tensor, Tensor]] = []
    with _views.evaluation_mode(model), closing(iter(loader)) as batches:
        for k, (images, truth) in enumerate(batches, start=1):
            pending.append((_views.logits(model, images, views), truth))
            if len(pending) == READ_STEPS_CUDA or k == len(loader):
                logits.append(gpucnn.cat([row for row, _ in pending]).numpy().astype(np.float32))
                labels.append(gpucnn.cat([row for _, row in pending]).numpy().astype(np.int64))
                pending = []
            if watch is not None:
                watch(k, len(loader))
    found = Predictions(np.concatenate(logits), np.concatenate(labels))
    bad = np.flatnonzero(~np.isfinite(found.logits).all(axis=1))
    if bad.size:
        raise ValueError(
            f"predict: the model's logits for image {bad[0]} are not finite ({bad.size} such images): its weights or"
            " its input are not"
        )
    return found
