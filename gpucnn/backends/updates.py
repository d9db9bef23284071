"""What optimizers' primitives take besides arrays: each parameter's numbers, and what goes along in the same launch.

Learning rates, bias corrections and decays change from step to step, so kernels read them from device memory and a
captured step sees the new ones. A :class:`Scalars` holds rows of them: as given on the host, which ``cpu`` reads, and
as float32 at a fixed place of the device, where :meth:`Scalars.flush` brings what has changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Array = Any


class SgdNumbers(NamedTuple):
    """The struct of sgd.cu, field by field. ``begun``: how many steps the momentum had before this one, skipped ones
    too; the first that is not skipped begins it. -1 where it has certainly begun.
    """

    lr: float
    weight_decay: float = 0.0
    momentum: float = 0.0
    one_minus_dampening: float = 1.0
    nesterov: float = 0.0
    begun: float = 0.0
    maximize: float = 0.0


class AdamNumbers(NamedTuple):
    """The struct of adam.cu, field by field; see :func:`adam_numbers`."""

    lr: float
    weight_decay: float
    beta1: float
    one_minus_beta1: float
    beta2: float
    one_minus_beta2: float
    eps: float
    step_size: float
    root_correction: float
    decoupled: float
    maximize: float
    step: float
    log_beta1: float
    log_beta2: float


class RmspropNumbers(NamedTuple):
    """The struct of rmsprop.cu, field by field."""

    lr: float
    weight_decay: float
    alpha: float
    one_minus_alpha: float
    eps: float
    momentum: float
    maximize: float


class AdagradNumbers(NamedTuple):
    """The struct of adagrad.cu, field by field; ``lr`` is that of step ``step``, ``full_lr`` that of the first."""

    lr: float
    weight_decay: float
    eps: float
    maximize: float
    step: float
    full_lr: float
    lr_decay: float


class MuonNumbers(NamedTuple):
    """The struct of muon.cu, field by field: parameter = kept * parameter - step_size * (orthogonal step)."""

    step_size: float  # lr times what adjust_lr_fn says
    kept: float  # 1 - lr * weight_decay
    momentum: float
    one_minus_momentum: float
    eps: float
    nesterov: float
    renormalize: float
    a: float
    b: float
    c: float


class AverageNumbers(NamedTuple):
    """Of a moving average: average -= rate * (average - parameter), rate = 1 - decay."""

    rate: float


class LookaheadNumbers(NamedTuple):
    """Of Lookahead: slow weights go on by ``rate`` of the way, where ``active`` is not 0."""

    rate: float
    active: float


class Row:
    """One row: its numbers as given, and as float32 on the device (None on ``cpu``)."""

    __slots__ = ("array", "values")

    def __init__(self, values: Any, array: Array | None = None) -> None:
        self.values, self.array = values, array


class Scalars:
    """``count`` rows of ``fields`` numbers on the device of ``backend``."""

    def __init__(self, backend: Any, count: int, fields: int) -> None:
        self.backend = backend
        self.host = np.zeros((count, fields), np.float32)
        self.device = None if backend.name == "cpu" else backend.constant(self.host)
        self.rows = [Row(None, None if self.device is None else self.device[place]) for place in range(count)]
        self._changed = False

    @classmethod
    def of(cls, backend: Any, rows: Sequence[tuple[float, ...]]) -> Scalars:
        """Rows that are there already."""
        scalars = cls(backend, len(rows), len(rows[0]) if rows else 1)
        for place, values in enumerate(rows):
            scalars.set(place, values)
        scalars.flush()
        return scalars

    def set(self, place: int, values: tuple[float, ...]) -> None:
        """Gives a row new numbers, which kernels see after :meth:`flush`. Those beyond float32 become infinite."""
        row = self.rows[place]
        if row.values != values:
            row.values = values
            if self.device is not None:
                with np.errstate(over="ignore"):
                    self.host[place] = values
                self._changed = True

    def flush(self) -> None:
        """Copies the rows to the device if any has changed, in the order of the current stream; waits for nothing."""
        if self._changed:
            self.backend.overwrite(self.device, self.host)
            self._changed = False


@dataclass(frozen=True, slots=True)
class Along:
    """What an optimizer's launch does besides its own step.

    ``averages``: a moving average of each parameter, or None, which moves on by ``average`` (AverageNumbers) after
    the parameter. ``inverse_scale`` (1,): what the gradients are multiplied with first. ``found_inf`` (1,): where it
    is not 0, parameters and state stay as they are; ``skipped`` has an int32 array (1,) for each parameter that counts
    such steps. ``zero_gradients``: gradients are left at 0.
    """

    averages: Sequence[Array | None] | None = None
    average: Row | None = None
    inverse_scale: Array | None = None
    found_inf: Array | None = None
    skipped: Sequence[Array] | None = None
    zero_gradients: bool = False


ALONE = Along()


def adam_numbers(
    lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, decoupled: bool, maximize: bool, step: int
) -> AdamNumbers:
    """The numbers of step ``step`` (from 1), its bias corrections among them."""
    logs = [math.log(beta) if beta > 0.0 else -math.inf for beta in (beta1, beta2)]
    return AdamNumbers(
        lr, weight_decay, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps, lr / (1.0 - beta1**step),
        (1.0 - beta2**step) ** -0.5, float(decoupled), float(maximize), float(step), *logs,
    )  # fmt: skip
