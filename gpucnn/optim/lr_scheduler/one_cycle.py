"""The 1cycle policy."""

from __future__ import annotations

import math
from typing import Any, Literal

from gpucnn.optim.lr_scheduler.base import LRScheduler
from gpucnn.optim.optimizer import Optimizer

Phase = tuple[float, str, str, str, str]  # its last step; the names of lr and momentum at its start and at its end


class OneCycleLR(LRScheduler):
    """Up to ``max_lr`` and down below the start in one cycle of ``total_steps`` steps (Smith and Topin,
    Super-Convergence, 2018): call ``step()`` after each batch.

    The rate starts at max_lr / div_factor, is ``max_lr`` (a number, or one for each group) at ``pct_start`` of the
    steps and ends at max_lr / div_factor / final_div_factor; with ``three_phase`` it comes back to the start, as
    steeply as it rose, before that. Between them it follows a cosine or a line. With ``cycle_momentum`` the momentum
    (or the first of ``betas``) goes the other way, between ``max_momentum`` and ``base_momentum``. The cycle's length
    is ``total_steps``, or ``epochs`` times ``steps_per_epoch``.

    Raises ValueError for options out of range, and at a step after the last.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        groups = self._checked_optimizer(optimizer).param_groups
        self.total_steps = self._length(total_steps, epochs, steps_per_epoch)
        self._check_number("pct_start", pct_start, 0, 1)
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"{self.name}: anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
        for option, factor in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
            if not self._check_number(option, factor, 0):
                raise ValueError(f"{self.name}: {option} must be above 0, got {factor!r}")
        self.anneal_strategy, self.cycle_momentum = anneal_strategy, cycle_momentum
        self.phases = self._phases(pct_start, three_phase)
        highest = [self._check_number("max_lr", lr, 0) for lr in self._for_groups("max_lr", max_lr, optimizer)]
        momenta = [
            [self._check_number(option, value, 0, 1) for value in self._for_groups(option, given, optimizer)]
            for option, given in (("max_momentum", max_momentum), ("base_momentum", base_momentum))
        ]
        if cycle_momentum and not {"momentum", "betas"} & set(optimizer.defaults):
            raise ValueError(
                f"{self.name}: cycle_momentum needs an optimizer with momentum or betas, got {optimizer.name}"
            )
        if last_epoch == -1:
            for group, lr in zip(groups, highest, strict=True):
                start = lr / div_factor
                group.update(initial_lr=start, max_lr=lr, min_lr=start / final_div_factor)
            if cycle_momentum:
                for group, most, least in zip(groups, *momenta, strict=True):
                    group.update(max_momentum=most, base_momentum=least)
        super().__init__(optimizer, last_epoch)

    def _length(self, total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
        if total_steps is not None:
            return self._check_count("total_steps", total_steps)
        if epochs is None or steps_per_epoch is None:
            raise ValueError(f"{self.name}: give total_steps, or epochs and steps_per_epoch")
        return self._check_count("epochs", epochs) * self._check_count("steps_per_epoch", steps_per_epoch)

    def _phases(self, pct_start: float, three_phase: bool) -> list[Phase]:
        up = pct_start * self.total_steps - 1
        rise: Phase = (up, "initial_lr", "max_lr", "max_momentum", "base_momentum")
        last = float(self.total_steps - 1)
        if not three_phase:
            return [rise, (last, "max_lr", "min_lr", "base_momentum", "max_momentum")]
        return [
            rise,
            (2 * up, "max_lr", "initial_lr", "base_momentum", "max_momentum"),
            (last, "initial_lr", "min_lr", "max_momentum", "max_momentum"),
        ]

    def _between(self, start: float, end: float, share: float) -> float:
        if self.anneal_strategy == "linear":
            return (end - start) * share + start
        return end + (start - end) / 2.0 * (1.0 + math.cos(math.pi * share))

    def get_lr(self) -> list[float]:
        step = self.last_epoch
        if step > self.total_steps:
            raise ValueError(f"{self.name}: step {step} of a schedule of {self.total_steps} steps")
        begin = 0.0
        for number, phase in enumerate(self.phases):
            if step <= phase[0] or number == len(self.phases) - 1:
                break
            begin = phase[0]
        end, lr_start, lr_end, momentum_start, momentum_end = phase
        share = (step - begin) / (end - begin) if end != begin else 1.0  # a phase of one step is at its end
        groups = self.optimizer.param_groups
        if self.cycle_momentum:
            for group in groups:
                self._set_momentum(group, self._between(group[momentum_start], group[momentum_end], share))
        return [self._between(group[lr_start], group[lr_end], share) for group in groups]

    @staticmethod
    def _set_momentum(group: dict[str, Any], momentum: float) -> None:
        if "betas" in group:
            group["betas"] = (momentum, *group["betas"][1:])
        else:
            group["momentum"] = momentum
