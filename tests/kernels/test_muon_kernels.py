"""Muon's grouped launches: matrices of every shape at once, against the iteration in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gpucnn.backends.cuda import chunks
from gpucnn.backends.updates import Along, MuonNumbers
from tests.kernels.arrays import exact_ends, host, launches, unaligned
from tests.numpy_backend.geometries import normal
from tests.support import reference
from tests.support.tolerance import assert_close, check
from tests.support.updates import average_row, rows

# (outer, K, inner): one row, one column, odd sizes, wide, tall, K in the middle, several tiles and stages, empty ones.
SHAPES = [
    (1, 1, 7), (1, 7, 1), (1, 1, 1), (1, 5, 21), (1, 21, 5), (3, 4, 6), (5, 9, 1), (2, 17, 3), (1, 33, 70), (1, 70, 33),
    (1, 65, 131), (0, 4, 3), (4, 3, 0),
]  # fmt: skip
COEFFICIENTS = (3.4445, -4.775, 2.0315)
EPS = 1e-7


def matrix(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(outer, K, inner) as (K, outer * inner)."""
    return np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)


def formula(p: Any, g: Any, b: Any, own: MuonNumbers, steps: int, dtype: Any) -> tuple[Any, Any]:
    """Parameter and momentum after a step, at ``dtype``, and the parameter's step."""
    p, g, b = (matrix(array).astype(dtype) for array in (p, g, b))
    b = dtype(own.momentum) * b + dtype(own.one_minus_momentum) * g
    d = dtype(own.momentum) * b + dtype(own.one_minus_momentum) * g if own.nesterov else b
    x = d.T if d.shape[0] > d.shape[1] else d
    x = x / max(np.sqrt(np.einsum("ij,ij->", x, x)), dtype(own.eps))
    for _ in range(steps):
        gram = np.einsum("ik,jk->ij", x, x)
        polynomial = dtype(own.b) * gram + dtype(own.c) * np.einsum("ik,kj->ij", gram, gram)
        x = dtype(own.a) * x + np.einsum("ik,kj->ij", polynomial, x)
    x = x.T if d.shape[0] > d.shape[1] else x
    if own.renormalize:
        p = p * dtype(math.sqrt(len(p))) / max(np.sqrt(np.einsum("ij,ij->", p, p)), dtype(own.eps))
    return dtype(own.kept) * p - dtype(own.step_size) * x, b


def check_step(
    parameter: Any, momentum: Any, p: Any, g: Any, b: Any, own: MuonNumbers, steps: int, what: str = ""
) -> None:
    """Both, as they came out, against the formula on what went in."""
    exact, plain = (formula(p, g, b, own, steps, dtype) for dtype in (np.float64, np.float32))
    moved = own.step_size * math.sqrt(min(plain[0].shape))  # the norm of an orthogonal step: what was added
    assert_close(matrix(parameter), exact[0], np.abs(exact[0]) + 4 * moved, plain[0], what="parameter" + what)
    scale = np.abs(matrix(b)) + np.abs(matrix(g))
    assert_close(matrix(momentum), exact[1], scale, plain[1], what="momentum" + what)


def numbers(place: int) -> MuonNumbers:
    """Other numbers for each matrix."""
    a, b, c = COEFFICIENTS if place % 3 else (1.5, -0.5, 0.0)
    return MuonNumbers(0.1 + 0.01 * place, 1.0 - 0.02 * (place % 4), 0.6, 0.4, EPS, place % 2, (place + 1) % 2, a, b, c)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_matrices_of_all_shapes_in_the_same_launches(backend: Any, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "MAX_BLOCKS", 3)
    start, gradients, buffers = (
        [normal(seed + i, shape, np.float32) for i, shape in enumerate(SHAPES)] for seed in (0, 50, 100)
    )
    parameters = [unaligned(backend, a) if i % 2 else backend.from_host(a) for i, a in enumerate(start)]
    momenta, on_device = [backend.from_host(b) for b in buffers], [backend.from_host(g) for g in gradients]
    own = [numbers(place) for place in range(len(SHAPES))]
    averages = [backend.from_host(normal(200 + i, s, np.float32)) if i % 3 else None for i, s in enumerate(SHAPES)]
    before = [None if a is None else host(backend, a) for a in averages]
    along = Along(averages=averages, average=average_row(backend, 0.75), zero_gradients=True)
    with launches(backend) as names, exact_ends(backend):
        backend.muon_step(parameters, on_device, momenta, steps, rows(backend, own), along)
    iteration = ["muon_gram", "muon_polynomial", "muon_advance"]
    assert names == ["muon_prepare", *([*(iteration * steps)[:-1], "muon_finish"] if steps else ["muon_apply"])]
    for i, (p, g, b) in enumerate(zip(start, gradients, buffers, strict=True)):
        result = host(backend, parameters[i])
        assert not host(backend, on_device[i]).any()
        if not p.size:
            continue
        check_step(result, host(backend, momenta[i]), p, g, b, own[i], steps, f" {i} of {p.shape}")
        if before[i] is not None:
            check(host(backend, averages[i]), reference.moving_average_step, before[i], result, 0.75)


def test_a_matrix_has_the_same_bits_alone_and_among_others(backend: Any) -> None:
    shapes = [shape for shape in SHAPES if 0 not in shape]

    def step(places: list[int]) -> list[Any]:
        arrays = [[backend.from_host(normal(seed + p, shapes[p], np.float32)) for p in places] for seed in (0, 50, 100)]
        backend.muon_step(*arrays, 2, rows(backend, [numbers(p) for p in places]))
        return [host(backend, array) for array in arrays[0]]

    together = step(list(range(len(shapes))))
    for place in (0, 4, 5, len(shapes) - 1):
        np.testing.assert_array_equal(step([place])[0], together[place])


def test_a_gradient_is_unscaled_and_an_overflow_changes_nothing_but_the_average(backend: Any) -> None:
    shape, own = (1, 6, 11), numbers(1)
    p, g, b = (normal(seed, shape, np.float32) for seed in (1, 2, 3))
    for found in (0.0, 1.0):
        arrays = [backend.from_host(array) for array in (p, 1024 * g if not found else g * np.inf, b)]
        average, skipped = backend.from_host(p + 1), backend.from_host(np.array([3], np.int32))
        along = Along(
            averages=[average],
            average=average_row(backend, 0.5),
            inverse_scale=backend.from_host(np.array([1 / 1024], np.float32)),
            found_inf=backend.from_host(np.array([found], np.float32)),
            skipped=[skipped],
        )
        with np.errstate(invalid="ignore"):
            backend.muon_step(*([array] for array in arrays), 2, rows(backend, [own]), along)
        after = host(backend, arrays[0])
        assert host(backend, skipped).tolist() == [3 + found]
        check(host(backend, average), reference.moving_average_step, p + 1, after, 0.5)
        if found:
            np.testing.assert_array_equal(after, p)
            np.testing.assert_array_equal(host(backend, arrays[2]), b)
        else:
            check_step(after, host(backend, arrays[2]), p, g, b, own, 2)


def test_nothing_to_update(backend: Any) -> None:
    with launches(backend) as names:
        backend.muon_step([], [], [], 3, [])
        none = [backend.empty((0, 3, 1))]
        backend.muon_step(none, none, none, 3, rows(backend, [numbers(0)]))
    assert names == []
