"""Local response normalisation on kernels/lrn.cu, lrn_general.cu and lrn_half.cu."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

from gpucnn.backends.base import Array
from gpucnn.backends.cuda import instances
from gpucnn.backends.cuda.grids import MAX_BLOCKS, THREADS, blocks, ceil_div

WARP = 32
LEAST_K = 2.0**-126  # the hardware's roots take less for 0
GROUP_ELEMENTS = 1024  # what a block of the general backward holds of each of two arrays, in whole rows
MOST_SHARED = 48 * 1024 // 8  # elements; longer rows are worked on without shared memory


@dataclass(frozen=True, slots=True)
class _Window:
    """LrnWindow in kernels/lrn.cuh."""

    channels: int
    before: int
    after: int
    alpha_over_size: float
    beta: float
    k: float

    def as_struct(self) -> tuple[Any, ...]:
        return astuple(self)


def forward(backend: Any, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    """y like x (..., C)."""
    y = backend.empty(x.shape, x.dtype)
    channels = x.shape[-1]
    rows = x.size // channels
    lanes = window_lanes(size, beta, k, x, y)
    if lanes:
        block = _block(channels // lanes)
        backend.launch(
            *_window_instance("lrn_forward", size, x.dtype, lanes), min(ceil_div(rows, block[1]), MAX_BLOCKS), block,
            x, y, rows, alpha / size, k, warp_rows(block),
        )  # fmt: skip
        return y
    source, name = _general_instance("lrn_forward", x.dtype)
    window = _Window(channels, size // 2, (size - 1) // 2, alpha / size, beta, k)
    backend.launch(source, name, blocks(x.size), THREADS, x, y, rows, window)
    return y


def backward(
    backend: Any, dy: Array, x: Array, size: int, alpha: float, beta: float, k: float, mask: bool = False
) -> Array:
    """dx like x (..., C); with ``mask`` 0 where not x > 0."""
    dx = backend.empty(x.shape, x.dtype)
    channels = x.shape[-1]
    rows = x.size // channels
    factor = 2.0 * alpha * beta / size
    lanes = window_lanes(size, beta, k, dy, x, dx)
    if lanes:
        block = _block(channels // lanes)
        backend.launch(
            *_window_instance("lrn_backward", size, x.dtype, lanes), min(ceil_div(rows, block[1]), MAX_BLOCKS), block,
            dy, x, dx, rows, alpha / size, k, factor, int(mask), warp_rows(block),
        )  # fmt: skip
        return dx
    group = max(GROUP_ELEMENTS // channels, 1) if channels <= MOST_SHARED else 0
    source, name = _general_instance("lrn_backward", x.dtype)
    window = _Window(channels, size // 2, (size - 1) // 2, alpha / size, beta, k)
    backend.launch(
        source, name, min(ceil_div(rows, max(group, 1)), MAX_BLOCKS), THREADS,
        dy, x, dx, rows, window, factor, int(mask), group, shared_mem=8 * group * channels,
    )  # fmt: skip
    return dx


def window_lanes(size: int, beta: float, k: float, *arrays: Array) -> int:
    """How many channels a thread owns in the instances for the usual windows; 0 where these do not serve."""
    channels = arrays[0].shape[-1]
    lanes = instances.channel_lanes(channels, *arrays)
    usual = size in (5, 9) and beta == 0.75 and k >= LEAST_K
    return lanes if usual and lanes > 1 and channels // lanes <= THREADS else 0


def warp_rows(block: tuple[int, int]) -> int:
    """1 where a row of channels lies within a warp, and warps are whole: a barrier among the warp is enough then."""
    return int(WARP % block[0] == 0 and block[0] * block[1] % WARP == 0)


def _block(columns: int) -> tuple[int, int]:
    """Whole rows of ``columns`` threads."""
    return columns, THREADS // columns


def _window_instance(name: str, size: int, dtype: Any, lanes: int) -> tuple[str, str]:
    source = "lrn.cu" if size == 9 else "lrn_general.cu"
    return source if dtype.itemsize == 4 else "lrn_half.cu", f"{name}_{size}{instances.suffix(dtype, lanes)}"


def _general_instance(name: str, dtype: Any) -> tuple[str, str]:
    return "lrn_general.cu" if dtype.itemsize == 4 else "lrn_half.cu", name + instances.suffix(dtype, 1)
