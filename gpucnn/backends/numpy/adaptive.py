"""Steps of optimizers that scale each element's gradient, in place, with no temporary larger than a piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy.optimizer import Optional, direction, update
from gpucnn.backends.numpy.scratch import scratch
from gpucnn.backends.updates import AdagradNumbers, AdamNumbers, Along, Row, adam_numbers

Array = NDArray[Any]


def _blend(average: Array, value: Array, kept: float, taken: Array) -> None:
    """average += (1 - kept) * (value - average), from the end that is nearer: exact for kept = 0 and for kept = 1."""
    real = average.dtype.type
    np.subtract(value, average, out=taken)
    if kept < 0.5:
        np.multiply(taken, real(kept), out=taken)
        np.subtract(value, taken, out=average)
    else:
        np.multiply(taken, real(1 - kept), out=taken)
        np.add(average, taken, out=average)


def _add_squares(average: Array, value: Array, kept: float, taken: Array) -> None:
    """average = kept * average + (1 - kept) * value * value."""
    real = average.dtype.type
    np.multiply(value, value, out=taken)
    np.multiply(taken, real(1 - kept), out=taken)
    np.multiply(average, real(kept), out=average)
    np.add(average, taken, out=average)


def adam_step(
    parameters: Sequence[Array],
    gradients: Sequence[Array],
    exp_avgs: Sequence[Array],
    exp_avg_sqs: Sequence[Array],
    max_exp_avg_sqs: Optional,
    rows: Sequence[Row],
    along: Along,
) -> None:
    """PyTorch's Adam, as base.py states it."""

    def run(p: Array, gradient: Array, m: Array, v: Array, largest: Array | None, own: AdamNumbers) -> None:
        real = p.dtype.type
        decay = 0.0 if own.decoupled else own.weight_decay
        g = direction(p, gradient, decay, own.maximize) if decay or own.maximize else gradient
        taken = scratch("taken", p.shape, p.dtype)
        if own.decoupled and own.weight_decay:
            np.multiply(p, real(1 - own.lr * own.weight_decay), out=p)
        _blend(m, g, own.beta1, taken)
        _add_squares(v, g, own.beta2, taken)
        np.sqrt(v if largest is None else np.maximum(largest, v, out=largest), out=taken)
        np.multiply(taken, real(own.root_correction), out=taken)
        np.add(taken, real(own.eps), out=taken)
        np.divide(m, taken, out=taken)
        np.multiply(taken, real(own.step_size), out=taken)
        np.subtract(p, taken, out=p)

    update(run, [parameters, gradients, exp_avgs, exp_avg_sqs, max_exp_avg_sqs], rows, along, _adam_recount)


def _adam_recount(own: AdamNumbers, skipped: int) -> AdamNumbers:
    flags = bool(own.decoupled), bool(own.maximize)
    return adam_numbers(
        own.lr, own.beta1, own.beta2, own.eps, own.weight_decay, *flags, int(own.step) - skipped
    )  # fmt: skip


def rmsprop_step(
    parameters: Sequence[Array],
    gradients: Sequence[Array],
    square_avgs: Sequence[Array],
    grad_avgs: Optional,
    momenta: Optional,
    rows: Sequence[Row],
    along: Along,
) -> None:
    """PyTorch's RMSprop, as base.py states it."""

    def run(p: Array, gradient: Array, s: Array, mean: Array | None, buffer: Array | None, own: Any) -> None:
        real = p.dtype.type
        g = direction(p, gradient, own.weight_decay, own.maximize)
        taken = scratch("taken", p.shape, p.dtype)
        _add_squares(s, g, own.alpha, taken)
        if mean is None:
            np.sqrt(s, out=taken)
        else:
            _blend(mean, g, own.alpha, taken)
            np.multiply(mean, mean, out=taken)
            np.subtract(s, taken, out=taken)
            np.sqrt(taken, out=taken)
        np.add(taken, real(own.eps), out=taken)
        np.divide(g, taken, out=g)
        if buffer is not None:
            np.multiply(buffer, real(own.momentum), out=buffer)
            np.add(buffer, g, out=buffer)
            np.copyto(g, buffer)
        np.multiply(g, real(own.lr), out=g)
        np.subtract(p, g, out=p)

    update(run, [parameters, gradients, square_avgs, grad_avgs, momenta], rows, along)


def adagrad_step(
    parameters: Sequence[Array], gradients: Sequence[Array], sums: Sequence[Array], rows: Sequence[Row], along: Along
) -> None:
    """PyTorch's Adagrad, as base.py states it."""

    def run(p: Array, gradient: Array, total: Array, own: AdagradNumbers) -> None:
        real = p.dtype.type
        g = direction(p, gradient, own.weight_decay, own.maximize)
        taken = scratch("taken", p.shape, p.dtype)
        np.multiply(g, g, out=taken)
        np.add(total, taken, out=total)
        np.sqrt(total, out=taken)
        np.add(taken, real(own.eps), out=taken)
        np.divide(g, taken, out=g)
        np.multiply(g, real(own.lr), out=g)
        np.subtract(p, g, out=p)

    def recount(own: AdagradNumbers, skipped: int) -> AdagradNumbers:
        return own._replace(lr=own.full_lr / (1.0 + (own.step - skipped - 1) * own.lr_decay))

    update(run, [parameters, gradients, sums], rows, along, recount)
