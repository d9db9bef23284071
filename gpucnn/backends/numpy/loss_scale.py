"""Loss scaling, with the rules of torch.amp.GradScaler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy.many import over_pieces

Array = NDArray[Any]


def scale_by(x: Array, factor: Array) -> Array:
    """x * factor[0], like x."""
    return x * x.dtype.type(factor[0])


def check_gradients(gradients: Sequence[Array], found_inf: Array, inverse_scale: Array | None = None) -> None:
    """found_inf[0] = 1 where any gradient is not finite; unscaled first, in place, with ``inverse_scale``."""

    def run(gradient: Array) -> None:
        if inverse_scale is not None:
            np.multiply(gradient, gradient.dtype.type(inverse_scale[0]), out=gradient)
        if not np.isfinite(gradient).all():
            found_inf[0] = 1

    over_pieces(run, [gradients])


def update_scale(state: Array, found_inf: Array, growth: float, backoff: float, interval: int) -> None:
    """The scale after a step; found_inf is left at 0."""
    scale, _, since, skipped = state
    real = state.dtype.type
    if found_inf.any():
        scale, since, skipped = scale * real(backoff), real(0), skipped + real(1)
    else:
        since = since + real(1)
        if since >= interval:
            with np.errstate(over="ignore"):
                grown = scale * real(growth)
            scale, since = grown if np.isfinite(grown) else scale, real(0)
    with np.errstate(divide="ignore"):
        state[:] = scale, real(1) / scale, since, skipped
    found_inf[:] = 0
