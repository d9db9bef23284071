"""The gradient of a bias: sums over all rows, of which no running sum has many terms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy.threads import for_each
from gpucnn.backends.numpy.windows import spans

Array = NDArray[Any]

FOLD = 32  # terms of a running sum, at most
SUM_BYTES = 256 << 10  # of a block's rows


def bias_grad(dy: Array) -> Array:
    """db (K,): the sum of dy (..., K) over all axes but the last."""
    k = dy.shape[-1]
    rows = dy.reshape(-1, k)
    work = spans(len(rows), max(1, SUM_BYTES // (k * dy.itemsize))) if len(rows) else []
    partial = np.zeros((len(work), k), dy.dtype)

    def run(index: int) -> None:
        partial[index] = _column_sums(rows[slice(*work[index])])

    for_each(run, range(len(work)))
    return _column_sums(partial)


def _column_sums(rows: Array) -> Array:
    """(k,): the sums of ``rows`` (m, k) over m; no running sum has more than FOLD terms, and additions are long."""
    k = rows.shape[1]
    total = np.zeros(k, rows.dtype)
    while len(rows) > FOLD:
        whole = len(rows) // FOLD * FOLD
        total += rows[whole:].sum(axis=0)
        rows = rows[:whole].reshape(FOLD, -1).sum(axis=0).reshape(-1, k)
    total += rows.sum(axis=0)
    return total
