"""Records as tables: Markdown for the documents, aligned text for the terminal.

A section takes the records that a document names (a machine each, or several of one) and gives what stands there. All
speeds are medians; where PyTorch was measured in two layouts, its faster one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gpucnn.bench.record import LECTURE_I7, LECTURE_ROWS, Record
from gpucnn.bench.sections import OURS, PEER, Operator, Steps, StepsResult, geometric_mean

LOW = 0.4  # a ratio to PyTorch below which an operator is named
NETWORKS = {"lecture": "lecture network", "lenet5": "LeNet-5", "resnet9": "ResNet-9", "vgg16": "VGG-16"}
MIB = 2**20


@dataclass(frozen=True)
class Table:
    """Rows of cells below headings, the first ``left`` of which are text and the others figures."""

    headings: tuple[str, ...]
    left: int
    rows: Sequence[tuple[str, ...]]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """As a Markdown table, its notes below it a line each; rows in bold keep their marks."""
        lines = [self.headings, ("---",) * self.left + ("---:",) * (len(self.headings) - self.left), *self.rows]
        text = ["| " + " | ".join(row) + " |" for row in lines]
        notes = [note[0].upper() + note[1:] + "." for note in self.notes]
        return "\n".join([*text, *([""] if notes else []), *(f"{note}\\" for note in notes[:-1]), *notes[-1:]])

    def text(self) -> str:
        """As plain text, columns aligned."""
        table = [self.headings, *self.rows]
        widths = [max(len(row[column]) for row in table) for column in range(len(self.headings))]
        lines = [
            "  ".join(
                cell.ljust(width) if column < self.left else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in table
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([*lines, *([""] if self.notes else []), *self.notes])


# ---- whole steps ----


def training(record: Record, network: str) -> Steps | None:
    """The training steps that a record is quoted for: batch 128 with the input pipeline, else the first it has."""
    return record.training(network) or next((one for one in record.steps if one.network == network), None)


def lecture(records: Sequence[Record]) -> Table:
    """The lecture's four rows, then each machine's: training its network at batch 128, input pipeline included.

    The last two columns are ratios: to gpucnn on the CPU of the same record, and to PyTorch on the same device.
    """
    rows: list[tuple[str, ...]] = [
        (name, "TensorFlow, 2017", f"{speed:,.0f}", "", _times(speed, LECTURE_I7), "", "")
        for name, speed in LECTURE_ROWS
    ]
    notes: list[str] = []
    for record in records:
        steps = training(record, "lecture")
        if steps is None:
            continue
        for result in steps.best():
            peer = steps.speed(PEER, result.device) if result.framework != PEER else None
            rows.append((
                result.device_name, _framework(result), f"{result.median:,.0f}", _between(*result.spread),
                _times(result.median, LECTURE_I7), _times(result.median, steps.speed()), _times(result.median, peer),
            ))  # fmt: skip
        notes += [_figures(steps), *machine_notes(record)]
    headings = ("device", "framework", "examples/sec", "20% to 80%", "x i7-7500U", "x gpucnn on cpu", "x PyTorch")
    return Table(headings, 2, rows, notes)


def steps(records: Sequence[Record]) -> Table:
    """Training steps of every network at batch 128, input pipeline included, beside PyTorch."""
    rows = []
    for record in records:
        for network in NETWORKS:
            found = training(record, network)
            if found is None:
                continue
            for mine in found.best():
                if mine.framework == OURS:
                    theirs = next((r for r in found.best() if (r.framework, r.device) == (PEER, mine.device)), None)
                    rows.append((
                        NETWORKS[network], mine.device_name, str(found.batch_size), _speed(mine), _speed(theirs),
                        _times(mine.median, theirs.median if theirs else None),
                        _mib(mine.peak_memory_bytes), _mib(theirs.peak_memory_bytes if theirs else None),
                    ))  # fmt: skip
    headings = (
        "training", "device", "batch", "gpucnn, examples/sec", "PyTorch, examples/sec", "gpucnn / PyTorch",
        "gpucnn, peak MiB", "PyTorch, peak MiB",
    )  # fmt: skip
    return Table(headings, 2, rows, ["medians, in brackets the 20th and 80th percentile of the repeats"])


def _speed(result: StepsResult | None) -> str:
    if result is None:
        return "not measured"
    layout = f", {result.layout}" if result.framework == PEER else ""
    return f"{result.median:,.0f} ({_between(*result.spread)}{layout})"


def cores(records: Sequence[Record]) -> Table:
    """Training steps at batch 128 on ready batches, by threads."""
    rows = []
    for record in records:
        for network in NETWORKS:
            by_threads = {
                one.threads: one for one in record.steps
                if (one.network, one.batch_size, one.input) == (network, 128, "synthetic")
            }  # fmt: skip
            most = max(by_threads, default=0)
            if most < 2 or 1 not in by_threads:
                continue
            for framework in (OURS, PEER):
                one, all_ = by_threads[1].speed(framework), by_threads[most].speed(framework)
                if one and all_:
                    row = (NETWORKS[network], framework, f"{one:,.0f}", str(most), f"{all_:,.0f}", f"{all_ / one:.2f}")
                    rows.append(row)
    headings = ("training", "framework", "1 thread, examples/sec", "threads", "examples/sec", "speed-up")
    return Table(headings, 2, rows)


def batches(records: Sequence[Record]) -> Table:
    """Training steps on ready batches against batch size, on all threads: examples/sec, and the peak memory."""
    rows = []
    for record in records:
        for network in NETWORKS:
            most = max((s.threads for s in record.steps if s.network == network and s.input == "synthetic"), default=0)
            memory = {one.batch_size: one for one in record.memory if one.network == network}
            for one in record.scaling(network, most):
                used = memory.get(one.batch_size)
                ratio = one.ratio()
                rows.append((
                    NETWORKS[network], str(one.batch_size), _count(one.speed(OURS)), _count(one.speed(PEER)),
                    "" if ratio is None else f"{ratio:.2f}", _mib(used.least(OURS) if used else None),
                    _mib(used.least(PEER) if used else None),
                ))  # fmt: skip
    headings = (
        "training", "batch", "gpucnn, examples/sec", "PyTorch, examples/sec", "gpucnn / PyTorch", "gpucnn, peak MiB",
        "PyTorch, peak MiB",
    )  # fmt: skip
    return Table(headings, 1, rows)


def latency(records: Sequence[Record]) -> Table:
    """Seconds of a forward pass."""
    rows = []
    for record in records:
        for one in record.latency:
            for mine in one.best():
                if mine.framework == OURS:
                    theirs = one.seconds(PEER, mine.device)
                    rows.append((
                        NETWORKS.get(one.network, one.network), mine.device, str(one.batch_size),
                        f"{mine.median * 1e3:.2f}", "" if theirs is None else f"{theirs * 1e3:.2f}",
                        _times(mine.median, theirs),
                    ))  # fmt: skip
    return Table(("inference", "device", "batch", "gpucnn, ms", "PyTorch, ms", "gpucnn / PyTorch"), 2, rows)


# ---- single operators ----


def operators(records: Sequence[Record]) -> Table:
    """Geometric means of the operators' ratios by kind and direction, and of all of them."""
    rows = []
    for record in records:
        for device in dict.fromkeys(one.device for one in record.operators):
            measured = record.operators_of(device)
            groups = grouped(measured)
            for name, group in {**groups, "all of them": measured}.items():
                known = sorted((one for one in group if one.ratio is not None), key=lambda one: one.ratio or 0.0)
                mean = geometric_mean(known)
                if mean is None:
                    continue
                rows.append((
                    name, device, str(len(known)), f"{mean:.2f}", f"{known[0].ratio:.2f}", f"{known[-1].ratio:.2f}",
                    str(sum((one.ratio or 0.0) < LOW for one in known)),
                ))  # fmt: skip
    headings = (
        "operator", "device", "shapes", "PyTorch's time / ours, geometric mean", "least", "greatest", f"under {LOW}"
    )  # fmt: skip
    return Table(headings, 2, rows)


