"""One operator in one direction by everybody, ready to be timed in turn."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

import gpucnn
from gpucnn import backends
from gpucnn.bench.cases import Case
from gpucnn.bench.contestants import Contestant
from gpucnn.bench.sections import OURS, Operator, OperatorResult


class Call:
    """An operator of one contestant. ``run(prepare())`` computes it once; in backward directions ``prepare`` has run
    the forward direction. What is computed lives until the next ``prepare``, so that freeing it is not in the time."""

    def __init__(self, who: Contestant, case: Case, direction: str, arrays: list[Any]) -> None:
        self.who = who
        self._functional: Any = gpucnn.functional if who.framework == OURS else _torch().nn.functional
        self._case = case
        wants = case.wants(direction)
        self._tensors = [self._tensor(array, wanted) for array, wanted in zip(arrays, wants, strict=True)]
        self._kept: Any = None
        self._gradient: Any = None
        if direction not in ("fprop", "forward"):
            shape = tuple(self._forward().shape)
            upstream = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
            self._gradient = self._tensor(np.asarray(upstream, np.float32).reshape(shape), False)

    def prepare(self) -> Any:
        """What ``run`` takes."""
        self._kept = None
        if self._gradient is None:
            return None
        for tensor in self._tensors:
            tensor.grad = None
        y = self._forward()
        self._synchronize()
        return y

    def run(self, y: Any) -> None:
        """The operator once, from an idle device to an idle device."""
        if y is None:
            self._kept = self._forward()
        else:
            y.backward(self._gradient)
        self._synchronize()

    def warm(self, seconds: float) -> None:
        """Untimed calls for so long, at least one: inputs come into the caches as far as they go there."""
        start = time.perf_counter()
        while True:
            self.run(self.prepare())
            if time.perf_counter() - start >= seconds:
                return

    def timed(self, warm: float) -> float:
        """Seconds of one call after those of :meth:`warm`."""
        self.warm(warm)
        y = self.prepare()
        start = time.perf_counter()
        self.run(y)
        return time.perf_counter() - start

    def _forward(self) -> Any:
        return self._case.call(self._functional, self._tensors)

    def _tensor(self, array: Any, wants_gradient: bool) -> Any:
        if self.who.framework == OURS:
            return gpucnn.tensor(array, device=self.who.device, requires_grad=wants_gradient)
        torch = _torch()
        made = torch.from_numpy(array.copy()).to(self.who.device)
        if made.ndim == 4 and self.who.layout == "channels_last":
            made = made.to(memory_format=torch.channels_last)
        return made.requires_grad_(wants_gradient)

    def _synchronize(self) -> None:
        if self.who.device == "cpu":
            return
        if self.who.framework == OURS:
            backends.get(gpucnn.device(self.who.device)).synchronize()
        else:
            _torch().cuda.synchronize(self.who.device)


@dataclass(frozen=True)
class Rounds:
    """How often everybody is timed: for ``seconds``, but ``least`` times and ``most`` times; after ``warm`` seconds."""

    least: int
    most: int
    seconds: float
    warm: float

    def of(self, calls: list[Call]) -> int:
        """For these calls; everybody runs twice for it, as the first time takes longer."""
        for call in calls:
            call.run(call.prepare())
        start = time.perf_counter()
        for call in calls:
            call.timed(self.warm)
        return max(self.least, min(self.most, round(self.seconds / (time.perf_counter() - start))))


def entry(case: Case, direction: str, seconds: dict[Call, list[float]]) -> Operator:
    """What the record keeps."""
    results = tuple(
        OperatorResult(call.who.framework, call.who.layout, tuple(round(each, 9) for each in mine))
        for call, mine in seconds.items()
    )
    device = next(iter(seconds)).who.device
    return Operator(case.operator, case.network, case.layer, direction, device, case.shape, results)


def line(one: Operator) -> str:
    """An operator for people: milliseconds of everybody, and the ratio."""
    times = ", ".join(
        f"{r.framework} {r.layout} {statistics.median(r.seconds) * 1e3:.3f} ms" for r in one.results
    )  # fmt: skip
    return f"{one.name} on {one.device}: {times}" + ("" if one.ratio is None else f", ratio {one.ratio:.2f}")


def _torch() -> Any:
    import torch

    return torch
