"""Convolution as matrix products over blocks of images: fprop, dgrad and wgrad.

A block's windows are laid side by side (im2col) into a buffer that stays in cache, and one product with the
filters gives its outputs. As GEMMs, of a block with M outputs (n, p, q) and for each group:

    fprop   y (M, K)       = windows (M, RSC) x filters (RSC, K)
    wgrad   dw (RSC, K)    = windows (M, RSC) transposed x dy (M, K), added up over the blocks in a fixed order
    dgrad   dx (M', C)     = windows of dy (M', R'S'K) x filters (R'S'K, C)

Where a filter's row is long enough to be a product's inner size, only the windows' rows are laid out (SC
instead of RSC of them, so R times less to copy): the windows' rows of image row h serve every filter row r,
shifted, and R products are added.

Large filters need more rows of a product at a time, because each product reads all of them: their blocks are
larger, and their products leave out the image rows that are padding. Where they are large enough that even the
copies of x and dy are cheap beside a product, wgrad goes tap by tap, each over the pixels that it really meets.

dgrad gathers as fprop does: the inputs of one phase, those that are equal modulo the stride, meet the same taps
of the filter, and their gradient is a convolution of dy with those taps, reversed, at stride 1. Stride 1 has
one phase; nothing is ever scattered.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backends.numpy import depthwise, memory, methods, toeplitz, winograd, winograd4, winograd5, winograd_wgrad
from gpucnn.backends.numpy.bias import bias_grad
from gpucnn.backends.numpy.scratch import scratch
from gpucnn.backends.numpy.threads import for_each, single_blas_thread
from gpucnn.backends.numpy.windows import Axis, Block, axes, blocks, phases, spans, window_view
from gpucnn.geometry import Conv2dGeometry

Array = NDArray[Any]

WINDOW_BYTES = 1 << 20  # of one block's windows: half of a core's L2 cache
ROWS_BYTES = 1 << 20  # of one block's rows of windows
LEAST_ROW = 96  # S*C from which a filter's row is a product of its own: a shorter inner size starves the product
LARGE_FILTERS = 1 << 19  # bytes of all filters, above which blocks grow with them and padded rows are left out
LARGE_BLOCK = 4 << 20  # bytes of a block's windows at most, for large filters
LEAST_TAP = 128  # C*K / (C+K) from which large filters' wgrad goes tap by tap
TAP_BYTES = 4 << 20  # of one block's pixels of x or dy that meet a tap
LEAST_RUNS = 3  # blocks a tap, where sizes allow, so that threads have something to share
WGRAD_SUMS = 8  # running sums of dw, each over its own run of blocks
SUMS_BYTES = 32 << 20  # of all running sums, tap by tap


def fprop(x: Array, w: Array, bias: Array | None, g: Conv2dGeometry, activation: str | None = None) -> Array:
    """y (N,P,Q,K) of x (N,H,W,C), w (K,R,S,C/groups) and bias (K,); ``activation="relu"``: max(y, 0)."""
    return _FPROP[methods.fprop_method(g)](x, w, bias, g, activation)


def dgrad(dy: Array, w: Array, g: Conv2dGeometry) -> Array:
    """dx (N,H,W,C) of dy (N,P,Q,K) and w (K,R,S,C/groups)."""
    return _DGRAD[methods.dgrad_method(g)](dy, w, g)


def wgrad(x: Array, dy: Array, g: Conv2dGeometry) -> Array:
    """dw (K,R,S,C/groups) of x (N,H,W,C) and dy (N,P,Q,K)."""
    return _WGRAD[methods.wgrad_method(g)](x, dy, g)


def wgrad_and_bias(x: Array, dy: Array, g: Conv2dGeometry) -> tuple[Array, Array]:
    """:func:`wgrad` and :func:`bias_grad`, which few channels have from the same products."""
    if methods.wgrad_method(g) == methods.TOEPLITZ:
        return toeplitz.wgrad_and_bias(x, dy, g)
    return wgrad(x, dy, g), bias_grad(dy)


def windows_fprop(x: Array, w: Array, bias: Array | None, g: Conv2dGeometry, activation: str | None = None) -> Array:
    """:func:`fprop` by windows, whatever the sizes."""
    y = memory.empty(g.output_shape, x.dtype)
    rows, columns = axes(g)
    _correlate(x, w, bias, y, rows, columns, g.groups, activation)
    return y


def windows_dgrad(dy: Array, w: Array, g: Conv2dGeometry) -> Array:
    """:func:`dgrad` by windows, whatever the sizes."""
    dx = memory.empty(g.input_shape, dy.dtype)
    row_phases = list(phases(g.H, g.P, g.R, g.stride_h, g.pad_top, g.dilation_h))
    column_phases = list(phases(g.W, g.Q, g.S, g.stride_w, g.pad_left, g.dilation_w))
    for height, row_taps, rows in row_phases:
        for width, column_taps, columns in column_phases:
            part = dx[:, height :: g.stride_h, width :: g.stride_w]
            if row_taps and column_taps:
                taps = w[:, _slice(row_taps), _slice(column_taps)]
                _correlate(dy, _swapped(taps, g.groups), None, part, rows, columns, g.groups)
            else:
                part[...] = 0
    return dx


def windows_wgrad(x: Array, dy: Array, g: Conv2dGeometry) -> Array:
    """:func:`wgrad` by windows, their rows or taps, whatever the sizes."""
    rows, columns = axes(g)
    size = math.prod(g.weight_shape) * x.itemsize
    if size > LARGE_FILTERS and g.groups == 1 and g.C * g.K >= LEAST_TAP * (g.C + g.K):
        return _wgrad_by_taps(x, dy, g)
    by_rows = _by_rows(rows, columns, g.C, g.groups)
    work = _blocks(g.N, rows, columns, g.C, x.itemsize, by_rows, size)
    runs = spans(len(work), -(-len(work) // WGRAD_SUMS)) if work else []
    k, c = g.K // g.groups, g.C // g.groups
    # Filters transposed, with K last: BLAS is a fifth slower at the product that gives dw as it will be stored.
    sums = memory.empty((len(runs), g.R, g.S * c, k) if by_rows else (len(runs), g.groups, g.R * g.S * c, k), x.dtype)

    def run(index: int) -> None:
        first, last = runs[index]
        for block in work[first:last]:
            out = sums[index] if block is work[first] else scratch("product", sums.shape[1:], x.dtype)
            if by_rows:
                _wgrad_by_rows(x, dy, block, rows, columns, size > LARGE_FILTERS, out)
            else:
                windows = _im2col(x, block, rows, columns, g.groups)
                gradients = _by_group(dy[block.image : block.image_end, block.row : block.row_end], g.groups)
                np.matmul(windows.transpose(0, 2, 1), gradients, out=out)
            if block is not work[first]:
                np.add(sums[index], out, out=sums[index])

    with single_blas_thread:
        for_each(run, range(len(runs)))
    if not runs:
        return np.zeros(g.weight_shape, x.dtype)
    total = sums[0]
    for other in sums[1:]:
        total += other
    return np.ascontiguousarray(
        total.reshape(g.R, g.S, c, k).transpose(3, 0, 1, 2)
        if by_rows
        else total.reshape(g.groups, g.R, g.S, c, k).transpose(0, 4, 1, 2, 3)
    ).reshape(g.weight_shape)


def _wgrad_by_rows(x: Array, dy: Array, block: Block, rows: Axis, columns: Axis, clip: bool, out: Array) -> None:
    """One block's dw as (R, S*C, K); ``clip`` leaves out the products with rows of padding."""
    rows_of = _window_rows(x, block, rows, columns)
    part = dy[block.image : block.image_end, block.row : block.row_end]
    gradients = scratch("gradients", (block.rows, block.images, *part.shape[2:]), dy.dtype)
    np.copyto(gradients, part.transpose(1, 0, 2, 3))
    for r in range(rows.taps):
        first, last = _meeting(rows, r, block) if clip else (0, block.rows)
        windows = _shifted(rows_of, r * rows.dilation + first, last - first)
        np.matmul(windows.T, gradients[first:last].reshape(-1, part.shape[3]), out=out[r])


