"""The base of all schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpucnn.optim.optimizer import Optimizer


class LRScheduler:
    """The base: sets each group's ``lr`` to :meth:`get_lr` at every :meth:`step`, the first one when it is made.

    ``last_epoch`` is the number of steps taken; -1 starts anew, another number goes on there and finds each group's
    first learning rate in its ``initial_lr``. Subclasses define ``get_lr``; most of them, as PyTorch's do, change the
    rate that the group has now, so that schedules can be chained and rates be changed by hand. ``closed_form`` gives
    the rates by ``last_epoch`` alone, where there is such a formula.
    """

    is_initial = False  # while the constructor takes the first step

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = self._checked_optimizer(optimizer)
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ValueError(f"{self.name}: group {number} has no initial_lr to go on from at {last_epoch=}")
        self.base_lrs: list[float] = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._take_first_step()

    @property
    def name(self) -> str:
        """The name of the class, for messages."""
        return type(self).__name__

    def get_lr(self) -> list[float]:
        """The learning rate of each group at ``last_epoch``."""
        raise NotImplementedError(f"{self.name} is missing a get_lr method")

    def closed_form(self) -> list[float]:
        """The learning rates at ``last_epoch`` by the formula, whatever they are now; :meth:`get_lr` where there is
        none.
        """
        return self.get_lr()

    def get_last_lr(self) -> list[float]:
        """The learning rates that the last step set."""
        return list(self._last_lr)

    def step(self) -> None:
        """Goes on by one epoch."""
        before = self.last_epoch
        self.last_epoch += 1
        try:
            rates = self.get_lr()
        except BaseException:
            self.last_epoch = before
            raise
        self._set(rates)

    def current(self) -> list[float]:
        """The learning rate that each group has now."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    # ---- saving ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers: how far the schedule has come. Its options and functions are those that it is made with."""
        return {"base_lrs": list(self.base_lrs), "last_epoch": self.last_epoch, "last_lr": list(self._last_lr)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on from a :meth:`state_dict`; the optimizer's own state holds the learning rates. Raises ValueError,
        changing nothing, if it is none.
        """
        for scheduler, values in self._plan(state_dict):
            scheduler.__dict__.update(values)

    def _plan(self, state: Mapping[str, Any]) -> list[tuple[LRScheduler, dict[str, Any]]]:
        """The attributes that ``state`` gives this schedule and those below it, checked."""
        try:
            return [(self, self._read(state))]
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{self.name}: not the state of a scheduler: {error!r}") from error

    def _read(self, state: Mapping[str, Any]) -> dict[str, Any]:
        base, last = _numbers(state["base_lrs"]), _numbers(state["last_lr"])
        epoch = state["last_epoch"]
        if not isinstance(epoch, int):
            raise TypeError(f"last_epoch is {epoch!r}")
        if len(base) != len(self.base_lrs) or len(last) != len(base):
            raise ValueError(
                f"{self.name}: the state is of {len(base)} groups, this optimizer has {len(self.base_lrs)}"
            )
        return {"base_lrs": base, "last_epoch": epoch, "_last_lr": last}

    # ---- for subclasses ----------------------------------------------------------------------------------------------

    def _set(self, rates: Sequence[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = float(lr)
        self._last_lr = self.current()

    def _take_first_step(self) -> None:
        self.is_initial = True
        try:
            self.step()
        finally:
            del self.is_initial  # back to the class's

    def _rewind(self) -> None:
        """Back to before the constructor's step, but for the learning rates: a combined schedule sets those."""
        self.last_epoch = -1

    def _begin(self) -> None:
        """Takes over at epoch 0, as a part of a SequentialLR whose time has come."""
        self.last_epoch = 0
        self._set(self.closed_form())

    def _checked_optimizer(self, optimizer: Any) -> Optimizer:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{self.name}: expected an Optimizer, got {type(optimizer).__name__}")
        for number, group in enumerate(optimizer.param_groups):
            if "lr" not in group:
                raise ValueError(f"{self.name}: group {number} of {optimizer.name} has no learning rate")
        return optimizer

    def _for_groups(self, option: str, value: Any, optimizer: Optimizer) -> list[Any]:
        """``value`` for each group: a list or tuple has one for each."""
        groups = len(optimizer.param_groups)
        if not isinstance(value, (list, tuple)):
            return [value] * groups
        if len(value) != groups:
            raise ValueError(f"{self.name}: got {len(value)} values of {option} for {groups} parameter groups")
        return list(value)

    def _check_count(self, option: str, value: Any, least: int = 1) -> int:
        """Raises ValueError unless ``value`` is an int not below ``least``."""
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            wanted = "a positive int" if least == 1 else f"an int, {least} or more"
            raise ValueError(f"{self.name}: {option} must be {wanted}, got {value!r}")
        return value

    def _check_number(self, option: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
        """Raises ValueError unless ``value`` is a finite number in [low, high]."""
        if not isinstance(value, (int, float)) or not math.isfinite(value) or not low <= value <= high:
            limits = "" if (low, high) == (-math.inf, math.inf) else f" from {low:g} to {high:g}"
            raise ValueError(f"{self.name}: {option} must be a finite number{limits}, got {value!r}")
        return value


def _numbers(values: Iterable[Any]) -> list[float]:
    numbers = list(values)
    if not all(isinstance(number, (int, float)) for number in numbers):
        raise TypeError(f"expected numbers, got {numbers!r:.80}")
    return [float(number) for number in numbers]
