"""Inference latency: forward passes of one image, in evaluation mode, the input ready on the device."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gpucnn.bench.contestants import Contestant, synthetic_batches
from gpucnn.bench.sections import Latency, LatencyResult
from gpucnn.bench.timing import SETTLE_SECONDS
from gpucnn.bench.workload import Workload

PASSES = 20  # of a turn, after those of the first moments, in which others' threads still spin


def measure(workload: Workload, measured: Sequence[Contestant], turns: int, batch_size: int = 1) -> Latency:
    """Seconds of each pass of everybody; they take turns of PASSES passes each."""
    images, _ = synthetic_batches(workload, batch_size)[0]
    trainers = [contestant.trainer(workload) for contestant in measured]
    calls = [trainer.inference(images) for trainer in trainers]
    seconds: list[list[float]] = [[] for _ in measured]
    for _ in range(turns):
        for trainer, call, mine in zip(trainers, calls, seconds, strict=True):
            began, taken = time.perf_counter(), 0
            while taken < PASSES:
                trainer.synchronize()
                start = time.perf_counter()
                call()
                trainer.synchronize()
                if start - began > SETTLE_SECONDS:
                    mine.append(round(time.perf_counter() - start, 9))
                    taken += 1
    results = tuple(
        LatencyResult(who.framework, who.version, who.device, who.layout, tuple(mine))
        for who, mine in zip(measured, seconds, strict=True)
    )
    return Latency(workload.network, batch_size, results)
