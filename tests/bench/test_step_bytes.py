"""Launches and bytes of recorded training steps beside those of ideally fused ones."""

from __future__ import annotations

from typing import Any

import pytest

import gpucnn
from gpucnn import models
from gpucnn.bench.ideal import ideal_bytes, passes
from gpucnn.bench.step import profile_step

MOST_OF_THE_IDEAL = 1.5
STEPS = [  # network, precision, batch size, launches at most
    ("lecture_cnn", "float32", 128, 30),
    ("lecture_cnn", "float16", 128, 30),
    ("lecture_cnn", "float32", 1024, 30),
    pytest.param("airbench94", "float32", 2000, 80, marks=pytest.mark.full),
    pytest.param("airbench94", "float16", 2000, 80, marks=pytest.mark.full),
]


@pytest.mark.parametrize(("network", "precision", "batch", "most"), STEPS)
def test_launches_and_bytes_of_a_step(network: str, precision: str, batch: int, most: int) -> None:
    profile = profile_step(network, batch, precision, gpucnn.device("emulated"))
    assert len(profile.calls) <= most, [call.kernel for call in profile.calls]
    counted, ideal = profile.size, ideal_bytes(network, batch, precision)
    assert ideal < counted <= MOST_OF_THE_IDEAL * ideal, f"{counted / 1e6:.1f} MB, {counted / ideal:.3f} of the ideal"


def test_the_gradient_between_lrn_and_pooling_is_not_written() -> None:
    """Each of the two launches reads the gradient that comes in, the map and the places, and writes what goes out."""
    profile = profile_step("lecture_cnn", 128, "float32", gpucnn.device("emulated"))
    sizes: dict[str, Any] = {call.kernel: call.size for call in profile.calls}
    map1, map2, conv1 = 64 * 144, 64 * 36, 64 * 576
    assert sizes["lrn_backward_pool_9_vec4"] == 128 * (4 * (map2 + 2 * map1) + map2)
    assert sizes["max_pool2d_backward_lrn_9_vec4"] == 128 * (4 * (2 * map1 + conv1) + map1)


@pytest.mark.parametrize("network", ["lecture_cnn", "airbench94"])
def test_the_ideal_reads_the_networks_parameters(network: str) -> None:
    """Each filter and weight once in fprop, once in dgrad where there is one; each gradient is written once."""
    listed = passes(network)
    model = models.create(network, device="cpu")
    forward = listed[: [one.name for one in listed].index("loss and its gradient")]
    if network == "lecture_cnn":
        sizes = sum(parameter.numel() for parameter in model.parameters())
        assert sum(one.weights for one in forward) == sizes
        assert sum(one.floats for one in listed if "wgrad" in one.name) == sizes
        first = sum(parameter.numel() for parameter in model.conv1.parameters())
        assert sum(one.weights for one in listed if "dgrad" in one.name) == sizes - first
    else:
        filters = sum(parameter.numel() for parameter in model.parameter_sets()["filters"])
        assert (
            sum(one.weights for one in forward) == sum(one.floats for one in listed if "wgrad" in one.name) == filters
        )


def test_the_ideal_counts_two_bytes_of_half_types_and_four_of_float32() -> None:
    single, half = (ideal_bytes("lecture_cnn", 1024, precision) for precision in ("float32", "bfloat16"))
    assert single == ideal_bytes("lecture_cnn", 1024, "tf32")
    growth = [ideal_bytes("lecture_cnn", 2, p) - ideal_bytes("lecture_cnn", 1, p) for p in ("float32", "bfloat16")]
    flags = sum(one.flags for one in passes("lecture_cnn"))
    assert growth[0] - flags == 2 * (growth[1] - flags)
    assert half < single
    with pytest.raises(ValueError, match="'lenet5'"):
        ideal_bytes("lenet5", 1)
