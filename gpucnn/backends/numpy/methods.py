"""Which way each convolution is computed: by its sizes alone, never by the clock, so that results can be repeated.

``"windows"`` is the general way, matrix products over windows or over their rows (:mod:`conv2d`); every other
name stands for a module of its own, whose head says when it wins.
"""

from __future__ import annotations

from gpucnn.geometry import Conv2dGeometry

WINDOWS = "windows"


def fprop_method(g: Conv2dGeometry) -> str:
    """How y is computed."""
    return WINDOWS


def dgrad_method(g: Conv2dGeometry) -> str:
    """How dx is computed."""
    return WINDOWS


def wgrad_method(g: Conv2dGeometry) -> str:
    """How dw is computed."""
    return WINDOWS
