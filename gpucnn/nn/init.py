"""Initial values, in place, with PyTorch's names.

All are drawn on the host from :mod:`gpucnn.random`, in C order of the tensor's shape, so one seed gives the same
network on every device. ``generator`` is a :class:`gpucnn.random.Generator`; None is the global one.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

from gpucnn import random
from gpucnn.autograd import no_grad
from gpucnn.random import Generator, Key, Purpose
from gpucnn.tensor import Tensor

T = TypeVar("T", bound=Tensor)


def _next_key(generator: Generator | None) -> Key:
    return (generator or random.default_generator).next_key(Purpose.INIT)


def _assign(tensor: T, values: Any) -> T:
    with no_grad():
        tensor.copy_(np.asarray(values).astype(tensor.dtype, copy=False))
    return tensor


def uniform_(tensor: T, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> T:
    """Uniform in [a, b)."""
    if not a <= b:
        raise ValueError(f"uniform_: a must not be above b, got a={a}, b={b}")
    unit = random.uniform(tensor.shape, _next_key(generator)).astype(np.float64)
    return _assign(tensor, a + (b - a) * unit)


def normal_(tensor: T, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> T:
    """Normal with ``mean`` and standard deviation ``std``."""
    _check_std("normal_", std)
    return _assign(tensor, mean + std * random.normal(tensor.shape, _next_key(generator)).astype(np.float64))


def trunc_normal_(
    tensor: T, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Generator | None = None
) -> T:
    """Normal, confined to [a, b] (absolute bounds, as in PyTorch): what falls outside is drawn again.

    ``trunc_normal_(w, std=s, a=-2 * s, b=2 * s)`` is TensorFlow's truncated normal.
    """
    _check_std("trunc_normal_", std)
    if not a < b:
        raise ValueError(f"trunc_normal_: a must be below b, got a={a}, b={b}")
    key = _next_key(generator)
    if std == 0.0:
        return _assign(tensor, np.full(tensor.shape, min(max(mean, a), b)))
    low, high = (a - mean) / std, (b - mean) / std
    if math.isclose(low, -high, rel_tol=1e-9) and high >= 0.5:
        unit = random.truncated_normal(tensor.shape, key, limit=high).astype(np.float64)
    else:
        unit = _between(tensor.shape, key, low, high)
    return _assign(tensor, np.clip(mean + std * unit, a, b))


def _between(shape: tuple[int, ...], key: Key, low: float, high: float) -> np.ndarray[Any, Any]:
    """Standard normal variates in [low, high] through the inverse of the distribution function; for uneven or far
    bounds.
    """
    from statistics import NormalDist  # imports decimals and fractions: not for everybody

    mirrored = low > 0.0  # the distribution function has digits to spare in its lower tail only
    if mirrored:
        low, high = -high, -low
    normal = NormalDist()
    bottom, top = normal.cdf(low), normal.cdf(high)
    tiny = 5e-324
    unit = random.uniform(shape, key).astype(np.float64) + 2.0**-25  # the middles of the 2**24 steps: never 0 or 1
    levels = np.clip(bottom + (top - bottom) * unit, tiny, 1.0 - 2.0**-53)
    values = np.array([normal.inv_cdf(level) for level in levels.ravel().tolist()]).reshape(shape)
    values = np.clip(values, low, high)
    return -values if mirrored else values


def constant_(tensor: T, val: float) -> T:
    """``val`` everywhere."""
    return _assign(tensor, np.full(tensor.shape, val))


def zeros_(tensor: T) -> T:
    """0 everywhere."""
    return constant_(tensor, 0.0)


def ones_(tensor: T) -> T:
    """1 everywhere."""
    return constant_(tensor, 1.0)


def fans(tensor: Tensor) -> tuple[int, int]:
    """Inputs and outputs that one output and one input of a linear (N, K) or a filter (K, C, R, S, ...) tensor see."""
    if len(tensor.shape) < 2:
        raise ValueError(f"fan in and fan out need a tensor of at least two axes, got shape {tuple(tensor.shape)}")
    outputs, inputs, *window = tensor.shape
    area = math.prod(window)
    return inputs * area, outputs * area


_GAINS = {
    "linear": 1.0,
    "sigmoid": 1.0,
    "conv1d": 1.0,
    "conv2d": 1.0,
    "tanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    "selu": 0.75,
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """What a nonlinearity asks the weights' standard deviation to be multiplied by; ``param``: the slope of
    ``leaky_relu``.
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else float(param)
        return math.sqrt(2.0 / (1.0 + slope * slope))
    if nonlinearity not in _GAINS:
        raise ValueError(f"calculate_gain: {nonlinearity!r} is unknown; known are leaky_relu, {', '.join(_GAINS)}")
    return _GAINS[nonlinearity]


