"""Batch normalisation with an activation behind it, and of half types: every instance against the formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn.backends.cuda import batch_norm
from tests.kernels.arrays import exact_ends, host, launches
from tests.kernels.halves import half_normal, half_types
from tests.numpy_backend.geometries import normal
from tests.support import reference, reference_smooth
from tests.support.batch_norm import EPS, check_statistics
from tests.support.reference import Reference
from tests.support.tolerance import assert_close

ACTIVATIONS = [None, "relu", "gelu", "gelu_tanh", "silu"]
activations = pytest.mark.parametrize("activation", ACTIVATIONS)
FLOAT = np.dtype(np.float32)


def applied(activation: str | None, z: Reference, dtype: Any) -> Reference:
    """f(z); no slope of these is above 1.2, and the scale carries z's errors through it."""
    if activation is None:
        return z
    if activation == "relu":
        return Reference(np.maximum(z.value, 0), z.scale)
    forward = reference_smooth.silu_forward if activation == "silu" else reference_smooth.gelu_forward
    y = forward(z.value, *tanh(activation), dtype=dtype)
    return Reference(y.value, y.scale + 1.2 * z.scale)


def through(activation: str | None, dy: Any, z: Reference, dtype: Any) -> Reference:
    """dy f'(z); no second derivative is above 1."""
    dy = dy.astype(dtype)
    if activation is None:
        return Reference(dy, abs(dy))
    if activation == "relu":
        return Reference(np.where(z.value > 0, dy, 0), abs(dy))
    backward = reference_smooth.silu_backward if activation == "silu" else reference_smooth.gelu_backward
    dz = backward(dy, z.value, *tanh(activation), dtype=dtype)
    return Reference(dz.value, dz.scale + abs(dy) * z.scale)


def tanh(activation: str) -> tuple[bool, ...]:
    return () if activation == "silu" else (activation == "gelu_tanh",)


def check_activated(
    backend: Any, shape: tuple[int, ...], activation: str | None, dtype: Any, training: bool, seed: int = 0
) -> None:
    channels = shape[-1]
    x, dy = half_normal(seed, shape, dtype, 1.5, 0.7), half_normal(seed + 1, shape, dtype)
    w, b = normal(seed + 2, (channels,), np.float32), normal(seed + 3, (channels,), np.float32)
    own = normal(seed + 4, (channels,), np.float32), abs(normal(seed + 5, (channels,), np.float32)) + np.float32(0.1)
    running = None if training else own
    if training:
        statistics = backend.batch_norm_statistics(backend.from_host(x), None, None, 0.1)
        check_statistics(backend, statistics, x.astype(np.float32))
    else:
        statistics = (backend.from_host(own[0]), None, backend.from_host(own[1]))
    weight, bias = backend.from_host(w), backend.from_host(b)
    y = backend.batch_norm_forward(backend.from_host(x), statistics, weight, bias, EPS, activation)
    z64, z32 = (reference.batch_norm_forward(x, running, w, b, EPS, dtype=t) for t in (np.float64, np.float32))
    exact, plain = applied(activation, z64, np.float64), applied(activation, z32, np.float32)
    assert y.dtype == dtype
    assert_close(host(backend, y), exact.value, exact.scale, plain.value, what="y")

    arguments = backend.from_host(dy), backend.from_host(x), statistics, weight, EPS, training, (True, True, True)
    given = backend.batch_norm_backward(*arguments, bias, activation)
    dz64, dz32 = through(activation, dy, z64, np.float64), through(activation, dy, z32, np.float32)
    exacts = reference.batch_norm_backward(dz64.value, x, running, w, EPS)
    scales = reference.batch_norm_backward(dz64.scale, x, running, w, EPS)
    plains = reference.batch_norm_backward(dz32.value, x, running, w, EPS, dtype=np.float32)
    for name, got, e, s, p in zip(("dx", "dweight", "dbias"), given, exacts, scales, plains, strict=True):
        assert_close(host(backend, got), e.value, s.scale, p.value, what=name)
    assert given[0].dtype == dtype and given[1].dtype == given[2].dtype == np.float32


