"""Max- and average-pooling, over blocks of images that stay in cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy.scratch import scratch
from gpucnn.backends.numpy.threads import for_each
from gpucnn.backends.numpy.windows import Axis, Block, axes, blocks, spans, window_view
from gpucnn.geometry import Pool2dGeometry

Array = NDArray[Any]

BLOCK_BYTES = 512 << 10  # of a block's inputs


def max_forward(x: Array, g: Pool2dGeometry) -> tuple[Array, Array]:
    """y and index (N,P,Q,C): the maximum of each window and its place r*S + s, the first of equals, NaN above all.

    A window that sees padding alone (dilation can do that) gives -inf at place 0.
    """
    y = np.empty(g.output_shape, x.dtype)
    index = np.empty(g.output_shape, np.uint8 if g.R * g.S <= 256 else np.int32)
    rows, columns = axes(g)

    def run(block: Block) -> None:
        windows = window_view(x, block, rows, columns, fill=-np.inf)
        at = slice(block.image, block.image_end), slice(block.row, block.row_end)
        _max(windows, y[at], index[at])
        if not y[at].min() > -np.inf:  # a NaN or -inf somewhere: the careful way
            _careful_max(windows, _valid(block, rows, columns), y[at], index[at])

    for_each(run, _blocks(g, x.itemsize))
    return y, index


def _max(windows: Array, y: Array, index: Array) -> None:
    """Over windows (B,P,Q,R,S,C) of finite values: a later place wins where it is greater, so its number is the maximum."""
    wins = scratch("wins", y.shape, np.bool_)
    taken = scratch("taken", y.shape, index.dtype)
    y[...] = windows[:, :, :, 0, 0]
    index.fill(0)
    for r, s in list(np.ndindex(windows.shape[3:5]))[1:]:
        value = windows[:, :, :, r, s]
        np.greater(value, y, out=wins)
        np.maximum(value, y, out=y)
        np.multiply(wins, index.dtype.type(r * windows.shape[4] + s), out=taken)
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

    def shares(part: slice) -> Iterator[tuple[int, int, Array]]:
        gradient, chosen = dy[part], index[part]
        share = scratch("share", gradient.shape, dy.dtype)
        wins = scratch("wins", gradient.shape, np.bool_)
        for r in range(g.R):
            for s in range(g.S):
                np.equal(chosen, chosen.dtype.type(r * g.S + s), out=wins)
                _select(gradient, wins, share)
                yield r, s, share

    return _scatter(shares, dy.dtype, g)


def _select(values: Array, wins: Array, out: Array) -> None:
    """out = values where wins, else 0, also where a value is not finite."""
    np.multiply(values, wins, out=out)
    if not np.isfinite(out.max()) or not np.isfinite(out.min()):  # 0 * inf is NaN
        out[...] = np.where(wins, values, 0)


def avg_forward(x: Array, g: Pool2dGeometry, count_include_pad: bool, divisor: int | None) -> Array:
    """y (N,P,Q,C), each window's sum over its divisor."""
    y = np.empty(g.output_shape, x.dtype)
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
    divisors = _divisors(g, *axes(g), count_include_pad, divisor, dy.dtype)

    def shares(part: slice) -> Iterator[tuple[int, int, Array]]:
        share = scratch("share", dy[part].shape, dy.dtype)
        np.divide(dy[part], divisors, out=share)
        for r in range(g.R):
            for s in range(g.S):
                yield r, s, share

    return _scatter(shares, dy.dtype, g)


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


def _scatter(shares: Any, dtype: Any, g: Pool2dGeometry) -> Array:
    """dx (N,H,W,C): ``shares(images)`` yields, for each place (r, s), what every output hands to the input there."""
    dx = np.empty(g.input_shape, dtype)
    top, left = g.pad_top, g.pad_left
    height = max(top + g.H, (g.P - 1) * g.stride_h + (g.R - 1) * g.dilation_h + 1)
    width = max(left + g.W, (g.Q - 1) * g.stride_w + (g.S - 1) * g.dilation_w + 1)

    def run(images: tuple[int, int]) -> None:
        part = slice(*images)
        padded = scratch("padded", (images[1] - images[0], height, width, g.C), dtype)
        padded.fill(0)
        for r, s, share in shares(part):
            down = slice(r * g.dilation_h, r * g.dilation_h + (g.P - 1) * g.stride_h + 1, g.stride_h)
            across = slice(s * g.dilation_w, s * g.dilation_w + (g.Q - 1) * g.stride_w + 1, g.stride_w)
            target = padded[:, down, across]
            np.add(target, share, out=target)
        dx[part] = padded[:, top : top + g.H, left : left + g.W]

    image_bytes = max(g.H * g.W * g.C * dx.itemsize, 1)
    for_each(run, spans(g.N, max(BLOCK_BYTES // image_bytes, 1)))
    return dx


def _blocks(g: Pool2dGeometry, itemsize: int) -> list[Block]:
    row_bytes = -(-g.H * g.W * g.C * itemsize // g.P)
    return blocks(g.N, g.P, row_bytes, BLOCK_BYTES)
