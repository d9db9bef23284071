"""What a network consists of, layer by layer: shapes, parameters, arithmetic, memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from gpucnn import layout
from gpucnn.autograd import enable_grad, observe
from gpucnn.creation import zeros
from gpucnn.nn.module import Module
from gpucnn.tensor import Tensor


@dataclass(frozen=True)
class Row:
    """One layer, or one operator called outside of any, for a batch of one.

    FLOPs count 2 for a multiply-add of convolutions and matrix products; everything else is left out, as is usual.
    """

    name: str  # the module's dotted name; for an operator that of the module which called it; "" is the network
    kind: str  # the class of the module, with the activation that it applies, or of the operator's Function
    output_shape: tuple[int, ...] | None  # None for a module that was not called
    parameters: int  # elements; those shared with an earlier row are not counted again
    trained: int  # of them, those that require a gradient
    flops: int  # forward
    training_flops: int  # forward and backward; no gradient that nobody needs, as the first layer's input
    activation_bytes: int  # what the layer returns, views of its input not counted
    parameter_bytes: int


def summarize(model: Module, input_shape: Sequence[int] | None = None) -> list[Row]:
    """The rows of ``model`` in the order in which they are computed, found by calling it once on zeros.

    ``input_shape`` is (C, H, W) or whatever one example is, the model's own by default. The model is called in
    evaluation mode and left as it was. Operators that a module with submodules calls itself (``F.relu``) have rows of
    their own; views have none. Raises ValueError where the shape is missing or not positive.
    """
    shape = getattr(model, "input_shape", None) if input_shape is None else input_shape
    if shape is None:
        raise ValueError(
            f"summarize: {type(model).__name__} has no input_shape of its own: give one, without the batch"
        )
    shape = tuple(int(size) for size in shape)
    if min(shape, default=1) < 1:
        raise ValueError(f"summarize: input_shape must be positive, got {shape}")
    first = next(model.parameters(), None)
    place: dict[str, Any] = {} if first is None else {"device": first.device, "dtype": first.dtype}
    accountant = _Accountant(model)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with accountant.watching(), observe(accountant.operator), enable_grad():
            model(zeros(1, *shape, **place))
    finally:
        for module, mode in modes:
            module.training = mode
    return accountant.finished()


def total(rows: Sequence[Row]) -> Row:
    """The sums of all columns, under the name "total" and with the last output's shape."""
    return Row(
        name="total",
        kind="",
        output_shape=next((row.output_shape for row in reversed(rows) if row.output_shape is not None), None),
        parameters=sum(row.parameters for row in rows),
        trained=sum(row.trained for row in rows),
        flops=sum(row.flops for row in rows),
        training_flops=sum(row.training_flops for row in rows),
        activation_bytes=sum(row.activation_bytes for row in rows),
        parameter_bytes=sum(row.parameter_bytes for row in rows),
    )


class _Accountant:
    """Sees modules enter and leave and operators run, and keeps the rows."""

    def __init__(self, model: Module) -> None:
        self.named = list(model.named_modules())
        self.leaves = {id(module) for _, module in self.named if next(module.children(), None) is None}
        self.rows: list[Row] = []
        self.open: list[tuple[str, Module, int | None]] = []  # modules being called, a leaf with the place of its row
        self.counted: set[int] = set()  # parameters and modules

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within it every call of a module is noticed."""
        of_their_own = [vars(module).get("forward") for _, module in self.named]
        for name, module in self.named:
            module.forward = self._watched(name, module, module.forward)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for (_, module), forward in zip(self.named, of_their_own, strict=True):
                if forward is None:
                    del module.forward  # the class's is seen again
                else:
                    module.forward = forward  # type: ignore[method-assign]

    def _watched(self, name: str, module: Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any, **options: Any) -> Any:
            place = self._enter(name, module)
            self.open.append((name, module, place))
            try:
                result = forward(*inputs, **options)
            finally:
                self.open.pop()
            if place is not None and isinstance(result, Tensor):
                self.rows[place] = replace(self.rows[place], output_shape=tuple(result.shape))
            return result

        return call

    def _enter(self, name: str, module: Module) -> int | None:
        """A row for a leaf, and for a module that has parameters beside its submodules; the leaf's place."""
        leaf = id(module) in self.leaves
        row = self._row_of(name, module)
        if leaf or row.parameters:
            self.rows.append(row)
        return len(self.rows) - 1 if leaf else None

    def _row_of(self, name: str, module: Module) -> Row:
        """A module's own parameters, those of its submodules not, the first time."""
        own = [p for p in module.parameters(recurse=False) if id(p) not in self.counted]
        self.counted |= {id(p) for p in own} | {id(module)}
        count, memory = sum(p.numel() for p in own), sum(p.data.nbytes for p in own)
        trained = sum(p.numel() for p in own if p.requires_grad)
        activation = getattr(module, "activation", None)
        kind = f"{type(module).__name__} + {activation}" if isinstance(activation, str) else type(module).__name__
        kind += " + max_pool" if getattr(module, "max_pool", None) is not None else ""
        return Row(name, kind, None, count, trained, 0, 0, 0, memory)

    def operator(self, function: Any, args: tuple[Any, ...], outputs: tuple[Any, ...], needs: tuple[bool, ...]) -> None:
        """An operator has run: it goes to the leaf that called it, or gets a row."""
        given = [layout.owner(arg.data) for arg in args if isinstance(arg, Tensor)]
        made = [y.data for y in outputs if all(layout.owner(y.data) is not owner for owner in given)]
        flops, memory = _flops(function.__name__, args, outputs), sum(array.nbytes for array in made)
        gradients = sum(needs[:2])
        name, _, place = self.open[-1]
        if place is None:
            if not made:
                return
            place = len(self.rows)
            self.rows.append(Row(name, function.__name__, tuple(outputs[0].shape), 0, 0, 0, 0, 0, 0))
        row = self.rows[place]
        self.rows[place] = replace(
            row,
            flops=row.flops + flops,
            training_flops=row.training_flops + flops * (1 + gradients),
            activation_bytes=row.activation_bytes + memory,
        )

    def finished(self) -> list[Row]:
        """All rows, and after them the modules that have parameters and were not called."""
        for name, module in self.named:
            if id(module) not in self.counted:
                row = self._row_of(name, module)
                self.rows += [row] if row.parameters else []
        return self.rows


def _flops(operator: str, args: tuple[Any, ...], outputs: tuple[Any, ...]) -> int:
    """Of one forward call; the gradients of its first two arguments cost as much each."""
    size = math.prod(outputs[0].shape)
    if operator == "Conv2d":
        g = args[3]
        return int(2 * g.R * g.S * (g.C // g.groups) * size)
    if operator == "Conv2dMaxPool":
        g = args[3]
        return int(2 * g.R * g.S * (g.C // g.groups) * math.prod(g.output_shape))
    if operator in ("Linear", "MatMul"):
        return int(2 * args[0].shape[-1] * size)
    return 0
