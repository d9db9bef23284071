"""The sections of a benchmark's record: what was measured, everybody's figures, and the ratios between them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

OURS, PEER = "gpucnn", "PyTorch"

R = TypeVar("R")


def percentile(values: Sequence[float], percent: float) -> float:
    """The percentile of a non-empty sample, by linear interpolation between order statistics."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def _checked(name: str, sample: Sequence[float]) -> None:
    if not sample:
        raise ValueError(f"{name} is empty")
    for at, value in enumerate(sample):
        if not value > 0 or not math.isfinite(value):
            raise ValueError(f"{name}[{at}] is {value}, expected a positive number")


class _Times:
    """What results of ``seconds`` have in common."""

    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        _checked("seconds", self.seconds)

    @property
    def median(self) -> float:
        """The median of the repeats, in seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The 20th and 80th percentile over the repeats."""
        return percentile(self.seconds, 20), percentile(self.seconds, 80)


# ---- whole training steps ----


@dataclass(frozen=True)
class StepsResult:
    """One framework on one device: training speed of each repeat, in examples/sec.

    Args:
        framework: "gpucnn" or "PyTorch".
        version: of the framework.
        device: "cpu", "cuda:0", ...
        device_name: the processor's or GPU's name, with the cores used where it is a CPU.
        layout: memory layout of activations: "channels_last" or "contiguous".
        examples_per_second: one figure a repeat, in the order of measurement.
        peak_memory_bytes: peak resident size of a process that trains only this, or None where not measured.
    """

    framework: str
    version: str
    device: str
    device_name: str
    layout: str
    examples_per_second: tuple[float, ...]
    peak_memory_bytes: int | None = None

    def __post_init__(self) -> None:
        _checked("examples_per_second", self.examples_per_second)

    @property
    def median(self) -> float:
        """The median of the repeats, in examples/sec."""
        return statistics.median(self.examples_per_second)

    @property
    def spread(self) -> tuple[float, float]:
        """The 20th and 80th percentile over the repeats."""
        return percentile(self.examples_per_second, 20), percentile(self.examples_per_second, 80)


@dataclass(frozen=True)
class Steps:
    """Training steps of a network: everybody who was measured in turn.

    Args:
        network: "lecture", "lenet5" or "resnet9".
        batch_size: examples a step.
        threads: of the CPU, given to all frameworks alike.
        steps: of a repeat.
        input: the data set whose pipeline is inside the timer, or "synthetic" where batches were ready before.
    """

    network: str
    batch_size: int
    threads: int
    steps: int
    input: str
    results: tuple[StepsResult, ...]

    def best(self) -> list[StepsResult]:
        """Each framework on each device once, in the faster of its layouts, in the order of measurement."""
        return _best(self.results, lambda result: -result.median)

    def speed(self, framework: str = OURS, device: str = "cpu") -> float | None:
        """The median examples/sec of a framework in its faster layout, None where it was not measured."""
        return _median_of(self.results, framework, device, lambda result: -result.median)

    def ratio(self, device: str = "cpu") -> float | None:
        """Our examples/sec by PyTorch's in its faster layout, None where one of them is missing."""
        return _quotient(self.speed(OURS, device), self.speed(PEER, device))


# ---- inference ----


@dataclass(frozen=True)
class LatencyResult(_Times):
    """One framework on one device: seconds of each forward pass, in the order of measurement."""

    framework: str
    version: str
    device: str
    layout: str
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Latency:
    """Forward passes of a network in evaluation mode without gradients, input ready on the device."""

    network: str
    batch_size: int
    results: tuple[LatencyResult, ...]

    def best(self) -> list[LatencyResult]:
        """Each framework on each device once, in the faster of its layouts."""
        return _best(self.results, lambda result: result.median)

    def seconds(self, framework: str = OURS, device: str = "cpu") -> float | None:
        """The median of a framework in its faster layout, None where it was not measured."""
        return _median_of(self.results, framework, device, lambda result: result.median)

    def ratio(self, device: str = "cpu") -> float | None:
        """Our seconds by PyTorch's in its faster layout (1.5: we take half as long again); None: one is missing."""
        return _quotient(self.seconds(OURS, device), self.seconds(PEER, device))


