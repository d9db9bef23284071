"""ReLU, GELU and SiLU on kernels/relu.cu and activation.cu, and their instances for half types."""

from __future__ import annotations

from typing import Any

from gpucnn.backends.base import Array
from gpucnn.backends.cuda.grids import THREADS, blocks
from gpucnn.backends.cuda.instances import elementwise

ACTIVATIONS = {None: 0, "relu": 1, "gelu": 2, "gelu_tanh": 3, "silu": 4}  # KIND in kernels/activation.cuh


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
    """y of "relu", "gelu", "gelu_tanh" or "silu", like x."""
    y = backend.empty(x.shape, x.dtype)
    source, name, work = elementwise(_family(activation), f"{activation}_forward", x, y)
    backend.launch(source, name, blocks(work), THREADS, x, y, work)
    return y


def backward(backend: Any, activation: str, dy: Array, x: Array) -> Array:
    """dx of "relu", "gelu", "gelu_tanh" or "silu", like dy; for "relu" the forward's result does for x."""
    dx = backend.empty(dy.shape, dy.dtype)
    source, name, work = elementwise(_family(activation), f"{activation}_backward", dy, x, dx)
    backend.launch(source, name, blocks(work), THREADS, dy, x, dx, work)
    return dx


def _family(activation: str) -> str:
    return "relu" if activation == "relu" else "activation"
