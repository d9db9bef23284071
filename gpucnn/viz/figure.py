"""A figure to draw on, written as a PNG when the drawing is done; and what all pictures have in common."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpucnn.serialization import atomic_write

DPI = 120

# Okabe and Ito's colours, which people with any colour vision tell apart. Their yellow is left out: on white it is
# hardly seen.
BLACK, BLUE, VERMILLION, GREEN = "#000000", "#0072b2", "#d55e00", "#009e73"
PURPLE, ORANGE, SKY, GREY = "#cc79a7", "#e69f00", "#56b4e9", "#999999"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")


@contextmanager
def picture(path: Path, width: float, height: float, texts: Mapping[str, str] | None = None) -> Iterator[Any]:
    """A matplotlib figure of ``width`` x ``height`` inches; at the end it is ``path``, a PNG of 120 pixels an inch.

    ``texts`` are written into the file beside the pixels, by keyword: where the picture is from, for instance.

    The figure is no part of pyplot's state, the reader's own matplotlib settings do not reach it, and the file is
    written atomically: an exception inside leaves what was there.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the picture cannot be written.
    """
    with _silent():
        import matplotlib.style
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        with matplotlib.style.context("default"):
            figure: Any = Figure(figsize=(width, height), layout="constrained")
            FigureCanvasAgg(figure)
            figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
            yield figure
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=DPI, metadata=dict(texts or {}))
    atomic_write(path, buffer.getvalue())


@contextmanager
def _silent() -> Iterator[None]:
    """Within it matplotlib logs errors only. In a home folder that cannot be written it keeps its list of fonts
    elsewhere, and says so; that is nothing to bother the reader of a picture with."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def shortened(text: str, length: int) -> str:
    """``text``, or as much of its beginning as fits into ``length`` characters and an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "\u2026"
