"""Softmax cross-entropy, overflow-safe, one loss a row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.labels import check_labels

Array = NDArray[Any]


def forward(logits: Array, labels: Array, smoothing: float = 0.0) -> tuple[Array, Array]:
    """losses (N,) and log_sum_exp (N,). Raises ValueError for a label outside [0, C), naming it and its row."""
    check_labels(labels, logits.shape[1])
    shift = logits.max(axis=1)  # infinite: the row's results are NaN, as in PyTorch
    shifted = logits - shift[:, None]
    relative = np.log(np.exp(shifted).sum(axis=1))
    chosen = logits[np.arange(len(labels)), labels]
    # (shift - chosen) first: for large logits the small part would be lost in shift + relative.
    if smoothing == 0:
        losses = (shift - chosen) + relative
    else:
        number = logits.dtype.type
        towards = number(1 - smoothing) * (shift - chosen) - number(smoothing / logits.shape[1]) * shifted.sum(axis=1)
        losses = towards + relative
    return losses, shift + relative


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
    losses, log_sum_exp = forward(logits, labels, smoothing)
    dlosses = np.full(len(labels), factor, logits.dtype)
    dlogits = backward(dlosses, logits, labels, log_sum_exp, smoothing)
    loss = losses.sum(dtype=np.float64) * factor
    right = np.count_nonzero(logits.argmax(axis=1) == labels)
    return np.array([loss], logits.dtype), dlogits, np.array([right], np.int32)
