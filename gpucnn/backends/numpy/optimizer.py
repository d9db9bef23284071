"""Updates of parameters in place, piece by piece, with no temporary larger than a piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy.many import over_pieces
from gpucnn.backends.numpy.scratch import scratch
from gpucnn.backends.updates import Along, Row

Array = NDArray[Any]
Optional = Sequence[Array | None]


def update(
    run: Callable[..., Any],
    lists: Sequence[Optional],
    rows: Sequence[Row],
    along: Along,
    recount: Callable[[Any, int], Any] = lambda numbers, skipped: numbers,
) -> None:
    """``run(parameter, gradient, *state, numbers)`` on matching pieces of ``lists``, parameters and gradients first,
    and what goes along. ``recount(numbers, skipped)`` gives the numbers where ``skipped`` steps do not count.
    """
    numbers = [row.values for row in rows]
    skip = overflowed(along)
    if along.skipped is not None:
        if skip:
            for count in along.skipped:
                count += 1
        else:
            numbers = [recount(own, int(count[0])) for own, count in zip(numbers, along.skipped, strict=True)]
    inverse = 1.0 if along.inverse_scale is None else float(along.inverse_scale[0])

    def piece(average: Array | None, own: Any, parameter: Array, gradient: Array, *state: Array | None) -> None:
        if not skip:
            given = gradient
            if inverse != 1.0:
                given = np.multiply(
                    gradient, given.dtype.type(inverse), out=scratch("unscaled", given.shape, given.dtype)
                )
            run(parameter, given, *state, own)
        if along.zero_gradients:
            gradient.fill(0)
        if average is not None and along.average is not None:
            _approach(average, parameter, along.average.values.rate)

    averages = [None] * len(rows) if along.averages is None else along.averages
    over_pieces(lambda *arguments: piece(arguments[-2], arguments[-1], *arguments[:-2]), [*lists, averages], numbers)


def overflowed(along: Along) -> bool:
    """Whether the step is skipped."""
    return along.found_inf is not None and bool(along.found_inf[0] != 0)


def direction(parameter: Array, gradient: Array, weight_decay: float, maximize: float) -> Array:
    """The gradient, or minus the gradient, plus weight_decay * parameter, in scratch memory."""
    g = scratch("step", parameter.shape, parameter.dtype)
    if not weight_decay:
        return np.negative(gradient, out=g) if maximize else np.positive(gradient, out=g)
    np.multiply(parameter, parameter.dtype.type(weight_decay), out=g)
    return (np.subtract if maximize else np.add)(g, gradient, out=g)


def sgd_step(
    parameters: Sequence[Array], gradients: Sequence[Array], momenta: Optional, rows: Sequence[Row], along: Along
) -> None:
    """PyTorch's SGD, as base.py states it."""

    def run(parameter: Array, gradient: Array, buffer: Array | None, own: Any) -> None:
        real = parameter.dtype.type
        plain = not own.weight_decay and not own.maximize
        # What is only read need not be copied first: fewer passes, and the same bits.
        d = gradient if plain else direction(parameter, gradient, own.weight_decay, own.maximize)
        taken = scratch("taken", d.shape, d.dtype)
        if buffer is not None:
            if own.begun == 0:
                np.copyto(buffer, d)
            else:
                np.multiply(buffer, real(own.momentum), out=buffer)
                kept = own.one_minus_dampening
                np.add(buffer, d if kept == 1 else np.multiply(d, real(kept), out=taken), out=buffer)
            d = np.add(d, np.multiply(buffer, real(own.momentum), out=taken), out=taken) if own.nesterov else buffer
        np.multiply(d, real(own.lr), out=taken)
        np.subtract(parameter, taken, out=parameter)

    update(run, [parameters, gradients, momenta], rows, along, lambda own, n: own._replace(begun=own.begun - n))


def moving_average_step(averages: Sequence[Array], parameters: Sequence[Array], row: Row) -> None:
    """average -= rate * (average - parameter)."""
    over_pieces(lambda average, parameter: _approach(average, parameter, row.values.rate), [averages, parameters])


def lookahead_step(slow: Sequence[Array], parameters: Sequence[Array], row: Row) -> None:
    """Where ``active``: slow -= rate * (slow - parameter), parameter = slow."""

    def run(kept: Array, parameter: Array) -> None:
        _approach(kept, parameter, row.values.rate)
        np.copyto(parameter, kept)

    if row.values.active:
        over_pieces(run, [slow, parameters])


def _approach(average: Array, parameter: Array, rate: float) -> None:
    step = scratch("step", average.shape, average.dtype)
    np.subtract(average, parameter, out=step)
    np.multiply(step, average.dtype.type(rate), out=step)
    np.subtract(average, step, out=average)
