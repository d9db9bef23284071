"""Updates of parameters in place, piece by piece, with no temporary larger than a piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy.many import over_pieces
from gpucnn.backends.numpy.scratch import scratch

Array = NDArray[Any]


def direction(parameter: Array, gradient: Array, weight_decay: float, maximize: bool) -> Array:
    """The gradient, or minus the gradient, plus weight_decay * parameter, in scratch memory."""
    g = scratch("step", parameter.shape, parameter.dtype)
    if not weight_decay:
        return np.negative(gradient, out=g) if maximize else np.positive(gradient, out=g)
    np.multiply(parameter, parameter.dtype.type(weight_decay), out=g)
    return (np.subtract if maximize else np.add)(g, gradient, out=g)


def sgd_step(
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

    def run(parameter: Array, gradient: Array, *rest: Any) -> None:
        real = parameter.dtype.type
        d = direction(parameter, gradient, rest[-1], maximize)
        if momenta is not None:
            buffer = rest[0]
            if first:
                np.copyto(buffer, d)
            else:
                taken = scratch("taken", d.shape, d.dtype)
                np.multiply(buffer, real(momentum), out=buffer)
                np.add(buffer, np.multiply(d, real(1 - dampening), out=taken), out=buffer)
            if nesterov:
                taken = scratch("taken", d.shape, d.dtype)
                np.add(d, np.multiply(buffer, real(momentum), out=taken), out=d)
            else:
                np.copyto(d, buffer)
        np.multiply(d, real(lr), out=d)
        np.subtract(parameter, d, out=parameter)

    over_pieces(run, [parameters, gradients, *([] if momenta is None else [momenta])], decays)


def moving_average_step(averages: Sequence[Array], parameters: Sequence[Array], decay: float) -> None:
    """average -= (1 - decay) * (average - parameter)."""

    def run(average: Array, parameter: Array) -> None:
        step = scratch("step", average.shape, average.dtype)
        np.subtract(average, parameter, out=step)
        np.multiply(step, average.dtype.type(1 - decay), out=step)
        np.subtract(average, step, out=average)

    over_pieces(run, [averages, parameters])