def grouped(measured: Iterable[Operator]) -> dict[str, list[Operator]]:
    """Operators by kind and direction, in the order of measurement."""
    groups: dict[str, list[Operator]] = {}
    for one in measured:
        groups.setdefault(f"{one.operator} {one.direction}", []).append(one)
    return groups


def every_operator(records: Sequence[Record]) -> Table:
    """Every operator at every shape: milliseconds of both, and their ratio."""
    rows = []
    for record in records:
        for one in record.operators:
            mine, theirs = one.result(OURS), one.result(PEER)
            rows.append((
                one.operator, one.direction, f"{one.network} {one.layer}".strip(), one.shape, one.device,
                *("" if r is None else f"{r.median * 1e3:.3f}" for r in (mine, theirs)),
                "" if theirs is None else theirs.layout, "" if one.ratio is None else f"{one.ratio:.2f}",
            ))  # fmt: skip
    headings = (
        "operator", "direction", "layer", "shape", "device", "gpucnn, ms", "PyTorch, ms", "its layout",
        "PyTorch's time / ours",
    )  # fmt: skip
    return Table(headings, 5, rows)


# ---- what it costs before it computes ----


def footprint(records: Sequence[Record]) -> Table:
    """Import time and installed size."""
    rows = [
        (one.framework, one.version, f"{one.median:.3f}", _mib(one.installed_bytes))
        for record in records
        for one in record.footprint
    ]
    return Table(("framework", "version", "import, seconds", "installed, MiB"), 2, rows)


