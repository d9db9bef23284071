"""Max pooling forward, over blocks of images that stay in cache: maxima along rows first, then down the columns.

So every comparison is between neighbours in the order of a window's places, r*S + s: a later place wins where its
value is greater, and the number of the last that won is the index.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import max_pool2d_in_step, memory
from gpucnn.backends.numpy.scratch import scratch, short_buffers
from gpucnn.backends.numpy.threads import for_each
from gpucnn.backends.numpy.windows import Axis, Block, axes, blocks, copy_pixels, window_view
from gpucnn.geometry import Pool2dGeometry

Array = NDArray[Any]

BLOCK_BYTES = 2 << 20  # of a block's inputs
LEAST_BLOCKS = 2  # operations on less than that cost more than the threads bring
ALONE = 1 << 19  # elements of a job that one thread does as fast: its operations are too short to run side by side
NARROW = 32  # channels below which pixels are too short to be operands: whole rows are, shifted by pixels
MOST_SHIFTED = 4  # stride up to which shifted rows are worth their results at places that nobody asks for


def forward(x: Array, g: Pool2dGeometry) -> tuple[Array, Array]:
    """y and index (N,P,Q,C): the maximum of each window and its place r*S + s, the first of equals, NaN above all.

    A window that sees padding alone (dilation can do that) gives -inf at place 0.
    """
    y = memory.empty(g.output_shape, x.dtype)
    index = memory.empty(g.output_shape, np.uint8 if g.R * g.S <= 256 else np.int32)
    rows, columns = axes(g)
    usual = max_pool2d_in_step.takes(g)

    def run(block: Block) -> None:
        at = slice(block.image, block.image_end), slice(block.row, block.row_end)
        with short_buffers(max_pool2d_in_step.buffer(g)):
            if usual:
                max_pool2d_in_step.run(x, block, g, y[at], index[at])
            else:
                _block(x, block, rows, columns, y[at], index[at])
        if not y[at].min() > -np.inf:  # a NaN or -inf somewhere: the careful way
            windows = window_view(x, block, rows, columns, fill=-np.inf)
            _careful(windows, _valid(block, rows, columns), y[at], index[at])

    row_bytes = -(-g.H * g.W * g.C * x.itemsize // g.P)
    if g.stride_h < g.R and usual:  # whole images
        work = [Block(b.image, b.image_end, 0, g.P) for b in blocks(g.N, 1, g.P * row_bytes, BLOCK_BYTES, LEAST_BLOCKS)]
    else:
        work = blocks(g.N, g.P, row_bytes, BLOCK_BYTES, 1 if x.size < ALONE else LEAST_BLOCKS)
    for_each(run, work, work=0 if x.size < ALONE else x.size)
    return y, index


class _Tap(NamedTuple):
    """A contender for the outputs [first, last) of an axis: its values, and their places, ``number`` + ``places``."""

    first: int
    last: int
    number: int
    values: Array
    places: Array | None = None

    def part(self, axis: int, first: int, last: int) -> tuple[Array, Array | None]:
        """Its values and places for the outputs [first, last), which it must have."""
        at = (slice(None),) * axis + (slice(first - self.first, last - self.first),)
        return self.values[at], None if self.places is None else self.places[at]


def _block(x: Array, block: Block, rows: Axis, columns: Axis, y: Array, index: Array) -> None:
    low, high = (0, rows.inputs) if block.images > 1 else rows.reads(block.row, block.row_end)
    low, high = max(low, 0), min(high, rows.inputs)
    part = x[block.image : block.image_end, low:high]
    best, places = part, None
    if columns.taps > 1 or columns.stride > 1 or columns.start or columns.outputs != columns.inputs:
        shape = (*part.shape[:2], columns.outputs, part.shape[3])
        best, places = scratch("best", shape, x.dtype), scratch("places", shape, index.dtype)
        _across(part, columns, best, places)
    taps = []
    for r in range(rows.taps):
        first, last = rows.meeting(r, block.row, block.row_end)
        if first < last:
            met = rows.met(r, first, last)
            at = slice(None), slice(met.start - low, met.stop - low, met.step)
            part_places = None if places is None else places[at]
            taps.append(_Tap(first - block.row, last - block.row, r * columns.taps, best[at], part_places))
    _tournament(taps, 1, y, index)


def _across(part: Array, columns: Axis, best: Array, places: Array) -> None:
    """best and places (n, rows, Q, C): the maximum over each window's columns in every row, and which column it is."""
    first, last = columns.meeting(0, 0, columns.outputs)[0], columns.meeting(columns.taps - 1, 0, columns.outputs)[1]
    shifted = part.shape[3] < NARROW and columns.taps > 1 and columns.stride <= MOST_SHIFTED and first < last
    if not shifted:
        _column_by_column(part, columns, 0, columns.outputs, best, places)
        return
    _shifted_rows(part, columns, first, last, best, places)
    for a, b in ((0, first), (last, columns.outputs)):
        if a < b:
            _column_by_column(part, columns, a, b, best[:, :, a:b], places[:, :, a:b])


