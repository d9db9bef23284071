"""Optimizers' steps, and the moving average of weights, over all parameters in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import chunks


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
    maximize: bool,
) -> None:
    """PyTorch's SGD, as base.py states it."""
    decays = weight_decay if isinstance(weight_decay, Sequence) else [weight_decay] * len(parameters)
    if momenta is None:
        lists = [parameters, gradients]
        chunks.launch(backend, "sgd.cu", "sgd_step", lists, lr, int(maximize), numbers=decays)
        return
    options = (lr, momentum, 1.0 - dampening, int(nesterov), int(first), int(maximize))
    lists = [parameters, gradients, momenta]
    chunks.launch(backend, "sgd.cu", "sgd_momentum_step", lists, *options, numbers=decays)


def moving_average_step(backend: Any, averages: Sequence[Array], parameters: Sequence[Array], decay: float) -> None:
    """average -= (1 - decay) * (average - parameter) on all arrays, in place."""
    chunks.launch(backend, "sgd.cu", "moving_average_step", [averages, parameters], 1.0 - decay)


class _AdamOptions(NamedTuple):
    """The struct of adam.cu, field by field."""

    lr: float
    beta1: float
    one_minus_beta1: float
    beta2: float
    one_minus_beta2: float
    eps: float
    step_size: float
    root_correction: float
    decoupled: int
    maximize: int

    def as_struct(self) -> tuple[float, ...]:
        return tuple(self)


def adam_step(
    backend: Any,
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
    options = _AdamOptions(
        lr, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps, lr / (1.0 - beta1**step),
        (1.0 - beta2**step) ** -0.5, int(decoupled), int(maximize),
    )  # fmt: skip
    lists = [parameters, gradients, exp_avgs, exp_avg_sqs]
    kernel = "adam_step"
    if max_exp_avg_sqs is not None:
        lists.append(max_exp_avg_sqs)
        kernel = "adam_amsgrad_step"
    chunks.launch(backend, "adam.cu", kernel, lists, options, numbers=weight_decays)


class _RmspropOptions(NamedTuple):
    """The struct of rmsprop.cu, field by field."""

    lr: float
    alpha: float
    one_minus_alpha: float
    eps: float
    momentum: float
    maximize: int

    def as_struct(self) -> tuple[float, ...]:
        return tuple(self)


def rmsprop_step(
    backend: Any,
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
    options = _RmspropOptions(lr, alpha, 1.0 - alpha, eps, momentum, int(maximize))
    lists, kernel = [parameters, gradients, square_avgs], "rmsprop"
    for arrays, word in ((grad_avgs, "_centered"), (momenta, "_momentum")):
        if arrays is not None:
            lists.append(arrays)
            kernel += word
    chunks.launch(backend, "rmsprop.cu", f"{kernel}_step", lists, options, numbers=weight_decays)


def adagrad_step(
    backend: Any,
    parameters: Sequence[Array],
    gradients: Sequence[Array],
    sums: Sequence[Array],
    lr: float,
    eps: float,
    weight_decays: Sequence[float],
    maximize: bool,
) -> None:
    """PyTorch's Adagrad, as base.py states it."""
    lists = [parameters, gradients, sums]
    chunks.launch(backend, "adagrad.cu", "adagrad_step", lists, lr, eps, int(maximize), numbers=weight_decays)
