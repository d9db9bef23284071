"""Bytes of global memory that pooling, LRN, batch norm, activations, dropout and the loss touch, against the algebra.

Each pass is held to what it must read and write, each byte once in a launch; beside it stand a few bytes a channel or a
block, which ``small`` bounds. What threads ask for beyond that, and caches absorb, is held by ``again``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn import backends
from gpucnn.device import device
from gpucnn.geometry import Pool2dGeometry
from tests.kernels.halves import half_normal

SHAPE = (4, 12, 12, 64)
N = int(np.prod(SHAPE))
types = pytest.mark.parametrize("dtype", [np.dtype(np.float32), np.dtype(np.float16)], ids=lambda dtype: dtype.name)


@pytest.fixture
def emulated() -> Any:
    return backends.get(device("emulated"))


def tensor(dtype: Any, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Any:
    return half_normal(seed, shape, dtype)


def held(records: list[Any], read: int, written: int, small: int = 0, again: float = 1.0) -> None:
    """``records`` is one launch that reads and writes so many bytes."""
    (record,) = records
    assert read <= record.read <= read + small, (record.kernel, record.read, read)
    assert written <= record.written <= written + small, (record.kernel, record.written, written)
    assert record.requested <= again * (read + written) + 64 * small, (record.kernel, record.requested, read + written)


@types
def test_lrn_is_one_pass_each_way(emulated: Any, dtype: Any) -> None:
    x, dy, b = tensor(dtype), tensor(dtype, 1), dtype.itemsize
    with emulated.engine.traffic() as forward:
        emulated.lrn_forward(x, 9, 0.3, 0.75, 1.0, True)
    held(forward, N * b, N * b)
    with emulated.engine.traffic() as backward:
        emulated.lrn_backward(dy, x, None, 9, 0.3, 0.75, 1.0, True)
    held(backward, 2 * N * b, N * b)


@types
@pytest.mark.parametrize("activation", [None, "gelu"])
def test_batch_norm_reads_x_twice_each_way(emulated: Any, dtype: Any, activation: str | None) -> None:
    """small: the parameters, statistics and slabs of 64 channels."""
    x, dy, b = tensor(dtype), tensor(dtype, 1), dtype.itemsize
    ones, small = np.ones(64, np.float32), 64 * 1024
    with emulated.engine.traffic() as records:
        statistics = emulated.batch_norm_statistics(x, ones.copy(), ones.copy(), 0.1)
        emulated.batch_norm_forward(x, statistics, ones, ones, 1e-5, activation)
        emulated.batch_norm_backward(dy, x, statistics, ones, 1e-5, True, (True, True, True), ones, activation)
    held(records[0:1], N * b, 0, small)
    held(records[1:2], N * b, N * b, small)
    held(records[2:3], 2 * N * b, 0, small)
    held(records[3:4], 2 * N * b, N * b, small)


@types
@pytest.mark.parametrize(("window", "padding", "again"), [(2, 0, 1.0), (3, 1, 2.2)])
def test_max_pooling_keeps_a_byte_an_output(emulated: Any, dtype: Any, window: int, padding: int, again: float) -> None:
    """Windows that overlap are read again through the cache: 3 x 3 of stride 2 asks for each input 2.25 times."""
    g = Pool2dGeometry.of((4, 64, 12, 12), window, 2, padding)
    x, outputs, b = tensor(dtype), int(np.prod(g.output_shape)), dtype.itemsize
    with emulated.engine.traffic() as forward:
        _, index = emulated.max_pool2d_forward(x, g)
    held(forward, N * b, outputs * (b + 1), again=again)
    dy = tensor(dtype, 1, g.output_shape)
    with emulated.engine.traffic() as backward:
        emulated.max_pool2d_backward(dy, index, g)
    held(backward, outputs * (b + 1), N * b, again=again)


@types
def test_elementwise(emulated: Any, dtype: Any) -> None:
    x, dy, b = tensor(dtype), tensor(dtype, 1), dtype.itemsize
    for forward, backward in [
        (lambda: emulated.relu_forward(x), lambda: emulated.relu_backward(dy, x)),
        (lambda: emulated.gelu_forward(x, False, True), lambda: emulated.gelu_backward(dy, x, False)),
        (lambda: emulated.silu_forward(x, True), lambda: emulated.silu_backward(dy, x)),
    ]:
        with emulated.engine.traffic() as records:
            forward()
            backward()
        held(records[:1], N * b, N * b)
        held(records[1:], 2 * N * b, N * b)
    with emulated.engine.traffic() as records:
        emulated.dropout(x, 0.5, (1, 2, 1))
    held(records, N * b, N * b)


def test_the_loss_reads_its_logits_once(emulated: Any) -> None:
    """From memory: a row's walks after the first, and its label for all lanes, are served by the cache."""
    rows, classes = 200, 10
    logits, labels = tensor(np.dtype(np.float32), 0, (rows, classes)), np.zeros(rows, np.int64)
    with emulated.engine.traffic() as records:
        emulated.softmax_cross_entropy_step(logits, labels, 0.1, 1.0)
    size = rows * classes * 4
    held(records, size + 8 * rows, size, small=8 * 25 + 64, again=10)
