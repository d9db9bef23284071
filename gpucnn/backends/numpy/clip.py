"""The norm of all gradients, and their clipping, piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy.elementwise import pieces
from gpucnn.backends.numpy.many import over_pieces
from gpucnn.backends.numpy.scratch import scratch
from gpucnn.backends.numpy.threads import for_each
from gpucnn.layout import memory_view

Array = NDArray[Any]


def total_norm(arrays: Sequence[Array], order: float) -> Array:
    """The ``order`` norm (1,) of all elements together: a value for each piece, added in their order."""
    flat = [memory_view(array).reshape(-1) for array in arrays]
    items = [array[at] for array in flat for at in pieces(array.size)]
    partial = np.zeros(max(len(items), 1))

    def run(place: int) -> None:
        values = np.abs(items[place], out=scratch("taken", items[place].shape, items[place].dtype))
        if np.isinf(order):
            partial[place] = values.max()
            return
        if order == 2:
            np.multiply(values, values, out=values)
        elif order != 1:
            np.power(values, values.dtype.type(order), out=values)
        partial[place] = values.sum()

    for_each(run, range(len(items)))
    total = partial.max() if np.isinf(order) else np.sqrt(partial.sum()) if order == 2 else partial.sum() ** (1 / order)
    return np.array([total]).astype(flat[0].dtype)


def clip_all(arrays: Sequence[Array], norm: Array, limit: float, small: float) -> None:
    """Multiplies all arrays by min(1, limit / (norm + small)), in place."""
    factor = np.minimum(limit / (norm + small), 1.0).astype(norm.dtype, copy=False)
    over_pieces(lambda array: np.multiply(array, factor, out=array), [arrays])


def clamp_all(arrays: Sequence[Array], limit: float) -> None:
    """Brings all elements into [-limit, limit], in place; NaN stays."""

    def run(array: Array) -> None:
        most = array.dtype.type(limit)
        np.clip(array, -most, most, out=array)

    over_pieces(run, [arrays])
