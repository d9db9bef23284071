"""Which way each convolution is computed: by its sizes alone, never by the clock, so that results can be repeated,
and by ``GPUCNN_WINOGRAD``.

``"windows"`` is the general way, matrix products over windows or over their rows (:mod:`conv2d`); every other
name stands for a module of its own, whose head says when it wins.
"""

from __future__ import annotations

from gpucnn import settings
from gpucnn.geometry import Conv2dGeometry

WINDOWS = "windows"
WINOGRAD = "winograd"
WINOGRAD4 = "winograd 4x4"
WINOGRAD5 = "winograd 5x5"
DEPTHWISE = "depthwise"
TOEPLITZ = "toeplitz"

FEW_CHANNELS = 96  # S*C (dgrad: S*K) below which a filter's row is too short for a product of its own

# Winograd's transforms cost a time for each input and output channel, its products save one for each pair of them.
WINOGRAD_CHANNELS = 16  # C*K / (C+K) from which it wins
WINOGRAD_WGRAD_CHANNELS = 24  # for wgrad, which transforms dy as well
WINOGRAD_TILES = 96  # of 2x2 outputs in all, from which transforming the filters pays
WINOGRAD4_TILES = 256  # of 4x4 outputs in all, for F(4x4)
WINOGRAD_USED = 0.7  # of the outputs of the tiles: an odd image has tiles that reach beyond it

WINOGRAD_COLUMNS = 1 << 13  # of outputs: blocks are whole rows of tiles, whose transforms take many times their memory

# The 5x5 form saves more of the products, but its transformed filters are five times the filters.
WINOGRAD5_CHANNELS = 5  # C*K / (C+K)
WINOGRAD5_TILES = 64  # of 4x4 outputs
WINOGRAD5_WGRAD_TILES = 160  # for wgrad, which adds up a transformed gradient for every block
WINOGRAD5_USED = 0.5

POOLED_PRODUCTS = 16  # C*K up to which a convolution is pooled as it is computed: its products are then a third larger


def fprop_method(g: Conv2dGeometry) -> str:
    """How y is computed."""
    way = _method(g, g.C, g.P, g.Q, WINOGRAD5_TILES, WINOGRAD_CHANNELS)
    return _winograd_tile(g, g.P, g.Q) if way == WINOGRAD else way


def dgrad_method(g: Conv2dGeometry) -> str:
    """How dx is computed."""
    way = _method(g, g.K, g.H, g.W, WINOGRAD5_TILES, WINOGRAD_CHANNELS)
    return _winograd_tile(g, g.H, g.W) if way == WINOGRAD else way


def wgrad_method(g: Conv2dGeometry) -> str:
    """How dw is computed."""
    return _method(g, g.C, g.P, g.Q, WINOGRAD5_WGRAD_TILES, WINOGRAD_WGRAD_CHANNELS)


def _method(g: Conv2dGeometry, summed: int, rows: int, columns: int, tiles: int, channels: int) -> str:
    """For ``rows`` x ``columns`` results, each a sum over ``summed`` channels; the 5x5 form from ``tiles`` tiles on,
    the 3x3 one from ``channels`` channels on."""
    if _is_depthwise(g):
        return DEPTHWISE
    if _has_few_channels(g, summed):
        return TOEPLITZ
    if _is_winograd5(g, rows, columns, tiles):
        return WINOGRAD5
    return WINOGRAD if _is_winograd(g, rows, columns, channels) else WINDOWS


def pools(g: Conv2dGeometry) -> bool:
    """Whether fprop and wgrad of a convolution under ReLU and 2x2 max pooling are better done with them."""
    small = g.C * g.K <= POOLED_PRODUCTS and (g.stride_h, g.stride_w) == (1, 1) and min(g.P, g.Q) >= 2
    return small and fprop_method(g) == wgrad_method(g) == TOEPLITZ


def _winograd_tile(g: Conv2dGeometry, rows: int, columns: int) -> str:
    """F(2x2, 3x3), or F(4x4, 3x3) where it is asked for and there are tiles enough for its larger filters."""
    tiles = -(-rows // 4) * -(-columns // 4)
    large = g.N * tiles >= WINOGRAD4_TILES and rows * columns >= WINOGRAD_USED * 16 * tiles
    return WINOGRAD4 if large and settings.winograd() == "4x4" else WINOGRAD


def _is_depthwise(g: Conv2dGeometry) -> bool:
    """Whether each channel has its own filter, and only one."""
    return g.groups == g.C == g.K > 1


def _has_few_channels(g: Conv2dGeometry, channels: int) -> bool:
    """Whether a filter's row, of so many channels, is short; a pointwise convolution is a product already."""
    return g.S * channels < FEW_CHANNELS and g.R * g.S > 1 and (g.dilation_h, g.dilation_w, g.groups) == (1, 1, 1)


def _is_winograd(g: Conv2dGeometry, rows: int, columns: int, channels: int) -> bool:
    """Whether F(2x2, 3x3) applies, and wins for rows x columns outputs (of fprop, or inputs' gradients of dgrad), from
    ``channels`` on."""
    if (g.R, g.S, g.stride_h, g.stride_w, g.dilation_h, g.dilation_w, g.groups) != (3, 3, 1, 1, 1, 1, 1):
        return False
    if settings.winograd() == "off" or columns > WINOGRAD_COLUMNS:
        return False
    tiles = -(-rows // 2) * -(-columns // 2)
    return (
        channels * (g.C + g.K) <= g.C * g.K
        and g.N * tiles >= WINOGRAD_TILES
        and rows * columns >= WINOGRAD_USED * 4 * tiles
    )


def _is_winograd5(g: Conv2dGeometry, rows: int, columns: int, least: int) -> bool:
    """Whether the nested 5x5 form applies, and wins for rows x columns outputs, or inputs' gradients, from ``least``
    tiles on."""
    if (g.R, g.S, g.stride_h, g.stride_w, g.dilation_h, g.dilation_w, g.groups) != (5, 5, 1, 1, 1, 1, 1):
        return False
    if settings.winograd() == "off" or columns > WINOGRAD_COLUMNS:
        return False
    tiles = -(-rows // 4) * -(-columns // 4)
    return (
        g.C * g.K >= WINOGRAD5_CHANNELS * (g.C + g.K)
        and g.N * tiles >= least
        and rows * columns >= WINOGRAD5_USED * 16 * tiles
    )