def machine(records: Sequence[Record]) -> Table:
    """On what the records were made."""
    rows = []
    for record in records:
        about = record.machine
        gpus = "; ".join(machine_gpus(record)) or "none"
        rows.append((
            str(about.get("cpu")), str(about.get("cores", "")), gpus, record.date, str(about.get("commit"))[:12],
            _versions(record),
        ))  # fmt: skip
    return Table(("processor", "cores", "GPUs", "date", "commit", "versions"), 6, rows)


# ---- cells and notes ----


def _figures(found: Steps) -> str:
    pipeline = {
        "synthetic": "input pipeline left out (--synthetic)",
        "shapes": "input pipeline included, over generated images (the data set was not found)",
    }.get(found.input, f"input pipeline included ({found.input})")
    repeats = max(len(result.examples_per_second) for result in found.results)
    name = NETWORKS.get(found.network, found.network)
    return (
        f"training the {name}, batch {found.batch_size}, float32, {_threads(found.threads)} of the CPU: median of"
        f" {repeats} repeats of {found.steps} steps; {pipeline}"
    )


def machine_notes(record: Record) -> list[str]:
    """Date, commit, versions, BLAS and GPUs of a record."""
    blas = record.machine.get("blas") or []
    threads = f"{blas[0]['name']} with {_threads(blas[0]['threads'])}" if blas else "unknown BLAS"
    if record.machine.get("threads"):
        threads += f"; gpucnn with {_threads(record.machine['threads'])} of one BLAS thread each"
    commit = str(record.machine.get("commit", "unknown"))[:12]
    return [f"{record.date}, commit {commit}; {_versions(record)}; {threads}", *machine_gpus(record)]


def machine_gpus(record: Record) -> list[str]:
    """A record's GPUs, each with its driver and power limit."""
    lines = []
    for gpu in record.machine.get("gpus") or []:
        limit = f", power limit {gpu['power_limit_watts']:.0f} W" if gpu.get("power_limit_watts") else ""
        lines.append(f"{gpu['name']}, driver {gpu['driver']}{limit}")
    return lines


def _versions(record: Record) -> str:
    versions = record.machine.get("versions", {})
    return ", ".join(f"{name} {versions[name]}" for name in sorted(versions))


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count != 1 else ''}"


def _framework(result: StepsResult) -> str:
    return f"{result.framework} {result.version}" + (f" ({result.layout})" if result.framework == PEER else "")


def _between(low: float, high: float) -> str:
    return f"{low:,.0f} to {high:,.0f}"


def _count(speed: float | None) -> str:
    return "" if speed is None else f"{speed:,.0f}"


def _mib(size: int | None) -> str:
    return "" if size is None else f"{size / MIB:,.0f}"


def _times(figure: float, other: float | None) -> str:
    """How many times the other, or nothing where there is no other."""
    if other is None:
        return ""
    return f"{figure / other:.2f}" if figure < 10 * other else f"{figure / other:.1f}"


SECTIONS: dict[str, Callable[[Sequence[Record]], Table]] = {
    "lecture": lecture,
    "steps": steps,
    "latency": latency,
    "operators": operators,
    "every-operator": every_operator,
    "batches": batches,
    "cores": cores,
    "footprint": footprint,
    "machine": machine,
}
"""By the names that documents use."""


def as_text(record: Record) -> str:
    """All that a record has, for the terminal; operators one by one are left out."""
    return "\n\n".join(table.text() for table in _shown(record))


def as_markdown(record: Record) -> str:
    """The same in Markdown."""
    return "\n\n".join(table.markdown() for table in _shown(record))


def _shown(record: Record) -> list[Table]:
    names = [name for name in SECTIONS if name not in ("every-operator", "machine")]
    tables = [SECTIONS[name]([record]) for name in names if name != "lecture" or training(record, "lecture")]
    return [table for table in tables if table.rows]
