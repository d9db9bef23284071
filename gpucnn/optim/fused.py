"""Optimizers whose step is one launch over all parameters that one kernel can update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpucnn.autograd import running_on
from gpucnn.backends.updates import Along, Row, Scalars
from gpucnn.layout import memory_view
from gpucnn.nn.state import clear_grad
from gpucnn.optim.memory import filled_like, lie_alike, matched, replayed, suits, zeros_like
from gpucnn.optim.optimizer import Optimizer, Params
from gpucnn.tensor import Tensor

Array = Any
Pairs = list[tuple[dict[str, Any], Tensor]]  # parameters with the group that each is of


class Scaled(NamedTuple):
    """What loss scaling lays on a step: ``inverse_scale`` (1,), or None for gradients that are unscaled already, and
    ``found_inf`` (1,), both on the device."""

    inverse_scale: Array | None
    found_inf: Array


class _Place(NamedTuple):
    """Where a parameter's numbers are: a row of a block, and the block's counts of skipped steps."""

    scalars: Scalars
    row: int
    skipped: Array  # of the whole block, int32


class FusedOptimizer(Optimizer):
    """The base of optimizers that keep arrays like the parameter in its state.

    A step has two parts. :meth:`prepare` is the host's: it counts, works out each parameter's numbers from the options
    of its group and brings them to the device. The rest is launches, which read the numbers there, so that a captured
    step can be replayed after each ``prepare``. Parameters of all groups, whatever their options, share a launch.

    Subclasses say which primitive (``primitive``, its state in the order of ``states``), which arrays a group's
    parameters need (:meth:`arrays`) and which numbers (:meth:`numbers`). Parameters without a gradient are left alone.
    """

    primitive: str
    states: tuple[str, ...]
    fields: int
    counts = True  # whether the state has ``step``, the number of steps

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self._places: dict[tuple[int, Any], _Place] = {}
        self._moved: list[Tensor] = []  # what the last launches updated
        self._scaled = False  # whether steps may have been skipped on the device
        super().__init__(params, defaults)

    def arrays(self, group: Mapping[str, Any]) -> dict[str, float]:
        """The names of the arrays that the parameters of ``group`` need, and what they start from."""
        raise NotImplementedError

    def numbers(self, group: Mapping[str, Any], parameter: Tensor) -> tuple[float, ...]:
        """The numbers of this step for ``parameter``, whose state is there."""
        raise NotImplementedError

    def extra(self, group: Mapping[str, Any]) -> tuple[Any, ...]:
        """What else the primitive takes; parameters of one launch agree in it."""
        return ()

    def takes(self, parameter: Tensor) -> bool:
        """Whether a parameter with a gradient is updated."""
        return True

    def view(self, parameter: Tensor, array: Array) -> Array:
        """An array like the parameter, in the order of its memory, as the primitive wants it."""
        return array

    # ---- the host's part ----

    def step(self, closure: Callable[[], Any] | None = None, *, zero_grad: bool = False) -> Any:
        """One update of all parameters that have a gradient, in one launch for all of a device and dtype; ``closure``
        computes the loss anew and its value is returned. ``zero_grad``: the same launch leaves the gradients at zero
        (for those who keep their memory; forgetting them by :meth:`zero_grad` costs nothing).
        """
        loss = self.evaluate(closure)
        pairs = self.updated()
        self.begin_or_register(pairs)
        launch([(self, pairs, None)], zero_gradients=zero_grad)
        return loss

    def prepare(self) -> None:
        """The host's part of a step that is replayed afterwards, on the current stream, for the parameters that the
        last launches moved. Steps captured by :func:`gpucnn.cuda.graph` do this by themselves.
        """
        moved = {id(parameter) for parameter in self._moved}
        self._again([(group, p) for group in self.param_groups for p in group["params"] if id(p) in moved])

    def begin_or_register(self, pairs: Pairs, scaled: bool = False) -> None:
        """:meth:`begin`, or, while a step is captured, only its registration for the replays."""
        if replayed(self, (parameter for _, parameter in pairs), lambda: self._again(pairs, scaled, built)):
            built = self._built(pairs)  # before any replay
        else:
            self.begin(pairs, scaled)

    def _built(self, pairs: Pairs) -> list[tuple[Any, ...]]:
        """What a captured launch has in it besides numbers: arrays of the state, and what else the primitive takes."""
        return [
            (self.extra(group), *(id(self.state.get(p, {}).get(name)) for name in self.arrays(group)))
            for group, p in pairs
        ]

    def _again(self, pairs: Pairs, scaled: bool = False, built: list[tuple[Any, ...]] | None = None) -> None:
        groups = {id(p): group for group in self.param_groups for p in group["params"]}  # others after a load
        pairs = [(groups.get(id(parameter), group), parameter) for group, parameter in pairs]
        if built is not None and self._built(pairs) != built:
            raise RuntimeError(
                f"{self.name}: options that decide which state there is, or the state's arrays themselves, have changed"
                " since the step was captured: capture it again"
            )
        self.begin(pairs, scaled)
        for group, parameter in pairs:
            parameter.modified()
            for name in self.arrays(group):
                self.state[parameter][name].modified()

    def updated(self) -> Pairs:
        """The parameters that a step would update now, each with its group."""
        return [
            (group, parameter)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and self.takes(parameter)
        ]

    def begin(self, pairs: Pairs, scaled: bool = False) -> None:
        """Counts a step of ``pairs`` and brings its numbers to the device; ``scaled``: it may be skipped there."""
        self._scaled = self._scaled or scaled
        missing: dict[Any, dict[int, Tensor]] = {}
        for group, parameter in pairs:
            self._provide(group, parameter)
            if (id(parameter), parameter.device) not in self._places:
                missing.setdefault(parameter.device, {})[id(parameter)] = parameter
        for parameters in missing.values():
            self._add_block(list(parameters.values()))
        blocks = {}
        for group, parameter in pairs:
            place = self._places[id(parameter), parameter.device]
            place.scalars.set(place.row, self.numbers(group, parameter))
            blocks[id(place.scalars)] = place.scalars
        for scalars in blocks.values():
            scalars.flush()

    def _provide(self, group: Mapping[str, Any], parameter: Tensor) -> None:
        """Counts the step, makes the arrays that are missing and brings along those that a move left behind."""
        state = self.state.setdefault(parameter, {})
        if self.counts:
            state["step"] = int(state.get("step", 0)) + 1
        for name, start in self.arrays(group).items():
            array = state.get(name)
            if array is None:
                state[name] = filled_like(parameter, start)
            elif not suits(array, parameter):
                state[name] = zeros_like(parameter).copy_(array)

    def _add_block(self, parameters: list[Tensor]) -> None:
        """Rows for parameters of one device, beside those that there are: a captured step goes on reading its own."""
        backend = parameters[0].backend
        with backend.context():
            scalars = Scalars(backend, len(parameters), self.fields)
            skipped = backend.from_host(np.zeros(len(parameters), np.int32))
        for row, parameter in enumerate(parameters):
            self._places[id(parameter), parameter.device] = _Place(scalars, row, skipped)

    # ---- saving ----

    def settle(self) -> None:
        """Takes the steps that the device skipped out of the counts (a host read; none without loss scaling)."""
        if not self._scaled:
            return
        for parameter in self._numbered():
            place = self._places.get((id(parameter), parameter.device))
            if place is None:
                continue
            backend = parameter.backend
            with backend.context():
                skipped = int(backend.to_host(place.skipped)[place.row])
                place.skipped[place.row] = 0
            self.uncount(parameter, skipped)

    def uncount(self, parameter: Tensor, skipped: int) -> None:
        """Takes ``skipped`` steps out of the count of ``parameter``."""
        state = self.state.get(parameter, {})
        if "step" in state:
            state["step"] -= skipped

    def state_dict(self) -> dict[str, Any]:
        self.settle()
        return super().state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.settle()
        super().load_state_dict(state_dict)

    # ---- the device's part ----

    def place_of(self, parameter: Tensor) -> _Place:
        """Where the numbers of a prepared parameter are."""
        place = self._places.get((id(parameter), parameter.device))
        if place is None:
            raise RuntimeError(
                f"{self.name}: a parameter of shape {tuple(parameter.shape)} has a gradient in the step that is being"
                " captured and had none in a step before it; run one step of the same kind first"
            )
        return place


Part = tuple[FusedOptimizer, Pairs, Scaled | None]


class _Member(NamedTuple):
    optimizer: FusedOptimizer
    group: Mapping[str, Any]
    parameter: Tensor


def launch(
    parts: Iterable[Part],
    averages: Mapping[int, Tensor] | None = None,
    average: Mapping[Any, Row] | None = None,
    zero_gradients: bool = False,
) -> None:
    """The launches of prepared optimizers: one for all parameters of a primitive, device and dtype. ``averages`` are
    the moving averages that go along, by the id of the parameter, ``average`` their row by device.
    """
    groups: dict[tuple[Any, ...], tuple[Scaled | None, list[_Member]]] = {}
    for optimizer, pairs, scaled in parts:
        optimizer._moved = [parameter for _, parameter in pairs]
        for group, parameter in pairs:
            marks = None if scaled is None else (id(scaled.found_inf), scaled.inverse_scale is None)
            key = (optimizer.primitive, parameter.device, parameter.dtype, optimizer.extra(group), marks)
            groups.setdefault(key, (scaled, []))[1].append(_Member(optimizer, group, parameter))
    for (primitive, device, _, extra, _), (scaled, members) in groups.items():
        with running_on(device):
            _launch(primitive, extra, members, scaled, averages or {}, (average or {}).get(device), zero_gradients)


def _launch(
    primitive: str,
    extra: tuple[Any, ...],
    members: Sequence[_Member],
    scaled: Scaled | None,
    averages: Mapping[int, Tensor],
    average: Row | None,
    zero_gradients: bool,
) -> None:
    parameters, gradients, rows, skipped, beside = [], [], [], [], []
    states: list[list[Array | None]] = [[] for _ in members[0].optimizer.states]
    for optimizer, group, parameter in members:
        place = optimizer.place_of(parameter)
        needed = optimizer.arrays(group)
        for name, arrays in zip(optimizer.states, states, strict=True):
            tensor = optimizer.state[parameter][name] if name in needed else None
            arrays.append(None if tensor is None else optimizer.view(parameter, memory_view(tensor.data)))
        assert parameter.grad is not None
        parameters.append(optimizer.view(parameter, memory_view(parameter.data)))
        gradients.append(optimizer.view(parameter, matched(parameter.grad, parameter)))
        rows.append(place.scalars.rows[place.row])
        if scaled is not None:
            skipped.append(place.skipped[place.row : place.row + 1])
        own = averages.get(id(parameter))
        beside.append(None if own is None else optimizer.view(parameter, memory_view(own.data)))
    along = Along(
        averages=beside if averages else None,
        average=average if averages else None,
        inverse_scale=None if scaled is None else scaled.inverse_scale,
        found_inf=None if scaled is None else scaled.found_inf,
        skipped=None if scaled is None else skipped,
        zero_gradients=zero_gradients,
    )
    update = getattr(members[0].parameter.backend, primitive)
    update(parameters, gradients, *states, *extra, rows, along)
    for optimizer, group, parameter in members:
        parameter.modified()
        for name in optimizer.arrays(group):
            optimizer.state[parameter][name].modified()
        if id(parameter) in averages:
            averages[id(parameter)].modified()
        if zero_gradients:
            _zeroed(parameter)


def _zeroed(parameter: Tensor) -> None:
    """Notes that a gradient was zeroed; one whose memory order differs was a copy, and is zeroed here."""
    assert parameter.grad is not None
    parameter.grad.modified()
    if not lie_alike(parameter.grad.data, parameter.data):
        clear_grad(parameter, set_to_none=False)
