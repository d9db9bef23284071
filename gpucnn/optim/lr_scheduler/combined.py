"""Schedules made of other schedules."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from gpucnn.optim.lr_scheduler.base import LRScheduler
from gpucnn.optim.lr_scheduler.plateau import ReduceLROnPlateau
from gpucnn.optim.optimizer import Optimizer


class _Combined(LRScheduler):
    """What both share: their parts, and a state that holds the parts' states under ``schedulers``."""

    def _take_parts(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None) -> None:
        self.schedulers = list(schedulers)
        if not self.schedulers:
            raise ValueError(f"{self.name}: expected one or more schedulers, got none")
        for number, part in enumerate(self.schedulers):
            if not isinstance(part, LRScheduler):
                raise TypeError(f"{self.name}: scheduler {number} is a {type(part).__name__}")
            if isinstance(part, ReduceLROnPlateau):
                raise ValueError(f"{self.name}: scheduler {number}, ReduceLROnPlateau, needs a metric at each step")
            if part.optimizer is not (optimizer or self.schedulers[0].optimizer):
                raise ValueError(f"{self.name}: scheduler {number}, {part.name}, belongs to another optimizer")
        self.optimizer = self._checked_optimizer(self.schedulers[0].optimizer)
        self.base_lrs = [float(group["initial_lr"]) for group in self.optimizer.param_groups]

    def _rewind(self) -> None:
        """Puts all parts, and the learning rates, back to where they began."""
        self.last_epoch = 0
        for part in self.schedulers:
            part._rewind()
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"]

    def _begin(self) -> None:
        self._rewind()
        self._take_first_step()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "schedulers": [part.state_dict() for part in self.schedulers]}

    def _plan(self, state: Mapping[str, Any]) -> list[tuple[LRScheduler, dict[str, Any]]]:
        plan = super()._plan(state)
        parts = state.get("schedulers")
        if not isinstance(parts, list) or len(parts) != len(self.schedulers):
            raise ValueError(f"{self.name}: not the state of {len(self.schedulers)} schedulers: {parts!r:.80}")
        return plan + [item for part, saved in zip(self.schedulers, parts, strict=True) for item in part._plan(saved)]


class SequentialLR(_Combined):
    """One scheduler after the other: the first until epoch ``milestones[0]``, where the second begins at its own
    epoch 0, and so on.

    Each of ``schedulers`` was made with ``optimizer``; there is one milestone less. Each begins from the groups'
    initial learning rates (schedulers without a closed formula, from those of the moment).
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int], last_epoch: int = -1
    ) -> None:
        self._take_parts(schedulers, optimizer)
        self.milestones = [self._check_count("a milestone", epoch, 0) for epoch in milestones]
        if len(self.milestones) != len(self.schedulers) - 1:
            raise ValueError(
                f"{self.name}: expected a milestone between any two of {len(self.schedulers)} schedulers,"
                f" got {len(self.milestones)}"
            )
        if sorted(self.milestones) != self.milestones:
            raise ValueError(f"{self.name}: milestones must not decrease, got {self.milestones}")
        if last_epoch != -1:
            raise ValueError(f"{self.name}: goes on by load_state_dict only, got {last_epoch=}")
        self._begin()

    def step(self) -> None:
        self.last_epoch += 1
        running = bisect_right(self.milestones, self.last_epoch)
        if running and self.milestones[running - 1] == self.last_epoch:
            self.schedulers[running]._begin()
        else:
            self.schedulers[running].step()
        self._last_lr = self.current()

    def _take_first_step(self) -> None:
        self.schedulers[bisect_right(self.milestones, 0)]._take_first_step()
        self._last_lr = self.current()


class ChainedScheduler(_Combined):
    """All schedulers at every step, one after the other on the rate that the last one left.

    The factors of schedulers that multiply the rate are so multiplied. ``optimizer`` is the one that all were made
    with.
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        self._take_parts(schedulers, optimizer)
        self.last_epoch = 0
        self._last_lr = self.current()

    def step(self) -> None:
        for part in self.schedulers:
            part.step()
        self.last_epoch += 1
        self._last_lr = self.current()

    def _take_first_step(self) -> None:
        for part in self.schedulers:
            part._take_first_step()
        self._last_lr = self.current()
