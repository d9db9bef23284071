"""Lookahead: slow weights that follow the fast ones of another optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gpucnn import backends
from gpucnn.autograd import running_on
from gpucnn.backends.updates import LookaheadNumbers, Scalars
from gpucnn.device import Device
from gpucnn.layout import memory_view
from gpucnn.optim.memory import replayed
from gpucnn.optim.moving_average import MovingAverage
from gpucnn.optim.optimizer import Optimizer
from gpucnn.tensor import Tensor


class Lookahead(Optimizer):
    """Lookahead (Zhang, Lucas, Hinton and Ba, Lookahead Optimizer: k steps forward, 1 step back, 2019) around another
    optimizer.

    Every ``k`` steps of ``optimizer`` the slow weights, which began as the parameters were, go on by slow += alpha *
    (parameter - slow), and the parameters become the slow weights. The optimizer's own state (its momentum) goes on.
    ``alpha`` is a number in [0, 1] or a function of the number of steps taken so far, for a schedule.

    ``buffers`` (``model.buffers()``; those of floating dtype) are treated as parameters are: airbench does so with
    batch normalisation's statistics. Groups, options and state are the inner optimizer's, so schedules and
    ``clip_grad_norm_`` work on either.

    Instead of an optimizer, ``optimizer`` may be the parameters themselves: ``step()`` then only counts, and is called
    after the steps of whatever optimizers move them.

    >>> optimizer = Lookahead(SGD(model.parameters(), lr=0.1, momentum=0.9), k=5, alpha=0.5)   # doctest: +SKIP

    Raises ValueError for a ``k`` below 1 and an ``alpha`` outside [0, 1].
    """

    def __init__(
        self,
        optimizer: Optimizer | Iterable[Tensor],
        k: int = 5,
        alpha: float | Callable[[int], float] = 0.5,
        buffers: Iterable[Tensor] = (),
    ) -> None:
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise ValueError(f"Lookahead: k must be a positive int, got {k!r}")
        if not callable(alpha):
            _checked(alpha)
        self.optimizer = optimizer if isinstance(optimizer, Optimizer) else _MovedByOthers(optimizer, {})
        self.k, self.alpha = k, alpha
        self.steps = 0
        self.slow = MovingAverage(self._numbered(), 1.0, buffers)
        self._scalars: dict[Device, Scalars] = {}

    # The inner optimizer's, also after it has loaded a state.

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The groups of the inner optimizer."""
        return self.optimizer.param_groups

    @property
    def state(self) -> dict[Tensor, dict[str, Any]]:  # type: ignore[override]
        """The state of the inner optimizer."""
        return self.optimizer.state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """The default options of the inner optimizer."""
        return self.optimizer.defaults

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        self.optimizer.add_param_group(param_group)
        self.slow.add_parameters(self.param_groups[-1]["params"])

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = self.optimizer.step(closure)
        self.follow()
        return loss

    def prepare(self) -> None:
        self.optimizer.prepare()
        self._again()

    def follow(self) -> None:
        """What a step does after the inner optimizer's: it is counted, and every ``k`` steps the weights come
        together.
        """
        captured = replayed(self, self.slow.tensors(), self._again)
        if not captured:
            self._begin()
        self._launch(captured or not self.steps % self.k)

    def _again(self) -> None:
        self._begin()
        for tensor in self.slow.tensors() if not self.steps % self.k else []:
            tensor.modified()

    def _begin(self) -> None:
        active = (self.steps + 1) % self.k == 0
        alpha = self._alpha(self.steps + 1) if active else 0.0
        self.steps += 1
        self._set(alpha, active)
        self.slow.steps += active

    def synchronize(self, alpha: float | None = None) -> None:
        """Brings slow and fast weights together now. ``alpha`` stands for the usual one this time: 0 ends a training
        with the slow weights as they are.
        """
        self._set(self._alpha(self.steps) if alpha is None else _checked(alpha), True)
        self.slow.steps += 1
        self._launch(True)

    def _alpha(self, steps: int) -> float:
        return _checked(self.alpha(steps) if callable(self.alpha) else self.alpha)

    def _set(self, alpha: float, active: bool) -> None:
        """Brings the numbers of this step to the devices."""
        self.slow.follow()
        for device in {tensor.device: None for tensor in self.slow.tensors()}:
            if device not in self._scalars:
                with backends.get(device).context():
                    self._scalars[device] = Scalars(backends.get(device), 1, len(LookaheadNumbers._fields))
            self._scalars[device].set(0, LookaheadNumbers(1.0 - (1.0 - alpha), float(active)))
            self._scalars[device].flush()

    def _launch(self, moved: bool) -> None:
        """One launch for a device and dtype, in the steps between too: the numbers say whether it does anything."""
        launches: dict[tuple[Device, Any], list[tuple[Tensor, Tensor]]] = {}
        for slow, tensor in zip(self.slow.all_averages(), self.slow.tensors(), strict=True):
            launches.setdefault((tensor.device, tensor.dtype), []).append((slow, tensor))
        for (device, _), pairs in launches.items():
            with running_on(device):
                pairs[0][0].backend.lookahead_step(
                    [memory_view(slow.data) for slow, _ in pairs],
                    [memory_view(tensor.data) for _, tensor in pairs],
                    self._scalars[device].rows[0],
                )
            for tensor in [tensor for pair in pairs for tensor in pair] if moved else []:
                tensor.modified()

    def state_dict(self) -> dict[str, Any]:
        """``{"optimizer": the inner state, "steps": n, "slow": the slow weights}``."""
        return {"optimizer": self.optimizer.state_dict(), "steps": self.steps, "slow": self.slow.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        try:
            inner, steps, slow = state_dict["optimizer"], int(state_dict["steps"]), state_dict["slow"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"Lookahead: not the state of a Lookahead: {error!r}") from error
        if steps < 0:
            raise ValueError(f"Lookahead: the number of steps must not be negative, got {steps}")
        weights = self.slow._read(slow)
        self.optimizer.load_state_dict(inner)
        self.slow._take(*weights)
        self.steps = steps

    def __repr__(self) -> str:
        return f"Lookahead (\nk: {self.k}\nalpha: {self.alpha}\n{self.optimizer!r}\n)"


class _MovedByOthers(Optimizer):
    """Parameters that other optimizers step."""

    name = "Lookahead"  # in messages

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        return self.evaluate(closure)

    def prepare(self) -> None:
        pass


def _checked(alpha: float) -> float:
    if not isinstance(alpha, (int, float)) or not 0.0 <= alpha <= 1.0:
        raise ValueError(f"Lookahead: alpha must be between 0 and 1, got {alpha!r}")
    return float(alpha)
