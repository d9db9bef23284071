"""ReLU, dropout, LRN, products, loss, scatter_add and updates of the NumPy backend against the formula."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpucnn import random
from gpucnn.backends.numpy import NumpyBackend
from tests.numpy_backend.geometries import dtypes, normal, quick, seeds, thorough
from tests.support import reference, updates
from tests.support.tolerance import assert_close, check

backend = NumpyBackend()

shapes = st.one_of(
    st.lists(st.integers(0, 7), min_size=0, max_size=4).map(tuple), st.sampled_from([(65537,), (3, 131, 1009)])
)


@quick
@given(shapes, dtypes, seeds)
def test_relu(shape: tuple[int, ...], dtype: Any, seed: int) -> None:
    x, dy = np.round(normal(seed, shape, dtype), 1), normal(seed + 1, shape, dtype)
    y = backend.relu_forward(x)
    np.testing.assert_array_equal(y, reference.relu_forward(x))
    dx = backend.relu_backward(dy, y)
    np.testing.assert_array_equal(dx, reference.relu_backward(dy, y))
    assert y.dtype == dx.dtype == dtype and y.shape == dx.shape == shape


@pytest.mark.parametrize("repeats", [1, 3001, 40000], ids=["one run", "runs and a rest", "pieces for threads"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relu_of_values_that_are_not_finite(dtype: Any, repeats: int) -> None:
    def many(*values: Any) -> Any:
        return np.tile(np.array(values, dtype), repeats)

    y = backend.relu_forward(many(np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45, 2.0, 3.0))
    np.testing.assert_array_equal(y, many(np.nan, np.inf, 0, 0, 0, dtype(1e-45), 2, 3))
    dx = backend.relu_backward(many(1, 2, np.inf, np.nan, np.inf, 5, -np.inf, np.nan), y)
    small = 5 if dtype(1e-45) > 0 else 0
    np.testing.assert_array_equal(dx, many(0, 2, 0, 0, 0, small, -np.inf, np.nan))


@quick
@given(st.integers(0, 5000), dtypes, seeds, st.sampled_from([0.0, 0.1, 0.5, 0.9]))
def test_dropout_keeps_what_the_stream_says(size: int, dtype: Any, seed: int, p: float) -> None:
    x, key = normal(seed, (size,), dtype), (seed, 3, 1)
    keep = random.keep_mask(size, p, key)
    y = backend.dropout(x, p, key)
    assert_close(y, np.where(keep, x.astype(np.longdouble) / (1 - p), 0), abs(x) / (1 - p))
    assert y.dtype == dtype


def check_lrn(shape: tuple[int, ...], dtype: Any, seed: int, size: int, alpha: float, beta: float, k: float) -> None:
    x, dy = normal(seed, shape, dtype), normal(seed + 1, shape, dtype)
    y, scale = backend.lrn_forward(x, size, alpha, beta, k, True)
    check(y, lambda *a, dtype: reference.lrn_forward(*a, dtype=dtype)[0], x, size, alpha, beta, k, what="y")
    check(scale, lambda *a, dtype: reference.lrn_forward(*a, dtype=dtype)[1], x, size, alpha, beta, k, what="scale")
    dx = backend.lrn_backward(dy, x, scale, size, alpha, beta, k)
    check(dx, reference.lrn_backward, dy, x, None, size, alpha, beta, k)
    assert y.dtype == scale.dtype == dx.dtype == dtype and dx.shape == shape


lrn_arguments = (
    st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 40)),
    dtypes,
    seeds,
    st.integers(1, 20),
    st.sampled_from([1e-4, 1e-3, 0.5, 2.0]),
    st.sampled_from([0.75, 0.75, 0.5, 1.0, 0.6, 2.0]),
    st.sampled_from([1.0, 2.0, 0.5]),
)


@quick
@given(*lrn_arguments)
@example((7, 12, 12, 64), np.float32, 1, 9, 1e-3, 0.75, 1.0)
def test_lrn(shape: tuple[int, ...], dtype: Any, seed: int, size: int, alpha: float, beta: float, k: float) -> None:
    check_lrn(shape, dtype, seed, size, alpha, beta, k)


@pytest.mark.full
@thorough
@given(*lrn_arguments)
def test_lrn_many(
    shape: tuple[int, ...], dtype: Any, seed: int, size: int, alpha: float, beta: float, k: float
) -> None:
    check_lrn(shape, dtype, seed, size, alpha, beta, k)


def test_lrn_of_values_that_are_not_finite() -> None:
    """They reach the channels whose windows hold them, and no others, as a plain loop has it."""
    x = np.ones((3, 90), np.float32)
    x[0, 50], x[1, 7], x[2, 64] = np.nan, np.inf, 3e30
    dy = normal(1, x.shape, np.float32)
    with np.errstate(all="ignore"):
        y, scale = backend.lrn_forward(x, 5, 0.1, 0.75, 1.0, True)
        expected, expected_scale = reference.lrn_forward(x, 5, 0.1, 0.75, 1.0, dtype=np.float32)
        dx = backend.lrn_backward(dy, x, scale, 5, 0.1, 0.75, 1.0)
        expected_dx = reference.lrn_backward(dy, x, scale, 5, 0.1, 0.75, 1.0, dtype=np.float32)
    for actual, wanted in ((y, expected.value), (scale, expected_scale.value), (dx, expected_dx.value)):
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-6)


def check_products(m: int, n: int, k: int, dtype: Any, seed: int, batch: int | None) -> None:
    lead = () if batch is None else (batch,)
    for transpose_a in (False, True):
        for transpose_b in (False, True):
            a = normal(seed, lead + ((k, m) if transpose_a else (m, k)), dtype)
            b = normal(seed + 1, lead + ((n, k) if transpose_b else (k, n)), dtype)
            actual = backend.matmul(a, b, transpose_a, transpose_b)
            check(actual, reference.matmul, a, b, transpose_a, transpose_b)
            assert actual.dtype == dtype and actual.flags.c_contiguous
    x, w, bias = normal(seed, (m, k), dtype), normal(seed + 1, (n, k), dtype), normal(seed + 2, (n,), dtype)
    for given_bias in (bias, None):
        check(backend.linear_forward(x, w, given_bias), reference.linear_forward, x, w, given_bias)


product_arguments = (
    st.integers(0, 90), st.integers(1, 300), st.integers(1, 60), dtypes, seeds, st.sampled_from([None, None, 0, 1, 3]),
)  # fmt: skip


@quick
@given(*product_arguments)
def test_products(m: int, n: int, k: int, dtype: Any, seed: int, batch: int | None) -> None:
    check_products(m, n, k, dtype, seed, batch)


@pytest.mark.full
@thorough
@given(*product_arguments)
def test_many_products(m: int, n: int, k: int, dtype: Any, seed: int, batch: int | None) -> None:
    check_products(m, n, k, dtype, seed, batch)


@pytest.mark.parametrize(
    ("m", "n", "k"), [(128, 384, 2304), (384, 2304, 128), (128, 2304, 384), (1, 10, 192), (700, 3, 5)]
)
def test_products_of_the_lecture_network(m: int, n: int, k: int) -> None:
    check_products(m, n, k, np.float32, 1, None)


def check_loss(n: int, classes: int, dtype: Any, seed: int, spread: float, labels_dtype: Any) -> None:
    logits, dlosses = normal(seed, (n, classes), dtype) * dtype(spread), normal(seed + 1, (n,), dtype)
    labels = np.random.default_rng(seed).integers(0, classes, n).astype(labels_dtype)
    losses, log_sum_exp = backend.softmax_cross_entropy_forward(logits, labels)
    forward = reference.softmax_cross_entropy_forward
    check(losses, lambda *a, dtype: forward(*a, dtype=dtype)[0], logits, labels, what="losses")
    check(log_sum_exp, lambda *a, dtype: forward(*a, dtype=dtype)[1], logits, labels, what="log_sum_exp")
    dlogits = backend.softmax_cross_entropy_backward(dlosses, logits, labels, log_sum_exp)
    check(dlogits, reference.softmax_cross_entropy_backward, dlosses, logits, labels)
    assert losses.dtype == log_sum_exp.dtype == dlogits.dtype == dtype


loss_arguments = (
    st.integers(0, 40),
    st.integers(1, 30),
    dtypes,
    seeds,
    st.sampled_from([0.1, 1.0, 30.0, 1000.0]),
    st.sampled_from([np.int32, np.int64]),
)


@quick
@given(*loss_arguments)
def test_cross_entropy(n: int, classes: int, dtype: Any, seed: int, spread: float, labels_dtype: Any) -> None:
    check_loss(n, classes, dtype, seed, spread, labels_dtype)


@pytest.mark.full
@thorough
@given(*loss_arguments)
def test_cross_entropy_many(n: int, classes: int, dtype: Any, seed: int, spread: float, labels_dtype: Any) -> None:
    check_loss(n, classes, dtype, seed, spread, labels_dtype)


def test_cross_entropy_of_huge_logits_does_not_overflow() -> None:
    logits = np.array([[1e30, 0, -1e30], [-3e38, -3e38, -3e38]], np.float32)
    losses, _ = backend.softmax_cross_entropy_forward(logits, np.array([0, 1]))
    np.testing.assert_allclose(losses, [0, np.log(3)], rtol=1e-6)
    losses, _ = backend.softmax_cross_entropy_forward(logits[:1], np.array([2]))
    np.testing.assert_allclose(losses, [2e30], rtol=1e-6)


@pytest.mark.parametrize("label", [10, -1, 12])
def test_a_label_out_of_range_is_named_with_its_row(label: int) -> None:
    labels = np.array([1, 2, 3, label, 0])
    message = f"cross_entropy: label {label} at row 3 is outside [0, 10)"
    with pytest.raises(ValueError, match=re.escape(message)):
        backend.softmax_cross_entropy_forward(np.zeros((5, 10), np.float32), labels)


@quick
@given(st.integers(0, 300), st.integers(1, 20), dtypes, seeds)
def test_scatter_add_adds_in_order(m: int, size: int, dtype: Any, seed: int) -> None:
    positions = np.random.default_rng(seed).integers(0, size, m)
    values = normal(seed, (m,), dtype) * np.exp(normal(seed + 1, (m,), dtype) * 5)
    np.testing.assert_array_equal(
        backend.scatter_add(size, positions, values), reference.scatter_add(size, positions, values)
    )


sgd_arguments = (
    st.sampled_from([0.0, 0.9]),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.0, 0.004]),
    st.booleans(),
    st.booleans(),
    dtypes,
    seeds,
)


@quick
@given(*sgd_arguments)
def test_sgd(
    momentum: float, dampening: float, weight_decay: float, nesterov: bool, first: bool, dtype: Any, seed: int
) -> None:
    """Arrays of several sizes and memory orders, in place."""
    shapes = [(3,), (70001,), (4, 3, 5, 5)]
    parameters, gradients, buffers = ([normal(seed + i, shape, dtype) for shape in shapes] for i in (0, 9, 18))
    # The filters as they come: channels-last memory seen as (K, C, R, S).
    for arrays in (parameters, gradients, buffers):
        arrays[2] = np.ascontiguousarray(arrays[2].transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    momenta = [b.copy(order="K") for b in buffers] if momentum else None
    after = [p.copy(order="K") for p in parameters]
    rest = (0.1, momentum, dampening, weight_decay, nesterov and momentum > 0, first)
    updates.sgd_step(backend, after, gradients, momenta, *rest)
    for i, (p, d) in enumerate(zip(parameters, gradients, strict=True)):
        before = buffers[i] if momentum else None
        check(after[i], lambda *a, dtype: reference.sgd_step(*a, dtype=dtype)[0], p, d, before, *rest, what="parameter")
        if momenta:
            check(
                momenta[i], lambda *a, dtype: reference.sgd_step(*a, dtype=dtype)[1], p, d, before, *rest, what="buffer"
            )


def test_sgd_refuses_an_array_with_gaps() -> None:
    gaps = np.zeros((4, 4), np.float32)[:, ::2]
    with pytest.raises(ValueError, match="is not dense"):
        updates.sgd_step(backend, [gaps], [gaps], None, 0.1, 0, 0, 0, False, False)


@quick
@given(dtypes, seeds, st.sampled_from([0.0, 0.5, 0.9999, 1.0]))
def test_moving_average(dtype: Any, seed: int, decay: float) -> None:
    shapes = [(), (5,), (66000,)]
    averages, parameters = ([normal(seed + i, shape, dtype) for shape in shapes] for i in (0, 9))
    averages[1] = parameters[1].copy()
    after = [a.copy() for a in averages]
    updates.moving_average_step(backend, after, parameters, decay)
    for new, old, parameter in zip(after, averages, parameters, strict=True):
        check(new, reference.moving_average_step, old, parameter, decay)
    np.testing.assert_array_equal(after[1], parameters[1])
