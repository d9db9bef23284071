"""SGD and the moving average over many arrays in one launch, against the formula over several steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn.backends.cuda import chunks
from tests.kernels.arrays import exact_ends, host, launches, unaligned
from tests.numpy_backend.geometries import normal
from tests.support import reference, updates
from tests.support.tolerance import assert_close

SHAPES = [(1,), (3,), (5, 7), (64, 5, 5, 3), (2, 2048), (2049,), (0, 4), (10,)]


def draw(shapes: list[tuple[int, ...]], seed: int) -> list[Any]:
    return [normal(seed + i, shape, np.float32) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize(
    ("momentum", "dampening", "nesterov", "weight_decay"),
    [
        (0.0, 0.0, False, 0.0),
        (0.0, 0.0, False, 0.1),
        (0.9, 0.0, False, 0.004),
        (0.9, 0.3, False, 0.0),
        (0.7, 0.0, True, 0.01),
    ],
)
def test_sgd_over_several_steps(
    backend: Any, momentum: float, dampening: float, nesterov: bool, weight_decay: float
) -> None:
    """Each step starts from what the last one left on the device, and is held to the formula on that."""
    parameters = [backend.from_host(array) for array in draw(SHAPES, 0)]
    momenta = [backend.xp.full(shape, np.nan, np.float32) for shape in SHAPES] if momentum else None
    for step in range(3):
        before = [host(backend, p) for p in parameters]
        buffers = [None] * len(SHAPES) if momenta is None else [host(backend, m) for m in momenta]
        gradients = draw(SHAPES, 100 * step + 50)
        options = (0.1, momentum, dampening, weight_decay, nesterov, step == 0)
        with launches(backend) as names, exact_ends(backend):
            updates.sgd_step(backend, parameters, [backend.from_host(g) for g in gradients], momenta, *options)
        assert names == ["sgd_step"]
        for i, (p, g, b) in enumerate(zip(before, gradients, buffers, strict=True)):
            exact, plain = (reference.sgd_step(p, g, b, *options, dtype=t) for t in (np.float64, np.float32))
            results = [parameters[i]] if momenta is None else [parameters[i], momenta[i]]
            for name, result, e, f in zip(("parameter", "buffer"), results, exact, plain, strict=False):
                assert e is not None and f is not None
                assert_close(host(backend, result), e.value, e.scale, f.value, what=f"{name} {i} at step {step}")


def test_two_hundred_arrays_in_one_launch(backend: Any) -> None:
    shapes: list[tuple[int, ...]] = [(1 + (37 * i) % 61, 1 + i % 3) for i in range(199)] + [(5000,)]
    start, gradients = draw(shapes, 7), draw(shapes, 1007)
    parameters = [backend.from_host(array) for array in start]
    with launches(backend) as names:
        updates.sgd_step(
            backend, parameters, [backend.from_host(g) for g in gradients], None, 0.5, 0.0, 0.0, 0.0, False, True
        )
    assert names == ["sgd_step"]
    for p, s, g in zip(parameters, start, gradients, strict=True):
        np.testing.assert_allclose(host(backend, p), s - 0.5 * g.astype(np.float64), rtol=1e-6, atol=1e-6)


def test_more_chunks_than_blocks(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "MAX_BLOCKS", 2)
    start, gradient = normal(1, (13001,), np.float32), normal(2, (13001,), np.float32)
    parameter = backend.from_host(start)
    updates.sgd_step(backend, [parameter], [backend.from_host(gradient)], None, 0.25, 0.0, 0.0, 0.0, False, True)
    np.testing.assert_allclose(
        host(backend, parameter), start - 0.25 * gradient.astype(np.float64), rtol=1e-6, atol=1e-6
    )


def test_arrays_may_be_slices_and_transposed_alike(backend: Any) -> None:
    start, gradient = normal(1, (5, 3, 4, 2), np.float32), normal(2, (5, 3, 4, 2), np.float32)
    memory, gradients = unaligned(backend, start), backend.from_host(gradient)
    updates.sgd_step(
        backend,
        [memory.transpose(0, 3, 1, 2)],
        [gradients.transpose(0, 3, 1, 2)],
        None,
        1.0,
        0.0,
        0.0,
        0.0,
        False,
        True,
    )
    np.testing.assert_allclose(host(backend, memory), start - gradient.astype(np.float64), rtol=1e-6, atol=1e-6)


def test_nothing_to_update(backend: Any) -> None:
    with launches(backend) as names:
        updates.sgd_step(backend, [], [], None, 0.1, 0.0, 0.0, 0.0, False, True)
        updates.moving_average_step(backend, [backend.empty((0, 3))], [backend.empty((0, 3))], 0.9)
    assert names == []


def test_moving_average_over_several_steps(backend: Any) -> None:
    averages = [backend.from_host(array) for array in draw(SHAPES, 3)]
    for step in range(3):
        before, parameters = [host(backend, a) for a in averages], draw(SHAPES, 100 * step + 60)
        with launches(backend) as names, exact_ends(backend):
            updates.moving_average_step(backend, averages, [backend.from_host(p) for p in parameters], 0.97)
        assert names == ["moving_average_step"]
        for a, b, p in zip(averages, before, parameters, strict=True):
            exact, plain = (reference.moving_average_step(b, p, 0.97, dtype=t) for t in (np.float64, np.float32))
            assert_close(host(backend, a), exact.value, exact.scale, plain.value)


def test_the_moving_average_of_equal_values_is_that_value(backend: Any) -> None:
    values = normal(5, (777,), np.float32)
    average = backend.from_host(values)
    for _ in range(3):
        updates.moving_average_step(backend, [average], [backend.from_host(values)], 0.9)
    np.testing.assert_array_equal(host(backend, average), values)


def test_tables_of_chunks_are_kept_and_bounded(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "MOST_TABLES", 3)
    for size in range(1, 9):
        first_chunk, sizes, count = chunks.tables_of(backend, (size, 2048, 2049))
        assert chunks.tables_of(backend, (size, 2048, 2049))[0] is first_chunk
        assert host(backend, first_chunk).tolist() == [0, 1, 2, 4] and count == 4
        assert host(backend, sizes).tolist() == [size, 2048, 2049]
    assert len(chunks._tables[backend]) <= 3
