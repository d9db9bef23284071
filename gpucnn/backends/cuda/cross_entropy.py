"""Softmax cross-entropy on kernels/cross_entropy.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn import layout
from gpucnn.backends.base import Array
from gpucnn.backends.cuda import elementwise, faults
from gpucnn.backends.cuda.grids import THREADS, blocks
from gpucnn.backends.labels import check_labels

SOURCE = "cross_entropy.cu"
WARPS = THREADS // 32  # rows that a block works on at a time


def forward(backend: Any, logits: Array, labels: Array, smoothing: float = 0.0) -> tuple[Array, Array]:
    """losses and log_sum_exp (N,) of logits (N, C) and labels (N,), int32 or int64.

    A label outside [0, C): ValueError at once on ``emulated``; on ``cuda`` NaN, and ValueError from ``faults.check``.
    """
    rows, classes = logits.shape
    if backend.name == "emulated" and not backend.engine.capturing:  # while capturing there are no labels yet
        check_labels(labels, classes)
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


def step(backend: Any, logits: Array, labels: Array, smoothing: float, factor: float) -> tuple[Array, Array, Array]:
    """loss (1,) = factor * sum of losses, its gradient dlogits (N, C), and how many rows are right (1,) int32."""
    xp, rows = backend.xp, logits.shape[0]
    losses, log_sum_exp = forward(backend, logits, labels, smoothing)
    upstream = backend.empty((rows,), np.float32)
    upstream.fill(factor)
    dlogits = backward(backend, upstream, logits, labels, log_sum_exp, smoothing)
    loss = elementwise.bias_grad(backend, losses.reshape(-1, 1)) * np.float32(factor)
    correct = (logits.argmax(axis=1) == labels).sum(dtype=np.int32).reshape(1)
    return loss, dlogits, layout.as_array(xp, correct)


def _label_type(labels: Array) -> str:
    return "long" if labels.dtype == np.int64 else "int"
