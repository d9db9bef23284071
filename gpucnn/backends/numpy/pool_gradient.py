"""How inputs gather the gradients of the pooling windows that hold them, over blocks that stay in cache."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import memory, pool_gradient_in_step
from gpucnn.backends.numpy.elementwise import select
from gpucnn.backends.numpy.scratch import scratch, short_buffers
from gpucnn.backends.numpy.threads import for_each
from gpucnn.backends.numpy.windows import Axis, Block, blocks, copy_pixels, phases
from gpucnn.geometry import Pool2dGeometry

Array = NDArray[Any]

BLOCK_BYTES = 1 << 20  # of a block's inputs
LEAST_BLOCKS = 2  # operations on less than that cost more than the threads bring
NARROW = 32  # channels below which pixels that do not lie side by side are copied, not computed, to their places


class _Term(NamedTuple):
    """The windows (rows, columns) that hold, at place ``number``, the inputs (in_rows, in_columns) of one phase."""

    number: int
    in_rows: slice
    in_columns: slice
    rows: slice
    columns: slice

    def of_all(self, shape: tuple[int, ...]) -> bool:
        """Whether it gives every input of a phase of that shape something."""
        return (self.in_rows, self.in_columns) == (slice(0, shape[1]), slice(0, shape[2]))


def gather(dy: Array, index: Array | None, g: Pool2dGeometry) -> Array:
    """dx (N,H,W,C): every input adds up the dy of the windows that hold it; of those that chose it, given ``index``.

    Inputs of one phase (see :func:`phases`) hold the same places of their windows, so that each term is one operation
    on long arrays.
    """
    dx = memory.empty(g.input_shape, dy.dtype)
    if index is not None and pool_gradient_in_step.takes(g):
        pool_gradient_in_step.gather(dy, index, g, dx)
        return dx
    down = list(phases(g.H, g.P, g.R, g.stride_h, g.pad_top, g.dilation_h))
    across = list(phases(g.W, g.Q, g.S, g.stride_w, g.pad_left, g.dilation_w))

    def run(block: Block) -> None:
        images = slice(block.image, block.image_end)
        gradient, chosen = dy[images], None if index is None else index[images]
        for height, row_taps, row_axis in down:
            # Phases differ by one row at most: the last block may find some of them at their end.
            first, last = block.row, min(block.row_end, row_axis.outputs)
            if first >= last:
                continue
            from_row = slice(height + first * g.stride_h, height + last * g.stride_h, g.stride_h)
            rows = _meetings(row_axis, row_taps, first, last)
            for width, column_taps, column_axis in across:
                columns = _meetings(column_axis, column_taps, 0, column_axis.outputs)
                terms = [_Term(r * g.S + s, i, j, p, q) for r, i, p in rows for s, j, q in columns]
                with short_buffers():
                    _add_terms(gradient, chosen, terms, dx[images, from_row, width :: g.stride_w])

    row_bytes = -(-g.H * g.W * g.C * dx.itemsize // max(down[0][2].outputs, 1))
    for_each(run, blocks(g.N, down[0][2].outputs, row_bytes, 2 * BLOCK_BYTES, LEAST_BLOCKS), work=dx.size)
    return dx


def _meetings(axis: Axis, taps: list[int], first: int, last: int) -> list[tuple[int, slice, slice]]:
    """For each tap over which inputs [first, last) of a phase meet windows: it, those inputs, the windows."""
    met = []
    for number, tap in enumerate(taps):
        a, b = axis.meeting(number, first, last)
        if a < b:
            met.append((tap, slice(a - first, b - first), axis.met(number, a, b)))
    return met


def _add_terms(gradient: Array, chosen: Array | None, terms: list[_Term], out: Array) -> None:
    """out = the sum over ``terms`` of the gradients, of those of windows that chose that place."""
    terms = sorted(terms, key=lambda term: not term.of_all(out.shape))
    in_place = out.shape[3] >= NARROW and len(terms) == 1 and terms[0].of_all(out.shape)
    total = out if in_place else scratch("sum", out.shape, out.dtype)
    if not terms or not terms[0].of_all(out.shape):
        total.fill(0)
    for term in terms:
        values = gradient[:, term.rows, term.columns]
        starts = term is terms[0] and term.of_all(out.shape)
        part = total[:, term.in_rows, term.in_columns]
        if chosen is not None:
            wins = scratch("wins", values.shape, np.bool_)
            np.equal(chosen[:, term.rows, term.columns], chosen.dtype.type(term.number), out=wins)
            share = part if starts else scratch("share", values.shape, values.dtype)
            select(values, wins, share)
            values = share
        if not starts:
            np.add(part, values, out=part)
        elif values is not part:
            np.copyto(part, values)
    if not in_place:
        copy_pixels(total, out)
