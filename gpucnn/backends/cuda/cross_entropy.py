"""Softmax cross-entropy on kernels/cross_entropy.cu, cross_entropy_rows.cu and cross_entropy_half.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import faults, instances
from gpucnn.backends.cuda.grids import THREADS, blocks, ceil_div
from gpucnn.backends.labels import check_labels

WARPS = THREADS // 32  # rows that a block works on at a time
MOST_STEP_BLOCKS = 512  # of a step: the last adds up what each of them found


def forward(backend: Any, logits: Array, labels: Array, smoothing: float = 0.0) -> tuple[Array, Array]:
    """losses and log_sum_exp (N,), float32, of logits (N, C) and labels (N,), int32 or int64.

    A label outside [0, C): ValueError at once on ``emulated``; on ``cuda`` NaN, and ValueError from ``faults.check``.
    """
    rows, classes = logits.shape
    words, launch = _checked(backend, labels, classes)
    losses, log_sum_exp = backend.empty((rows,), np.float32), backend.empty((rows,), np.float32)
    backend.launch(
        *_instance("forward", logits, labels), blocks(rows, WARPS), THREADS,
        logits, labels, losses, log_sum_exp, words, rows, classes, 1 - smoothing, smoothing / classes, launch,
    )  # fmt: skip
    return losses, log_sum_exp


def backward(
    backend: Any, dlosses: Array, logits: Array, labels: Array, log_sum_exp: Array, smoothing: float = 0.0
) -> Array:
    """dlogits (N, C), like logits."""
    rows, classes = logits.shape
    dlogits = backend.empty(logits.shape, logits.dtype)
    backend.launch(
        *_instance("backward", logits, labels), blocks(rows, WARPS), THREADS,
        dlosses, logits, labels, log_sum_exp, dlogits, rows, classes, 1 - smoothing, smoothing / classes,
    )  # fmt: skip
    return dlogits


def step(backend: Any, logits: Array, labels: Array, smoothing: float, factor: float) -> tuple[Array, Array, Array]:
    """loss (1,) = factor * sum of losses, its gradient dlogits (N, C), and how many rows are right (1,) int32."""
    rows, classes = logits.shape
    words, launch = _checked(backend, labels, classes)
    dlogits = backend.empty(logits.shape, np.float32 if logits.dtype == np.float16 else logits.dtype)
    loss, correct = backend.empty((1,), np.float32), backend.empty((1,), np.int32)
    grid = max(min(ceil_div(rows, WARPS), MOST_STEP_BLOCKS), 1)
    partial = partial_correct = counters = None
    if grid > 1:
        partial, partial_correct = backend.empty((grid,), np.float32), backend.empty((grid,), np.int32)
        counters = backend.counters(1)
    backend.launch(
        *_instance("step", logits, labels), grid, THREADS,
        logits, labels, partial, partial_correct, counters, loss, dlogits, correct, words,
        rows, classes, 1 - smoothing, smoothing / classes, factor, launch,
    )  # fmt: skip
    return loss, dlogits, correct


def _checked(backend: Any, labels: Array, classes: int) -> tuple[Array, int]:
    """Where the kernel records a label that is out of range, and the launch's number there."""
    if backend.name == "emulated" and not backend.engine.capturing:  # while capturing there are no labels yet
        check_labels(labels, classes)
    return faults.next_launch(backend, classes)


def _instance(name: str, logits: Array, labels: Array) -> tuple[str, str]:
    """Source and kernel."""
    label_type = "long" if labels.dtype == np.int64 else "int"
    dtype = logits.dtype
    family = "cross_entropy" if name == "step" or dtype.itemsize < 4 else "cross_entropy_rows"
    return instances.source(family, dtype), f"cross_entropy_{name}_{label_type}{instances.suffix(dtype, 1)}"