# ---- single operators ----


@dataclass(frozen=True)
class OperatorResult(_Times):
    """One framework: seconds of each round."""

    framework: str
    layout: str
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Operator:
    """One operator in one direction, everybody in turn, round by round.

    Args:
        operator: "conv", "max_pool", "relu", "lrn", "batch_norm", "linear" or "cross_entropy".
        network, layer: where its sizes are from.
        direction: "forward" or "backward"; of convolutions "fprop", "dgrad" or "wgrad".
        device: "cpu", "cuda:0", ...
        shape: its sizes, for example "128x64x12x12 64x5x5".
    """

    operator: str
    network: str
    layer: str
    direction: str
    device: str
    shape: str
    results: tuple[OperatorResult, ...]

    @property
    def name(self) -> str:
        """As tables have it: "conv lecture conv2 128x64x12x12 64x5x5 fprop"."""
        return f"{self.operator} {self.network} {self.layer} {self.shape} {self.direction}"

    def result(self, framework: str = OURS) -> OperatorResult | None:
        """A framework in its faster layout, None where it was not measured."""
        return min(
            (one for one in self.results if one.framework == framework), key=lambda one: one.median, default=None
        )

    @property
    def ratio(self) -> float | None:
        """PyTorch's median time in its faster layout by ours (1: level, 0.5: we take twice as long), None where one
        of them is missing."""
        ours, theirs = self.result(OURS), self.result(PEER)
        return None if ours is None or theirs is None else theirs.median / ours.median


def geometric_mean(operators: Iterable[Operator]) -> float | None:
    """The geometric mean of the ratios of those that have one; None where none has."""
    ratios = [operator.ratio for operator in operators]
    known = [ratio for ratio in ratios if ratio is not None]
    return statistics.geometric_mean(known) if known else None


# ---- memory and footprint ----


@dataclass(frozen=True)
class MemoryResult:
    """One framework: peak resident size of a process that takes a few training steps and does nothing else."""

    framework: str
    layout: str
    device: str
    peak_memory_bytes: int

    def __post_init__(self) -> None:
        _checked("peak_memory_bytes", (self.peak_memory_bytes,))


@dataclass(frozen=True)
class Memory:
    """Peak memory of training a network at a batch size."""

    network: str
    batch_size: int
    results: tuple[MemoryResult, ...]

    def least(self, framework: str = OURS, device: str = "cpu") -> int | None:
        """Bytes of a framework in the layout that takes less, None where it was not measured."""
        found = (one for one in self.results if (one.framework, one.device) == (framework, device))
        return min((one.peak_memory_bytes for one in found), default=None)

    def ratio(self, device: str = "cpu") -> float | None:
        """Our bytes by PyTorch's, None where one of them is missing."""
        return _quotient(self.least(OURS, device), self.least(PEER, device))


@dataclass(frozen=True)
class Footprint:
    """What a framework costs before it computes anything.

    Args:
        import_seconds: of its import in a fresh interpreter, one figure a repeat.
        installed_bytes: files of the distribution and of all that it needs, CUDA extras left out; None where the
            distribution is not known.
    """

    framework: str
    version: str
    import_seconds: tuple[float, ...]
    installed_bytes: int | None

    def __post_init__(self) -> None:
        _checked("import_seconds", self.import_seconds)

    @property
    def median(self) -> float:
        """The median import time in seconds."""
        return statistics.median(self.import_seconds)


def _best(results: Sequence[R], key: Callable[[Any], float]) -> list[R]:
    best: dict[tuple[str, str], Any] = {}
    for result in results:
        one: Any = result
        place = (one.framework, one.device)
        if place not in best or key(one) < key(best[place]):
            best[place] = one
    return list(best.values())


def _median_of(results: Sequence[Any], framework: str, device: str, key: Callable[[Any], float]) -> float | None:
    for result in _best(results, key):
        if (result.framework, result.device) == (framework, device):
            return float(result.median)
    return None


def _quotient(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a / b
