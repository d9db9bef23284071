"""SGD and the moving average of weights over all parameters in one launch, on kernels/sgd.cu."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from gpucnn.backends.base import Array
from gpucnn.backends.cuda.grids import MAX_BLOCKS, THREADS, ceil_div
from gpucnn.layout import memory_view

SOURCE = "sgd.cu"
CHUNK = 2048  # elements that a block updates at a time, as in the kernel file
MOST_TABLES = 64  # lists of sizes, and of weight decays, whose tables are kept on a device

Sizes = tuple[int, ...]
Numbers = tuple[float, ...]
_tables: WeakKeyDictionary[Any, dict[Sizes, tuple[Array, Array, int]]] = WeakKeyDictionary()
_number_tables: WeakKeyDictionary[Any, dict[Numbers, Array]] = WeakKeyDictionary()


def sgd_step(
    backend: Any,
    parameters: Sequence[Array],
    gradients: Sequence[Array],
    momenta: Sequence[Array] | None,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float | Sequence[float],
    nesterov: bool,
    first: bool,
) -> None:
    """One step of SGD on all parameters, in place."""
    decays = weight_decay if isinstance(weight_decay, Sequence) else [weight_decay] * len(parameters)
    lists = [parameters, gradients] if momenta is None else [parameters, gradients, momenta]
    tables, (first_chunk, sizes, chunks) = _prepare(backend, lists)
    if not chunks:
        return
    own_decays = _numbers(backend, tuple(d for d, p in zip(decays, parameters, strict=True) if p.size))
    grid, arrays = min(chunks, MAX_BLOCKS), len(tables[0])
    if momenta is None:
        backend.launch(SOURCE, "sgd_step", grid, THREADS, *tables, first_chunk, sizes, own_decays, arrays, lr)
        return
    backend.launch(
        SOURCE, "sgd_momentum_step", grid, THREADS, *tables, first_chunk, sizes, own_decays, arrays,
        lr, momentum, 1.0 - dampening, int(nesterov), int(first),
    )  # fmt: skip


def moving_average_step(backend: Any, averages: Sequence[Array], parameters: Sequence[Array], decay: float) -> None:
    """average -= (1 - decay) * (average - parameter) on all arrays, in place."""
    tables, (first_chunk, sizes, chunks) = _prepare(backend, [averages, parameters])
    if chunks:
        backend.launch(
            SOURCE, "moving_average_step", min(chunks, MAX_BLOCKS), THREADS,
            *tables, first_chunk, sizes, len(tables[0]), 1.0 - decay,
        )  # fmt: skip


def _prepare(backend: Any, lists: Sequence[Sequence[Array]]) -> tuple[list[list[Array]], tuple[Array, Array, int]]:
    """The arrays that have elements, as C-contiguous views of their memory, and the tables of their chunks."""
    tables = [[memory_view(array) for array in arrays if array.size] for arrays in lists]
    return tables, _chunks(backend, tuple(int(array.size) for array in tables[0]))


def _chunks(backend: Any, sizes: Sizes) -> tuple[Array, Array, int]:
    """first_chunk (arrays + 1,) and sizes (arrays,) on the device, and how many chunks there are."""
    known = _tables.setdefault(backend, {})
    if sizes not in known:
        first_chunk = np.cumsum([0, *(ceil_div(size, CHUNK) for size in sizes)], dtype=np.int64)
        if len(known) >= MOST_TABLES:
            known.clear()
        on_device = backend.constant(first_chunk), backend.constant(np.array(sizes, np.int64))
        known[sizes] = *on_device, int(first_chunk[-1])
    return known[sizes]


def _numbers(backend: Any, numbers: Numbers) -> Array:
    """``numbers`` (arrays,) as float32 on the device; kept, so that a steady training step copies nothing."""
    known = _number_tables.setdefault(backend, {})
    if numbers not in known:
        if len(known) >= MOST_TABLES:
            known.clear()
        known[numbers] = backend.constant(np.array(numbers, np.float32))
    return known[numbers]
