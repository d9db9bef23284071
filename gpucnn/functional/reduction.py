"""Sums, means and extremes over axes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from gpucnn import dtypes, layout
from gpucnn.autograd import Function, running_on
from gpucnn.functional import checks
from gpucnn.functional.arithmetic import sqrt
from gpucnn.functional.arithmetic import where as _where
from gpucnn.functional.operands import total
from gpucnn.functional.shape import to
from gpucnn.tensor import Tensor, float32, int64

Dim = int | tuple[int, ...] | list[int] | None


class Extreme(NamedTuple):
    """What max and min over one axis give: the values and where they were, the first of equals."""

    values: Tensor
    indices: Tensor


def _expanded(gradient: Tensor, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """The gradient of a reduction without keepdims, seen at every element that was reduced (a read-only view)."""
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return gradient.backend.xp.broadcast_to(gradient.data.reshape(kept), shape)


class Sum(Function):
    """The sum over ``axes``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
        ctx.shape, ctx.axes = x.shape, axes
        if dtypes.is_floating(x.dtype):
            return Tensor(layout.canonical(total(x.data, axes or None, keepdim)), x.device)
        return Tensor(layout.canonical(x.data.sum(axis=axes or None, dtype=int64, keepdims=keepdim)), x.device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return Tensor(layout.canonical(_expanded(grad, ctx.shape, ctx.axes)), grad.device), None, None


class Extremum(Function):
    """The largest (or smallest) element along one axis, the first of equals, and its index."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: int, largest: bool, keepdim: bool) -> tuple[Tensor, Tensor]:
        xp = x.backend.xp
        found = xp.expand_dims(_positions(x, axis, "argmax" if largest else "argmin"), axis)
        values = xp.take_along_axis(x.data, found, axis=axis)
        ctx.shape, ctx.axis, ctx.found = x.shape, axis, found
        if not keepdim:
            values, found = values.squeeze(axis), found.squeeze(axis)
        indices = Tensor(layout.canonical(found), x.device)
        ctx.mark_non_differentiable(indices)
        return Tensor(layout.canonical(values), x.device), indices

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Any:
        xp = grad.backend.xp
        places = xp.arange(ctx.shape[ctx.axis]).reshape([-1 if a == ctx.axis else 1 for a in range(len(ctx.shape))])
        dx = xp.where(places == ctx.found, _expanded(grad, ctx.shape, (ctx.axis,)), grad.dtype.type(0))
        return Tensor(layout.canonical(dx), grad.device), None, None, None


class ExtremumOfAll(Function):
    """The largest (or smallest) element; equals share the gradient evenly, as in PyTorch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, largest: bool) -> Tensor:
        best = Tensor(x.data.max() if largest else x.data.min(), x.device)
        ctx.save_for_backward(x, best)
        return best

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, best = ctx.saved_tensors
        hits = (x == best) | ((x != x) & (best != best))
        return _where(hits, grad / sum(hits), 0.0), None


def _positions(x: Tensor, axis: int, argmax_or_argmin: str) -> Any:
    """argmax or argmin over one axis as int64; CuPy refuses empty arrays of whatever axis."""
    xp = x.backend.xp
    if not x.numel():
        return xp.zeros((*x.shape[:axis], *x.shape[axis + 1 :]), dtype=int64)
    return layout.as_array(xp, getattr(xp, argmax_or_argmin)(x.data, axis=axis)).astype(int64)


def sum(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The sum over ``dim`` (one axis, several, or None for all). Integers and bools add up as int64."""
    checks.tensors("sum", input=input)
    return Sum.apply(input, checks.axes("sum", dim, input.ndim), keepdim)


def mean(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The mean over ``dim`` (one axis, several, or None for all). Raises TypeError for integers."""
    checks.real("mean", input=input)
    axes = checks.axes("mean", dim, input.ndim)
    if dtypes.is_half(input.dtype):  # the sum alone could overflow
        return to(mean(to(input, dtype=float32), axes, keepdim), dtype=input.dtype)
    count = math.prod(input.shape[axis] for axis in axes)
    return Sum.apply(input, axes, keepdim) / (count if count else math.nan)


def var(input: Tensor, dim: Dim = None, correction: float = 1, keepdim: bool = False) -> Tensor:
    """The variance over ``dim``: squared distances from the mean, divided by count - correction."""
    checks.real("var", input=input)
    axes = checks.axes("var", dim, input.ndim)
    if dtypes.is_half(input.dtype):
        return to(var(to(input, dtype=float32), axes, correction, keepdim), dtype=input.dtype)
    freedom = math.prod(input.shape[axis] for axis in axes) - correction
    distance = input - mean(input, axes, keepdim=True)
    return sum(distance * distance, axes, keepdim) / (freedom if freedom > 0 else 0)


def std(input: Tensor, dim: Dim = None, correction: float = 1, keepdim: bool = False) -> Tensor:
    """The square root of :func:`var`; its gradient is 0 where all are equal, as in PyTorch."""
    variance = var(input, dim, correction, keepdim)
    zero = variance == 0
    return _where(zero, variance, sqrt(_where(zero, 1.0, variance)))


def _extreme(operator: str, input: Tensor, dim: int | None, keepdim: bool, largest: bool) -> Tensor | Extreme:
    checks.tensors(operator, input=input)
    if not input.numel() and (dim is None or not input.shape[checks.axis(operator, dim, input.ndim)]):
        raise ValueError(f"{operator}: no elements to choose from in shape {input.shape}")
    if dim is not None:
        return Extreme(*Extremum.apply(input, checks.axis(operator, dim, input.ndim), largest, keepdim))
    return ExtremumOfAll.apply(input, largest)


def max(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | Extreme:
    """The largest element; with ``dim``, (values, indices) along that axis, the first of equals.

    Without ``dim`` equal maxima share the gradient evenly, as in PyTorch.
    """
    return _extreme("max", input, dim, keepdim, largest=True)


def min(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | Extreme:
    """The smallest element; otherwise as :func:`max`."""
    return _extreme("min", input, dim, keepdim, largest=False)


def _arg(operator: str, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    checks.tensors(operator, input=input)
    axis = None if dim is None else checks.axis(operator, dim, input.ndim)
    if not input.numel() and (axis is None or not input.shape[axis]):
        raise ValueError(f"{operator}: no elements to choose from in shape {input.shape}")
    xp = input.backend.xp
    with running_on(input.device):
        if axis is None:
            found = layout.as_array(xp, getattr(xp, operator)(layout.contiguous(input.data))).astype(int64)
            return Tensor(found.reshape((1,) * input.ndim if keepdim else ()), input.device)
        found = _positions(input, axis, operator)
        return Tensor(layout.canonical(xp.expand_dims(found, axis) if keepdim else found), input.device)


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the largest element along ``dim`` (None: of all, in C order), the first of equals, int64."""
    return _arg("argmax", input, dim, keepdim)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the smallest element along ``dim`` (None: of all, in C order), the first of equals, int64."""
    return _arg("argmin", input, dim, keepdim)


def _truth(input: Tensor, name: str, dim: Dim, keepdim: bool) -> Tensor:
    checks.tensors(name, input=input)
    with running_on(input.device):
        value = getattr(input.data, name)(axis=checks.axes(name, dim, input.ndim) or None, keepdims=keepdim)
        return Tensor(layout.canonical(value), input.device)


def all(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Whether all elements along ``dim`` are true (or not 0)."""
    return _truth(input, "all", dim, keepdim)


def any(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Whether an element along ``dim`` is true (or not 0)."""
    return _truth(input, "any", dim, keepdim)
