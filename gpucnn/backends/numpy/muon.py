"""Muon's step: momentum made orthogonal by Newton-Schulz iterations, matrices of one shape as one batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy.optimizer import moving_average_step, overflowed
from gpucnn.backends.updates import Along, MuonNumbers, Row

Array = NDArray[Any]


def step(
    backend: Any,
    parameters: Sequence[Array],
    gradients: Sequence[Array],
    momenta: Sequence[Array],
    steps: int,
    rows: Sequence[Row],
    along: Along,
) -> None:
    """Muon, as base.py states it."""
    if overflowed(along):
        for count in along.skipped or ():
            count += 1
    else:
        batches: dict[tuple[Any, ...], list[int]] = {}
        for place, (parameter, row) in enumerate(zip(parameters, rows, strict=True)):
            if parameter.size:
                sizes = parameter.shape[1], parameter.shape[0] * parameter.shape[2]
                batches.setdefault((sizes, row.values), []).append(place)
        inverse = 1.0 if along.inverse_scale is None else float(along.inverse_scale[0])
        for (sizes, own), places in batches.items():
            arrays = [(parameters[place], gradients[place], momenta[place]) for place in places]
            _update(backend, arrays, sizes, own, steps, inverse)
    if along.zero_gradients:
        for gradient in gradients:
            gradient.fill(0)
    if along.averages is not None and along.average is not None:
        pairs = [(a, p) for a, p in zip(along.averages, parameters, strict=True) if a is not None]
        moving_average_step([a for a, _ in pairs], [p for _, p in pairs], along.average)


def _update(
    backend: Any,
    arrays: list[tuple[Array, Array, Array]],
    sizes: tuple[int, int],
    own: MuonNumbers,
    steps: int,
    inverse: float,
) -> None:
    """One step of parameters that all are ``sizes``, (K, M), and share their numbers."""
    rows, columns = sizes
    tall = rows > columns  # then the transposed is orthogonalized: the products are smaller
    moves = np.empty((len(arrays), *sorted(sizes)), arrays[0][0].dtype)
    for (_, gradient, buffer), move in zip(arrays, moves, strict=True):
        direction = np.moveaxis(_direction(gradient, buffer, own, inverse), 1, 0)
        (move.T if tall else move)[...] = direction.reshape(rows, columns)
    moves = orthogonalize(backend, moves, (own.a, own.b, own.c), steps, own.eps)
    moves *= own.step_size
    for (weight, _, _), move in zip(arrays, moves, strict=True):
        if own.renormalize:
            weight *= math.sqrt(rows) / np.maximum(_norms(weight[None])[0], own.eps)
        if own.kept != 1.0:
            weight *= own.kept
        moved = np.moveaxis(weight, 1, 0)
        moved -= (move.T if tall else move).reshape(moved.shape)


def _direction(gradient: Array, buffer: Array, own: MuonNumbers, inverse: float) -> Array:
    """The gradient, smoothed by the momentum; the buffer is brought up to date."""
    part = gradient * (own.one_minus_momentum if inverse == 1.0 else own.one_minus_momentum * inverse)
    buffer *= own.momentum
    buffer += part
    if not own.nesterov:
        return buffer
    part += buffer * own.momentum
    return part


def orthogonalize(
    backend: Any, x: Array, coefficients: tuple[float, float, float], steps: int = 5, eps: float = 1e-7
) -> Array:
    """About U V^T of each x = U S V^T, x (B, K, M) with K <= M preferably: (B, K, M); the singular values come out near
    1, not at it.

    x / max(|x|, eps), then ``steps`` times x = a x + (b A + c A A) x, A = x x^T, (a, b, c) the coefficients: the
    quintic Newton-Schulz iteration, tuned for the steepest rise from 0. Every singular value s goes through a s + b s^3
    + c s^5. x is overwritten.
    """
    a, b, c = coefficients
    x /= np.maximum(_norms(x), eps)[:, None, None]
    for _ in range(steps):
        gram = backend.matmul(x, x, transpose_b=True)
        polynomial = backend.matmul(gram, gram)
        polynomial *= c
        gram *= b
        polynomial += gram
        higher = backend.matmul(polynomial, x)
        x *= a
        x += higher
    return x


def _norms(arrays: Array) -> Array:
    """The Frobenius norm of each of ``arrays`` (B, ...), C-contiguous: (B,). Of float16 in float32: the square of 256
    is infinite there.
    """
    flat = arrays.reshape(len(arrays), -1)
    if flat.dtype.itemsize < 4:
        flat = flat.astype("float32")
    return np.asarray(np.sqrt((flat * flat).sum(axis=1)))
