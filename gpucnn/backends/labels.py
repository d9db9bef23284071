"""Labels that name no class: the check on the host, and the error that every device raises."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def check_labels(labels: NDArray[Any], classes: int) -> None:
    """Raises ValueError for the first label (N,) outside [0, classes), naming it and its row."""
    # Seen without their sign negative ones are large too, so that one maximum tells.
    if not labels.size or np.maximum.reduce(labels.view(f"u{labels.itemsize}")) < classes:
        return
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    raise label_error(int(labels[wrong[0]]), int(wrong[0]), classes)


def label_error(label: int, row: int, classes: int, launch: int | None = None) -> ValueError:
    """The error for a label outside [0, classes); ``launch`` counts the losses computed on the device, from 1."""
    where = "" if launch is None else f" (in loss number {launch} computed on this device)"
    return ValueError(f"cross_entropy: label {label} at row {row} is outside [0, {classes}){where}")
