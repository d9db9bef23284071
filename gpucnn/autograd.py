"""The tape: differentiable functions, what they save, and the walk back over them.

The interface is PyTorch's ``torch.autograd.Function``. A :class:`Function` called through ``apply`` leaves a
:class:`Node` behind; :func:`backward` visits the nodes from the last made to the first, so that each is visited after
all that used its results.
"""

from __future__ import annotations

import functools
import heapq
import inspect
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar

import numpy as np

from gpucnn import backends, dtypes, layout
from gpucnn.device import Device


class Version:
    """Counts in-place changes of one piece of memory; a tensor shares it with its views."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Recorded:
    """What the tape knows of a tensor; :class:`gpucnn.Tensor` is the one subclass."""

    data: Any
    shape: Any  # that of data
    dtype: Any
    device: Device
    requires_grad: bool = False
    grad: Any = None
    node: Node | None = None  # the call that made it, None for a leaf
    output_index: int = 0  # which of the call's outputs it is
    version: Version
    unit = False  # of a gradient: one element, known to be 1
    pending = False  # of a gradient: its array is yet to be made (functional/deferred.py)
    masked = False  # of a gradient that backward returns: 0 where what it is of is not > 0 (functional/rectified.py)

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded call made this tensor; gradients are kept for leaves only."""
        return self.node is None

    def detach(self) -> Any:
        """The same memory as a tensor that the tape does not know."""
        raise NotImplementedError  # Tensor's; declared here for the type checker

    def to(self, *targets: Any, device: Any = None, dtype: Any = None) -> Any:
        """The tensor on another device, in another dtype, or both."""
        raise NotImplementedError  # Tensor's

    def accumulate_grad(self, gradient: Any) -> None:
        """Adds ``gradient`` to ``grad``."""
        raise NotImplementedError  # Tensor's


# ---- recording on and off ----


Observer = Callable[["type[Function]", tuple[Any, ...], tuple[Any, ...], tuple[bool, ...]], None]


class _Recording(threading.local):
    enabled = True
    observer: Observer | None = None


_recording = _Recording()


def is_grad_enabled() -> bool:
    """Whether calls are recorded in this thread."""
    return _recording.enabled


@contextmanager
def observe(observer: Observer) -> Iterator[None]:
    """Within it every call of a Function in this thread is shown to ``observer(function, args, outputs, needs)``, after
    its forward; ``needs`` says of each argument whether backward would give it a gradient. One observer at a time: an
    inner one takes the outer's place.
    """
    before, _recording.observer = _recording.observer, observer
    try:
        yield
    finally:
        _recording.observer = before


class _SetRecording:
    """A context manager and decorator that turns recording on or off in this thread."""

    enabled: ClassVar[bool]

    def __init__(self) -> None:
        self._before: list[bool] = []  # a stack, so that one object may be entered again within itself

    def __enter__(self) -> None:
        self._before.append(_recording.enabled)
        _recording.enabled = self.enabled

    def __exit__(self, *exception: object) -> None:
        _recording.enabled = self._before.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
            # Its body runs after the call has returned, with recording as it is then.
            raise TypeError(f"{type(self).__name__}: {function.__name__} is suspended as it runs; use 'with' inside it")

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return function(*args, **kwargs)

        return wrapped


class no_grad(_SetRecording):
    """Within it nothing is recorded: ``with gpucnn.no_grad():`` or ``@gpucnn.no_grad()``.

    Raises TypeError as a decorator of a generator or a coroutine.
    """

    enabled = False


class enable_grad(_SetRecording):
    """Within it calls are recorded again, inside a :class:`no_grad`."""

    enabled = True


# ---- functions ----


class Context:
    """What a Function's forward leaves for its backward.

    Any attribute may be set on it; tensors go through save_for_backward.
    """

    takes_deferred: tuple[str, ...] = ()  # see functional/deferred.py
    rectified: int | None = None  # see functional/rectified.py
    received_masked = False
    _saved: tuple[tuple[Any, int], ...] | None = ()
    _non_differentiable: tuple[Any, ...] = ()

    def __init__(self, name: str, needs_input_grad: tuple[bool, ...]) -> None:
        self._name = name
        self.needs_input_grad = needs_input_grad

    def save_for_backward(self, *tensors: Any) -> None:
        """Keeps tensors (or None) for backward. Inputs and outputs; an in-place change in between is noticed."""
        saved: list[tuple[Any, int]] = []
        for tensor in tensors:
            if tensor is None:
                saved.append((None, 0))
            elif isinstance(tensor, Recorded):
                # A detached alias, so that an output does not hold the node that holds it.
                saved.append((tensor.detach(), tensor.version.count))
            else:
                raise TypeError(f"{self._name}: save_for_backward takes tensors, got {type(tensor).__name__}")
        self._saved = tuple(saved)

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """The tensors given to save_for_backward.

        Raises RuntimeError once freed, or if one was modified in place since.
        """
        saved = self.alive()
        for tensor, version in saved:
            if tensor is not None and tensor.version.count != version:
                raise RuntimeError(
                    f"{self._name}: a tensor of shape {tensor.shape} saved for backward was modified in place"
                    f" (saved at version {version}, now {tensor.version.count})"
                )
        return tuple([tensor for tensor, _ in saved])

    def alive(self) -> tuple[tuple[Any, int], ...]:
        """What was saved, with the versions then. Raises RuntimeError once it is freed."""
        if self._saved is None:
            raise RuntimeError(
                f"{self._name}: backward a second time through a graph whose saved tensors are freed;"
                " pass retain_graph=True to the first backward"
            )
        return self._saved

    def mark_non_differentiable(self, *tensors: Any) -> None:
        """Declares outputs (indices, masks) that carry no gradient."""
        self._non_differentiable = tensors

    def tensors(self) -> list[Any]:
        """All that is kept here, through save_for_backward or as an attribute."""
        return [tensor for tensor, _ in self._saved or ()] + [v for v in vars(self).values() if isinstance(v, Recorded)]

    def free(self) -> None:
        """Lets go of all that forward left; saved_tensors raises from here on."""
        name, needs = self._name, self.needs_input_grad
        self.__dict__.clear()
        self._name, self.needs_input_grad, self._saved = name, needs, None


