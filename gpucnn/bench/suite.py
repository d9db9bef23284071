"""All measurements of ``gpucnn bench``, one after the other, into a record that grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gpucnn import settings
from gpucnn.bench import footprint, latency, memory, throughput
from gpucnn.bench.contestants import Contestant, contestants, set_threads
from gpucnn.bench.record import Record, empty
from gpucnn.bench.sections import Memory, Steps
from gpucnn.bench.throughput import Feeds
from gpucnn.bench.workload import NETWORKS, Workload

EXAMPLES = {"lecture": 2560, "lenet5": 12_800, "resnet9": 512}  # of a repeat: a second or two on two cores
SIZES = {  # batch sizes whose speed is compared; a step of ResNet-9 takes too many seconds beyond
    "lecture": (1, 8, 32, 128, 512, 1024),
    "lenet5": (1, 8, 32, 128, 512, 1024),
    "resnet9": (1, 8, 32, 128),
}
MEMORY_SIZES = {"lecture": (1, 32, 1024), "lenet5": (1, 32, 1024), "resnet9": (1, 32)}  # besides the one asked for
SCALING_SECONDS, SCALING_REPEATS = 0.3, 3
LATENCY_TURNS = 10
IMPORTS = 7  # of each framework


@dataclass(frozen=True)
class Options:
    """What to measure.

    Args:
        networks: any of "lecture", "lenet5" and "resnet9".
        batch_size: examples a step; the lecture's is 128.
        steps: training steps in a repeat; None takes two seconds' worth on two cores.
        repeats: how often each contestant is timed; they take turns.
        device: "cpu", "cuda", "cuda:1" or "emulated"; None measures the CPU and the GPU, where there is one.
        synthetic: leave the input pipeline out: train on a few random batches, ready before the timer starts.
        data_dir: a folder with the networks' data sets, as for training.
        peers: whether PyTorch is measured too, where it is installed.
        threads: of the CPU, for everybody; None for as many as there are processors.
        memory: whether each is also run in a process of its own, for its peak memory.
        latency: whether forward passes of one image are timed too.
        scaling: whether speed is measured over batch sizes and on one thread and all; with ``memory`` the peak over
            batch sizes too.
        footprint: whether imports are timed and installations measured.

    Raises:
        ValueError: a size that is not positive, an unknown network.
    """

    networks: tuple[str, ...] = ("lecture",)
    batch_size: int = 128
    steps: int | None = None
    repeats: int = 5
    device: str | None = None
    synthetic: bool = False
    data_dir: str | Path | None = None
    peers: bool = True
    threads: int | None = None
    memory: bool = False
    latency: bool = False
    scaling: bool = False
    footprint: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps", "repeats", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"bench: {name} must be at least 1, got {value}")
        for network in self.networks:
            if network not in NETWORKS:
                raise ValueError(f"bench: unknown network {network!r}; known are {', '.join(NETWORKS)} and all")


def measure(
    options: Options,
    say: Callable[[str], None] = lambda line: None,
    keep: Callable[[Record], None] = lambda record: None,
) -> Record:
    """Measure everybody. ``say`` is told what is going on, a line each; ``keep`` gets the record whenever it has grown.

    Raises ValueError or DataError where data was asked for that cannot be had, and RuntimeError for a device without
    use.
    """
    from gpucnn import device

    place = str(device(options.device)) if options.device else None
    measured = contestants(place, options.peers)
    threads = options.threads or settings.threads() or settings.available_cores()
    set_threads(threads, measured)
    try:
        return _Suite(options, measured, threads, say, keep).run()
    finally:
        set_threads(settings.threads() or settings.available_cores(), measured)


class _Suite:
    """All parts of one measurement."""

    def __init__(
        self, options: Options, measured: Sequence[Contestant], threads: int, say: Callable[[str], None],
        keep: Callable[[Record], None],
    ) -> None:  # fmt: skip
        self.options, self.measured, self.threads, self.say, self._keep = options, measured, threads, say, keep
        self.workloads = [Workload.of(network) for network in options.networks]
        self.record = self._empty = empty()

    def run(self) -> Record:
        options = self.options
        for workload in self.workloads:
            self._add(steps=(self._steps(workload),))
        if options.latency:
            for workload in self.workloads:
                self._latency(workload)
        if options.memory:
            for workload in self.workloads:
                self._memory(workload)
        if options.scaling:
            for workload in self.workloads:
                self._scaling(workload)
        if options.footprint:
            self._footprint()
        return self.record

    def _add(self, **sections: tuple[object, ...]) -> None:
        self.record = self.record.merged(replace(self._empty, **sections))  # type: ignore[arg-type]
        self._keep(self.record)

    def _steps(self, workload: Workload) -> Steps:
        options, size = self.options, self.options.batch_size
        if options.synthetic:
            feeds = Feeds.synthetic(workload, size, self.measured)
        else:
            feeds = Feeds.pipeline(workload, size, self.measured, options.data_dir, self.say)
        trainers = {contestant: contestant.trainer(workload) for contestant in self.measured}
        steps = options.steps or max(1, EXAMPLES[workload.network] // size)
        return self._said(throughput.in_turn(workload, trainers, feeds, size, steps, options.repeats, self.threads))

    def _scaling(self, workload: Workload) -> None:
        trainers = {contestant: contestant.trainer(workload) for contestant in self.measured}
        for size in SIZES[workload.network]:
            feeds = Feeds.synthetic(workload, size, self.measured)
            for threads in sorted({1, self.threads}):
                set_threads(threads, self.measured)
                found = throughput.in_turn(
                    workload, trainers, feeds, size, None, SCALING_REPEATS, threads, SCALING_SECONDS
                )
                self._add(steps=(self._said(found),))

    def _latency(self, workload: Workload) -> None:
        found = latency.measure(workload, self.measured, LATENCY_TURNS)
        for result in found.best():
            self.say(f"{workload.network}, inference of one image: {result.framework} {result.median * 1e3:,.2f} ms")
        self._add(latency=(found,))

    def _memory(self, workload: Workload) -> None:
        more = MEMORY_SIZES[workload.network] if self.options.scaling else ()
        for size in (self.options.batch_size, *more):
            found = memory.measure(workload, self.measured, size)
            for one in found.results:
                peak = one.peak_memory_bytes / 2**20
                self.say(f"{workload.network}, batch {size}: {one.framework} {one.layout} {peak:,.0f} MiB")
            self._add(memory=(found,), steps=self._with_peaks(found))

    def _with_peaks(self, found: Memory) -> tuple[Steps, ...]:
        """The training steps of the same network and batch size, with their peaks."""
        peaks = {(one.framework, one.device, one.layout): one.peak_memory_bytes for one in found.results}
        return tuple(
            replace(steps, results=tuple(
                replace(one, peak_memory_bytes=peaks[one.framework, one.device, one.layout]) for one in steps.results
            ))
            for steps in self.record.steps
            if (steps.network, steps.batch_size) == (found.network, found.batch_size)
        )  # fmt: skip

    def _footprint(self) -> None:
        found = footprint.measure(dict.fromkeys(who.framework for who in self.measured), IMPORTS)
        for one in found:
            size = "not installed" if one.installed_bytes is None else f"{one.installed_bytes / 2**20:,.0f} MiB"
            self.say(f"import {one.framework}: {one.median:.2f} s, {size}")
        self._add(footprint=found)

    def _said(self, steps: Steps) -> Steps:
        for result in steps.results:
            self.say(
                f"{steps.network}, batch {steps.batch_size}, threads {steps.threads}: {result.framework}"
                f" {result.layout} on {result.device} {result.median:,.0f} examples/sec"
            )
        return steps
