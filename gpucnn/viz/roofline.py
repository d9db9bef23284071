"""The roofline: how much arithmetic each launch does for a byte, and how far it is from what the GPU could do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpucnn.viz.figure import BLACK, COLOURS, GREY, MARKERS, picture, shortened

NAME_LENGTH = 34
MOST_NAMED = 8  # kernels that the legend names; the others share a colour


@dataclass(frozen=True)
class Point:
    """One launch: FLOPs, bytes, the FLOP/s of the units that it multiplies with, and seconds where they were
    measured."""

    name: str
    flops: float
    size: float
    rate: float
    seconds: float | None


def draw_roofline(
    points: Sequence[Point], rates: Mapping[str, float], bandwidth: float, path: Path, title: str = ""
) -> None:
    """Draws ``points`` under the ceilings as a PNG, both axes logarithmic.

    Across FLOPs a byte; up FLOP/s: what was measured, or, where nothing was, the ceiling at that intensity (open marks:
    the most that the launch can reach). Launches without FLOPs have no place there and are counted in the corner.

    Args:
        rates: FLOP/s of the GPU by kind of arithmetic, a ceiling each.
        bandwidth: bytes/s.

    Raises:
        ValueError: no point has FLOPs, or a ceiling is not positive.
        ImportError, OSError: as :func:`gpucnn.viz.figure.picture`.
    """
    if not rates or min(*rates.values(), bandwidth) <= 0:
        raise ValueError(f"draw_roofline: the ceilings must be positive, got {dict(rates)} and {bandwidth}")
    shown = [point for point in points if point.flops > 0 and point.size > 0]
    if not shown:
        raise ValueError(f"draw_roofline: none of the {len(points)} launches has FLOPs")
    top = max(rates.values())
    intensity = [point.flops / point.size for point in shown]
    left, right = min(*intensity, 1.0) / 2, max(*intensity, top / bandwidth) * 12
    line = np.geomspace(left, right, 400)
    with picture(path, 8.6, 5.2) as figure:
        axes = figure.add_subplot()
        for kind, rate in rates.items():
            axes.plot(line, np.minimum(rate, line * bandwidth), color=BLACK, linewidth=1.2)
            text = f"{kind} {rate / 1e12:.3g} TFLOP/s"
            axes.annotate(text, (right, rate), (0, 3), textcoords="offset points", ha="right", va="bottom", fontsize=8)
        axes.annotate(
            f"{bandwidth / 1e12:.3g} TB/s",
            (left * 1.3, left * 1.3 * bandwidth),
            (8, -3),
            textcoords="offset points",
            ha="left",
            va="top",
            fontsize=8,
        )
        weight = {name: sum(p.flops for p in shown if p.name == name) for name in dict.fromkeys(p.name for p in shown)}
        named = sorted(weight, key=lambda name: -weight[name])[:MOST_NAMED]
        for k, name in enumerate([*named, None]):
            group = [p for p in shown if (p.name == name if name is not None else p.name not in named)]
            colour = COLOURS[k % len(COLOURS)] if name is not None else GREY
            label = shortened(name, NAME_LENGTH) if name is not None else "other kernels"
            for measured in (True, False):
                part = [p for p in group if (p.seconds is not None) == measured]
                if part:
                    axes.scatter(
                        [p.flops / p.size for p in part],
                        [p.flops / p.seconds if p.seconds else min(p.rate, p.flops / p.size * bandwidth) for p in part],
                        marker=MARKERS[k % len(MARKERS)], s=46, zorder=3, label=label,
                        edgecolors=colour, facecolors=colour if measured else "none",
                    )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("FLOPs a byte of memory touched")
        axes.set_ylabel("FLOP/s" if any(p.seconds for p in shown) else "FLOP/s at most")
        axes.set_title(title)
        axes.grid(True, which="major", alpha=0.3)
        axes.legend(loc="lower right", fontsize=8)
        without = len(points) - len(shown)
        if without:
            axes.text(
                0.01, 0.98, f"{without} launches do no multiply-adds", transform=axes.transAxes, va="top", fontsize=8
            )
