"""Optimizers' primitives called with plain numbers, the same for all arrays but for the weight decays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpucnn.backends.updates import (
    ALONE,
    AdagradNumbers,
    Along,
    AverageNumbers,
    RmspropNumbers,
    Row,
    Scalars,
    SgdNumbers,
    adam_numbers,
)


def rows(backend: Any, numbers: Sequence[tuple[float, ...]]) -> list[Row]:
    """Rows of these numbers on the device of ``backend``."""
    return Scalars.of(backend, numbers).rows


def average_row(backend: Any, decay: float) -> Row:
    """The numbers of a moving average."""
    return rows(backend, [AverageNumbers(1.0 - decay)])[0]


def moving_average_step(backend: Any, averages: Any, parameters: Any, decay: float) -> None:
    backend.moving_average_step(averages, parameters, average_row(backend, decay))


def sgd_step(
    backend: Any, parameters: Any, gradients: Any, momenta: Any, lr: float, momentum: float, dampening: float,
    weight_decay: Any, nesterov: bool, first: bool, maximize: bool = False, along: Along = ALONE,
) -> None:  # fmt: skip
    decays = weight_decay if isinstance(weight_decay, Sequence) else [weight_decay] * len(parameters)
    numbers = [
        SgdNumbers(lr, decay, momentum, 1.0 - dampening, float(nesterov), 0.0 if first else -1.0, float(maximize))
        for decay in decays
    ]
    momenta = [None] * len(parameters) if momenta is None else momenta
    backend.sgd_step(parameters, gradients, momenta, rows(backend, numbers), along)


def adam_step(
    backend: Any, parameters: Any, gradients: Any, exp_avgs: Any, exp_avg_sqs: Any, max_exp_avg_sqs: Any, lr: float,
    beta1: float, beta2: float, eps: float, weight_decays: Sequence[float], decoupled: bool, maximize: bool, step: int,
    along: Along = ALONE,
) -> None:  # fmt: skip
    numbers = [adam_numbers(lr, beta1, beta2, eps, decay, decoupled, maximize, step) for decay in weight_decays]
    largest = [None] * len(parameters) if max_exp_avg_sqs is None else max_exp_avg_sqs
    backend.adam_step(parameters, gradients, exp_avgs, exp_avg_sqs, largest, rows(backend, numbers), along)


def rmsprop_step(
    backend: Any, parameters: Any, gradients: Any, square_avgs: Any, grad_avgs: Any, momenta: Any, lr: float,
    alpha: float, eps: float, momentum: float, weight_decays: Sequence[float], maximize: bool, along: Along = ALONE,
) -> None:  # fmt: skip
    numbers = [RmspropNumbers(lr, decay, alpha, 1.0 - alpha, eps, momentum, float(maximize)) for decay in weight_decays]
    none = [None] * len(parameters)
    means, buffers = none if grad_avgs is None else grad_avgs, none if momenta is None else momenta
    backend.rmsprop_step(parameters, gradients, square_avgs, means, buffers, rows(backend, numbers), along)


def adagrad_step(
    backend: Any, parameters: Any, gradients: Any, sums: Any, lr: float, eps: float, weight_decays: Sequence[float],
    maximize: bool, along: Along = ALONE,
) -> None:  # fmt: skip
    numbers = [AdagradNumbers(lr, decay, eps, float(maximize), 1.0, lr, 0.0) for decay in weight_decays]
    backend.adagrad_step(parameters, gradients, sums, rows(backend, numbers), along)
