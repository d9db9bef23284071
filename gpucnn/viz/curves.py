"""curves.png: loss and accuracy of a run against its epochs, from metrics.jsonl."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from gpucnn.serialization import atomic_write

# Okabe and Ito's colours, which people with any colour vision tell apart.
TRAIN, TEST, AVERAGE = "#999999", "#0072b2", "#d55e00"
DPI = 120


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lines about steps and those about epochs. A last line that was cut off is left out.

    Raises:
        ValueError: another line that is no JSON object; names file and line.
    """
    steps: list[dict[str, Any]] = []
    epochs: list[dict[str, Any]] = []
    lines = path.read_text().splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            (epochs if record["kind"] == "epoch" else steps).append(record)
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: not a line of metrics ({error})") from error
    return steps, epochs


def draw(metrics: Path, picture: Path, title: str | None = None) -> bool:
    """Draws ``picture`` (PNG) from the lines of ``metrics``; False, and nothing written, where there are none yet.

    Above the loss, below the accuracy in percent, both against epochs: in training (means of 50 steps), on the test
    part with the weights themselves, and with their moving average.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: metrics that cannot be read.
        OSError: the picture cannot be written.
    """
    steps, epochs = read_metrics(metrics)
    if not steps and not epochs:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes, accuracy_axes = figure.subplots(2, 1, sharex=True)
    _plot(loss_axes, steps, epochs, "loss", 1.0)
    _plot(accuracy_axes, steps, epochs, "accuracy", 100.0)
    loss_axes.set_ylabel("loss (mean cross-entropy)")
    accuracy_axes.set_ylabel("accuracy (%)")
    accuracy_axes.set_xlabel("epoch")
    figure.suptitle(title or metrics.resolve().parent.name, fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    atomic_write(picture, buffer.getvalue())
    return True


def _plot(axes: Any, steps: list[dict[str, Any]], epochs: list[dict[str, Any]], what: str, unit: float) -> None:
    """One pair of axes: ``what`` is "loss" or "accuracy"."""
    if steps:
        axes.plot([s["epoch"] for s in steps], [unit * s[what] for s in steps], color=TRAIN, linewidth=1, label="train")
    else:
        _line(axes, epochs, f"train_{what}", unit, TRAIN, "s", "train")
    _line(axes, epochs, f"test_{what}", unit, TEST, "o", "test, weights")
    _line(axes, epochs, f"average_{what}", unit, AVERAGE, "^", "test, moving average of the weights")
    axes.grid(True, linewidth=0.4, alpha=0.6)
    axes.set_xlim(left=0)
    axes.legend(frameon=False, fontsize=9)


def _line(axes: Any, epochs: list[dict[str, Any]], key: str, unit: float, colour: str, marker: str, label: str) -> None:
    points = [(e["epoch"], unit * e[key]) for e in epochs if e.get(key) is not None]
    if not points:
        return
    xs, ys = zip(*points, strict=True)
    last = f"{ys[-1]:.1f}%" if unit == 100.0 else f"{ys[-1]:.3f}"
    axes.plot(xs, ys, color=colour, marker=marker, markersize=4, linewidth=1.4, label=f"{label} ({last})")
