"""The three primitives of batch normalisation of any backend, held to their formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.numpy_backend.geometries import normal
from tests.support import reference
from tests.support.tolerance import WIDER, assert_close

EPS = 1e-5


def hold(actual: NDArray[Any], exact: reference.Reference, plain: reference.Reference, what: str) -> None:
    """The tolerance rule for one of several results."""
    assert_close(actual, exact.value, exact.scale, plain.value, what=what)


def check_batch_norm(
    backend: Any,
    shape: tuple[int, ...],
    seed: int = 0,
    *,
    weight: bool = True,
    bias: bool = True,
    training: bool = True,
    dtype: Any = np.float32,
    mean: float = 0.5,
    to_device: Any = None,
) -> None:
    """Statistics, forward and backward at x ~ N(mean, 1.5^2) (..., C), with weights of both signs."""
    channels, to = shape[-1], to_device or backend.from_host
    x, dy = (mean + 1.5 * normal(seed, shape, np.float64)).astype(dtype), normal(seed + 1, shape, dtype)
    w = normal(seed + 2, (channels,), dtype) if weight else None
    b = normal(seed + 3, (channels,), dtype) if bias else None
    running = None
    if training:
        statistics = backend.batch_norm_statistics(to(x), None, None, 0.1)
        check_statistics(backend, statistics, x)
    else:
        running = normal(seed + 4, (channels,), dtype), abs(normal(seed + 5, (channels,), dtype)) + dtype(0.1)
        statistics = (backend.from_host(running[0]), None, backend.from_host(running[1]))
    on_device = [None if a is None else backend.from_host(a) for a in (w, b)]
    y = backend.to_host(backend.batch_norm_forward(to(x), statistics, *on_device, EPS))
    exact, plain = (reference.batch_norm_forward(x, running, w, b, EPS, dtype=t) for t in (WIDER[x.dtype], x.dtype))
    hold(y, exact, plain, "y")
    given = backend.batch_norm_backward(to(dy), to(x), statistics, on_device[0], EPS, training, (True, True, True))
    exacts, plains = (reference.batch_norm_backward(dy, x, running, w, EPS, dtype=t) for t in (WIDER[x.dtype], x.dtype))
    for name, got, e, p in zip(("dx", "dweight", "dbias"), given, exacts, plains, strict=True):
        hold(backend.to_host(got), e, p, name)


def check_statistics(backend: Any, statistics: Any, x: NDArray[Any]) -> None:
    """Mean, its remainder and variance; mean and remainder together are closer than one rounding."""
    mean, remainder, var = (backend.to_host(part) for part in statistics)
    exacts, plains = (reference.batch_norm_statistics(x, t) for t in (WIDER[x.dtype], x.dtype))
    hold(mean, exacts[0], plains[0], "mean")
    hold(var, exacts[1], plains[1], "var")
    assert (abs(remainder) <= np.finfo(x.dtype).eps * abs(mean)).all()