def _wgrad_by_taps(x: Array, dy: Array, g: Conv2dGeometry) -> Array:
    """dw tap by tap, x (M, C) transposed x dy (M, K) over the outputs that meet no padding at that tap."""
    rows, columns = axes(g)
    work = blocks(g.N, g.P, g.Q * max(g.C, g.K) * x.itemsize, TAP_BYTES, least=LEAST_RUNS)
    dw = memory.empty(g.weight_shape, x.dtype)
    count = max(1, min(len(work), WGRAD_SUMS, SUMS_BYTES // dw.nbytes))
    runs = spans(len(work), -(-len(work) // count)) if work else [(0, 0)]
    sums = np.zeros((len(runs), g.R, g.S, g.C, g.K), x.dtype)  # with K last, as in the other ways
    taps = [(r, s) for r in range(g.R) for s in range(g.S)]

    def run(task: tuple[int, tuple[int, int]]) -> None:
        index, (r, s) = task
        total = sums[index, r, s]
        q, q_end = columns.meeting(s, 0, columns.outputs)
        for block in work[slice(*runs[index])]:
            first, last = _meeting(rows, r, block)
            if first >= last or q >= q_end:
                continue
            down = rows.met(r, block.row + first, block.row + last)
            images = slice(block.image, block.image_end)
            pixels = _gathered(x[images, down, columns.met(s, q, q_end)], "pixels")
            gradients = _gathered(dy[images, block.row + first : block.row + last, q:q_end], "gradients")
            product = scratch("product", total.shape, x.dtype)
            np.matmul(pixels.T, gradients, out=product)
            np.add(total, product, out=total)

    def finish(tap: tuple[int, int]) -> None:
        total = sums[0][tap]
        for other in sums[1:]:
            np.add(total, other[tap], out=total)
        dw[:, tap[0], tap[1]] = total.T

    with single_blas_thread:
        for_each(run, [(index, tap) for index in range(len(runs)) for tap in taps])
        for_each(finish, taps)
    return dw


def _gathered(pixels: Array, name: str) -> Array:
    """Pixels (n, h, w, c) as a matrix (M, c), in buffer ``name`` unless they already are one."""
    if not pixels.flags.c_contiguous:
        source, pixels = pixels, scratch(name, pixels.shape, pixels.dtype)
        np.copyto(pixels, source)
    return pixels.reshape(-1, pixels.shape[3])


def _meeting(rows: Axis, tap: int, block: Block) -> tuple[int, int]:
    """The output rows of a block, counted from its first, that meet an input and no padding at a filter's row."""
    first, last = rows.meeting(tap, block.row, block.row_end)
    return first - block.row, last - block.row


def _slice(taps: list[int]) -> slice:
    """A phase's taps, which are evenly spaced and falling, as a slice: a view of the filters, not a copy."""
    step = taps[1] - taps[0] if len(taps) > 1 else -1
    end = taps[-1] + step
    return slice(taps[0], end if end >= 0 else None, step)


def _swapped(w: Array, groups: int) -> Array:
    """Filters (K,R,S,C/groups) with input and output channels swapped: (C,R,S,K/groups)."""
    k, r, s, c = w.shape
    return w.reshape(groups, k // groups, r, s, c).transpose(0, 4, 2, 3, 1).reshape(groups * c, r, s, k // groups)


def _by_rows(rows: Axis, columns: Axis, channels: int, groups: int) -> bool:
    """Whether to lay out the windows' rows only: where rows shift by whole rows and S*C will do as inner size."""
    return groups == 1 and rows.stride == 1 and rows.taps > 1 and columns.taps * channels >= LEAST_ROW


def _blocks(
    images: int, rows: Axis, columns: Axis, channels: int, itemsize: int, by_rows: bool, filters: int
) -> list[Block]:
    """Blocks for the windows of ``channels`` channels, with ``filters`` bytes of filters."""
    row_bytes = columns.outputs * columns.taps * channels * itemsize
    most = min(LARGE_BLOCK, 2 * filters) if filters > LARGE_FILTERS else 0
    if by_rows:
        return blocks(images, rows.outputs, row_bytes, max(ROWS_BYTES, most))
    return blocks(images, rows.outputs, row_bytes * rows.taps, max(WINDOW_BYTES, most))


def _window_rows(x: Array, block: Block, rows: Axis, columns: Axis) -> Array:
    """The windows' rows of every image row that a block reads, (rows, images, Q, S*C), in this thread's buffer."""
    height = block.rows + (rows.taps - 1) * rows.dilation
    single = Axis(rows.inputs, rows.outputs, 1, 1, rows.start, 1)
    reading = Block(block.image, block.image_end, block.row, block.row + height)
    windows = window_view(x, reading, single, columns)[:, :, :, 0]
    b, _, q, s, c = windows.shape
    rows_of = scratch("windows", (height, b, q, s, c), x.dtype)
    np.copyto(rows_of, windows.transpose(1, 0, 2, 3, 4))
    return rows_of.reshape(height, b, q, s * c)


def _shifted(rows_of: Array, first: int, count: int) -> Array:
    """``count`` of those image rows as a matrix (M, S*C)."""
    return rows_of[first : first + count].reshape(-1, rows_of.shape[3])


def _im2col(x: Array, block: Block, rows: Axis, columns: Axis, groups: int) -> Array:
    """A block's windows (groups, M, R*S*C/groups): in this thread's buffer, or ``x`` itself where they are pixels."""
    windows = window_view(x, block, rows, columns)
    b, p, q, r, s, c = windows.shape
    if r * s * groups == 1 and windows.flags.c_contiguous:
        return windows.reshape(1, b * p * q, c)
    columns_of = scratch("windows", (groups, b, p, q, r, s, c // groups), x.dtype)
    np.copyto(columns_of, windows.reshape(b, p, q, r, s, groups, c // groups).transpose(5, 0, 1, 2, 3, 4, 6)
              if groups > 1 else windows[None])  # fmt: skip
    return columns_of.reshape(groups, b * p * q, r * s * (c // groups))


def _by_group(y: Array, groups: int) -> Array:
    """Outputs (B,P,Q,K) as (groups, M, K/groups), a view where a view will do."""
    b, p, q, k = y.shape
    return y.reshape(b * p * q, groups, k // groups).transpose(1, 0, 2)


def _correlate(
    x: Array,
    w: Array,
    bias: Array | None,
    y: Array,
    rows: Axis,
    columns: Axis,
    groups: int,
    activation: str | None = None,
) -> None:
    """y (N,P,Q,K) = windows of x (N,H,W,C) times filters (K,R',S',C/groups), plus bias; y may be any view."""
    by_rows = _by_rows(rows, columns, x.shape[3], groups)
    # As many copies of the bias as a row has outputs: short rows are slow to add.
    bias_row = None if bias is None else np.tile(bias, columns.outputs).reshape(columns.outputs, -1)
    compute = _correlation_by_rows(x, w, rows, columns) if by_rows else _correlation(x, w, rows, columns, groups)

    def run(block: Block) -> None:
        part = y[block.image : block.image_end, block.row : block.row_end]
        compute(block, part)
        if bias_row is not None:
            np.add(part, bias_row, out=part)
        if activation == "relu":
            np.maximum(part, 0, out=part)

    with single_blas_thread:
        for_each(run, _blocks(x.shape[0], rows, columns, x.shape[3], x.itemsize, by_rows, w.nbytes))


Compute = Callable[[Block, Array], None]  # fills the part (images, rows, Q, K) of the output that is the block's


def _correlation(x: Array, w: Array, rows: Axis, columns: Axis, groups: int) -> Compute:
    """Whole windows, one product a group."""
    k = w.shape[0] // groups
    filters = np.ascontiguousarray(w.reshape(groups, k, -1).transpose(0, 2, 1))

    def compute(block: Block, part: Array) -> None:
        windows = _im2col(x, block, rows, columns, groups)
        m = windows.shape[1]
        if groups == 1 and part.flags.c_contiguous:
            np.matmul(windows, filters, out=part.reshape(1, m, k))
            return
        product = scratch("product", (groups, m, k), x.dtype)
        np.matmul(windows, filters, out=product)
        by_group = (*part.shape[:3], groups, k)
        part.reshape(by_group)[...] = product.transpose(1, 0, 2).reshape(by_group)

    return compute


def _correlation_by_rows(x: Array, w: Array, rows: Axis, columns: Axis) -> Compute:
    """Rows of windows, one product a filter row, added up in order."""
    k = w.shape[0]
    large = w.nbytes > LARGE_FILTERS or len(x) == 1  # for one image a copy of the filters is much of the work
    if large and w.flags.c_contiguous:  # BLAS packs them in either order: no need to copy them first
        filters = [w[:, r].reshape(k, -1).T for r in range(rows.taps)]
    else:
        filters = list(np.ascontiguousarray(w.transpose(1, 2, 3, 0)).reshape(rows.taps, -1, k))

    def compute(block: Block, part: Array) -> None:
        rows_of = _window_rows(x, block, rows, columns)
        shape = (block.rows, block.images, columns.outputs, k)
        total, product = scratch("total", shape, x.dtype), scratch("product", shape, x.dtype)
        target = part.transpose(1, 0, 2, 3)
        for r in range(rows.taps):
            first, last = _meeting(rows, r, block) if large else (0, block.rows)
            windows = _shifted(rows_of, r * rows.dilation + first, last - first)
            np.matmul(windows, filters[r], out=(product if r else total)[first:last].reshape(-1, k))
            outside = (slice(first), slice(last, None))
            if r == 0:
                for at in outside:
                    total[at] = 0
                continue
            out = target if r == rows.taps - 1 else total
            np.add(total[first:last], product[first:last], out=out[first:last])
            if out is target:
                for at in outside:
                    target[at] = total[at]

    return compute


# The ways that methods.py chooses from.
_FPROP: dict[str, Callable[..., Array]] = {
    methods.WINDOWS: windows_fprop,
    methods.DEPTHWISE: depthwise.fprop,
    methods.TOEPLITZ: functools.partial(toeplitz.fprop, direct=windows_fprop),
    methods.WINOGRAD: functools.partial(winograd.fprop, direct=windows_fprop),
    methods.WINOGRAD4: functools.partial(winograd4.fprop, direct=windows_fprop),
    methods.WINOGRAD5: functools.partial(winograd5.fprop, direct=windows_fprop),
}
_DGRAD: dict[str, Callable[..., Array]] = {
    methods.WINDOWS: windows_dgrad,
    methods.DEPTHWISE: depthwise.dgrad,
    methods.TOEPLITZ: functools.partial(toeplitz.dgrad, direct=windows_dgrad),
    methods.WINOGRAD: functools.partial(winograd.dgrad, direct=windows_dgrad),
    methods.WINOGRAD4: functools.partial(winograd4.dgrad, direct=windows_dgrad),
    methods.WINOGRAD5: functools.partial(winograd5.dgrad, direct=windows_dgrad),
}
_WGRAD: dict[str, Callable[..., Array]] = {
    methods.WINDOWS: windows_wgrad,
    methods.DEPTHWISE: depthwise.wgrad,
    methods.TOEPLITZ: toeplitz.wgrad,
    methods.WINOGRAD: functools.partial(winograd_wgrad.wgrad, direct=windows_wgrad),
    methods.WINOGRAD5: functools.partial(winograd5.wgrad, direct=windows_wgrad),
}
