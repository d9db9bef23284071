"""A record as a table: aligned text for the terminal, Markdown for the README."""

from __future__ import annotations

from gpucnn.bench.record import LECTURE_I7, LECTURE_ROWS, Record
from gpucnn.bench.sections import Steps, StepsResult

HEADINGS = ("device", "framework", "examples/sec", "20% to 80%", "x i7-7500U", "x gpucnn on cpu", "x PyTorch")


def rows(steps: Steps) -> list[tuple[str, ...]]:
    """The cells below HEADINGS: the lecture's four rows where it is its network, then this machine's, each framework in
    its faster layout.

    The last two columns are ratios of medians: to gpucnn on this machine's CPU, and to PyTorch on the same device.
    """
    best = steps.best()
    medians = {(result.framework, result.device): result.median for result in best}
    cells: list[tuple[str, ...]] = [
        (name, "TensorFlow, 2017", f"{speed:,.0f}", "", _ratio(speed, LECTURE_I7), "", "")
        for name, speed in LECTURE_ROWS
        if steps.network == "lecture"
    ]
    for result in best:
        low, high = result.spread
        peer = medians.get(("PyTorch", result.device)) if result.framework != "PyTorch" else None
        cells.append((
            result.device_name,
            _framework(result),
            f"{result.median:,.0f}",
            f"{low:,.0f} to {high:,.0f}",
            _ratio(result.median, LECTURE_I7 if steps.network == "lecture" else None),
            _ratio(result.median, medians.get(("gpucnn", "cpu"))),
            _ratio(result.median, peer),
        ))  # fmt: skip
    return cells


def memory_lines(steps: Steps) -> list[str]:
    """Peak memory of each, a line each; nothing where it was not measured."""
    return [
        f"peak memory, {_framework(result)} on {result.device}: {result.peak_memory_bytes / 2**20:,.0f} MiB"
        for result in steps.best()
        if result.peak_memory_bytes is not None
    ]


def notes(record: Record, steps: Steps) -> list[str]:
    """What the figures are figures of."""
    pipeline = {
        "synthetic": "input pipeline left out (--synthetic)",
        "shapes": "input pipeline included, over generated images (CIFAR-10 was not found)",
    }.get(steps.input, f"input pipeline included ({steps.input})")
    versions = record.machine.get("versions", {})
    named = ", ".join(f"{name} {versions[name]}" for name in sorted(versions))
    blas = record.machine.get("blas") or []
    threads = f"{blas[0]['name']} with {_threads(blas[0]['threads'])}" if blas else "unknown BLAS"
    if record.machine.get("threads"):
        threads += f"; gpucnn with {_threads(record.machine['threads'])} of one BLAS thread each"
    lines = [
        f"training the {steps.network} network, batch {steps.batch_size}, {_threads(steps.threads)}, float32: median of"
        f" {len(steps.results[0].examples_per_second)} repeats of {steps.steps} steps; {pipeline}",
        f"{record.date}, commit {str(record.machine.get('commit', 'unknown'))[:12]}; {named}; {threads}",
    ]
    for gpu in record.machine.get("gpus") or []:
        limit = f", power limit {gpu['power_limit_watts']:.0f} W" if gpu.get("power_limit_watts") else ""
        lines.append(f"{gpu['name']}, driver {gpu['driver']}{limit}")
    return lines


def as_text(record: Record) -> str:
    """The tables of all training steps in plain text, columns aligned."""
    return "\n\n".join(_text(record, steps) for steps in record.steps)


def _text(record: Record, steps: Steps) -> str:
    table = [HEADINGS, *rows(steps)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADINGS))]
    lines = []
    for row in table:
        cells = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", *memory_lines(steps), *notes(record, steps)])


def as_markdown(record: Record) -> str:
    """The tables of all training steps in Markdown."""
    return "\n\n".join(_markdown(record, steps) for steps in record.steps)


def _markdown(record: Record, steps: Steps) -> str:
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---|---|" + "---:|" * (len(HEADINGS) - 2)]
    lines += ["| " + " | ".join(row) + " |" for row in rows(steps)]
    text = [line[0].upper() + line[1:] + "." for line in [*memory_lines(steps), *notes(record, steps)]]
    return "\n".join([*lines, "", *(f"{line}\\" for line in text[:-1]), *text[-1:]])


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count != 1 else ''}"


def _framework(result: StepsResult) -> str:
    return f"{result.framework} {result.version}" + (f" ({result.layout})" if result.framework == "PyTorch" else "")


def _ratio(speed: float, other: float | None) -> str:
    """How many times the other, or nothing where there is no other."""
    if other is None:
        return ""
    return f"{speed / other:.2f}" if speed < 10 * other else f"{speed / other:.1f}"
