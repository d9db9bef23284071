"""Records as pictures: what of them is drawn; how, is :mod:`gpucnn.viz.benchmarks`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpucnn.bench.record import LECTURE_ROWS, Record
from gpucnn.bench.sections import OURS, PEER
from gpucnn.bench.tables import MIB, NETWORKS, grouped

Texts = Mapping[str, str] | None


@dataclass(frozen=True)
class Picture:
    """A picture of records: what its link says, and how it is drawn."""

    says: str
    draw: Callable[[Sequence[Record], Path, Texts], None]


def devices(records: Sequence[Record], path: Path, texts: Texts = None) -> None:
    """Training the lecture's network by device: its four rows and the records'. Raises as draw_devices does."""
    from gpucnn.viz.benchmarks import Bar, draw_devices

    bars = [Bar(f"{name} (TensorFlow, 2017)", "TensorFlow", speed) for name, speed in LECTURE_ROWS]
    for record in records:
        steps = record.training("lecture")
        for result in steps.best() if steps else ():
            label = f"{result.device_name} ({result.framework})"
            bars.append(Bar(label, result.framework, result.median, *result.spread))
    draw_devices(bars, path, "Training the lecture's network, batch 128", texts)


def scaling(records: Sequence[Record], path: Path, texts: Texts = None) -> None:
    """Speed and peak memory against batch size. Raises ValueError for records without either."""
    from gpucnn.viz.benchmarks import Curve, Panel, draw_scaling

    panels = []
    for record in records:
        for network, name in NETWORKS.items():
            ready = [one for one in record.steps if (one.network, one.input) == (network, "synthetic")]
            threads = sorted({one.threads for one in ready}, reverse=True)
            speeds = [
                Curve(who, count, _known((one.batch_size, one.speed(who)) for one in record.scaling(network, count)))
                for count in threads
                for who in (OURS, PEER)
            ]
            used = sorted((one for one in record.memory if one.network == network), key=lambda one: one.batch_size)
            memory = [
                Curve(who, threads[0] if threads else 1, _known((one.batch_size, _mib(one.least(who))) for one in used))
                for who in (OURS, PEER)
            ]
            if ready or used:
                panels.append(Panel(name, [c for c in speeds if c.points], [c for c in memory if c.points]))
    draw_scaling(panels, path, texts)


def _known(points: Iterable[tuple[int, float | None]]) -> list[tuple[int, float]]:
    return [(size, figure) for size, figure in points if figure is not None]


def _mib(size: int | None) -> float | None:
    return None if size is None else size / MIB


def operators(records: Sequence[Record], path: Path, texts: Texts = None) -> None:
    """Every operator's ratio to PyTorch on the cpu device. Raises ValueError for records without any."""
    from gpucnn.viz.benchmarks import draw_operators

    measured = [one for record in records for one in record.operators_of("cpu")]
    groups = {
        name: [(NETWORKS.get(one.network, one.network), one.ratio) for one in group if one.ratio is not None]
        for name, group in grouped(measured).items()
    }
    draw_operators({name: pairs for name, pairs in groups.items() if pairs}, path, "Single operators on the CPU", texts)


PICTURES = {
    "devices": Picture("Examples/sec by device, training the lecture's network", devices),
    "scaling": Picture("Examples/sec and peak memory against batch size", scaling),
    "operators": Picture("Speed of single operators against PyTorch", operators),
}
"""By the names that documents use."""