class Function:
    """A differentiable function, to be subclassed with static ``forward(ctx, ...)`` and ``backward(ctx, ...)``.

    It is called through ``apply``.

    ``forward`` gets the arguments of ``apply``, tensors as tensors, and returns a tensor or a tuple of them.
    ``backward`` gets one gradient for each output and returns one for each argument of ``forward`` (None for what is
    no tensor or needs none), which takes the dtype of that argument. Outputs of integers or bools carry no gradient.
    Both run with recording off.

    >>> import gpucnn
    >>> class Multiply(gpucnn.Function):
    ...     @staticmethod
    ...     def forward(ctx, x, y):
    ...         ctx.save_for_backward(x, y)
    ...         return x * y
    ...     @staticmethod
    ...     def backward(ctx, grad_z):
    ...         x, y = ctx.saved_tensors
    ...         return y * grad_z, x * grad_z
    >>> x = gpucnn.tensor([2.0], device="cpu", requires_grad=True)
    >>> Multiply.apply(x, gpucnn.tensor([3.0], device="cpu")).backward()
    >>> x.grad.item()
    3.0
    """

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        """Computes the outputs from the arguments of ``apply``."""
        raise NotImplementedError("a Function needs a static method forward(ctx, ...)")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Computes the gradients of forward's arguments from those of its outputs."""
        raise NotImplementedError("a Function needs a static method backward(ctx, ...)")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Runs forward and, where recording is on and an argument requires a gradient, records the call."""
        before = _recording.enabled
        tensors: list[Recorded] = []
        needed: list[bool] = []
        edges: list[Edge] = []
        for arg in args:
            needs_grad = False
            if isinstance(arg, Recorded):
                tensors.append(arg)
                needs_grad = before and arg.requires_grad
            needed.append(needs_grad)
            edges.append(None if not needs_grad else arg if arg.node is None else (arg.node, arg.output_index))
        device = _common_device(cls.__name__, tensors)
        needs = tuple(needed)
        ctx = Context(cls.__name__, needs)
        _recording.enabled = False
        try:
            with running_on(device):
                result = cls.forward(ctx, *args)
        finally:
            _recording.enabled = before
        outputs = result if isinstance(result, tuple) else (result,)
        for output in outputs:
            if not isinstance(output, Recorded):
                raise TypeError(f"{cls.__name__}: forward must return tensors, got {type(output).__name__}")
        if _recording.observer is not None:
            _recording.observer(cls, args, outputs, needs)
        if True not in needs:
            return result
        node = Node(cls, ctx, edges, outputs, device)
        fresh = []
        for index, output in enumerate(outputs):
            differentiable = dtypes.is_floating(output.data.dtype) and not _is_one_of(output, ctx._non_differentiable)
            # An output that is an argument, or was recorded before, gets a tensor of its own for this call.
            own = output.detach() if output.node is not None or _is_one_of(output, tensors) else output
            if differentiable:
                own.requires_grad, own.node, own.output_index = True, node, index
            fresh.append(own)
        ctx._non_differentiable = ()
        return tuple(fresh) if isinstance(result, tuple) else fresh[0]


def _is_one_of(tensor: Recorded, others: Sequence[Recorded]) -> bool:
    return bool(others) and id(tensor) in map(id, others)  # "in others" would compare values


def running_on(device: Device) -> AbstractContextManager[Any]:
    """Makes ``device`` the current one of its array module.

    NumPy's warnings (a division by 0, an overflow) are off within, as the other devices have none: the values say it.
    """
    return backends.get(device).context() if device.type == "cuda" else np.errstate(all="ignore")


def _common_device(operator: str, tensors: Sequence[Recorded]) -> Device:
    if not tensors:
        raise TypeError(f"{operator}: expected at least one tensor among its arguments")
    device = tensors[0].device
    for tensor in tensors:
        if tensor.device is not device:
            raise ValueError(f"{operator}: tensors on two devices: {device} and {tensor.device}")
    return device


_order = itertools.count()

# Where an argument came from: (node, index of its output), the leaf itself, or None where no gradient goes.
Edge = tuple["Node", int] | Recorded | None


class Node:
    """One recorded call: the function, its context, and where its arguments came from."""

    __slots__ = ("ctx", "device", "edges", "function", "order", "outputs")

    def __init__(
        self, function: type[Function], ctx: Context, edges: list[Edge], outputs: Sequence[Recorded], device: Device
    ) -> None:
        self.function = function
        self.ctx = ctx
        self.order = next(_order)
        self.device = device
        self.edges = edges
        self.outputs = [(output.data.shape, output.data.dtype) for output in outputs]

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.function.__name__

    def __repr__(self) -> str:
        return f"<{self.name}>"


# ---- the walk back ----


def backward(root: Recorded, gradient: Any, retain_graph: bool, zeros: Callable[..., Any]) -> None:
    """Adds the gradient of ``root``, weighted by ``gradient``, to the ``grad`` of all leaves that it was computed from.

    Nodes are visited from the last made to the first; what a node saved is freed as soon as it was visited, unless
    ``retain_graph``. ``zeros(shape, dtype, device)`` makes the gradient of an output that nothing used.
    """
    before, _recording.enabled = _recording.enabled, False
    try:
        with np.errstate(all="ignore"):  # once, not for each node; see running_on
            if root.node is None:
                root.accumulate_grad(_owned(gradient, [gradient]))
            else:
                _walk(root.node, root.output_index, gradient, retain_graph, zeros)
    finally:
        _recording.enabled = before


def _walk(root: Node, output_index: int, gradient: Any, retain_graph: bool, zeros: Callable[..., Any]) -> None:
    waiting: dict[Node, list[Any]] = {root: [None] * len(root.outputs)}
    waiting[root][output_index] = gradient
    queue = [(-root.order, root)]
    while queue:
        _, node = heapq.heappop(queue)
        received = waiting.pop(node)
        given = _run(node, received, zeros)
        kept = node.ctx.tensors()
        if not retain_graph:
            node.ctx.free()
        for index, (edge, grad) in enumerate(zip(node.edges, given, strict=True)):
            if edge is None or grad is None:
                continue
            if isinstance(edge, Recorded):
                others = [*received, *given[:index], *given[index + 1 :], *kept]
                edge.accumulate_grad(_owned(grad, others))
                continue
            source, output = edge
            if source not in waiting:
                waiting[source] = [None] * len(source.outputs)
                heapq.heappush(queue, (-source.order, source))
            sums = waiting[source]
            sums[output] = grad if sums[output] is None else _sum(sums[output], grad)
        del received, given, kept


def _sum(left: Any, right: Any) -> Any:
    total = left + right
    total.masked = left.masked and right.masked
    return total


def _run(node: Node, received: list[Any], zeros: Callable[..., Any]) -> tuple[Any, ...]:
    """The gradients of a node's arguments, each of the shape and the dtype of its argument."""
    node.ctx.alive()
    masked = True
    for index, grad in enumerate(received):
        if grad is None:
            shape, dtype = node.outputs[index]
            received[index] = grad = zeros(shape, dtype=dtype, device=node.device)
        if grad.masked:
            received[index] = grad.detach()
        else:
            masked = False
    node.ctx.received_masked = masked
    if node.device.type == "cuda":
        with running_on(node.device):
            result = node.function.backward(node.ctx, *received)
    else:
        result = node.function.backward(node.ctx, *received)
    given = list(result) if isinstance(result, tuple) else [result]
    if len(given) != len(node.edges):
        raise RuntimeError(
            f"{node.name}: backward returned {len(given)} gradients for {len(node.edges)} arguments of forward"
        )
    for index, (edge, grad) in enumerate(zip(node.edges, given, strict=True)):
        if edge is None or grad is None:
            continue
        if not isinstance(grad, Recorded):
            raise TypeError(f"{node.name}: backward must return tensors or None, got {type(grad).__name__}")
        if isinstance(edge, Recorded):
            shape, dtype = edge.data.shape, edge.data.dtype
        else:
            shape, dtype = edge[0].outputs[edge[1]]
        if grad.shape != shape:
            raise RuntimeError(
                f"{node.name}: backward returned a gradient of shape {grad.shape} for argument {index} of shape {shape}"
            )
        if grad.dtype != dtype:
            given[index] = grad.to(dtype=dtype)  # a new tensor, without a mark
    return tuple(given)


def _owned(grad: Any, others: Sequence[Any]) -> Any:
    """``grad``, copied if it shares memory with ``others`` or repeats elements: a leaf's may be changed in place."""
    data = grad.data
    owner = layout.owner(data)
    for other in others:
        if other is not None and not other.pending and layout.owner(other.data) is owner:
            return grad.clone()
    repeats = 0 in data.strides and any(
        stride == 0 and size > 1 for stride, size in zip(data.strides, data.shape, strict=True)
    )
    return grad.clone() if repeats else grad
