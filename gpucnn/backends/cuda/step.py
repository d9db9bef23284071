"""The last launch of a captured training step (kernels/step.cu)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.backends.base import Array


def advance_step(
    backend: Any,
    loss: Array,
    correct: Array,
    losses: Array,
    corrects: Array,
    state: Array,
    batches: int,
    part: int = 0,
    parts: int = 1,
) -> None:
    """Keeps a step's loss and its count of right answers on the device, and moves the counters there on.

    Args:
        loss, correct: float32 (1,) and int32 (1,) of this step, or of part ``part`` of its ``parts``.
        losses, corrects: float32 and int32 (size,), rings; the place is (step * parts + part) modulo size.
        state: int64 (4,), [epoch, batch, step, 0]; moves on with the last part.
        batches: of an epoch.
    """
    if losses.shape != corrects.shape or not losses.size or not 0 <= part < parts:
        raise ValueError(
            f"advance_step: expected two rings of one size and a part below {parts}, got {losses.shape},"
            f" {corrects.shape} and part {part}"
        )
    backend.launch(
        "step.cu", "advance_step", 1, 1, loss, correct, losses, corrects, state, batches, losses.size, part, parts
    )


def write_state(backend: Any, state: Array, epoch: int, batch: int, step: int) -> None:
    """Sets the counters ``state`` of :func:`advance_step`. A copy from the host: not while capturing."""
    values = np.array([epoch, batch, step, 0], np.int64)
    with backend.context():
        state[...] = values if backend.xp is np else backend.xp.asarray(values)
