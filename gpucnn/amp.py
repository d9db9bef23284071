"""Loss scaling for float16, with the names of ``torch.amp``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gpucnn import backends
from gpucnn.autograd import Function, running_on
from gpucnn.device import Device
from gpucnn.layout import memory_view
from gpucnn.optim import Lookahead, MovingAverage, Optimizer, step_all
from gpucnn.optim.fused import FusedOptimizer, Pairs, Part, Scaled
from gpucnn.tensor import DeviceLike, Tensor, resolve_device

SLOTS = 16  # sets of optimizers that step together
SCALE, INVERSE, SINCE, SKIPPED = range(4)  # places in the state, as in kernels/loss_scale.cu


class ScaleBy(Function):
    """A tensor times a number that only the device knows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
        ctx.factor = factor
        return Tensor(x.backend.scale_by(memory_view(x.data), factor.data).reshape(x.shape), x.device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        view = memory_view(grad.data)
        return Tensor(grad.backend.scale_by(view, ctx.factor.data).reshape(grad.shape), grad.device), None


class GradScaler:
    """Multiplies the loss, so that float16 gradients do not vanish, and the step's gradients with the inverse, as
    ``torch.amp.GradScaler``; every decision is made on the device, so a captured step may use it and nothing waits.

    A step whose gradients are infinite or NaN is skipped: parameters and the optimizers' state stay as they are, the
    optimizers do not count it, the scale becomes ``backoff_factor`` times what it was, and ``skipped_steps`` counts it.
    After ``growth_interval`` other steps in a row the scale becomes ``growth_factor`` times what it was. (Schedules and
    moving averages, which the host counts, go on.) With ``enabled=False`` all of it does nothing.

    >>> scaler = GradScaler()                                             # doctest: +SKIP
    >>> with gpucnn.precision("float16"):
    ...     loss = cross_entropy(model(images), labels)
    >>> scaler.scale(loss).backward()
    >>> scaler.step(optimizer)        # or scaler.step_all([optimizer, ...], average)
    >>> scaler.update()

    Raises ValueError for factors and intervals out of range.
    """

    def __init__(
        self,
        device: DeviceLike = None,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        if not _positive(init_scale):
            raise ValueError(f"GradScaler: init_scale must be a finite number above 0, got {init_scale!r}")
        if not (_positive(growth_factor) and growth_factor > 1.0):
            raise ValueError(f"GradScaler: growth_factor must be above 1, got {growth_factor!r}")
        if not (_positive(backoff_factor) and backoff_factor < 1.0):
            raise ValueError(f"GradScaler: backoff_factor must be between 0 and 1, got {backoff_factor!r}")
        if isinstance(growth_interval, bool) or not isinstance(growth_interval, int) or growth_interval < 1:
            raise ValueError(f"GradScaler: growth_interval must be a positive int, got {growth_interval!r}")
        self.device: Device | None = None if device is None else resolve_device(device)
        self.growth_factor, self.backoff_factor, self.growth_interval = growth_factor, backoff_factor, growth_interval
        self.enabled = bool(enabled)
        self._start = np.array([init_scale, 1.0 / init_scale, 0.0, 0.0], np.float32)
        self._state: Any = None
        self._found: Any = None
        self._sets: dict[tuple[int, ...], int] = {}  # by the ids of optimizers that step together: their place
        self._slots: dict[int, int] = {}  # by the id of an optimizer: that of the set that it was last in
        self._unscaled: set[int] = set()  # optimizers whose gradients are unscaled already, until the update

    # ---- a step ----

    def scale(self, outputs: Tensor) -> Tensor:
        """``outputs`` (a loss) times the scale."""
        if not self.enabled:
            return outputs
        scaled: Tensor = ScaleBy.apply(outputs, self._on(outputs.device))
        return scaled

    def backward(self, loss: Tensor) -> None:
        """``scale(loss).backward()`` for a loss of one element, without a launch of its own: the walk back begins with
        the scale in the place of 1.
        """
        if not self.enabled:
            loss.backward()
            return
        scale = self._on(loss.device)
        loss.backward(Tensor(scale.data.reshape(loss.shape), loss.device))

    def unscale_(self, optimizers: Optimizer | Iterable[Optimizer]) -> None:
        """Divides the gradients of one or more optimizers by the scale, in place, as their clipping wants it. One
        launch, which also looks for what is infinite or NaN.

        Raises RuntimeError if that was done since the last :meth:`update`.
        """
        if not self.enabled:
            return
        given = _fused(optimizers)
        for optimizer in given:
            if id(optimizer) in self._unscaled:
                raise RuntimeError(f"GradScaler.unscale_: {optimizer.name} was unscaled since the last update()")
        self._check([(optimizer, optimizer.updated()) for optimizer in given], unscale=True)
        self._unscaled |= {id(optimizer) for optimizer in given}

    def step(self, optimizer: Optimizer) -> None:
        """``optimizer.step()`` with unscaled gradients, skipped on the device if any is infinite or NaN."""
        self.step_all([optimizer])

    def step_all(
        self, optimizers: Sequence[Optimizer], average: MovingAverage | None = None, zero_grad: bool = False
    ) -> None:
        """:func:`gpucnn.optim.step_all` with unscaled gradients; all of ``optimizers`` skip if any gradient of one is
        infinite or NaN.
        """
        step_all(optimizers, average, self if self.enabled else None, zero_grad)

    def checked(self, parts: Sequence[tuple[FusedOptimizer, Pairs]]) -> list[Part]:
        """What :func:`gpucnn.optim.step_all` asks: the gradients are looked through, one launch for all that were not
        before, and each optimizer gets what its launch has to know.
        """
        fresh = [part for part in parts if id(part[0]) not in self._unscaled]
        self._check(fresh, unscale=False)
        result: list[Part] = []
        for optimizer, pairs in parts:
            if not pairs:
                result.append((optimizer, pairs, None))
                continue
            inverse = None if id(optimizer) in self._unscaled else self._inverse
            result.append((optimizer, pairs, Scaled(inverse, self._founds[self._slots[id(optimizer)]])))
        return result

    def update(self, new_scale: float | None = None) -> None:
        """The scale after the steps of an iteration: one launch. ``new_scale`` sets it instead."""
        self._unscaled.clear()
        if not self.enabled or self._state is None:
            if self.enabled and new_scale is not None:
                self._start[:] = self._set(self._start, new_scale)
            return
        if new_scale is not None:
            values = self._set(self._read(), new_scale)
            self._write(values)
            return
        assert self.device is not None
        with running_on(self.device):
            self._backend.update_scale(
                self._state, self._found, self.growth_factor, self.backoff_factor, self.growth_interval
            )

    # ---- what there is to read ----

    def get_scale(self) -> float:
        """The scale (a host read); 1 where not enabled."""
        return float(self._read()[SCALE]) if self.enabled else 1.0

    @property
    def skipped_steps(self) -> int:
        """How many steps were skipped (a host read)."""
        return int(self._read()[SKIPPED])

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self.enabled

    def state_dict(self) -> dict[str, Any]:
        """Scale, factors and counts, as plain numbers; empty where not enabled."""
        if not self.enabled:
            return {}
        values = self._read()
        return {
            "scale": float(values[SCALE]),
            "growth_factor": self.growth_factor,
            "backoff_factor": self.backoff_factor,
            "growth_interval": self.growth_interval,
            "_growth_tracker": int(values[SINCE]),
            "skipped_steps": int(values[SKIPPED]),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over a :meth:`state_dict`, or one of PyTorch's. Raises ValueError, changing nothing, for another."""
        if not self.enabled:
            return
        try:
            scale, since = float(state_dict["scale"]), int(state_dict["_growth_tracker"])
            skipped = int(state_dict.get("skipped_steps", 0))
            options = {name: state_dict[name] for name in ("growth_factor", "backoff_factor", "growth_interval")}
            GradScaler(None, scale, **options)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"GradScaler: not the state of a GradScaler: {error!r}") from error
        self.growth_factor, self.backoff_factor = options["growth_factor"], options["backoff_factor"]
        self.growth_interval = options["growth_interval"]
        self._write(np.array([scale, 1.0 / scale, since, skipped], np.float32))

    # ---- the numbers on the device ----

    @property
    def _backend(self) -> Any:
        assert self.device is not None
        return backends.get(self.device)

    @property
    def _inverse(self) -> Any:
        return self._state[INVERSE : INVERSE + 1]

    def _on(self, device: Device) -> Tensor:
        """The scale (1,) on ``device``, where the state is made the first time. The tensor is kept, so that a capture
        knows it.
        """
        if self.device is None:
            self.device = device
        if device != self.device:
            raise RuntimeError(f"GradScaler: it is on {self.device}, got a loss or gradients on {device}")
        if self._state is None:
            with self._backend.context():
                self._state = self._backend.from_host(self._start)
                self._found = self._backend.from_host(np.zeros(SLOTS, np.float32))
            self._founds = [self._found[slot : slot + 1] for slot in range(SLOTS)]
            self._scale = Tensor(self._state[SCALE : SCALE + 1], device)
        return self._scale

    def _check(self, parts: Sequence[tuple[FusedOptimizer, Pairs]], unscale: bool) -> None:
        parameters = [parameter for _, pairs in parts for _, parameter in pairs]
        if not parameters:
            return
        self._on(parameters[0].device)
        slot = self._slot([optimizer for optimizer, _ in parts])
        launches: dict[Any, list[Tensor]] = {}
        for parameter in parameters:
            self._on(parameter.device)
            assert parameter.grad is not None
            launches.setdefault(parameter.dtype, []).append(parameter.grad)
        with running_on(parameters[0].device):
            for gradients in launches.values():
                self._backend.check_gradients(
                    [memory_view(gradient.data) for gradient in gradients],
                    self._founds[slot],
                    self._inverse if unscale else None,
                )
        if unscale:
            for parameter in parameters:
                assert parameter.grad is not None
                parameter.grad.modified()

    def _slot(self, optimizers: list[FusedOptimizer]) -> int:
        """The place of ``found_inf`` of optimizers that step together; each set of them has its own."""
        members = tuple(sorted(id(optimizer) for optimizer in optimizers))
        if members not in self._sets and len(self._sets) >= SLOTS:
            raise RuntimeError(f"GradScaler: more than {SLOTS} sets of optimizers that step on their own")
        slot = self._sets.setdefault(members, len(self._sets))
        self._slots.update(dict.fromkeys(members, slot))
        return slot

    def _read(self) -> Any:
        return self._start.copy() if self._state is None else self._backend.to_host(self._state)

    def _write(self, values: Any) -> None:
        if self._state is None:
            self._start[:] = values
        else:
            with self._backend.context():
                self._state[...] = self._backend.from_host(values)

    @staticmethod
    def _set(values: Any, scale: float) -> Any:
        if not _positive(scale):
            raise ValueError(f"GradScaler.update: new_scale must be a finite number above 0, got {scale!r}")
        values = values.copy()
        values[SCALE], values[INVERSE] = scale, 1.0 / scale
        return values


def _fused(optimizers: Optimizer | Iterable[Optimizer]) -> list[FusedOptimizer]:
    given = [optimizers] if isinstance(optimizers, Optimizer) else list(optimizers)
    inner = [each.optimizer if isinstance(each, Lookahead) else each for each in given]
    return [each for each in inner if isinstance(each, FusedOptimizer)]


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 and math.isfinite(value)