def kaiming_uniform_(
    tensor: T,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> T:
    """He initialisation, uniform: +- gain * sqrt(3 / fan).

    He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015. ``a`` is the slope of leaky_relu.
    """
    bound = math.sqrt(3.0) * _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: T,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> T:
    """He initialisation, normal: standard deviation gain / sqrt(fan)."""
    return normal_(tensor, 0.0, _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity), generator)


def xavier_uniform_(tensor: T, gain: float = 1.0, generator: Generator | None = None) -> T:
    """Glorot initialisation, uniform: +- gain * sqrt(6 / (fan_in + fan_out)). Glorot, Bengio, AISTATS 2010."""
    bound = gain * math.sqrt(6.0 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: T, gain: float = 1.0, generator: Generator | None = None) -> T:
    """Glorot initialisation, normal: standard deviation gain * sqrt(2 / (fan_in + fan_out))."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(fans(tensor))), generator)


def _kaiming_std(name: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"{name}: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    fan = fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def orthogonal_(tensor: T, gain: float = 1.0, generator: Generator | None = None) -> T:
    """A random matrix whose rows, or columns if they are fewer, are orthogonal and of length ``gain``.

    Trailing axes count as one: filters (K, C, R, S) are K rows. The matrix is the Q of a normal one's QR decomposition,
    signs chosen so that all such matrices are equally likely (Mezzadri, "How to generate random matrices from the
    classical compact groups", 2007), in float64. Saxe, McClelland, Ganguli, "Exact solutions to the nonlinear dynamics
    of learning in deep linear neural networks", 2013. Raises ValueError for fewer than two axes.
    """
    from gpucnn.backends.numpy.threads import single_blas_thread  # not with the package: it reads GPUCNN_THREADS

    if len(tensor.shape) < 2:
        raise ValueError(f"orthogonal_: the tensor must have at least two axes, got shape {tuple(tensor.shape)}")
    if 0 in tensor.shape:
        return tensor
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    drawn = random.normal((rows, columns), _next_key(generator)).astype(np.float64)
    with single_blas_thread:  # several give other bits
        q, r = np.linalg.qr(drawn.T if rows < columns else drawn)
    q = q * np.where(np.diag(r) < 0.0, -gain, gain)
    return _assign(tensor, (q.T if rows < columns else q).reshape(tensor.shape))


def dirac_(tensor: T, groups: int = 1) -> T:
    """Filters (K, C / groups, R, S), or with one or three axes of space, that pass on their input: 0 but for a 1 in the
    middle.

    Of every group, output channel i is input channel i for as many as there are of both; the rest is 0. Raises
    ValueError for another number of axes, and where the groups do not divide K.
    """
    if len(tensor.shape) not in (3, 4, 5):
        raise ValueError(f"dirac_: the tensor must have 3, 4 or 5 axes, got shape {tuple(tensor.shape)}")
    outputs, inputs, *window = tensor.shape
    if groups < 1 or outputs % groups:
        raise ValueError(f"dirac_: the {outputs} output channels must be divisible by groups, got groups={groups}")
    values, each = np.zeros(tensor.shape), outputs // groups
    for group in range(groups):
        for i in range(min(each, inputs)):
            values[group * each + i, i, *(size // 2 for size in window)] = 1.0
    return _assign(tensor, values)


def _check_std(name: str, std: float) -> None:
    if not (std >= 0.0 and math.isfinite(std)):
        raise ValueError(f"{name}: std must be finite and not negative, got {std}")
