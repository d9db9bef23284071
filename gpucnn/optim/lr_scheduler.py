"""Learning rates that change with the epoch, as ``torch.optim.lr_scheduler``: call ``step()`` after each epoch (or each
step).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpucnn.optim.optimizer import Optimizer


class LRScheduler:
    """The base: sets each group's ``lr`` to :meth:`get_lr` at every :meth:`step`, the first one when it is made.

    ``last_epoch`` is the number of steps taken; -1 starts anew. Subclasses define ``get_lr``.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: expected an Optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ValueError(
                    f"{type(self).__name__}: group {number} has no initial_lr to go on from at last_epoch={last_epoch}"
                )
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self.step()

    def get_lr(self) -> list[float]:
        """The learning rate of each group at ``last_epoch``."""
        raise NotImplementedError(f"{type(self).__name__} is missing a get_lr method")

    def get_last_lr(self) -> list[float]:
        """The learning rates that the last step set."""
        return list(self._last_lr)

    def step(self) -> None:
        """Goes on by one epoch."""
        self.last_epoch += 1
        self._last_lr = [float(lr) for lr in self.get_lr()]
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = lr

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers; functions are not saved."""
        return {"base_lrs": list(self.base_lrs), "last_epoch": self.last_epoch, "last_lr": list(self._last_lr)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on from a :meth:`state_dict`; the optimizer's own state holds the learning rates. Raises ValueError if
        it is none.
        """
        try:
            base, last = [float(lr) for lr in state_dict["base_lrs"]], [float(lr) for lr in state_dict["last_lr"]]
            epoch = int(state_dict["last_epoch"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{type(self).__name__}: not the state of a scheduler: {error!r}") from error
        if len(base) != len(self.base_lrs) or len(last) != len(base):
            raise ValueError(
                f"{type(self).__name__}: the state is of {len(base)} groups, this optimizer has {len(self.base_lrs)}"
            )
        self.base_lrs, self.last_epoch, self._last_lr = base, epoch, last


class StepLR(LRScheduler):
    """Multiplies the learning rate by ``gamma`` every ``step_size`` epochs."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        if not isinstance(step_size, int) or step_size < 1:
            raise ValueError(f"StepLR: step_size must be a positive int, got {step_size!r}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        drop = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return [group["lr"] * (self.gamma if drop else 1.0) for group in self.optimizer.param_groups]


class LambdaLR(LRScheduler):
    """The initial learning rate times ``lr_lambda(epoch)``; one function, or one for each group."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        groups = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != groups:
            raise ValueError(f"LambdaLR: got {len(self.lr_lambdas)} functions for {groups} parameter groups")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [base * function(self.last_epoch) for base, function in zip(self.base_lrs, self.lr_lambdas, strict=True)]
