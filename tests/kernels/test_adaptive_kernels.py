"""Adam, RMSprop, Adagrad and clipping over many arrays in one launch: each one's first step has a closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpucnn.backends.cuda import chunks
from tests.kernels.arrays import exact_ends, host, launches, unaligned
from tests.numpy_backend.geometries import normal
from tests.support import updates

SHAPES = [(1,), (3,), (5, 7), (64, 5, 5, 3), (2, 2048), (2049,), (0, 4), (10,)]
DECAYS = [0.1 * (i % 3) for i in range(len(SHAPES))]
LR, EPS = 0.1, 1e-3


def normalized(p: Any, g: Any, decay: float, share: float = 1.0) -> Any:
    """The step of a gradient that is divided by the root of ``share`` times its own square."""
    g = g + decay * p
    return p - LR * g / (np.sqrt(share) * np.abs(g) + EPS)


Case = tuple[int, Callable[..., None], Callable[[Any, Any, float], Any]]
CASES: dict[str, Case] = {
    "adam_step": (
        2,
        lambda b, p, g, s, d: updates.adam_step(b, p, g, *s, None, LR, 0.9, 0.99, EPS, d, False, False, 1),
        normalized,
    ),
    "adam_amsgrad_step": (
        3, lambda b, p, g, s, d: updates.adam_step(b, p, g, *s, LR, 0.3, 0.99, EPS, d, False, True, 1),
        lambda p, g, decay: normalized(p, -g, decay),
    ),
    "adam_step, decoupled": (
        2, lambda b, p, g, s, d: updates.adam_step(b, p, g, *s, None, LR, 0.9, 0.99, EPS, d, True, False, 1),
        lambda p, g, decay: (1 - LR * decay) * p + normalized(0.0, g, 0.0),
    ),
    "rmsprop_step": (
        1, lambda b, p, g, s, d: updates.rmsprop_step(b, p, g, *s, None, None, LR, 0.75, EPS, 0.0, d, False),
        lambda p, g, decay: normalized(p, g, decay, 0.25),
    ),
    "rmsprop_momentum_step": (
        2, lambda b, p, g, s, d: updates.rmsprop_step(b, p, g, s[0], None, s[1], LR, 0.75, EPS, 0.9, d, True),
        lambda p, g, decay: normalized(p, -g, decay, 0.25),
    ),
    "rmsprop_centered_step": (
        2, lambda b, p, g, s, d: updates.rmsprop_step(b, p, g, *s, None, LR, 0.75, EPS, 0.0, d, False),
        lambda p, g, decay: normalized(p, g, decay, 0.25 - 0.25**2),
    ),
    "rmsprop_centered_momentum_step": (
        3, lambda b, p, g, s, d: updates.rmsprop_step(b, p, g, *s, LR, 0.25, EPS, 0.9, d, False),
        lambda p, g, decay: normalized(p, g, decay, 0.75 - 0.75**2),
    ),
    "adagrad_step": (
        1, lambda b, p, g, s, d: updates.adagrad_step(b, p, g, *s, LR, EPS, d, False), normalized,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_first_step_of_many_arrays(backend: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with fewer blocks than chunks, slices off 16 bytes, and nothing to read behind any array."""
    monkeypatch.setattr(chunks, "MAX_BLOCKS", 3)
    states, step, formula = CASES[name]
    start, gradients = ([normal(seed + i, shape, np.float32) for i, shape in enumerate(SHAPES)] for seed in (0, 50))
    parameters = [unaligned(backend, array) if i % 2 else backend.from_host(array) for i, array in enumerate(start)]
    zeros = [[backend.xp.zeros(shape, np.float32) for shape in SHAPES] for _ in range(states)]
    with launches(backend) as names, exact_ends(backend):
        step(backend, parameters, [backend.from_host(g) for g in gradients], zeros, DECAYS)
    assert names == [name.split("_")[0] + "_step"]
    for parameter, p, g, decay in zip(parameters, start, gradients, DECAYS, strict=True):
        expected = formula(p.astype(np.float64), g.astype(np.float64), decay)
        np.testing.assert_allclose(host(backend, parameter), expected, rtol=2e-6, atol=2e-6)


def test_nothing_to_update(backend: Any) -> None:
    none = [backend.empty((0, 3))]
    with launches(backend) as names:
        updates.adam_step(backend, none, none, none, none, None, LR, 0.9, 0.99, EPS, [0.0], False, False, 1)
        updates.rmsprop_step(backend, [], [], [], None, None, LR, 0.9, EPS, 0.0, [], False)
        updates.adagrad_step(backend, [], [], [], LR, EPS, [], False)
        backend.clip_all(none, backend.xp.ones(1, np.float32), 1.0, 0.0)
        backend.clamp_all([], 1.0)
    assert names == []


@pytest.mark.parametrize("order", [1.0, 2.0, 4.0, np.inf])
def test_norms_of_many_arrays(backend: Any, order: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "MAX_BLOCKS", 3)
    values = [normal(i, shape, np.float32) for i, shape in enumerate(SHAPES)]
    arrays = [unaligned(backend, array) if i % 2 else backend.from_host(array) for i, array in enumerate(values)]
    with launches(backend) as names, exact_ends(backend):
        norm = host(backend, backend.total_norm(arrays, order))
        backend.clip_all(arrays, backend.from_host(np.array([4.0], np.float32)), 2.0, 0.0)
        backend.clamp_all(arrays, 0.25)
    assert names == ["total_norm", "clip_all", "clamp_all"] and norm.shape == (1,)
    everything = np.concatenate([v.ravel() for v in values]).astype(np.float64)
    np.testing.assert_allclose(norm[0], np.linalg.norm(everything, order), rtol=1e-6)
    for array, value in zip(arrays, values, strict=True):
        np.testing.assert_array_equal(host(backend, array), np.clip(0.5 * value, -0.25, 0.25))


def test_more_partial_norms_than_threads(backend: Any) -> None:
    """300 arrays, so that the block that adds up goes round twice."""
    arrays = [np.full(2, 0.5 + 0.001 * i, np.float32) for i in range(300)]
    arrays[280][1] = 9.0
    on_device = [backend.from_host(a) for a in arrays]
    exact = np.linalg.norm(np.concatenate(arrays).astype(np.float64))
    np.testing.assert_allclose(host(backend, backend.total_norm(on_device, 2.0)), [exact], rtol=1e-6)
    assert host(backend, backend.total_norm(on_device, np.inf)).tolist() == [9.0]
