"""Softmax cross-entropy, overflow-safe, one loss a row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.labels import check_labels

Array = NDArray[Any]

FEW = 64  # classes


def forward(logits: Array, labels: Array, smoothing: float = 0.0) -> tuple[Array, Array]:
    """losses (N,) and log_sum_exp (N,). Raises ValueError for a label outside [0, C), naming it and its row."""
    check_labels(labels, logits.shape[1])
    parts = _Parts(logits, labels, smoothing)
    return parts.losses, parts.shift + parts.relative


class _Parts:
    """What loss, gradient and the count of right rows have in common."""

    def __init__(self, logits: Array, labels: Array, smoothing: float) -> None:
        rows, classes = logits.shape
        flat = logits.reshape(-1)
        starts = np.arange(0, rows * classes, classes)
        self.at = starts + labels  # of each row's label in the flat array
        self.top = logits.argmax(axis=1)  # a fifth of the time of max(axis=1) where classes are few; NaN is above all
        self.shift = flat[starts + self.top]  # infinite: the row's results are NaN, as in PyTorch
        shifted = logits - self.shift[:, None]
        offset = self.shift - flat[self.at]
        number = logits.dtype.type
        if smoothing:
            offset *= number(1 - smoothing)
            offset -= number(smoothing / classes) * shifted.sum(axis=1)
        self.powers = np.exp(shifted, out=shifted)
        # A sum of few numbers; of many, NumPy's own takes pairs of pairs, which loses fewer digits.
        self.sums = np.einsum("nc->n", self.powers) if classes <= FEW else self.powers.sum(axis=1)
        self.relative = np.log(self.sums)
        # The offset first: for large logits the small part would be lost in shift + relative.
        self.losses = offset + self.relative


def backward(dlosses: Array, logits: Array, labels: Array, log_sum_exp: Array, smoothing: float = 0.0) -> Array:
    """dlogits (N, C) = dlosses[n] * (softmax(logits[n]) - (1 - smoothing) onehot(labels[n]) - smoothing / C)."""
    dlogits = np.exp(logits - log_sum_exp[:, None])
    if smoothing:
        dlogits -= dlogits.dtype.type(smoothing / logits.shape[1])
    dlogits[np.arange(len(labels)), labels] -= dlogits.dtype.type(1 - smoothing)
    dlogits *= dlosses[:, None]
    return dlogits


def step(logits: Array, labels: Array, smoothing: float, factor: float) -> tuple[Array, Array, Array]:
    """loss (1,) = factor * sum of losses, its gradient dlogits (N, C), and how many rows are right (1,) int32."""
    check_labels(labels, logits.shape[1])
    parts = _Parts(logits, labels, smoothing)
    number = logits.dtype.type
    dlogits = parts.powers
    dlogits *= (number(factor) / parts.sums)[:, None]
    if smoothing:
        dlogits -= number(factor * smoothing / logits.shape[1])
    dlogits.reshape(-1)[parts.at] -= number(factor * (1 - smoothing))
    loss = np.add.reduce(parts.losses, dtype=np.float64) * factor  # sum() is this behind a call of Python's
    right = np.count_nonzero(parts.top == labels)
    return np.array([loss], logits.dtype), dlogits, np.array([right], np.int32)
