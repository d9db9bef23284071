"""Updates of parameters in place, piece by piece, with no temporary larger than a piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy.elementwise import pieces
from gpucnn.backends.numpy.scratch import scratch
from gpucnn.backends.numpy.threads import for_each
from gpucnn.layout import memory_view

Array = NDArray[Any]


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
) -> None:
    """PyTorch's SGD, as base.py states it."""
    buffers = [None] * len(parameters) if momenta is None else momenta
    decays = weight_decay if isinstance(weight_decay, Sequence) else [weight_decay] * len(parameters)

    def run(item: tuple[Array, Array, Array | None, float]) -> None:
        parameter, gradient, buffer, decay = item
        real = parameter.dtype.type
        d = scratch("step", parameter.shape, parameter.dtype)
        if decay:
            np.multiply(parameter, real(decay), out=d)
            np.add(d, gradient, out=d)
        else:
            np.copyto(d, gradient)
        if buffer is not None:
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

    items = []
    for parameter, gradient, buffer, decay in zip(parameters, gradients, buffers, decays, strict=True):
        p, d = memory_view(parameter).reshape(-1), memory_view(gradient).reshape(-1)
        b = None if buffer is None else memory_view(buffer).reshape(-1)
        items += [(p[at], d[at], None if b is None else b[at], decay) for at in pieces(p.size)]
    for_each(run, items)


def moving_average_step(averages: Sequence[Array], parameters: Sequence[Array], decay: float) -> None:
    """average -= (1 - decay) * (average - parameter)."""

    def run(item: tuple[Array, Array]) -> None:
        average, parameter = item
        step = scratch("step", average.shape, average.dtype)
        np.subtract(average, parameter, out=step)
        np.multiply(step, average.dtype.type(1 - decay), out=step)
        np.subtract(average, step, out=average)

    items = []
    for average, parameter in zip(averages, parameters, strict=True):
        a, p = memory_view(average).reshape(-1), memory_view(parameter).reshape(-1)
        items += [(a[at], p[at]) for at in pieces(a.size)]
    for_each(run, items)
