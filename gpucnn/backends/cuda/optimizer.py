"""Optimizers' steps, and the moving average of weights, over all parameters in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import chunks
from gpucnn.backends.updates import Along, Row

Optional = Sequence[Array | None]


def sgd_step(
    backend: Any,
    parameters: Sequence[Array],
    gradients: Sequence[Array],
    momenta: Optional,
    rows: Sequence[Row],
    along: Along,
) -> None:
    """PyTorch's SGD, as base.py states it."""
    _launch(backend, "sgd.cu", "sgd_step", [parameters, gradients, momenta], rows, along)


def adam_step(
    backend: Any,
    parameters: Sequence[Array],
    gradients: Sequence[Array],
    exp_avgs: Sequence[Array],
    exp_avg_sqs: Sequence[Array],
    max_exp_avg_sqs: Optional,
    rows: Sequence[Row],
    along: Along,
) -> None:
    """PyTorch's Adam, as base.py states it."""
    lists = [parameters, gradients, exp_avgs, exp_avg_sqs, max_exp_avg_sqs]
    _launch(backend, "adam.cu", "adam_step", lists, rows, along)


def rmsprop_step(
    backend: Any,
    parameters: Sequence[Array],
    gradients: Sequence[Array],
    square_avgs: Sequence[Array],
    grad_avgs: Optional,
    momenta: Optional,
    rows: Sequence[Row],
    along: Along,
) -> None:
    """PyTorch's RMSprop, as base.py states it."""
    lists = [parameters, gradients, square_avgs, grad_avgs, momenta]
    _launch(backend, "rmsprop.cu", "rmsprop_step", lists, rows, along)


def adagrad_step(
    backend: Any,
    parameters: Sequence[Array],
    gradients: Sequence[Array],
    sums: Sequence[Array],
    rows: Sequence[Row],
    along: Along,
) -> None:
    """PyTorch's Adagrad, as base.py states it."""
    _launch(backend, "adagrad.cu", "adagrad_step", [parameters, gradients, sums], rows, along)


def moving_average_step(backend: Any, averages: Sequence[Array], parameters: Sequence[Array], row: Row) -> None:
    """average -= rate * (average - parameter) on all arrays, in place."""
    chunks.launch(backend, "sgd.cu", "moving_average_step", [averages, parameters], row.array)


def lookahead_step(backend: Any, slow: Sequence[Array], parameters: Sequence[Array], row: Row) -> None:
    """The slow weights go on by ``rate`` of the way, the parameters become them; nothing where not ``active``."""
    chunks.launch(backend, "sgd.cu", "lookahead_step", [slow, parameters], row.array)


def _launch(
    backend: Any, source: str, kernel: str, lists: Sequence[Optional], rows: Sequence[Row], along: Along
) -> None:
    """One launch of a kernel that takes what updates.cuh lists; arrays without elements are left out."""
    averages = [None] * len(rows) if along.averages is None else along.averages
    skipped = [None] * len(rows) if along.skipped is None else along.skipped
    places = [place for place, parameter in enumerate(lists[0]) if parameter is not None and parameter.size]
    lists = [[arrays[place] for place in places] for arrays in (*lists, averages)]
    chunks.launch(
        backend, source, kernel, lists,
        int(along.zero_gradients),
        before=(
            [rows[place].array for place in places],
            chunks.table_or_none([skipped[place] for place in places]),
            None if along.average is None else along.average.array,
            along.inverse_scale,
            along.found_inf,
        ),
    )  # fmt: skip
