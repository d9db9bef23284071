"""Sheets of many small images: a classifier's worst mistakes, and the tiles that filters and maps are shown as."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.viz.figure import BLUE, GREY, VERMILLION, picture, shortened

MISTAKES = 36
NAME_LENGTH = 15


def worst_mistakes(probabilities: NDArray[Any], labels: NDArray[Any], count: int = MISTAKES) -> NDArray[np.int64]:
    """The places of the images that were classified wrongly with the greatest confidence, worst first; at most
    ``count``.

    Args:
        probabilities: (N, classes); the largest of a row is the prediction, the first of equals.
        labels: (N,), the true classes.
    """
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    confidence = probabilities[wrong, predicted[wrong]]
    return wrong[np.argsort(-confidence, kind="stable")][:count].astype(np.int64)


def draw_mistakes(
    images: NDArray[np.uint8],
    probabilities: NDArray[Any],
    labels: NDArray[Any],
    classes: Sequence[str],
    path: Path,
    title: str = "",
    count: int = MISTAKES,
) -> NDArray[np.int64]:
    """Draws a sheet of the worst mistakes, worst first in rows from the top left, and returns their places.

    Each image has above it what it was taken for and what it is, with the probabilities of both, and its number in the
    data set. Without a mistake the sheet says so.

    Args:
        images: uint8 (N, H, W, C), C 1 or 3, as they are stored.
        probabilities: (N, classes).
        labels: (N,).

    Raises:
        ValueError: arrays whose sizes do not fit.
        ImportError, OSError: as :func:`gpucnn.viz.figure.picture`.
    """
    if images.shape[:1] != labels.shape or probabilities.shape != (len(labels), len(classes)):
        raise ValueError(
            f"draw_mistakes: expected images (N, H, W, C), probabilities (N, {len(classes)}) and labels (N,),"
            f" got {images.shape}, {probabilities.shape} and {labels.shape}"
        )
    worst = worst_mistakes(probabilities, labels, count)
    columns = min(6, max(3, len(worst)))
    rows = max(1, -(-len(worst) // columns))
    with picture(path, 1.55 * columns + 0.3, 1.95 * rows + 0.9) as figure:
        from matplotlib.patches import Patch

        figure.get_layout_engine().set(hspace=0.08)
        if title:
            figure.suptitle(title, fontsize=10)
        if len(worst):
            key = [Patch(color=VERMILLION, label="was taken for"), Patch(color=BLUE, label="is")]
            figure.legend(handles=key, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        else:
            figure.text(0.5, 0.5, "no mistakes", ha="center", va="center", fontsize=14)
        for place, i in enumerate(worst):
            axes = figure.add_subplot(rows, columns, place + 1)
            axes.set_axis_off()
            axes.imshow(shown(images[i]), interpolation="nearest", vmin=0, vmax=255, cmap="gray")
            predicted = int(probabilities[i].argmax())
            for what, colour, height in ((predicted, VERMILLION, 13.5), (int(labels[i]), BLUE, 2.5)):
                text = f"{shortened(classes[what], NAME_LENGTH)} {_percent(probabilities[i, what])}"
                _beside(axes, 1, height, text, color=colour, fontsize=8)
            _beside(axes, 0, -9.0, f"no. {i}", color=GREY, fontsize=6.5)
    return worst


def _beside(axes: Any, edge: int, points: float, text: str, **style: Any) -> None:
    """Text at the left end of the axes' lower (0) or upper (1) edge, so many points above it."""
    axes.annotate(text, (0, edge), (0, points), xycoords="axes fraction", textcoords="offset points", **style)


def shown(image: NDArray[Any]) -> NDArray[Any]:
    """An image (H, W, C) as matplotlib takes it: (H, W) for one channel."""
    return image[:, :, 0] if image.shape[2] == 1 else image


def _percent(probability: float) -> str:
    """A probability, never as 100% or 0% where it is neither."""
    percent = 100.0 * float(probability)
    if percent > 99.95:
        return ">99.9%" if percent < 100 else "100%"
    return "<0.1%" if 0 < percent < 0.05 else f"{percent:.1f}%"


def tiled(tiles: NDArray[Any], columns: int, gap: int, background: float) -> NDArray[np.float32]:
    """Tiles (n, h, w, c) side by side in rows of ``columns``, ``gap`` pixels of ``background`` between and around them:
    float32 (rows (h + gap) + gap, columns (w + gap) + gap, c).
    """
    n, h, w, c = tiles.shape
    rows = -(-n // columns)
    out = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap, c), background, dtype=np.float32)
    for place, tile in enumerate(tiles):
        top, left = (place // columns) * (h + gap) + gap, (place % columns) * (w + gap) + gap
        out[top : top + h, left : left + w] = tile
    return out