def _column_by_column(part: Array, columns: Axis, first: int, last: int, best: Array, places: Array) -> None:
    taps = []
    for s in range(columns.taps):
        a, b = columns.meeting(s, first, last)
        if a < b:
            taps.append(_Tap(a - first, b - first, s, part[:, :, columns.met(s, a, b)]))
    _tournament(taps, 2, best, places)


def _shifted_rows(part: Array, columns: Axis, first: int, last: int, best: Array, places: Array) -> None:
    """The outputs [first, last), all of whose columns are inputs, among the windows that start at any pixel."""
    flat, step = part.reshape(-1), columns.dilation * part.shape[3]
    size = flat.size - (columns.taps - 1) * step
    everywhere = scratch("everywhere", part.shape, part.dtype)
    places_everywhere = scratch("places everywhere", part.shape, places.dtype)
    taps = [_Tap(0, size, s, flat[s * step : s * step + size]) for s in range(columns.taps)]
    _tournament(taps, 0, everywhere.reshape(-1)[:size], places_everywhere.reshape(-1)[:size])
    at = slice(None), slice(None), columns.met(0, first, last)
    copy_pixels(everywhere[at], best[:, :, first:last])
    copy_pixels(places_everywhere[at], places[:, :, first:last])


def _tournament(taps: list[_Tap], axis: int, best: Array, places: Array) -> None:
    """best = the maximum of the taps along ``axis``, -inf where there is none; places = the first that has it, or 0.

    Of finite values; taps come in the order of their places.
    """
    outputs = best.shape[axis]
    first, last = _common(taps, outputs)
    for a, b in ((0, first), (last, outputs)):
        if a < b:
            _copy_each(taps[:2], axis, a, b, best, places)
    for number, tap in enumerate(taps[1:], 1):
        if number > 1:
            first, last = tap.first, tap.last
        if first >= last:
            continue
        at = (slice(None),) * axis + (slice(first, last),)
        champion, held = (best[at], places[at]) if number > 1 else _holder(taps[0], axis, first, last)
        _challenge(*tap.part(axis, first, last), tap.number, champion, held, best[at], places[at])


def _common(taps: list[_Tap], outputs: int) -> tuple[int, int]:
    """The outputs [first, last) for which the first two taps both stand; first = last = 0 for none."""
    if len(taps) < 2:
        return 0, 0
    first, last = max(taps[0].first, taps[1].first), min(taps[0].last, taps[1].last)
    return (first, last) if first < last else (0, 0)


def _copy_each(taps: list[_Tap], axis: int, first: int, last: int, best: Array, places: Array) -> None:
    """What stands for the outputs [first, last), one tap at most for each of them."""
    at = (slice(None),) * axis
    best[(*at, slice(first, last))] = -np.inf
    places[(*at, slice(first, last))] = 0
    for tap in taps:
        a, b = max(first, tap.first), min(last, tap.last)
        if a < b:
            values, held = _holder(tap, axis, a, b)
            best[(*at, slice(a, b))] = values
            if held is not None:
                places[(*at, slice(a, b))] = held


def _holder(tap: _Tap, axis: int, first: int, last: int) -> tuple[Array, Any]:
    """A tap's values and the numbers of their places, None for 0."""
    values, places = tap.part(axis, first, last)
    if tap.number == 0:
        return values, places
    return values, tap.number if places is None else places + places.dtype.type(tap.number)


def _challenge(
    values: Array, tap_places: Array | None, number: int, champion: Array, held: Any, best: Array, places: Array
) -> None:
    """best and places after ``values`` at places number + ``tap_places`` have met the champion at its place ``held``.

    The places of the challenger are the larger: the largest number that ever won is that of the last who did.
    """
    bytewise = places.dtype == np.uint8
    if bytewise and held is None and tap_places is None and number == 1:
        np.greater(values, champion, out=places.view(np.bool_))
        np.maximum(values, champion, out=best)
        return
    wins = scratch("wins", values.shape, np.bool_)
    np.greater(values, champion, out=wins)
    np.maximum(values, champion, out=best)
    won = wins.view(np.uint8) if bytewise else wins
    claimed = places if held is None else scratch("claimed", values.shape, places.dtype)
    if tap_places is None:
        np.multiply(won, places.dtype.type(number), out=claimed)
    else:
        np.add(tap_places, places.dtype.type(number), out=claimed)
        np.multiply(claimed, won, out=claimed)
    if held is not None:
        np.maximum(held, claimed, out=places)


def _careful(windows: Array, valid: Array, y: Array, index: Array) -> None:
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
    down, across = rows.is_input()[block.row : block.row_end], columns.is_input()
    return np.asarray(down[:, None, :, None] & across[None, :, None, :])
