"""GELU and SiLU on kernels/activation.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.backends.base import Array
from gpucnn.backends.cuda.grids import THREADS, blocks, instance

SOURCE = "activation.cu"


def gelu_forward(backend: Any, x: Array, tanh: bool, keep: bool) -> tuple[Array, Array | None]:
    """y of any shape, and x itself where something is to be kept: backward computes the derivative anew."""
    return forward(backend, "gelu_tanh" if tanh else "gelu", x), x if keep else None


def gelu_backward(backend: Any, dy: Array, x: Array, tanh: bool) -> Array:
    """dx."""
    return backward(backend, "gelu_tanh" if tanh else "gelu", dy, x)


def silu_forward(backend: Any, x: Array, keep: bool) -> tuple[Array, Array | None]:
    """y of any shape, and x itself where something is to be kept."""
    return forward(backend, "silu", x), x if keep else None


def silu_backward(backend: Any, dy: Array, x: Array) -> Array:
    """dx."""
    return backward(backend, "silu", dy, x)


def forward(backend: Any, activation: str, x: Array) -> Array:
    """y of "gelu", "gelu_tanh" or "silu"."""
    y = backend.empty(x.shape, np.float32)
    name, work = instance(f"{activation}_forward", x, y)
    backend.launch(SOURCE, name, blocks(work), THREADS, x, y, work)
    return y


def backward(backend: Any, activation: str, dy: Array, x: Array) -> Array:
    """dx of "gelu", "gelu_tanh" or "silu"."""
    dx = backend.empty(dy.shape, np.float32)
    name, work = instance(f"{activation}_backward", dy, x, dx)
    backend.launch(SOURCE, name, blocks(work), THREADS, dy, x, dx, work)
    return dx
