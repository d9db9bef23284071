"""Softmax cross-entropy, overflow-safe, one loss a row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.labels import check_labels

Array = NDArray[Any]


def forward(logits: Array, labels: Array) -> tuple[Array, Array]:
    """losses (N,) and log_sum_exp (N,). Raises ValueError for a label outside [0, C), naming it and its row."""
    check_labels(labels, logits.shape[1])
    largest = logits.max(axis=1)
    shift = np.where(np.isfinite(largest), largest, 0)  # inf - inf would be NaN
    total = np.exp(logits - shift[:, None]).sum(axis=1)
    with np.errstate(divide="ignore"):  # a row of -inf: log(0)
        relative = np.log(total)
    chosen = logits[np.arange(len(labels)), labels]
    # (shift - chosen) first: for large logits the small part would be lost in shift + relative.
    return (shift - chosen) + relative, shift + relative


def backward(dlosses: Array, logits: Array, labels: Array, log_sum_exp: Array) -> Array:
    """dlogits (N, C) = dlosses[n] * (softmax(logits[n]) - onehot(labels[n]))."""
    dlogits = np.exp(logits - log_sum_exp[:, None])
    dlogits[np.arange(len(labels)), labels] -= 1
    dlogits *= dlosses[:, None]
    return dlogits
