"""Softmax cross-entropy on kernels/cross_entropy.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import faults
from gpucnn.backends.cuda.grids import THREADS, blocks
from gpucnn.backends.labels import check_labels

SOURCE = "cross_entropy.cu"
WARPS = THREADS // 32  # rows that a block works on at a time


def forward(backend: Any, logits: Array, labels: Array, smoothing: float = 0.0) -> tuple[Array, Array]:
    """losses and log_sum_exp (N,) of logits (N, C) and labels (N,), int32 or int64.

    A label outside [0, C): ValueError at once on ``emulated``; on ``cuda`` NaN, and ValueError from ``faults.check``.
    """
    rows, classes = logits.shape
    words, launch = None, 0
    if backend.name == "emulated":
        check_labels(labels, classes)
    else:
        words, launch = faults.next_launch(backend, classes)
    losses, log_sum_exp = backend.empty((rows,), np.float32), backend.empty((rows,), np.float32)
    backend.launch(
        SOURCE, f"cross_entropy_forward_{_label_type(labels)}", blocks(rows, WARPS), THREADS,
        logits, labels, losses, log_sum_exp, words, rows, classes, 1 - smoothing, smoothing / classes, launch,
    )  # fmt: skip
    return losses, log_sum_exp


def backward(
    backend: Any, dlosses: Array, logits: Array, labels: Array, log_sum_exp: Array, smoothing: float = 0.0
) -> Array:
    """dlogits (N, C)."""
    rows, classes = logits.shape
    dlogits = backend.empty(logits.shape, np.float32)
    backend.launch(
        SOURCE, f"cross_entropy_backward_{_label_type(labels)}", blocks(rows, WARPS), THREADS,
        dlosses, logits, labels, log_sum_exp, dlogits, rows, classes, 1 - smoothing, smoothing / classes,
    )  # fmt: skip
    return dlogits


def _label_type(labels: Array) -> str:
    return "long" if labels.dtype == np.int64 else "int"
