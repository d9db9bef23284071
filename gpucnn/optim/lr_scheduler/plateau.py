"""A learning rate that falls where a metric no longer improves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, SupportsFloat

from gpucnn.optim.lr_scheduler.base import LRScheduler
from gpucnn.optim.optimizer import Optimizer


class ReduceLROnPlateau(LRScheduler):
    """Multiplies the learning rate by ``factor`` after more than ``patience`` epochs without improvement: call
    ``step(metric)`` after each.

    ``mode`` says whether the metric shall fall ("min") or rise ("max"). It improves where it is better than the best by
    ``threshold``, relative to the best or absolute ("rel", "abs"); NaN never is. After a reduction, ``cooldown`` epochs
    do not count. No rate falls below ``min_lr`` (a number, or one for each group), nor changes by ``eps`` or less.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: list[float] | float = 0,
        eps: float = 1e-8,
    ) -> None:
        self.optimizer = self._checked_optimizer(optimizer)
        if mode not in ("min", "max"):
            raise ValueError(f"{self.name}: mode must be 'min' or 'max', got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"{self.name}: threshold_mode must be 'rel' or 'abs', got {threshold_mode!r}")
        self.factor = self._check_number("factor", factor, 0)
        if factor >= 1:
            raise ValueError(f"{self.name}: factor must be below 1, got {factor!r}")
        self.mode, self.threshold_mode = mode, threshold_mode
        self.patience = self._check_count("patience", patience, 0)
        self.cooldown = self._check_count("cooldown", cooldown, 0)
        self.threshold = self._check_number("threshold", threshold)
        self.min_lr = [self._check_number("min_lr", lr, 0) for lr in self._for_groups("min_lr", min_lr, optimizer)]
        self.eps = self._check_number("eps", eps, 0)
        self.base_lrs = self.current()
        self.last_epoch = 0
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self._last_lr = self.current()

    @property
    def in_cooldown(self) -> bool:
        """Whether epochs without improvement are not counted now."""
        return self.cooldown_counter > 0

    def is_better(self, metric: float, best: float) -> bool:
        """Whether ``metric`` is an improvement on ``best``."""
        sign = 1.0 if self.mode == "max" else -1.0
        limit = best * (1.0 + sign * self.threshold) if self.threshold_mode == "rel" else best + sign * self.threshold
        return metric > limit if self.mode == "max" else metric < limit

    def step(self, metrics: SupportsFloat) -> None:  # type: ignore[override]
        """Goes on by one epoch, whose metric (a number or a tensor of one element) this is."""
        metric = float(metrics)
        self.last_epoch += 1
        if self.is_better(metric, self.best):
            self.best, self.num_bad_epochs = metric, 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = self.current()

    def _reduce(self) -> None:
        for group, least in zip(self.optimizer.param_groups, self.min_lr, strict=True):
            lr = max(float(group["lr"]) * self.factor, least)
            if group["lr"] - lr > self.eps:
                group["lr"] = lr

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers; ``best`` is None before the first metric."""
        return {
            **super().state_dict(),
            "best": self.best if math.isfinite(self.best) else None,
            "num_bad_epochs": self.num_bad_epochs,
            "cooldown_counter": self.cooldown_counter,
        }

    def _read(self, state: Mapping[str, Any]) -> dict[str, Any]:
        values = super()._read(state)
        best, bad, cooldown = state["best"], state["num_bad_epochs"], state["cooldown_counter"]
        if not isinstance(best, (int, float, type(None))) or not isinstance(bad, int) or not isinstance(cooldown, int):
            raise TypeError(f"best is {best!r}, num_bad_epochs {bad!r} and cooldown_counter {cooldown!r}")
        worst = math.inf if self.mode == "min" else -math.inf
        return {
            **values,
            "best": worst if best is None else float(best),
            "num_bad_epochs": bad,
            "cooldown_counter": cooldown,
        }
