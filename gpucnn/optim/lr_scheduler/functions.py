"""Schedules given as functions of the epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gpucnn.optim.lr_scheduler.base import LRScheduler
from gpucnn.optim.optimizer import Optimizer

Function = Callable[[int], float]


class _ByFunction(LRScheduler):
    def __init__(self, optimizer: Optimizer, lr_lambda: Function | Sequence[Function], last_epoch: int = -1) -> None:
        groups = len(self._checked_optimizer(optimizer).param_groups)
        self.lr_lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != groups:
            raise ValueError(f"{self.name}: got {len(self.lr_lambdas)} functions for {groups} parameter groups")
        for function in self.lr_lambdas:
            if not callable(function):
                raise TypeError(f"{self.name}: lr_lambda must be a function, got {type(function).__name__}")
        super().__init__(optimizer, last_epoch)


class LambdaLR(_ByFunction):
    """The initial learning rate times ``lr_lambda(epoch)``; one function, or one for each group."""

    def get_lr(self) -> list[float]:
        return [base * function(self.last_epoch) for base, function in zip(self.base_lrs, self.lr_lambdas, strict=True)]


class MultiplicativeLR(_ByFunction):
    """Multiplies the learning rate by ``lr_lambda(epoch)`` at every epoch but the first; one function, or one for each
    group.
    """

    def get_lr(self) -> list[float]:
        if self.is_initial:
            return self.current()
        return [lr * function(self.last_epoch) for lr, function in zip(self.current(), self.lr_lambdas, strict=True)]
