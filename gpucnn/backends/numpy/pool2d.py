"""Max- and average-pooling, over blocks of images that stay in cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import memory
from gpucnn.backends.numpy.elementwise import select
from gpucnn.backends.numpy.scratch import scratch
from gpucnn.backends.numpy.threads import for_each
from gpucnn.backends.numpy.windows import Axis, Block, axes, blocks, padded, phases, tap_views, window_view
from gpucnn.geometry import Pool2dGeometry

Array = NDArray[Any]

BLOCK_BYTES = 1 << 20  # of a block's inputs


def max_forward(x: Array, g: Pool2dGeometry) -> tuple[Array, Array]:
    """y and index (N,P,Q,C): the maximum of each window and its place r*S + s, the first of equals, NaN above all.

    A window that sees padding alone (dilation can do that) gives -inf at place 0.
    """
    y = memory.empty(g.output_shape, x.dtype)
    index = memory.empty(g.output_shape, np.uint8 if g.R * g.S <= 256 else np.int32)
    rows, columns = axes(g)

    def run(block: Block) -> None:
        at = slice(block.image, block.image_end), slice(block.row, block.row_end)
        _max(tap_views(x, block, rows, columns, -np.inf), y[at], index[at])
        if not y[at].min() > -np.inf:  # a NaN or -inf somewhere: the careful way
            windows = window_view(x, block, rows, columns, fill=-np.inf)
            _careful_max(windows, _valid(block, rows, columns), y[at], index[at])

    for_each(run, _blocks(g, x.itemsize))
    return y, index


def _max(taps: list[list[Array]], y: Array, index: Array) -> None:
    """Running maximum over the taps, of finite values.

    A later place wins where its value is greater, so the largest winner's number stays.
    """
    wins, taken = scratch("wins", y.shape, np.bool_), scratch("taken", y.shape, index.dtype)
    values = [value for row in taps for value in row]
    if len(values) == 1:
        y[...] = values[0]
        index.fill(0)
    for number, value in enumerate(values[1:], 1):
        best = values[0] if number == 1 else y
        np.greater(value, best, out=wins)
        np.maximum(value, best, out=y)
        won = wins.view(np.uint8) if index.dtype == np.uint8 else wins
        np.multiply(won, index.dtype.type(number), out=index if number == 1 else taken)
        if number > 1:
            np.maximum(index, taken, out=index)


def _careful_max(windows: Array, valid: Array, y: Array, index: Array) -> None:
    y.fill(-np.inf)
    index.fill(0)
    found = np.zeros(y.shape, bool)
    for r, s in np.ndindex(windows.shape[3:5]):
        value = windows[:, :, :, r, s]
        better = ~(value <= y) & (y == y)  # also where value is NaN, but the first NaN stays
        wins = (better | ~found) & valid[:, :, r, s, None]
        np.copyto(y, value, where=wins)
        np.copyto(index, index.dtype.type(r * windows.shape[4] + s), where=wins)
        found |= wins


def _valid(block: Block, rows: Axis, columns: Axis) -> Array:
    """(P,Q,R,S): whether a window's place is an input, not padding."""
    down, across = _is_input(rows)[block.row : block.row_end], _is_input(columns)
    return np.asarray(down[:, None, :, None] & across[None, :, None, :])


def _is_input(axis: Axis) -> Array:
    """(outputs, taps): whether the place is an input."""
    at = axis.start + np.arange(axis.outputs)[:, None] * axis.stride + np.arange(axis.taps) * axis.dilation
    return np.asarray((at >= 0) & (at < axis.inputs))


def max_backward(dy: Array, index: Array, g: Pool2dGeometry) -> Array:
    """dx (N,H,W,C): each dy (N,P,Q,C) added to the input that ``index`` names."""
    return _gather(dy, index, g)


def avg_forward(x: Array, g: Pool2dGeometry, count_include_pad: bool, divisor: int | None) -> Array:
    """y (N,P,Q,C), each window's sum over its divisor."""
    y = memory.empty(g.output_shape, x.dtype)
    rows, columns = axes(g)
    divisors = _divisors(g, rows, columns, count_include_pad, divisor, x.dtype)

    def run(block: Block) -> None:
        windows = window_view(x, block, rows, columns)
        part = y[block.image : block.image_end, block.row : block.row_end]
        part[...] = windows[:, :, :, 0, 0]
        for r, s in list(np.ndindex(windows.shape[3:5]))[1:]:
            np.add(part, windows[:, :, :, r, s], out=part)
        np.divide(part, divisors[block.row : block.row_end], out=part)

    for_each(run, _blocks(g, x.itemsize))
    return y


def avg_backward(dy: Array, g: Pool2dGeometry, count_include_pad: bool, divisor: int | None) -> Array:
    """dx (N,H,W,C) of :func:`avg_forward`."""
    return _gather(dy / _divisors(g, *axes(g), count_include_pad, divisor, dy.dtype), None, g)