@activations
@pytest.mark.parametrize("shape", [(2, 3, 3, 12), (13, 5), (40, 136)])
@pytest.mark.parametrize("training", [True, False])
def test_activations(backend: Any, activation: str | None, shape: tuple[int, ...], training: bool) -> None:
    with exact_ends(backend):
        check_activated(backend, shape, activation, FLOAT, training)


@half_types
@activations
@pytest.mark.parametrize(("shape", "training"), [((3, 5, 24), True), ((11, 6), True), ((7, 8), False), ((5, 3), False)])
def test_half_types(backend: Any, dtype: Any, activation: str | None, shape: tuple[int, ...], training: bool) -> None:
    with exact_ends(backend):
        check_activated(backend, shape, activation, dtype, training, 7)


@pytest.mark.parametrize(("shape", "dtype"), [((97, 12), FLOAT), ((83, 5), FLOAT), ((99, 16), np.dtype(np.float16)),
                                              ((71, 3), np.dtype(np.float16))])  # fmt: skip
def test_many_slabs(backend: Any, shape: tuple[int, ...], dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_norm, "ROWS_PER_THREAD", 1)
    monkeypatch.setattr(batch_norm, "THREADS", 64)
    check_activated(backend, shape, "gelu", dtype, True)
    check_activated(backend, shape, "relu", dtype, True)


def test_launches_and_instances(backend: Any) -> None:
    """An activation adds no launch; in evaluation it costs the backward pass no more than the gradient's."""
    for activation, dtype, suffix in [
        ("relu", np.float32, "_vec4"), ("gelu", np.float32, "_vec4"), ("silu", np.float32, "_smooth_vec4"),
        ("silu", np.float16, "_float16x8"),
    ]:  # fmt: skip
        x, ones = backend.from_host(np.ones((6, 8), dtype)), backend.from_host(np.ones(8, np.float32))
        statistics = ones, None, ones
        with launches(backend) as names:
            backend.batch_norm_forward(x, statistics, ones, ones, EPS, activation)
            backend.batch_norm_backward(x, x, statistics, ones, EPS, True, (True, True, True), ones, activation)
            backend.batch_norm_backward(x, x, statistics, ones, EPS, False, (True, False, False), ones, activation)
            backend.batch_norm_backward(x, x, statistics, ones, EPS, True, (False, False, True), ones, activation)
        assert names == ["batch_norm_" + name + suffix for name in ("forward", "sums", "backward", "backward", "sums")]


@pytest.mark.parametrize("rows", [40, 0])
def test_batches_are_counted_once(backend: Any, rows: int) -> None:
    x, count = backend.from_host(normal(0, (rows, 300), np.float32)), backend.from_host(np.array([5], np.int64))
    backend.batch_norm_statistics(x, None, None, 0.1, count)
    assert host(backend, count).item() == 6


@half_types
def test_half_variance_far_from_zero(backend: Any, dtype: Any) -> None:
    """A mean of 200 deviations: sums of squares would leave nothing of the variance."""
    x = half_normal(3, (600, 8), dtype, 0.5, 100.0)
    check_statistics(
        backend, backend.batch_norm_statistics(backend.from_host(x), None, None, 0.1), x.astype(np.float32)
    )


@half_types
def test_no_rows(backend: Any, dtype: Any) -> None:
    x, ones = backend.from_host(np.zeros((0, 8), dtype)), backend.from_host(np.ones(8, np.float32))
    statistics = backend.batch_norm_statistics(x, None, None, 0.1)
    assert backend.batch_norm_forward(x, statistics, ones, ones, EPS, "relu").shape == (0, 8)
    dx, dweight, dbias = backend.batch_norm_backward(
        x, x, statistics, ones, EPS, True, (True, True, True), ones, "relu"
    )
    assert dx.dtype == dtype and dx.shape == (0, 8) and dweight.dtype == dbias.dtype == np.float32
