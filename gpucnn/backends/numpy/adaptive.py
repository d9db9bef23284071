"""Steps of optimizers that scale each element's gradient, in place, with no temporary larger than a piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy.many import over_pieces
from gpucnn.backends.numpy.optimizer import direction
from gpucnn.backends.numpy.scratch import scratch

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
    max_exp_avg_sqs: Sequence[Array] | None,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decays: Sequence[float],
    decoupled: bool,
    maximize: bool,
    step: int,
) -> None:
    """PyTorch's Adam, as base.py states it."""
    step_size, root_correction = lr / (1.0 - beta1**step), (1.0 - beta2**step) ** -0.5

    def run(p: Array, gradient: Array, m: Array, v: Array, *rest: Any) -> None:
        real, weight_decay = p.dtype.type, rest[-1]
        g = direction(p, gradient, 0.0 if decoupled else weight_decay, maximize)
        taken = scratch("taken", p.shape, p.dtype)
        if decoupled and weight_decay:
            np.multiply(p, real(1 - lr * weight_decay), out=p)
        _blend(m, g, beta1, taken)
        _add_squares(v, g, beta2, taken)
        largest = np.maximum(rest[0], v, out=rest[0]) if max_exp_avg_sqs is not None else v
        np.sqrt(largest, out=taken)
        np.multiply(taken, real(root_correction), out=taken)
        np.add(taken, real(eps), out=taken)
        np.divide(m, taken, out=taken)
        np.multiply(taken, real(step_size), out=taken)
        np.subtract(p, taken, out=p)

    lists = [parameters, gradients, exp_avgs, exp_avg_sqs]
    over_pieces(run, lists if max_exp_avg_sqs is None else [*lists, max_exp_avg_sqs], weight_decays)


def rmsprop_step(
    parameters: Sequence[Array],
    gradients: Sequence[Array],
    square_avgs: Sequence[Array],
    grad_avgs: Sequence[Array] | None,
    momenta: Sequence[Array] | None,
    lr: float,
    alpha: float,
    eps: float,
    momentum: float,
    weight_decays: Sequence[float],
    maximize: bool,
) -> None:
    """PyTorch's RMSprop, as base.py states it."""

    def run(p: Array, gradient: Array, s: Array, *rest: Any) -> None:
        real = p.dtype.type
        g = direction(p, gradient, rest[-1], maximize)
        taken = scratch("taken", p.shape, p.dtype)
        _add_squares(s, g, alpha, taken)
        if grad_avgs is None:
            np.sqrt(s, out=taken)
        else:
            mean = rest[0]
            _blend(mean, g, alpha, taken)
            np.multiply(mean, mean, out=taken)
            np.subtract(s, taken, out=taken)
            np.sqrt(taken, out=taken)
        np.add(taken, real(eps), out=taken)
        np.divide(g, taken, out=g)
        if momenta is not None:
            buffer = rest[-2]
            np.multiply(buffer, real(momentum), out=buffer)
            np.add(buffer, g, out=buffer)
            np.copyto(g, buffer)
        np.multiply(g, real(lr), out=g)
        np.subtract(p, g, out=p)

    state = [arrays for arrays in (square_avgs, grad_avgs, momenta) if arrays is not None]
    over_pieces(run, [parameters, gradients, *state], weight_decays)


def adagrad_step(
    parameters: Sequence[Array],
    gradients: Sequence[Array],
    sums: Sequence[Array],
    lr: float,
    eps: float,
    weight_decays: Sequence[float],
    maximize: bool,
) -> None:
    """PyTorch's Adagrad, as base.py states it."""

    def run(p: Array, gradient: Array, total: Array, weight_decay: float) -> None:
        real = p.dtype.type
        g = direction(p, gradient, weight_decay, maximize)
        taken = scratch("taken", p.shape, p.dtype)
        np.multiply(g, g, out=taken)
        np.add(total, taken, out=total)
        np.sqrt(total, out=taken)
        np.add(taken, real(eps), out=taken)
        np.divide(g, taken, out=g)
        np.multiply(g, real(lr), out=g)
        np.subtract(p, g, out=p)

    over_pieces(run, [parameters, gradients, sums], weight_decays)
