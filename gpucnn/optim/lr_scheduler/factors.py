"""Schedules that multiply the learning rate by a factor of the epoch."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence

from gpucnn.optim.lr_scheduler.base import LRScheduler
from gpucnn.optim.optimizer import Optimizer


class StepLR(LRScheduler):
    """Multiplies the learning rate by ``gamma`` every ``step_size`` epochs."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size = self._check_count("step_size", step_size)
        self.gamma = self._check_number("gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        drop = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return [lr * self.gamma for lr in self.current()] if drop else self.current()

    def closed_form(self) -> list[float]:
        return [base * self.gamma ** (self.last_epoch // self.step_size) for base in self.base_lrs]


class MultiStepLR(LRScheduler):
    """Multiplies the learning rate by ``gamma`` at each epoch of ``milestones``, once for every time that it is
    there.
    """

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones = Counter(self._check_count("a milestone", epoch, 0) for epoch in milestones)
        self.gamma = self._check_number("gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [lr * self.gamma ** self.milestones[self.last_epoch] for lr in self.current()]

    def closed_form(self) -> list[float]:
        passed = bisect_right(sorted(self.milestones.elements()), self.last_epoch)
        return [base * self.gamma**passed for base in self.base_lrs]


class ConstantLR(LRScheduler):
    """The learning rate times ``factor`` until epoch ``total_iters``, from then on the learning rate itself.

    Raises ValueError for a factor that is not above 0 and at most 1.
    """

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        self.factor = self._check_number("factor", factor, 0, 1)
        if factor == 0:
            raise ValueError(f"{self.name}: factor must be above 0, for the learning rate is divided by it again")
        self.total_iters = self._check_count("total_iters", total_iters)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return [lr * self.factor for lr in self.current()]
        return [lr / self.factor for lr in self.current()] if self.last_epoch == self.total_iters else self.current()

    def closed_form(self) -> list[float]:
        return [base * (self.factor if self.last_epoch < self.total_iters else 1.0) for base in self.base_lrs]


class LinearLR(LRScheduler):
    """The learning rate times a factor that goes linearly from ``start_factor`` (0 excluded) at epoch 0 to
    ``end_factor`` at epoch ``total_iters``, and stays there; both are at most 1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.start_factor = self._check_number("start_factor", start_factor, 0, 1)
        if start_factor == 0:
            raise ValueError(f"{self.name}: start_factor must be above 0, for the next rate is computed from it")
        self.end_factor = self._check_number("end_factor", end_factor, 0, 1)
        self.total_iters = self._check_count("total_iters", total_iters)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return [lr * self.start_factor for lr in self.current()]
        if self.is_initial or self.last_epoch > self.total_iters:
            return self.current()
        rise = self.end_factor - self.start_factor
        growth = 1.0 + rise / (self.total_iters * self.start_factor + (self.last_epoch - 1) * rise)
        return [lr * growth for lr in self.current()]

    def closed_form(self) -> list[float]:
        done = min(self.total_iters, self.last_epoch) / self.total_iters
        return [base * (self.start_factor + (self.end_factor - self.start_factor) * done) for base in self.base_lrs]


class ExponentialLR(LRScheduler):
    """Multiplies the learning rate by ``gamma`` every epoch."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = self._check_number("gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return self.current() if self.is_initial else [lr * self.gamma for lr in self.current()]

    def closed_form(self) -> list[float]:
        return [base * self.gamma**self.last_epoch for base in self.base_lrs]


class PolynomialLR(LRScheduler):
    """The learning rate times (1 - epoch / total_iters) ** power, 0 from epoch ``total_iters`` on."""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        self.total_iters = self._check_count("total_iters", total_iters)
        self.power = self._check_number("power", power)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.is_initial or self.last_epoch > self.total_iters:
            return self.current()
        left = (1.0 - self.last_epoch / self.total_iters) / (1.0 - (self.last_epoch - 1) / self.total_iters)
        return [lr * left**self.power for lr in self.current()]

    def closed_form(self) -> list[float]:
        left = 1.0 - min(self.total_iters, self.last_epoch) / self.total_iters
        return [base * left**self.power for base in self.base_lrs]


class PiecewiseLinearLR(LRScheduler):
    """The initial learning rate times a factor interpolated linearly between milestones.

    At epoch (or step) ``milestones[i]`` the factor is ``factors[i]``; before the first and after the last milestone it
    is constant. ``milestones`` are numbers that increase, ``factors`` as many numbers. The triangle of the fast
    CIFAR-10 trainings is ``PiecewiseLinearLR(optimizer, [0, peak, total], [0.0, 1.0, 0.0])``.

    Not PyTorch's; ``LambdaLR`` over ``numpy.interp`` gives the same. Raises ValueError for milestones that do not
    increase and for lists of two lengths.
    """

    def __init__(
        self, optimizer: Optimizer, milestones: Sequence[float], factors: Sequence[float], last_epoch: int = -1
    ) -> None:
        self.milestones = [self._check_number("a milestone", place) for place in milestones]
        self.factors = [self._check_number("a factor", factor) for factor in factors]
        if not self.milestones or len(self.milestones) != len(self.factors):
            raise ValueError(
                f"{self.name}: expected one factor for each of one or more milestones,"
                f" got {len(self.milestones)} milestones and {len(self.factors)} factors"
            )
        if any(a >= b for a, b in zip(self.milestones, self.milestones[1:], strict=False)):
            raise ValueError(f"{self.name}: milestones must increase, got {self.milestones}")
        super().__init__(optimizer, last_epoch)

    def factor(self, epoch: float) -> float:
        """The factor at ``epoch``."""
        after = bisect_right(self.milestones, epoch)
        if after in (0, len(self.milestones)):
            return self.factors[max(after - 1, 0)]
        (left, right), (low, high) = self.milestones[after - 1 : after + 1], self.factors[after - 1 : after + 1]
        share = (epoch - left) / (right - left)
        return low * (1.0 - share) + high * share

    def get_lr(self) -> list[float]:
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]