def _divisors(
    g: Pool2dGeometry, rows: Axis, columns: Axis, count_include_pad: bool, divisor: int | None, dtype: Any
) -> Array:
    """(P, Q, 1): what each window's sum is divided by; 1 where a window counts nothing."""
    if divisor is not None:
        return np.full((g.P, g.Q, 1), divisor, dtype)
    if count_include_pad:  # places beyond the bottom and right padding, which ceil_mode adds, do not count
        rows = Axis(g.H + g.pad_top + g.pad_bottom, g.P, g.R, g.stride_h, 0, g.dilation_h)
        columns = Axis(g.W + g.pad_left + g.pad_right, g.Q, g.S, g.stride_w, 0, g.dilation_w)
    counts = np.outer(_is_input(rows).sum(axis=1), _is_input(columns).sum(axis=1))
    return np.maximum(counts, 1).astype(dtype)[:, :, None]


def _gather(dy: Array, index: Array | None, g: Pool2dGeometry) -> Array:
    """dx (N,H,W,C): every input adds up the dy of the windows that hold it; of those that chose it, given ``index``.

    Inputs of one phase (see :func:`phases`) hold the same places of their windows, so that each term is one operation
    on long arrays.
    """
    dx = memory.empty(g.input_shape, dy.dtype)
    down = list(phases(g.H, g.P, g.R, g.stride_h, g.pad_top, g.dilation_h))
    across = list(phases(g.W, g.Q, g.S, g.stride_w, g.pad_left, g.dilation_w))
    columns = _hull([axis.reads(0, axis.outputs) for _, taps, axis in across if taps])

    def run(block: Block) -> None:
        images = slice(block.image, block.image_end)
        # Phases differ by one row at most: the last block may find some of them at their end.
        parts = [(p, taps, axis, block.row, min(block.row_end, axis.outputs)) for p, taps, axis in down]
        parts = [part for part in parts if part[3] < part[4]]
        rows = _hull([axis.reads(first, last) for _, taps, axis, first, last in parts if taps])
        gradient = padded(dy[images], rows, columns, name="gradient")
        chosen = None if index is None else padded(index[images], rows, columns, name="chosen")
        for height, row_taps, row_axis, first, last in parts:
            from_row = slice(height + first * g.stride_h, height + last * g.stride_h, g.stride_h)
            for width, column_taps, column_axis in across:
                terms = [
                    (r * g.S + s, i, j)
                    for r, i in zip(row_taps, _tap_slices(row_axis, first, last, rows[0]), strict=True)
                    for s, j in zip(
                        column_taps, _tap_slices(column_axis, 0, column_axis.outputs, columns[0]), strict=True
                    )
                ]
                _add_terms(gradient, chosen, terms, dx[images, from_row, width :: g.stride_w])

    row_bytes = -(-g.H * g.W * g.C * dx.itemsize // max(down[0][2].outputs, 1))
    for_each(run, blocks(g.N, down[0][2].outputs, row_bytes, BLOCK_BYTES))
    return dx


def _hull(ranges: list[tuple[int, int]]) -> tuple[int, int]:
    """The smallest range that holds all of them; an empty one of none."""
    return min((low for low, _ in ranges), default=0), max((high for _, high in ranges), default=0)


def _tap_slices(axis: Axis, first: int, last: int, origin: int) -> list[slice]:
    """What the outputs [first, last) of a stride-1 axis read, tap by tap, counted from ``origin``."""
    starts = [axis.start + first + t * axis.dilation - origin for t in range(axis.taps)]
    return [slice(start, start + last - first) for start in starts]


def _add_terms(gradient: Array, chosen: Array | None, terms: list[tuple[int, slice, slice]], out: Array) -> None:
    """out = the sum over ``terms`` (number, rows, columns) of the gradients there, of those that chose ``number``."""
    if not terms:
        out[...] = 0
        return
    total, share = scratch("sum", out.shape, out.dtype), scratch("share", out.shape, out.dtype)
    wins = scratch("wins", out.shape, np.bool_)
    for i, (number, rows, columns) in enumerate(terms):
        values = gradient[:, rows, columns]
        if chosen is not None:
            np.equal(chosen[:, rows, columns], chosen.dtype.type(number), out=wins)
            select(values, wins, share)
            values = share
        if i:
            np.add(total, values, out=total)
        elif len(terms) > 1:
            np.copyto(total, values)
        else:
            total = values
    np.copyto(out, total)  # ``out`` may be every other pixel: such rows are faster copied to than added to


def _blocks(g: Pool2dGeometry, itemsize: int) -> list[Block]:
    row_bytes = -(-g.H * g.W * g.C * itemsize // g.P)
    return blocks(g.N, g.P, row_bytes, BLOCK_BYTES)
