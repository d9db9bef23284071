"""Single operators over the lecture network's shapes at batch 128, forward and backward, PyTorch beside each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.conftest import Place

BATCH = 128
ROUNDS = {"rounds": 10, "warmup_rounds": 2, "iterations": 1}

CONV2D = {  # (C, H, W), (K, R, S), padding
    "conv1": ((3, 24, 24), (64, 5, 5), 2),
    "conv2": ((64, 12, 12), (64, 5, 5), 2),
}
MAP = {"first": (64, 24, 24), "second": (64, 12, 12)}


def random(*shape: int) -> np.ndarray:
    """Normal variates: never zeros, which some hardware computes faster."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def measure(benchmark: Any, place: Place, direction: str, operator: Callable[[], Any], inputs: list[Any]) -> None:
    """Time the operator, or its backward pass alone with a gradient that is random too."""
    if direction == "forward":
        benchmark.pedantic(place.timed(operator), **ROUNDS)
        return
    shape = tuple(operator().shape)
    gradient = place.tensor(random(*shape), requires_grad=False)

    def record() -> tuple[tuple[Any], dict[str, Any]]:
        for tensor in inputs:
            tensor.grad = None
        y = operator()
        place.synchronize()
        return (y,), {}

    def backward(y: Any) -> None:
        y.backward(gradient)
        place.synchronize()

    benchmark.pedantic(backward, setup=record, rounds=ROUNDS["rounds"], warmup_rounds=ROUNDS["warmup_rounds"])


directions = pytest.mark.parametrize("direction", ["forward", "backward"])


@directions
@pytest.mark.parametrize("layer", CONV2D)
def test_conv2d(benchmark: Any, place: Place, layer: str, direction: str) -> None:
    (c, h, w), (k, r, s), padding = CONV2D[layer]
    inputs = [place.tensor(random(BATCH, c, h, w)), place.tensor(random(k, c, r, s)), place.tensor(random(k))]
    benchmark.extra_info["gflop"] = 2 * BATCH * h * w * k * c * r * s / 1e9
    measure(benchmark, place, direction, lambda: place.functional.conv2d(*inputs, padding=padding), inputs)


@directions
@pytest.mark.parametrize("layer", MAP)
def test_max_pool2d(benchmark: Any, place: Place, layer: str, direction: str) -> None:
    inputs = [place.tensor(random(BATCH, *MAP[layer]))]
    operator = lambda: place.functional.max_pool2d(inputs[0], 3, 2, ceil_mode=True)  # noqa: E731
    measure(benchmark, place, direction, operator, inputs)


@directions
@pytest.mark.parametrize("layer", MAP)
def test_relu(benchmark: Any, place: Place, layer: str, direction: str) -> None:
    inputs = [place.tensor(random(BATCH, *MAP[layer]))]
    measure(benchmark, place, direction, lambda: place.functional.relu(inputs[0]), inputs)


@directions
def test_local_response_norm(benchmark: Any, place: Place, direction: str) -> None:
    inputs = [place.tensor(random(BATCH, *MAP["second"]))]
    operator = lambda: place.functional.local_response_norm(inputs[0], 9, alpha=1e-3)  # noqa: E731
    measure(benchmark, place, direction, operator, inputs)
