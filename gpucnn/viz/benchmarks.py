"""Benchmarks as pictures: speed by device, speed and memory against batch size, operators against PyTorch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.viz.figure import BLACK, BLUE, COLOURS, GREY, MARKERS, VERMILLION, picture, shortened

BAR_INCHES, GROUP_INCHES = 0.34, 0.3
LABEL_LENGTH = 60
FRAMEWORK_COLOURS = {"gpucnn": BLUE, "PyTorch": VERMILLION}  # others are grey


@dataclass(frozen=True)
class Bar:
    """One device: examples/sec, and between what bounds the repeats lay where there were several."""

    label: str
    framework: str
    speed: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Curve:
    """What one framework does as the batch grows: ``points`` are (batch size, figure).

    ``threads`` tells curves of one framework apart.
    """

    framework: str
    threads: int
    points: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Panel:
    """A network's curves."""

    title: str
    speeds: Sequence[Curve]
    memory: Sequence[Curve]


def draw_devices(bars: Sequence[Bar], path: Path, title: str, texts: Mapping[str, str] | None = None) -> None:
    """Draws one bar a device along a logarithmic axis of examples/sec, the first on top, and writes a PNG.

    Raises:
        ValueError: there is no bar, or a speed is not positive.
        ImportError, OSError: as :func:`gpucnn.viz.figure.picture`.
    """
    _positive("draw_devices", [bar.speed for bar in bars])
    with picture(path, 9.0, 1.3 + BAR_INCHES * len(bars), texts) as figure:
        axes = figure.add_subplot()
        places = np.arange(len(bars))
        speeds = np.array([bar.speed for bar in bars])
        colours = [FRAMEWORK_COLOURS.get(bar.framework, GREY) for bar in bars]
        axes.barh(places, speeds, color=colours, height=0.7)
        spread = [k for k, bar in enumerate(bars) if bar.low is not None and bar.high is not None]
        if spread:
            reach = [[bars[k].speed - bars[k].low for k in spread], [bars[k].high - bars[k].speed for k in spread]]  # type: ignore[operator]
            axes.errorbar(speeds[spread], spread, xerr=np.maximum(reach, 0), fmt="none", ecolor=BLACK, capsize=3)
        for place, bar in enumerate(bars):
            text = f" {bar.speed:,.0f}"
            axes.annotate(text, (bar.high or bar.speed, place), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(places, [shortened(bar.label, LABEL_LENGTH) for bar in bars])
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlim(min(speeds) / 2, max(speeds) * 2.5)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("examples/sec")
        axes.grid(True, axis="x", which="both", alpha=0.25)
        axes.set_axisbelow(True)
        axes.set_title(title)


def draw_scaling(panels: Sequence[Panel], path: Path, texts: Mapping[str, str] | None = None) -> None:
    """Draws a column a network: examples/sec above, peak memory below, both against batch size; writes a PNG.

    Dashed lines are one thread.

    Raises:
        ValueError: there is no curve, or a figure is not positive.
        ImportError, OSError: as :func:`gpucnn.viz.figure.picture`.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    curves = [curve for panel in panels for curve in (*panel.speeds, *panel.memory)]
    _positive("draw_scaling", [figure for curve in curves for _, figure in curve.points])
    with picture(path, 1.0 + 3.9 * len(panels), 6.4, texts) as figure:
        grid = figure.subplots(2, len(panels), squeeze=False, sharex="col")
        for column, panel in enumerate(panels):
            for axes, kind, name in (
                (grid[0, column], panel.speeds, "examples/sec"),
                (grid[1, column], panel.memory, "peak memory, MiB"),
            ):
                for curve in kind:
                    _curve(axes, curve)
                axes.set_xscale("log", base=2)
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_minor_formatter(NullFormatter())
                for axis in (axes.xaxis, axes.yaxis):
                    axis.set_major_formatter("{x:,.0f}")
                axes.grid(True, which="major", alpha=0.3)
                if column == 0:
                    axes.set_ylabel(name)
                if kind:
                    axes.legend(fontsize=8)
            grid[0, column].set_title(panel.title)
            grid[1, column].set_xlabel("batch size")


def _curve(axes: Any, curve: Curve) -> None:
    frameworks = list(FRAMEWORK_COLOURS)
    k = frameworks.index(curve.framework) if curve.framework in frameworks else len(frameworks)
    plural = "s" if curve.threads != 1 else ""
    axes.plot(
        [size for size, _ in curve.points], [figure for _, figure in curve.points], color=COLOURS[k], marker=MARKERS[k],
        markersize=4, linewidth=1.3, linestyle="--" if curve.threads == 1 else "-",
        label=f"{curve.framework}, {curve.threads} thread{plural}",
    )  # fmt: skip


def draw_operators(
    groups: Mapping[str, Sequence[tuple[str, float]]], path: Path, title: str, texts: Mapping[str, str] | None = None
) -> None:
    """Draws a line a group of operators: a mark at each ratio of PyTorch's time to ours, by network, and a bar at their
    geometric mean; right of 1 is faster than PyTorch. ``groups`` has (network, ratio) pairs. Writes a PNG.

    Raises:
        ValueError: there is no ratio, or one is not positive.
        ImportError, OSError: as :func:`gpucnn.viz.figure.picture`.
    """
    ratios = [ratio for pairs in groups.values() for _, ratio in pairs]
    _positive("draw_operators", ratios)
    networks = list(dict.fromkeys(network for pairs in groups.values() for network, _ in pairs))
    with picture(path, 8.6, 1.6 + GROUP_INCHES * len(groups), texts) as figure:
        axes = figure.add_subplot()
        for k, network in enumerate(networks):
            points = [
                (ratio, place)
                for place, pairs in enumerate(groups.values())
                for name, ratio in pairs
                if name == network
            ]
            axes.scatter(
                [ratio for ratio, _ in points], [place for _, place in points], s=26, alpha=0.75, zorder=3,
                color=COLOURS[k % len(COLOURS)], marker=MARKERS[k % len(MARKERS)], label=network,
            )  # fmt: skip
        means = [statistics.geometric_mean(ratio for _, ratio in pairs) for pairs in groups.values()]
        axes.scatter(means, range(len(means)), marker="|", s=260, color=BLACK, zorder=4, label="geometric mean")
        axes.axvline(1, color=BLACK, linewidth=0.8)
        axes.set_yticks(range(len(groups)), list(groups))
        axes.invert_yaxis()
        axes.set_xscale("log")
        ticks = [t for t in (0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.5, 2, 4, 8, 16) if min(ratios) / 1.2 < t < max(ratios) * 1.2]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("PyTorch's time / ours (right of 1: faster than PyTorch)")
        axes.grid(True, alpha=0.3)
        figure.legend(fontsize=8, loc="outside right upper")
        axes.set_title(title)


def _positive(name: str, figures: Sequence[float]) -> None:
    if not figures or min(figures) <= 0:
        raise ValueError(f"{name}: figures must be positive, got {min(figures) if figures else 'none'}")
