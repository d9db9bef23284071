"""A step captured once and replayed: on a GPU one CUDA graph, on the device ``emulated`` a list of launches.

What a capture is stands in :mod:`gpucnn.backends.capture`. Here is what Python has to do beside it, because a replay
runs none of the step's Python: random streams go on, tensors that the step changes are known as changed, gradients are
where the step left them, and work that was registered is done before the launches (an optimizer's count of steps, its
learning rate).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gpucnn import backends, layout
from gpucnn.autograd import running_on
from gpucnn.backends.capture import NotCapturable, operator_of
from gpucnn.device import Device
from gpucnn.random import Generator, Purpose, default_generator
from gpucnn.tensor import Tensor, resolve_device

Step = Callable[..., Any]
Key = tuple[tuple[tuple[int, ...], str], ...]


class CapturedStep:
    """``step(*inputs)``, captured and not run; :meth:`replay` runs it on what the inputs hold then.

    What the step makes once and keeps (kernels' modules, an optimizer's state) must be there: run it once before.
    ``memory`` is another capture whose memory this one may use too, because the two are never replayed at the same
    time. ``weights`` are the tensors of which something derived (a copy in half precision) is made anew in the graph,
    by default all that there are. What is derived from others is read as it is, and made anew before a replay if they
    have changed.

    Raises RuntimeError where the step cannot be captured, naming the operator. The device has done nothing then.
    """

    def __init__(
        self,
        step: Step,
        inputs: Sequence[Tensor] = (),
        device: Device | None = None,
        memory: CapturedStep | None = None,
        generator: Generator = default_generator,
        weights: Iterable[Tensor] | None = None,
    ) -> None:
        self.inputs = tuple(inputs)
        self.generator = generator
        self.device = inputs[0].device if inputs else resolve_device(device)
        self.engine = _engine(self.device)
        state = generator.state_dict()
        self._seed, self._base = state["seed"], _counts(state)
        with running_on(self.device):
            self._capture = self.engine.new_capture(getattr(memory, "shared_memory", None))
        live = _tensors(self.device)
        sources = [tensor for tensor in live if tensor.is_leaf] if weights is None else list(weights)
        _renew(sources)  # what is derived from them and kept (a weight in half precision) is derived in the graph
        versions = [(tensor.version, tensor.version.count) for tensor in live]
        gradients = {id(tensor): tensor.grad for tensor in live}
        try:
            with _named(), running_on(self.device), self._watched(live):
                self.engine.capture = self._capture
                with self._capture.open():
                    self.outputs = step(*self.inputs)
                    for tensor in _results(self.outputs):
                        self._capture.check_result(tensor.data)
                    self._deltas = self._drawn()
            self._changed = {id(version): version for version, count in versions if version.count != count}
            # What changes them may be the array module's own work, of which the capture does not know the arrays.
            self._kept = [tensor.data for tensor in live if id(tensor.version) in self._changed]
        finally:
            self.engine.capture = None
            generator.load_state_dict(state)
            _renew(sources)  # what the capture derived is not there before a replay
            self._gradients = [
                (tensor, tensor.grad)
                for tensor in _tensors(self.device)
                if tensor.grad is not gradients.get(id(tensor))
            ]
            for tensor in live:  # nor are the gradients
                tensor.grad = gradients[id(tensor)]
        self._offsets = dict.fromkeys(self._capture.purposes, 0)  # what the device's offsets are

    @property
    def shared_memory(self) -> Any:
        """The memory of the capture, where it has some."""
        return getattr(self._capture, "memory", None)

    @property
    def launches(self) -> list[Any]:
        """The launches of our kernels, in order."""
        return list(self._capture.launches)

    @property
    def seed_changed(self) -> bool:
        """Whether the generator was seeded anew since the capture, which has its seed in it."""
        return bool(self._deltas) and self.generator.seed != self._seed

    def replay(self) -> Any:
        """Runs what was captured and gives its outputs: the same tensors each time."""
        if self.seed_changed:
            raise RuntimeError("cuda.graph: the random generator was seeded anew: capture the step again")
        for work in self._capture.before:
            work()
        if self._deltas:
            self._place_offsets()
        self._capture.replay()
        if self._deltas:
            self.generator.advance(self._deltas)
            self._offsets = {p: offset + self._deltas.get(p, 0) for p, offset in self._offsets.items()}
        for version in self._changed.values():
            version.count += 1
        for tensor, gradient in self._gradients:
            tensor.grad = gradient
        return self.outputs

    # ---- random streams ----

    def _drawn(self) -> dict[int, int]:
        """How many streams the step drew of each purpose. The device's offsets go on by as many, as the last thing in
        the graph."""
        now = _counts(self.generator.state_dict())
        deltas = {purpose: n for purpose, count in now.items() if (n := count - self._base.get(purpose, 0))}
        for purpose, count in deltas.items():
            if purpose not in self._capture.purposes:
                name = Purpose(purpose).name.lower() if purpose in list(Purpose) else str(purpose)
                raise NotCapturable(
                    f"it draws random numbers on the host (purpose {name}), and each replay would have the same"
                )
            offset = self._capture.watched(self._capture.offset(purpose))
            offset += count
        return deltas

    def _place_offsets(self) -> None:
        """Writes the offsets if they are not what they should be: after steps that were not replays of this."""
        now = _counts(self.generator.state_dict())
        wanted = {p: now.get(p, 0) - self._base.get(p, 0) for p in self._offsets}
        if wanted != self._offsets:
            with running_on(self.device):
                for purpose, offset in wanted.items():
                    self._capture.offset(purpose)[...] = offset
            self._offsets = wanted

    # ---- tensors ----

    @contextmanager
    def _watched(self, live: list[Tensor]) -> Iterator[None]:
        """Within it the array module's work on the tensors' arrays is part of the capture."""
        capture = self._capture
        if self.device.type != "emulated":  # a GPU's stream sees it anyhow
            yield
            return
        for tensor in live:
            tensor.data = capture.watched(tensor.data)
        try:
            yield
        finally:
            for tensor in _tensors(self.device):
                tensor.data = capture.released(tensor.data)


def _engine(device: Device) -> Any:
    engine = getattr(backends.get(device), "engine", None)
    if engine is None:
        raise NotCapturable(f"cuda.graph: a step can be captured on cuda and emulated, not on {device}")
    if engine.capture is not None:
        raise NotCapturable(f"cuda.graph: a step is being captured on {device} already")
    return engine


def _tensors(device: Device) -> list[Tensor]:
    """All tensors on a device that anybody holds."""
    found = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
    return [tensor for tensor in found if "data" in vars(tensor) and tensor.device == device]


def _renew(tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        tensor.modified()


def _results(outputs: Any) -> list[Tensor]:
    """The tensors in what a step returns."""
    if isinstance(outputs, Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, (list, tuple)) else ()
    return [tensor for value in values for tensor in _results(value)]


def _counts(state: dict[str, Any]) -> dict[int, int]:
    return {int(purpose): count for purpose, count in state["steps"].items()}


@contextmanager
def _named() -> Iterator[None]:
    """Turns what a capture refuses into errors that name the operator."""
    try:
        yield
    except NotCapturable as error:
        text = str(error)
        raise NotCapturable(text if text.startswith("cuda.graph") else f"cuda.graph: {text}") from error
    except Exception as error:
        if type(error).__name__ == "CUDARuntimeError" or isinstance(error, NotImplementedError):
            operator = operator_of(error.__traceback__)
            raise NotCapturable(f"cuda.graph: {operator} cannot be captured: {error}") from error
        raise


class GraphedStep:
    """What :func:`gpucnn.cuda.graph` returns."""

    def __init__(self, step: Step, inputs: Sequence[Tensor], device: Device, shapes: int) -> None:
        self.step, self.device, self.shapes = step, device, shapes
        self._captured: dict[Key, CapturedStep] = {}
        self.first = self._capture(inputs)

    @property
    def captured(self) -> list[CapturedStep]:
        """The captures, one for each set of shapes."""
        return list(self._captured.values())

    def __call__(self, *inputs: Tensor) -> Any:
        """Copies the inputs to where the captured step reads, replays it, and gives its outputs.

        Raises ValueError for shapes or dtypes that were not captured and are one set too many.
        """
        _check(inputs, self.device)
        key = _key(inputs)
        captured = self._captured.get(key)
        if captured is None or captured.seed_changed:
            if captured is None and len(self._captured) >= self.shapes:
                known = " and ".join(map(_told, self._captured))
                raise ValueError(f"cuda.graph: the step was captured for inputs {known}, got {_told(key)}")
            return self._capture(inputs)
        with running_on(self.device):
            for own, given in zip(captured.inputs, inputs, strict=True):
                if own.data is not given.data:
                    own.data[...] = given.data
        return captured.replay()

    def _capture(self, inputs: Sequence[Tensor]) -> Any:
        """Runs the step on copies of the inputs, and captures it for the next time."""
        with running_on(self.device):
            own = [Tensor(_copy(tensor.data), self.device) for tensor in inputs]
        for tensor, given in zip(own, inputs, strict=True):
            tensor.requires_grad = given.requires_grad
        leaves = [(tensor, tensor.version.count) for tensor in _tensors(self.device) if tensor.is_leaf]
        outputs = self.step(*own)
        changed = [tensor for tensor, count in leaves if tensor.version.count != count]
        memory = next(iter(self._captured.values()), None)
        captured = CapturedStep(self.step, own, self.device, memory, weights=[*own, *changed])
        self._captured[_key(inputs)] = captured
        return outputs


def graph(step: Step, inputs: Sequence[Tensor], device: Any, shapes: int) -> GraphedStep:
    """:func:`gpucnn.cuda.graph`, whose docstring says what it does."""
    place = inputs[0].device if inputs and isinstance(inputs[0], Tensor) else resolve_device(device)
    if not callable(step):
        raise TypeError(f"cuda.graph: step must be callable, got {type(step).__name__}")
    if not isinstance(shapes, int) or shapes < 1:
        raise ValueError(f"cuda.graph: shapes must be at least 1, got {shapes!r}")
    _engine(place)
    _check(inputs, place)
    return GraphedStep(step, inputs, place, shapes)


def _check(inputs: Sequence[Tensor], device: Device) -> None:
    for index, given in enumerate(inputs):
        if not isinstance(given, Tensor):
            raise TypeError(f"cuda.graph: input {index} must be a tensor, got {type(given).__name__}")
        if given.device != device:
            raise ValueError(f"cuda.graph: input {index} is on {given.device}, the step is captured on {device}")


def _key(inputs: Sequence[Tensor]) -> Key:
    return tuple((tuple(tensor.shape), str(tensor.dtype)) for tensor in inputs)


def _told(key: Key) -> str:
    return "(" + ", ".join(f"{dtype} {shape}" for shape, dtype in key) + ")"


def _copy(array: Any) -> Any:
    """A copy with the same order of memory."""
    axes = layout.memory_axes(array)
    return array.transpose(axes).copy(order="C").transpose([axes.index(axis) for axis in range(array.ndim)])
