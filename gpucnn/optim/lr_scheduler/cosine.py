"""Schedules that follow a cosine (Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts,
2017).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gpucnn.optim.lr_scheduler.base import LRScheduler
from gpucnn.optim.optimizer import Optimizer


class CosineAnnealingLR(LRScheduler):
    """eta_min + (lr - eta_min) * (1 + cos(pi * epoch / T_max)) / 2: down to ``eta_min`` at epoch ``T_max``, and up
    again after it.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max = self._check_count("T_max", T_max)
        self.eta_min = self._check_number("eta_min", eta_min)
        super().__init__(optimizer, last_epoch)

    def _half_wave(self, epoch: int) -> float:
        return 1.0 + math.cos(math.pi * epoch / self.T_max)

    def get_lr(self) -> list[float]:
        if self.is_initial:
            return self.current()
        if (self.last_epoch - 1 - self.T_max) % (2 * self.T_max) == 0:  # from the bottom, where a ratio says nothing
            rise = (1.0 - math.cos(math.pi / self.T_max)) / 2
            return [lr + (base - self.eta_min) * rise for lr, base in zip(self.current(), self.base_lrs, strict=True)]
        ratio = self._half_wave(self.last_epoch) / self._half_wave(self.last_epoch - 1)
        return [ratio * (lr - self.eta_min) + self.eta_min for lr in self.current()]

    def closed_form(self) -> list[float]:
        share = self._half_wave(self.last_epoch) / 2
        return [self.eta_min + (base - self.eta_min) * share for base in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """:class:`CosineAnnealingLR` down to ``eta_min`` over ``T_0`` epochs, then from the top again over ``T_mult``
    times as many, and so on.

    ``step(epoch)`` goes to any ``epoch``, fractions too, for a schedule that moves on within an epoch.
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_0, self.T_mult = self._check_count("T_0", T_0), self._check_count("T_mult", T_mult)
        self.eta_min = self._check_number("eta_min", eta_min)
        self.T_i: int = T_0  # the length of the wave that runs
        self.T_cur: float = last_epoch  # epochs since it began
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        share = (1.0 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * share for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Goes on by one epoch, or to ``epoch`` (0 or more)."""
        if epoch is not None:
            self._check_number("epoch", epoch, 0)
        if epoch is None and self.last_epoch >= 0:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur -= self.T_i
                self.T_i *= self.T_mult
        else:
            epoch = 0 if epoch is None else epoch
            self.T_cur, self.T_i = epoch, self.T_0
            if self.T_mult == 1:
                self.T_cur = epoch % self.T_0
            else:
                while self.T_cur >= self.T_i:
                    self.T_cur -= self.T_i
                    self.T_i *= self.T_mult
        self.last_epoch = math.floor(epoch)
        self._set(self.get_lr())

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "T_cur": self.T_cur, "T_i": self.T_i}

    def _read(self, state: Mapping[str, Any]) -> dict[str, Any]:
        values = super()._read(state)
        since, length = state["T_cur"], state["T_i"]
        if not isinstance(since, (int, float)) or not isinstance(length, int) or length < 1:
            raise TypeError(f"T_cur is {since!r} and T_i {length!r}")
        return {**values, "T_cur": since, "T_i": length}

    def _begin(self) -> None:
        self.step(0)
