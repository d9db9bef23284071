"""The exponential moving average of weights, which evaluation uses in the place of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gpucnn import backends
from gpucnn.autograd import no_grad, running_on
from gpucnn.backends.updates import AverageNumbers, Row, Scalars
from gpucnn.device import Device
from gpucnn.layout import memory_view
from gpucnn.nn.state import as_tensor_or_array
from gpucnn.optim.memory import copy_of, kept_place, replayed, suits, zeros_like
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

    ``buffers`` are what else the network needs in evaluation: batch normalisation's running statistics, which belong
    to the weights that they were taken with. Those of floating dtype are averaged in the same way, which gives about
    the statistics of the averaged weights; others (the count of batches) stay as they are, for evaluation does not look
    at them. PyTorch's ``AveragedModel(use_buffers=True)`` does so too. A network with batch normalisation whose buffers
    are left out is evaluated with averaged weights beside the statistics of the last ones.

    >>> average = MovingAverage(model.parameters(), tutorial_decay(), model.buffers())   # doctest: +SKIP
    >>> average.update()                                                # after each optimizer step
    >>> with average.applied():                                         # the weights are the averages in here
    ...     accuracy = evaluate(model)
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        decay: float | Callable[[int], float] = 0.9999,
        buffers: Iterable[Tensor] = (),
    ) -> None:
        self.parameters = _tensors(parameters)
        if not self.parameters:
            raise ValueError("MovingAverage: got an empty parameter list")
        self.buffers = [buffer for buffer in _tensors(buffers) if buffer.is_floating_point()]
        if not callable(decay):
            _checked(decay)
        self.decay = decay
        self.steps = 0
        self.averages = [copy_of(parameter) for parameter in self.parameters]
        self.buffer_averages = [copy_of(buffer) for buffer in self.buffers]
        self._swapped = False
        self._scalars: dict[Device, Scalars] = {}

    def add_parameters(self, parameters: Iterable[Tensor]) -> None:
        """Takes in parameters more, whose averages start from what they are now."""
        added = _tensors(parameters)
        self.parameters += added
        self.averages += [copy_of(parameter) for parameter in added]

    def update(self, decay: float | None = None) -> None:
        """Takes the parameters and buffers of now into the averages, all of a device in one launch; ``decay`` stands
        for the usual one this time.
        """
        self.begin_or_register(decay)
        self.launch()

    # What update is made of: the host's part, and launches. `step_all` lets the optimizers' launches do some of it.

    def begin_or_register(self, decay: float | None = None) -> None:
        """:meth:`begin`, or, while a step is captured, only its registration for the replays."""
        if not replayed(self, self.tensors(), lambda: self.prepare(decay)):
            self.begin(decay)

    def prepare(self, decay: float | None = None) -> None:
        """The host's part of an update that is replayed afterwards, on the current stream. Steps captured by
        :func:`gpucnn.cuda.graph` do this by themselves.
        """
        self.begin(decay)
        for average in self.all_averages():
            average.modified()

    def begin(self, decay: float | None = None) -> None:
        """Counts an update and brings its decay to the devices; averages follow tensors that were moved."""
        if self._swapped:
            raise RuntimeError("MovingAverage.update: the averages are applied to the parameters right now")
        usual = self.decay
        decay = _checked((usual(self.steps + 1) if callable(usual) else usual) if decay is None else decay)
        self.follow()
        for device in {tensor.device: None for tensor in self.tensors()}:
            if device not in self._scalars:
                with backends.get(device).context():
                    self._scalars[device] = Scalars(backends.get(device), 1, len(AverageNumbers._fields))
            self._scalars[device].set(0, AverageNumbers(1.0 - decay))
            self._scalars[device].flush()
        self.steps += 1

    def follow(self) -> None:
        """Brings averages to where their tensors are, if those were moved since."""
        for averages, tensors in ((self.averages, self.parameters), (self.buffer_averages, self.buffers)):
            for index, tensor in enumerate(tensors):
                average = averages[index]
                if not suits(average, tensor):
                    averages[index] = zeros_like(tensor).copy_(average)

    def rows(self) -> dict[Device, Row]:
        """The numbers of the update that has begun, by device."""
        return {device: scalars.rows[0] for device, scalars in self._scalars.items()}

    def covered(self, parameters: Iterable[Tensor]) -> dict[int, Tensor]:
        """The averages, by the parameter's id, of those of ``parameters`` that there are averages of."""
        averages = {id(p): average for p, average in zip(self.parameters, self.averages, strict=True)}
        return {id(p): averages[id(p)] for p in parameters if id(p) in averages}

    def launch(self, without: Mapping[int, Tensor] | None = None) -> None:
        """The launches of an update that has begun, but for the parameters whose ids are ``without``."""
        launches: dict[tuple[Device, Any], list[tuple[Tensor, Tensor]]] = {}
        for tensor, average in zip(self.tensors(), self.all_averages(), strict=True):
            if without is None or id(tensor) not in without:
                launches.setdefault((tensor.device, tensor.dtype), []).append((average, tensor))
        for (device, _), pairs in launches.items():
            with running_on(device):
                pairs[0][0].backend.moving_average_step(
                    [memory_view(average.data) for average, _ in pairs],
                    [memory_view(tensor.data) for average, tensor in pairs],
                    self._scalars[device].rows[0],
                )
            for average, _ in pairs:
                average.modified()

    def copy_to(self) -> None:
        """Fills the parameters and buffers with the averages, for good."""
        _fill(self.tensors(), self.all_averages())

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the parameters and buffers hold the averages; after it, also after an exception, what they held
        before, bit for bit.
        """
        if self._swapped:
            raise RuntimeError("MovingAverage.applied: the averages are applied already")
        kept = [copy_of(tensor) for tensor in self.tensors()]
        self._swapped = True
        try:
            self.copy_to()
            yield
        finally:
            _fill(self.tensors(), kept)
            self._swapped = False

    def tensors(self) -> list[Tensor]:
        """The parameters, then the buffers."""
        return [*self.parameters, *self.buffers]

    def all_averages(self) -> list[Tensor]:
        """Their averages."""
        return [*self.averages, *self.buffer_averages]

    def state_dict(self) -> dict[str, Any]:
        """``{"steps": n, "averages": [tensor, ...]}`` in the order of the parameters, and the same of ``"buffers"`` if
        there are any.
        """
        state = {"steps": self.steps, "averages": [average.detach() for average in self.averages]}
        if self.buffers:
            state["buffers"] = [average.detach() for average in self.buffer_averages]
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over a :meth:`state_dict`. A state without buffers, as older files have, leaves their averages as they
        are. Raises ValueError, changing nothing, where number or shapes do not match.
        """
        self._take(*self._read(state_dict))

    def _read(self, state: Mapping[str, Any]) -> tuple[int, list[Tensor], list[Tensor]]:
        """Steps and averages of a saved state, checked, as tensors like the parameters and buffers."""
        try:
            steps, saved = int(state["steps"]), [as_tensor_or_array(value) for value in state["averages"]]
            of_buffers = [as_tensor_or_array(value) for value in state.get("buffers", self.buffer_averages)]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"MovingAverage: not a saved moving average: {error!r}") from error
        averages = _like(self.parameters, saved, "averages", "parameters")
        buffer_averages = _like(self.buffers, of_buffers, "averages of buffers", "buffers")
        if steps < 0:
            raise ValueError(f"MovingAverage: the number of steps must not be negative, got {steps}")
        return steps, averages, buffer_averages

    def _take(self, steps: int, averages: list[Tensor], buffer_averages: list[Tensor]) -> None:
        self.steps = steps
        self.averages = [kept_place(known, value) for known, value in zip(self.averages, averages, strict=True)]
        pairs = zip(self.buffer_averages, buffer_averages, strict=True)
        self.buffer_averages = [kept_place(known, value) for known, value in pairs]


def _tensors(given: Iterable[Tensor]) -> list[Tensor]:
    tensors = list(given)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"MovingAverage: expected tensors, got {type(tensor).__name__}")
    return tensors


def _like(tensors: list[Tensor], saved: list[Any], name: str, owners: str) -> list[Tensor]:
    """``saved`` as tensors that lie like ``tensors``."""
    shapes = [None if value is None else tuple(value.shape) for value in saved]
    own = [tuple(tensor.shape) for tensor in tensors]
    if shapes != own:
        raise ValueError(f"MovingAverage: saved {name} have shapes {shapes}, the {owners} {own}")
    return [zeros_like(tensor).copy_(value) for tensor, value in zip(tensors, saved, strict=True)]


def _fill(targets: list[Tensor], sources: list[Tensor]) -> None:
    with no_grad():
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)


def _checked(decay: float) -> float:
    if not isinstance(decay, (int, float)) or not 0.0 <= decay <= 1.0:
        raise ValueError(f"MovingAverage: decay must be between 0 and 1, got {decay!r}")
    return float(decay)
