"""Every primitive of gpucnn/backends/base.py by its formula, in plain NumPy that shares nothing with the backends.

Arrays are laid out as at backend level: images N, H, W, C and filters K, R, S, C/groups. Each function returns
a :class:`Reference`: the value, and S, the same operator on absolute values, which is what rounding errors are
measured against (see tests/support/tolerance.py). All computing is done in ``dtype``: float64 gives the
reference, float32 the "plain computation" of the tolerance rule, and longdouble the reference for float64.

Convolution and pooling lay the input into an explicitly padded array and loop over the filter's places (r, s).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpucnn.geometry import Conv2dGeometry, Pool2dGeometry

Array = NDArray[Any]


class Reference(NamedTuple):
    """A value by the formula, and the scale of its rounding errors (None where the result must be exact)."""

    value: Array
    scale: Array | None


class _Places:
    """The padded image of a geometry, and for each (r, s) the slice of it that the outputs (P, Q) meet there."""

    def __init__(self, g: Conv2dGeometry | Pool2dGeometry) -> None:
        self.g = g
        # With ceil_mode the last window may reach beyond the padding.
        self.height = max(g.pad_top + g.H + g.pad_bottom, (g.P - 1) * g.stride_h + (g.R - 1) * g.dilation_h + 1)
        self.width = max(g.pad_left + g.W + g.pad_right, (g.Q - 1) * g.stride_w + (g.S - 1) * g.dilation_w + 1)

    def pad(self, x: Array, value: float | bool = 0) -> Array:
        padded = np.full((x.shape[0], self.height, self.width, x.shape[3]), value, x.dtype)
        self.inside(padded)[...] = x
        return padded

    def inside(self, padded: Array) -> Array:
        g = self.g
        return padded[:, g.pad_top : g.pad_top + g.H, g.pad_left : g.pad_left + g.W]

    def slices(self) -> Iterator[tuple[int, int, tuple[slice, slice, slice]]]:
        g = self.g
        for r in range(g.R):
            for s in range(g.S):
                top, left = r * g.dilation_h, s * g.dilation_w
                rows = slice(top, top + (g.P - 1) * g.stride_h + 1, g.stride_h)
                columns = slice(left, left + (g.Q - 1) * g.stride_w + 1, g.stride_w)
                yield r, s, (slice(None), rows, columns)


def _grouped(array: Array, groups: int, axis: int) -> list[Array]:
    return np.split(array, groups, axis=axis)


# ---- convolution -----------------------------------------------------------------------------------------


def _fprop(x: Array, w: Array, bias: Array | None, g: Conv2dGeometry) -> Array:
    places = _Places(g)
    padded = places.pad(x)
    y = np.zeros(g.output_shape, x.dtype)
    for r, s, at in places.slices():
        inputs, filters = _grouped(padded[at], g.groups, 3), _grouped(w[:, r, s], g.groups, 0)
        y += np.concatenate([i @ f.T for i, f in zip(inputs, filters, strict=True)], axis=3)
    return y if bias is None else y + bias


def conv2d_fprop(x: Array, w: Array, bias: Array | None, g: Conv2dGeometry, dtype: DTypeLike = np.float64) -> Reference:
    """y (N,P,Q,K)."""
    x, w, bias = x.astype(dtype), w.astype(dtype), None if bias is None else bias.astype(dtype)
    return Reference(_fprop(x, w, bias, g), _fprop(abs(x), abs(w), None if bias is None else abs(bias), g))


def _dgrad(dy: Array, w: Array, g: Conv2dGeometry) -> Array:
    places = _Places(g)
    padded = places.pad(np.zeros(g.input_shape, dy.dtype))
    for r, s, at in places.slices():
        gradients, filters = _grouped(dy, g.groups, 3), _grouped(w[:, r, s], g.groups, 0)
        padded[at] += np.concatenate([d @ f for d, f in zip(gradients, filters, strict=True)], axis=3)
    return places.inside(padded).copy()


def conv2d_dgrad(dy: Array, w: Array, g: Conv2dGeometry, dtype: DTypeLike = np.float64) -> Reference:
    """dx (N,H,W,C)."""
    dy, w = dy.astype(dtype), w.astype(dtype)
    return Reference(_dgrad(dy, w, g), _dgrad(abs(dy), abs(w), g))


def _wgrad(x: Array, dy: Array, g: Conv2dGeometry) -> Array:
    places = _Places(g)
    padded = places.pad(x)
    dw = np.zeros(g.weight_shape, dy.dtype)
    for r, s, at in places.slices():
        inputs, gradients = _grouped(padded[at], g.groups, 3), _grouped(dy, g.groups, 3)
        dw[:, r, s] = np.concatenate([_outer(d, i) for d, i in zip(gradients, inputs, strict=True)], axis=0)
    return dw


def _outer(dy: Array, x: Array) -> Array:
    return dy.reshape(-1, dy.shape[3]).T @ x.reshape(-1, x.shape[3])


def conv2d_wgrad(x: Array, dy: Array, g: Conv2dGeometry, dtype: DTypeLike = np.float64) -> Reference:
    """dw (K,R,S,C/groups)."""
    x, dy = x.astype(dtype), dy.astype(dtype)
    return Reference(_wgrad(x, dy, g), _wgrad(abs(x), abs(dy), g))


def bias_grad(dy: Array, dtype: DTypeLike = np.float64) -> Reference:
    """db (K,)."""
    rows = dy.astype(dtype).reshape(-1, dy.shape[-1])
    return Reference(rows.sum(axis=0), abs(rows).sum(axis=0))


def conv2d_fprop_relu(
    x: Array, w: Array, bias: Array | None, g: Conv2dGeometry, dtype: DTypeLike = np.float64
) -> Reference:
    """max(y, 0) (N,P,Q,K)."""
    y = conv2d_fprop(x, w, bias, g, dtype)
    return Reference(np.maximum(y.value, 0), y.scale)


def conv2d_dgrad_masked(
    dy: Array, w: Array, mask: Array, g: Conv2dGeometry, dtype: DTypeLike = np.float64
) -> Reference:
    """dx (N,H,W,C) where mask > 0, else exactly 0."""
    dx = conv2d_dgrad(dy, w, g, dtype)
    assert dx.scale is not None
    return Reference(np.where(mask > 0, dx.value, 0), np.where(mask > 0, dx.scale, 0))


# ---- pooling ---------------------------------------------------------------------------------------------


def max_pool2d_forward(x: Array, g: Pool2dGeometry) -> tuple[Array, Array]:
    """y (N,P,Q,C) and the place r*S + s of the maximum, exact in any dtype.

    The first of equals wins, the first NaN above all; padding never does. A window that sees padding alone
    (dilation can do that) gives -inf at place 0.
    """
    places = _Places(g)
    padded, real = places.pad(x, -np.inf), places.pad(np.ones(x.shape, bool), False)
    y = np.full(g.output_shape, -np.inf, x.dtype)
    index = np.zeros(g.output_shape, np.int64)
    found = np.zeros(g.output_shape, bool)
    for r, s, at in places.slices():
        value = padded[at]
        wins = real[at] & ~np.isnan(y) & (~found | (value > y) | np.isnan(value))
        y, index, found = np.where(wins, value, y), np.where(wins, r * g.S + s, index), found | wins
    return y, index


def max_pool2d_backward(dy: Array, index: Array, g: Pool2dGeometry, dtype: DTypeLike = np.float64) -> Reference:
    """dx (N,H,W,C)."""

    def scatter(values: Array) -> Array:
        places = _Places(g)
        padded = places.pad(np.zeros(g.input_shape, values.dtype))
        for r, s, at in places.slices():
            padded[at] += np.where(index == r * g.S + s, values, 0)
        return places.inside(padded).copy()

    dy = dy.astype(dtype)
    return Reference(scatter(dy), scatter(abs(dy)))


def _avg_divisors(g: Pool2dGeometry, count_include_pad: bool, divisor: int | None) -> Array:
    """(P, Q, 1): how many places each window counts."""
    counts = np.zeros((g.P, g.Q, 1))
    for p in range(g.P):
        for q in range(g.Q):
            rows = [p * g.stride_h - g.pad_top + r * g.dilation_h for r in range(g.R)]
            columns = [q * g.stride_w - g.pad_left + s * g.dilation_w for s in range(g.S)]
            if count_include_pad:
                rows = [h for h in rows if h < g.H + g.pad_bottom]
                columns = [w for w in columns if w < g.W + g.pad_right]
            else:
                rows = [h for h in rows if 0 <= h < g.H]
                columns = [w for w in columns if 0 <= w < g.W]
            counts[p, q] = len(rows) * len(columns) if divisor is None else divisor
    return counts


def _avg_pool(x: Array, g: Pool2dGeometry, divisors: Array) -> Array:
    places = _Places(g)
    padded = places.pad(x)
    y = np.zeros(g.output_shape, x.dtype)
    for _, _, at in places.slices():
        y += padded[at]
    return np.divide(y, divisors.astype(x.dtype), out=np.zeros_like(y), where=divisors != 0)


def avg_pool2d_forward(
    x: Array, g: Pool2dGeometry, count_include_pad: bool, divisor: int | None, dtype: DTypeLike = np.float64
) -> Reference:
    """y (N,P,Q,C)."""
    x, divisors = x.astype(dtype), _avg_divisors(g, count_include_pad, divisor)
    return Reference(_avg_pool(x, g, divisors), abs(_avg_pool(abs(x), g, divisors)))


def _avg_pool_backward(dy: Array, g: Pool2dGeometry, divisors: Array) -> Array:
    places = _Places(g)
    padded = places.pad(np.zeros(g.input_shape, dy.dtype))
    shares = np.divide(dy, divisors.astype(dy.dtype), out=np.zeros_like(dy), where=divisors != 0)
    for _, _, at in places.slices():
        padded[at] += shares
    return places.inside(padded).copy()


def avg_pool2d_backward(
    dy: Array, g: Pool2dGeometry, count_include_pad: bool, divisor: int | None, dtype: DTypeLike = np.float64
) -> Reference:
    """dx (N,H,W,C)."""
    dy, divisors = dy.astype(dtype), _avg_divisors(g, count_include_pad, divisor)
    return Reference(_avg_pool_backward(dy, g, divisors), _avg_pool_backward(abs(dy), g, abs(divisors)))


# ---- elementwise and normalisation -----------------------------------------------------------------------


def relu_forward(x: Array) -> Array:
    """max(x, 0) with NaN kept, exact."""
    return np.where(x < 0, np.zeros_like(x), x) + 0  # + 0 turns -0 into 0


def relu_backward(dy: Array, y: Array) -> Array:
    """dy where y > 0, else 0, exact."""
    return np.where(y > 0, dy, np.zeros_like(dy))


def _window_sum(x: Array, before: int, after: int) -> Array:
    """Over channels [c - before, c + after], one by one, clipped to those that exist."""
    total = np.zeros_like(x)
    channels = x.shape[-1]
    for offset in range(-before, after + 1):
        low, high = max(0, -offset), min(channels, channels - offset)
        if low < high:
            total[..., low:high] += x[..., low + offset : high + offset]
    return total


def lrn_forward(
    x: Array, size: int, alpha: float, beta: float, k: float, dtype: DTypeLike = np.float64
) -> tuple[Reference, Reference]:
    """y = x / scale**beta, and scale = k + alpha / size * (window's sum of squares)."""
    x = x.astype(dtype)
    real = x.dtype.type
    scale = real(k) + real(alpha) / real(size) * _window_sum(x * x, size // 2, (size - 1) // 2)
    y = x / scale ** real(beta)
    return Reference(y, abs(y)), Reference(scale, abs(scale))


def lrn_backward(
    dy: Array, x: Array, scale: Array, size: int, alpha: float, beta: float, k: float, dtype: DTypeLike = np.float64
) -> Reference:
    """dx of lrn_forward; ``scale`` may be None: then it is computed here."""
    dy, x = dy.astype(dtype), x.astype(dtype)
    scale = lrn_forward(x, size, alpha, beta, k, dtype)[1].value if scale is None else scale.astype(dtype)
    real = x.dtype.type

    def gradient(dy: Array, x: Array, sign: int) -> Array:
        shared = dy * x * scale ** real(-beta - 1)
        # A channel lies in the windows of the channels c' with c' - size//2 <= c <= c' + (size-1)//2.
        windows = _window_sum(shared, (size - 1) // 2, size // 2)
        return dy * scale ** real(-beta) - real(sign * 2 * alpha * beta / size) * x * windows

    return Reference(gradient(dy, x, 1), gradient(abs(dy), abs(x), -1))


def batch_norm_statistics(x: Array, dtype: DTypeLike = np.float64) -> tuple[Reference, Reference]:
    """Mean and variance (divided by the count) of each channel of x (..., C)."""
    x = x.reshape(-1, x.shape[-1]).astype(dtype)
    mean = x.mean(axis=0)
    var = ((x - mean) ** 2).mean(axis=0)
    return Reference(mean, abs(x).mean(axis=0)), Reference(var, var)


def batch_norm_forward(
    x: Array,
    running: tuple[Array, Array] | None,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    dtype: DTypeLike = np.float64,
) -> Reference:
    """(x - mean) / sqrt(var + eps) * weight + bias, by x's own mean and variance unless others are given."""
    mean, _, scale, x = _batch_norm_parts(x, running, weight, eps, dtype)
    shift = np.zeros(1, dtype) if bias is None else bias.astype(dtype)
    return Reference((x - mean) * scale + shift, (abs(x) + abs(mean)) * abs(scale) + abs(shift))


def batch_norm_backward(
    dy: Array,
    x: Array,
    running: tuple[Array, Array] | None,
    weight: Array | None,
    eps: float,
    dtype: DTypeLike = np.float64,
) -> tuple[Reference, Reference, Reference]:
    """dx, dweight and dbias; where mean and variance are x's own, dx goes through them."""
    dy = dy.astype(dtype)
    mean, inverse, scale, x = _batch_norm_parts(x, running, weight, eps, dtype)
    axes = tuple(range(x.ndim - 1))
    z, size = (x - mean) * inverse, (abs(x) + abs(mean)) * inverse
    dweight = Reference((dy * z).sum(axis=axes), (abs(dy) * size).sum(axis=axes))
    dbias = Reference(dy.sum(axis=axes), abs(dy).sum(axis=axes))
    if running is not None:
        return Reference(dy * scale, abs(dy * scale)), dweight, dbias
    dz, most = dy * (scale / inverse), abs(dy * (scale / inverse))
    dx = inverse * (dz - dz.mean(axis=axes) - z * (dz * z).mean(axis=axes))
    return Reference(dx, inverse * (most + most.mean(axis=axes) + size * (most * size).mean(axis=axes))), dweight, dbias


def _batch_norm_parts(
    x: Array, running: tuple[Array, Array] | None, weight: Array | None, eps: float, dtype: DTypeLike
) -> tuple[Array, Array, Array, Array]:
    """mean, 1 / sqrt(var + eps), that times weight, and x, all in ``dtype``."""
    x = x.astype(dtype)
    own = [part.value for part in batch_norm_statistics(x, dtype)]
    mean, var = own if running is None else (part.astype(dtype) for part in running)
    inverse = 1 / np.sqrt(var + x.dtype.type(eps))
    return mean, inverse, inverse if weight is None else inverse * weight.astype(dtype), x


# ---- matrices --------------------------------------------------------------------------------------------


def matmul(
    a: Array, b: Array, transpose_a: bool = False, transpose_b: bool = False, dtype: DTypeLike = np.float64
) -> Reference:
    """(..., M, N)."""
    a, b = a.astype(dtype), b.astype(dtype)
    left = "...km" if transpose_a else "...mk"
    right = "...nk" if transpose_b else "...kn"
    subscripts = f"{left},{right}->...mn"
    return Reference(np.einsum(subscripts, a, b), np.einsum(subscripts, abs(a), abs(b)))


def linear_forward(x: Array, w: Array, bias: Array | None, dtype: DTypeLike = np.float64) -> Reference:
    """y (M, N) = x (M, K) times w (N, K) transposed, plus bias (N,)."""
    product = matmul(x, w, transpose_b=True, dtype=dtype)
    assert product.scale is not None
    if bias is None:
        return product
    bias = bias.astype(dtype)
    return Reference(product.value + bias, product.scale + abs(bias))


def linear_forward_relu(x: Array, w: Array, bias: Array | None, dtype: DTypeLike = np.float64) -> Reference:
    """max(y, 0) (M, N)."""
    y = linear_forward(x, w, bias, dtype)
    return Reference(np.maximum(y.value, 0), y.scale)


def linear_dgrad_masked(dy: Array, w: Array, mask: Array, dtype: DTypeLike = np.float64) -> Reference:
    """dx (M, K) = dy (M, N) times w (N, K) where mask > 0, else exactly 0."""
    dx = matmul(dy, w, dtype=dtype)
    assert dx.scale is not None
    return Reference(np.where(mask > 0, dx.value, 0), np.where(mask > 0, dx.scale, 0))


# ---- loss ------------------------------------------------------------------------------------------------


def _targets(logits: Array, labels: Array, smoothing: float) -> Array:
    """(N, C): 1 - smoothing at the label, plus smoothing / C everywhere."""
    targets = np.full_like(logits, smoothing / logits.shape[1])
    targets[np.arange(len(labels)), labels] += logits.dtype.type(1 - smoothing)
    return targets


def softmax_cross_entropy_forward(
    logits: Array, labels: Array, dtype: DTypeLike = np.float64, smoothing: float = 0.0
) -> tuple[Reference, Reference]:
    """losses (N,) and log_sum_exp (N,)."""
    logits = logits.astype(dtype)
    largest = logits.max(axis=1, keepdims=True)
    log_sum_exp = largest[:, 0] + np.log(np.exp(logits - largest).sum(axis=1))
    chosen = (_targets(logits, labels, smoothing) * logits).sum(axis=1)
    scale = abs(logits).max(axis=1) + np.log(logits.dtype.type(logits.shape[1])) + 1
    return Reference(log_sum_exp - chosen, scale), Reference(log_sum_exp, scale)


def softmax_cross_entropy_backward(
    dlosses: Array, logits: Array, labels: Array, dtype: DTypeLike = np.float64, smoothing: float = 0.0
) -> Reference:
    """dlogits (N, C). exp(logit - log_sum_exp) loses as many digits as the logits are large: the scale says so."""
    dlosses, logits = dlosses.astype(dtype), logits.astype(dtype)
    _, log_sum_exp = softmax_cross_entropy_forward(logits, labels, dtype)
    softmax = np.exp(logits - log_sum_exp.value[:, None])
    targets = _targets(logits, labels, smoothing)
    assert log_sum_exp.scale is not None
    scale = abs(dlosses)[:, None] * (softmax * log_sum_exp.scale[:, None] + targets)
    return Reference(dlosses[:, None] * (softmax - targets), scale)


# ---- indexing --------------------------------------------------------------------------------------------


def scatter_add(size: int, positions: Array, values: Array) -> Array:
    """out (size,): one addition after the other in the order of i, in the dtype of ``values``; exact."""
    out = np.zeros(size, values.dtype)
    for position, value in zip(positions.tolist(), values, strict=True):
        out[position] += value
    return out


# ---- optimizers ------------------------------------------------------------------------------------------


def sgd_step(
    parameter: Array,
    gradient: Array,
    buffer: Array | None,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    first: bool,
    dtype: DTypeLike = np.float64,
) -> tuple[Reference, Reference | None]:
    """The new parameter and the new momentum buffer of one array, PyTorch's rules."""
    real = np.dtype(dtype).type

    def step(parameter: Array, gradient: Array, buffer: Array | None, sign: int) -> tuple[Array, Array | None]:
        d = gradient + real(weight_decay) * parameter
        if buffer is not None:
            buffer = d if first else real(momentum) * buffer + real(1 - dampening) * d
            d = d + real(momentum) * buffer if nesterov else buffer
        return parameter - real(sign * lr) * d, buffer

    parameter, gradient = parameter.astype(dtype), gradient.astype(dtype)
    buffer = None if buffer is None else buffer.astype(dtype)
    value, new_buffer = step(parameter, gradient, buffer, 1)
    scale, buffer_scale = step(abs(parameter), abs(gradient), None if buffer is None else abs(buffer), -1)
    return Reference(value, scale), None if new_buffer is None else Reference(new_buffer, buffer_scale)


def moving_average_step(average: Array, parameter: Array, decay: float, dtype: DTypeLike = np.float64) -> Reference:
    """decay * average + (1 - decay) * parameter."""
    real = np.dtype(dtype).type
    average, parameter = average.astype(dtype), parameter.astype(dtype)
    keep, take = real(decay), real(1 - decay)
    return Reference(keep * average + take * parameter, abs(average) + take * abs(parameter))
