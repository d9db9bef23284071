"""The exponential moving average of weights, which evaluation uses in the place of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gpucnn.autograd import no_grad, running_on
from gpucnn.device import Device
from gpucnn.layout import memory_view
from gpucnn.nn.state import as_tensor_or_array
from gpucnn.optim.memory import copy_of, matched, zeros_like
from gpucnn.tensor import Tensor


def tutorial_decay(limit: float = 0.9999) -> Callable[[int], float]:
    """min(limit, (1 + n) / (10 + n)) after n steps: young averages forget their random start
    (``tf.train.ExponentialMovingAverage``).
    """
    return lambda steps: min(limit, (1 + steps) / (10 + steps))


class MovingAverage:
    """average = decay * average + (1 - decay) * parameter at every :meth:`update`; it starts from the parameters as
    they are.

    ``decay`` is a number in [0, 1] or a function of the number of updates, this one included (1 at the first).

    >>> average = MovingAverage(model.parameters(), tutorial_decay())   # doctest: +SKIP
    >>> average.update()                                                # after each optimizer step
    >>> with average.applied():                                         # the weights are the averages in here
    ...     accuracy = evaluate(model)
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float | Callable[[int], float] = 0.9999) -> None:
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("MovingAverage: got an empty parameter list")
        for parameter in self.parameters:
            if not isinstance(parameter, Tensor):
                raise TypeError(f"MovingAverage: expected tensors, got {type(parameter).__name__}")
        if not callable(decay):
            _checked(decay)
        self.decay = decay
        self.steps = 0
        self.averages = [copy_of(parameter) for parameter in self.parameters]
        self._swapped = False

    def update(self) -> None:
        """Takes the parameters of now into the averages, all of a device in one launch."""
        if self._swapped:
            raise RuntimeError("MovingAverage.update: the averages are applied to the parameters right now")
        decay = _checked(self.decay(self.steps + 1) if callable(self.decay) else self.decay)
        launches: dict[tuple[Device, Any], list[tuple[Tensor, Tensor]]] = {}
        for index, parameter in enumerate(self.parameters):
            average = self.averages[index]
            if average.device != parameter.device or average.dtype != parameter.dtype:  # the module was moved since
                average = self.averages[index] = zeros_like(parameter).copy_(average)
            launches.setdefault((parameter.device, parameter.dtype), []).append((average, parameter))
        for pairs in launches.values():
            backend = pairs[0][0].backend
            with running_on(pairs[0][0].device):
                backend.moving_average_step(
                    [memory_view(average.data) for average, _ in pairs],
                    [matched(parameter, average) for average, parameter in pairs],
                    decay,
                )
            for average, _ in pairs:
                average.modified()
        self.steps += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the parameters hold the averages; after it, also after an exception, what they held before, bit for
        bit.
        """
        if self._swapped:
            raise RuntimeError("MovingAverage.applied: the averages are applied already")
        kept = [copy_of(parameter) for parameter in self.parameters]
        self._swapped = True
        try:
            _fill(self.parameters, self.averages)
            yield
        finally:
            _fill(self.parameters, kept)
            self._swapped = False

    def state_dict(self) -> dict[str, Any]:
        """``{"steps": n, "averages": [tensor, ...]}`` in the order of the parameters."""
        return {"steps": self.steps, "averages": [average.detach() for average in self.averages]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over a :meth:`state_dict`. Raises ValueError, changing nothing, where number or shapes do not match."""
        try:
            steps, saved = int(state_dict["steps"]), [as_tensor_or_array(value) for value in state_dict["averages"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"MovingAverage: not a saved moving average: {error!r}") from error
        shapes = [None if value is None else tuple(value.shape) for value in saved]
        own = [tuple(parameter.shape) for parameter in self.parameters]
        if shapes != own:
            raise ValueError(f"MovingAverage: saved averages have shapes {shapes}, the parameters {own}")
        if steps < 0:
            raise ValueError(f"MovingAverage: the number of steps must not be negative, got {steps}")
        self.averages = [zeros_like(p).copy_(value) for p, value in zip(self.parameters, saved, strict=True)]
        self.steps = steps


def _fill(targets: list[Tensor], sources: list[Tensor]) -> None:
    with no_grad():
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)


def _checked(decay: float) -> float:
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"MovingAverage: decay must be between 0 and 1, got {decay!r}")
    return float(decay)
