"""What a classifier gets right and what it takes for what: the confusion matrix and each class's accuracy, as numbers
and as pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.viz.figure import BLACK, BLUE, GREY, picture, shortened

NAME_LENGTH = 24  # longer names of classes are cut off
ZEROS_SHOWN = 20  # up to so many classes the matrix shows its zeros


def confusion_matrix(labels: NDArray[Any], predicted: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """int64 (classes, classes): entry (i, j) counts the images of class i that were taken for class j.

    Args:
        labels, predicted: integers (N,) in [0, classes).

    Raises:
        ValueError: shapes that differ, or a class out of range.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.ndim != 1 or labels.shape != predicted.shape:
        raise ValueError(f"confusion_matrix: expected two arrays (N,), got {labels.shape} and {predicted.shape}")
    for name, values in (("labels", labels), ("predicted", predicted)):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(
                f"confusion_matrix: {name} must be in [0, {classes}), got {values.min()} to {values.max()}"
            )
    places = labels.astype(np.int64) * classes + predicted.astype(np.int64)
    return np.bincount(places, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def class_accuracy(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """The diagonal over the sums of the rows, (classes,) in [0, 1]; NaN for a class without images."""
    totals = matrix.sum(axis=1)
    return np.divide(matrix.diagonal(), totals, out=np.full(len(matrix), np.nan), where=totals > 0)


def draw_confusion(matrix: NDArray[np.int64], classes: Sequence[str], path: Path, title: str = "") -> None:
    """Draws a confusion matrix as a PNG that grows with the number of classes: true classes down, predicted ones
    across, each cell with its count, its colour the share of the row.

    The colours go by the square root of the share, for the errors are many small ones.

    Raises:
        ValueError: a matrix that is not square or has another number of classes.
        ImportError, OSError: as :func:`gpucnn.viz.figure.picture`.
    """
    k = _classes(matrix, classes)
    cell = float(np.interp(k, (10, 20, 100), (0.55, 0.42, 0.24)))  # inches
    names = [shortened(name, NAME_LENGTH) for name in classes]
    margin = 0.09 * max(len(name) for name in names)
    side = cell * max(k, 4)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    with picture(path, side + margin + 1.9, side + margin + 1.2) as figure:
        from matplotlib.colors import PowerNorm

        axes = figure.add_subplot()
        image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0.0, vmax=1.0))
        font = float(np.interp(cell, (0.24, 0.55), (5.5, 9.0)))
        for i, j in np.argwhere((matrix > 0) | (k <= ZEROS_SHOWN)):
            colour = GREY if matrix[i, j] == 0 else "white" if shares[i, j] > 0.35 else BLACK
            axes.text(j, i, str(matrix[i, j]), ha="center", va="center", color=colour, fontsize=font)
        axes.set_xticks(range(k), names, rotation=90 if margin > cell or k > 10 else 0, fontsize=font + 1)
        axes.set_yticks(range(k), names, fontsize=font + 1)
        axes.tick_params(length=0)
        axes.set_xticks(np.arange(k - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(k - 1) + 0.5, minor=True)
        axes.grid(which="minor", color="#dddddd", linewidth=0.5)
        axes.tick_params(which="minor", length=0)
        large = 10 + k / 16
        axes.set_xlabel("predicted class", fontsize=large)
        axes.set_ylabel("true class", fontsize=large)
        bar = figure.colorbar(image, ax=axes, shrink=min(1.0, max(4.0 / side, 0.3)), aspect=25, pad=0.02)
        bar.set_ticks([0, 0.01, 0.05, 0.1, 0.25, 0.5, 1], labels=["0", "1%", "5%", "10%", "25%", "50%", "100%"])
        bar.set_label("share of the true class's images", fontsize=large)
        if title:
            axes.set_title(title, fontsize=large, wrap=True)


def draw_accuracy(matrix: NDArray[np.int64], classes: Sequence[str], path: Path, title: str = "") -> None:
    """Draws each class's accuracy as a bar, the best on top, with the accuracy over all images as a line.

    Raises:
        ValueError: a matrix that is not square or has another number of classes.
        ImportError, OSError: as :func:`gpucnn.viz.figure.picture`.
    """
    k = _classes(matrix, classes)
    accuracy, totals = 100.0 * class_accuracy(matrix), matrix.sum(axis=1)
    order = np.argsort(np.nan_to_num(-accuracy, nan=np.inf), kind="stable")
    step = float(np.interp(k, (10, 100), (0.32, 0.17)))  # inches
    font = float(np.interp(step, (0.17, 0.32), (7.5, 10.0)))
    with picture(path, 7.0, step * k + 1.3) as figure:
        axes = figure.add_subplot()
        axes.set_xlabel("accuracy (%)", x=0.0, ha="left")
        rows = np.arange(k)
        axes.barh(rows, np.nan_to_num(accuracy[order]), height=0.72, color=BLUE)
        for row, i in zip(rows, order, strict=True):
            text = f"{accuracy[i]:.1f}%  ({matrix[i, i]} of {totals[i]})" if totals[i] else "no images"
            axes.text(102, row, text, va="center", fontsize=font - 1)
        if totals.sum():
            mean = 100.0 * matrix.trace() / totals.sum()
            axes.axvline(mean, color=BLACK, linewidth=1, linestyle="--")
            axes.set_xlabel(f"accuracy (%); dashed: of all images, {mean:.2f}%", x=0.0, ha="left")
        axes.set_yticks(rows, [shortened(classes[i], NAME_LENGTH) for i in order], fontsize=font)
        axes.set_xticks(range(0, 101, 20))
        axes.set_xlim(0, 132)  # room for the numbers beside a bar of 100%
        axes.set_ylim(k - 0.4, -0.6)
        for side in ("top", "right", "bottom"):
            axes.spines[side].set_visible(False)
        if title:
            axes.set_title(title, fontsize=10, wrap=True)


def _classes(matrix: NDArray[np.int64], classes: Sequence[str]) -> int:
    k = len(classes)
    if matrix.shape != (k, k) or k == 0:
        raise ValueError(f"expected a matrix of {k} x {k} for {k} classes, got {matrix.shape}")
    return k
