"""Loss and accuracy against epochs, from metrics.jsonl: curves.png of one run, and several runs in one picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gpucnn.viz.figure import BLUE, COLOURS, GREEN, GREY, MARKERS, PURPLE, VERMILLION, picture, shortened

Records = list[dict[str, Any]]


class Kind(NamedTuple):
    """One of the lines that an epoch's records make: its key is ``<key>_loss`` and ``<key>_accuracy``."""

    key: str
    label: str
    colour: str  # in the picture of one run
    marker: str
    style: str  # in the picture of several


KINDS = (
    Kind("val", "validation", GREEN, "s", (0, (4, 1.5))),  # type: ignore[arg-type]
    Kind("test", "test, weights", BLUE, "o", "-"),
    Kind("average", "test, moving average of the weights", VERMILLION, "^", "--"),
    Kind("tta", "test, test-time augmentation", PURPLE, "D", "-."),
)


def read_metrics(path: Path) -> tuple[Records, Records]:
    """The lines about steps and those about epochs. A last line that was cut off is left out.

    Raises:
        ValueError: another line that is no JSON object about a step or an epoch; names file and line.
        OSError: the file is there and cannot be read.
    """
    steps: Records = []
    epochs: Records = []
    lines = path.read_bytes().splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            kind = epochs if record["kind"] == "epoch" else steps
            if not isinstance(record["epoch"], (int, float)):
                raise ValueError(f"its epoch is {record['epoch']!r}")
            kind.append(record)
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: not a line of metrics ({error})") from error
    return steps, epochs


def draw(metrics: Path, target: Path, title: str | None = None) -> bool:
    """Draws ``target`` (PNG) from the lines of ``metrics``; False, and nothing written, where there are none yet.

    Above the loss, below the accuracy in percent, both against epochs: in training (means of so many steps as a line
    stands for), on images held out for validation, and on the test part with the weights themselves, with their
    moving average and with test-time augmentation.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: metrics that cannot be read.
        OSError: the picture cannot be written.
    """
    steps, epochs = read_metrics(metrics)
    if not steps and not epochs:
        return False
    with picture(target, 7.0, 7.5) as figure:
        for axes, what in zip(_pair_of_axes(figure), ("loss", "accuracy"), strict=True):
            xs, ys = _training(steps, epochs, what)
            marker = "" if steps else "s"
            axes.plot(xs, ys, color=GREY, linewidth=1, marker=marker, markersize=4, label="train")
            for kind in KINDS:
                xs, ys = _points(epochs, f"{kind.key}_{what}", what)
                if xs:
                    label = f"{kind.label} ({_number(ys[-1], what)})"
                    axes.plot(xs, ys, color=kind.colour, marker=kind.marker, markersize=4, linewidth=1.4, label=label)
            axes.set_xlim(left=0)
            axes.legend(frameon=False, fontsize=9)
        figure.suptitle(title or metrics.resolve().parent.name, fontsize=11)
    return True


def overlay(runs: Mapping[str, tuple[Records, Records]], target: Path) -> None:
    """Several runs in one picture (PNG): a colour and a marker for each run, named by the keys of ``runs``, a line
    style for each kind of curve. ``runs`` holds what :func:`read_metrics` returns.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no runs.
        OSError: the picture cannot be written.
    """
    if not runs:
        raise ValueError("overlay: no runs to draw")
    shown: set[Kind] = set()
    with picture(target, 8.5, 8.0 + 0.2 * len(runs)) as figure:
        from matplotlib.lines import Line2D

        pair = _pair_of_axes(figure)
        for axes, what in zip(pair, ("loss", "accuracy"), strict=True):
            for place, (steps, epochs) in enumerate(runs.values()):
                colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
                wider = 1.8 * (1 - place / len(runs))  # so that of runs that are alike each is still seen
                xs, ys = _training(steps, epochs, what)
                axes.plot(xs, ys, color=colour, linewidth=0.9, alpha=0.4)
                for kind in KINDS:
                    xs, ys = _points(epochs, f"{kind.key}_{what}", what)
                    if xs:
                        shown.add(kind)
                        axes.plot(
                            xs, ys, color=colour, linestyle=kind.style, linewidth=1.3 + wider, marker=marker,
                            markersize=4 + 2 * wider, markevery=max(1, len(xs) // 15),
                        )  # fmt: skip
            axes.set_xlim(left=0)
        names = [
            Line2D([], [], color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], markersize=5, label=label)
            for i, label in enumerate(f"{shortened(name, 60)}{_result(epochs)}" for name, (_, epochs) in runs.items())
        ]
        kinds = [Line2D([], [], color=GREY, linewidth=0.9, label="training")]
        kinds += [Line2D([], [], color="#444444", linestyle=k.style, label=k.label) for k in KINDS if k in shown]
        pair[0].legend(handles=kinds, frameon=False, fontsize=9, handlelength=3.5)
        figure.legend(handles=names, loc="outside lower left", frameon=False, fontsize=9)


def _pair_of_axes(figure: Any) -> tuple[Any, Any]:
    """Axes for the loss above those for the accuracy."""
    loss, accuracy = figure.subplots(2, 1, sharex=True)
    loss.set_ylabel("loss (mean cross-entropy)")
    accuracy.set_ylabel("accuracy (%)")
    accuracy.set_xlabel("epoch")
    for axes in (loss, accuracy):
        axes.grid(True, linewidth=0.4, alpha=0.6)
    return loss, accuracy


def _training(steps: Records, epochs: Records, what: str) -> tuple[list[float], list[float]]:
    """The curve of training: by steps where there are lines about them, else by epochs."""
    return _points(steps, what, what) if steps else _points(epochs, f"train_{what}", what)


def _points(records: Records, key: str, what: str) -> tuple[list[float], list[float]]:
    """Epochs and values of ``key`` where it has one, accuracies in percent."""
    unit = 100.0 if what == "accuracy" else 1.0
    found = [(r["epoch"], unit * r[key]) for r in records if isinstance(r.get(key), (int, float))]
    found = [(x, y) for x, y in found if math.isfinite(y)]
    return [x for x, _ in found], [y for _, y in found]


def _number(value: float, what: str) -> str:
    return f"{value:.1f}%" if what == "accuracy" else f"{value:.3f}"


def _result(epochs: Records) -> str:
    """The last epoch's accuracy and what it is of, for a legend: the kind furthest down in KINDS that it has."""
    for kind in reversed(KINDS):
        xs, ys = _points(epochs[-1:], f"{kind.key}_accuracy", "accuracy")
        if xs:
            return f": {_number(ys[-1], 'accuracy')} after epoch {xs[-1]:g} ({kind.label})"
    return ""
