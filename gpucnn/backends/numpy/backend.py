"""NumpyBackend: the primitives on the CPU, gathered from the modules beside this one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpucnn import dtypes
from gpucnn.backends.base import Array, Backend, BatchStatistics, RandomKey
from gpucnn.backends.numpy import (
    activation,
    adaptive,
    adaptive_pool2d,
    arithmetic,
    batch_norm,
    clip,
    conv2d,
    cross_entropy,
    elementwise,
    linear,
    loss_scale,
    lrn,
    methods,
    muon,
    optimizer,
    pool2d,
    toeplitz_pool,
)
from gpucnn.backends.updates import ALONE, Along, Row
from gpucnn.geometry import AdaptivePool2dGeometry, Conv2dGeometry, Pool2dGeometry


class NumpyBackend(Backend):
    """Float32 and float64 on the CPU. Two runs give the same bits, whatever the number of threads."""

    name = "cpu"
    xp = np
    recomputes = False

    def from_host(self, array: Any) -> Array:
        return np.array(array, order="K")

    def to_host(self, array: Array) -> Any:
        return np.array(array, order="K")

    def synchronize(self) -> None:
        pass  # every primitive has finished when it returns

    def conv2d_fprop(
        self,
        x: Array,
        w: Array,
        bias: Array | None,
        g: Conv2dGeometry,
        activation: str | None = None,
        tf32: bool = False,
    ) -> Array:
        return conv2d.fprop(x, w, bias, g, activation)

    def conv2d_dgrad(
        self, dy: Array, w: Array, g: Conv2dGeometry, mask: Array | None = None, tf32: bool = False
    ) -> Array:
        dx = conv2d.dgrad(dy, w, g)
        return dx if mask is None else elementwise.relu_backward(dx, mask)

    def conv2d_wgrad(
        self, x: Array, dy: Array, g: Conv2dGeometry, bias: bool = False, tf32: bool = False
    ) -> tuple[Array, Array | None]:
        return conv2d.wgrad_and_bias(x, dy, g) if bias else (conv2d.wgrad(x, dy, g), None)

    def pools_convolution(self, g: Conv2dGeometry) -> bool:
        return methods.pools(g)

    def conv2d_max_pool_fprop(self, x: Array, w: Array, bias: Array | None, g: Conv2dGeometry) -> tuple[Array, Array]:
        return toeplitz_pool.fprop(x, w, bias, g, self._pooled)

    def _pooled(self, x: Array, w: Array, bias: Array | None, g: Conv2dGeometry) -> tuple[Array, Array]:
        y = conv2d.fprop(x, w, bias, g, "relu")
        return pool2d.max_forward(y, Pool2dGeometry.of((g.N, g.K, g.P, g.Q), 2))

    def conv2d_max_pool_wgrad(self, x: Array, dy: Array, index: Array, g: Conv2dGeometry) -> Array:
        return toeplitz_pool.wgrad(x, dy, index, g)

    def bias_grad(self, dy: Array) -> Array:
        return conv2d.bias_grad(dy)

    def max_pool2d_forward(self, x: Array, g: Pool2dGeometry) -> tuple[Array, Array]:
        return pool2d.max_forward(x, g)

    def max_pool2d_backward(self, dy: Array, index: Array, g: Pool2dGeometry) -> Array:
        return pool2d.max_backward(dy, index, g)

    def avg_pool2d_forward(self, x: Array, g: Pool2dGeometry, count_include_pad: bool, divisor: int | None) -> Array:
        return pool2d.avg_forward(x, g, count_include_pad, divisor)

    def avg_pool2d_backward(self, dy: Array, g: Pool2dGeometry, count_include_pad: bool, divisor: int | None) -> Array:
        return pool2d.avg_backward(dy, g, count_include_pad, divisor)

    def adaptive_max_pool2d_forward(self, x: Array, g: AdaptivePool2dGeometry) -> tuple[Array, Array]:
        return adaptive_pool2d.max_forward(x, g)

    def adaptive_max_pool2d_backward(self, dy: Array, index: Array, g: AdaptivePool2dGeometry) -> Array:
        return adaptive_pool2d.max_backward(dy, index, g)

    def adaptive_avg_pool2d_forward(self, x: Array, g: AdaptivePool2dGeometry) -> Array:
        return adaptive_pool2d.avg_forward(x, g)

    def adaptive_avg_pool2d_backward(self, dy: Array, g: AdaptivePool2dGeometry) -> Array:
        return adaptive_pool2d.avg_backward(dy, g)

    def relu_forward(self, x: Array) -> Array:
        return elementwise.relu_forward(x)

    def relu_backward(self, dy: Array, y: Array) -> Array:
        return elementwise.relu_backward(dy, y)

    def gelu_forward(self, x: Array, tanh: bool, keep: bool) -> tuple[Array, Array | None]:
        return activation.gelu_forward(x, tanh, keep)

    def gelu_backward(self, dy: Array, kept: Array, tanh: bool) -> Array:
        return activation.backward(dy, kept)

    def silu_forward(self, x: Array, keep: bool) -> tuple[Array, Array | None]:
        return activation.silu_forward(x, keep)

    def silu_backward(self, dy: Array, kept: Array) -> Array:
        return activation.backward(dy, kept)

    def lrn_forward(
        self, x: Array, size: int, alpha: float, beta: float, k: float, keep: bool
    ) -> tuple[Array, Array | None]:
        return lrn.forward(x, size, alpha, beta, k, keep)

    def lrn_backward(
        self,
        dy: Array,
        x: Array,
        kept: Array | None,
        size: int,
        alpha: float,
        beta: float,
        k: float,
        mask: bool = False,
    ) -> Array:
        return lrn.backward(dy, x, kept, size, alpha, beta, k, mask)

    def batch_norm_statistics(
        self,
        x: Array,
        running_mean: Array | None,
        running_var: Array | None,
        momentum: float,
        batches: Array | None = None,
    ) -> BatchStatistics:
        if batches is not None:
            np.add(batches, 1, out=batches)
        return batch_norm.statistics(x, running_mean, running_var, momentum)

    def batch_norm_forward(
        self,
        x: Array,
        statistics: BatchStatistics,
        weight: Array | None,
        bias: Array | None,
        eps: float,
        activation: str | None = None,
    ) -> Array:
        return batch_norm.forward(x, statistics, weight, bias, eps, activation)

    def batch_norm_backward(
        self,
        dy: Array,
        x: Array,
        statistics: BatchStatistics,
        weight: Array | None,
        eps: float,
        training: bool,
        needs: tuple[bool, bool, bool],
        bias: Array | None = None,
        activation: str | None = None,
    ) -> tuple[Array | None, Array | None, Array | None]:
        return batch_norm.backward(dy, x, statistics, weight, eps, training, needs, bias, activation)

    def dropout(self, x: Array, p: float, key: RandomKey) -> Array:
        return elementwise.dropout(x, p, key)

    @property
    def precisions(self) -> tuple[str, ...]:
        return "float32", "tf32", "float16", "bfloat16"  # all compute in float32

    def computes(self, dtype: Any) -> bool:
        return bool(dtype == dtypes.float32 or dtype == dtypes.float64)

    def add(self, x: Array, y: Array, activation: str | None = None) -> Array:
        return arithmetic.add(x, y, activation)

    def scale(self, x: Array, factor: float, by: Array | None = None, dtype: Any = None) -> Array:
        return arithmetic.scale(x, factor, by, dtype)

    def cast(self, x: Array, dtype: Any) -> Array:
        return arithmetic.cast(x, dtype)

    def cast_all(self, arrays: Sequence[Array], outs: Sequence[Array]) -> None:
        arithmetic.cast_all(arrays, outs)

    def transpose(self, x: Array) -> Array:
        return arithmetic.transpose(x)

    def resize_rows(self, x: Array, columns: int) -> Array:
        return arithmetic.resize_rows(x, columns)

    def matmul(
        self, a: Array, b: Array, transpose_a: bool = False, transpose_b: bool = False, tf32: bool = False
    ) -> Array:
        return linear.matmul(a, b, transpose_a, transpose_b)

    def linear_forward(
        self, x: Array, w: Array, bias: Array | None, activation: str | None = None, tf32: bool = False
    ) -> Array:
        return linear.linear_forward(x, w, bias, activation)

    def linear_dgrad(self, dy: Array, w: Array, mask: Array | None = None, tf32: bool = False) -> Array:
        return linear.linear_dgrad(dy, w, mask)

    def linear_wgrad(self, x: Array, dy: Array, bias: bool = False, tf32: bool = False) -> tuple[Array, Array | None]:
        return linear.linear_wgrad(x, dy, bias)

    def softmax_cross_entropy_forward(
        self, logits: Array, labels: Array, smoothing: float = 0.0
    ) -> tuple[Array, Array]:
        return cross_entropy.forward(logits, labels, smoothing)

    def softmax_cross_entropy_backward(
        self, dlosses: Array, logits: Array, labels: Array, log_sum_exp: Array, smoothing: float = 0.0
    ) -> Array:
        return cross_entropy.backward(dlosses, logits, labels, log_sum_exp, smoothing)

    def softmax_cross_entropy_step(
        self, logits: Array, labels: Array, smoothing: float, factor: float
    ) -> tuple[Array, Array, Array]:
        return cross_entropy.step(logits, labels, smoothing, factor)

    def scatter_add(self, size: int, positions: Array, values: Array) -> Array:
        out = np.zeros(size, values.dtype)
        np.add.at(out, positions, values)  # one addition after the other, in the order of the positions
        return out

    def sgd_step(
        self,
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        momenta: Sequence[Array | None],
        rows: Sequence[Row],
        along: Along = ALONE,
    ) -> None:
        optimizer.sgd_step(parameters, gradients, momenta, rows, along)

    def adam_step(
        self,
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        exp_avgs: Sequence[Array],
        exp_avg_sqs: Sequence[Array],
        max_exp_avg_sqs: Sequence[Array | None],
        rows: Sequence[Row],
        along: Along = ALONE,
    ) -> None:
        adaptive.adam_step(parameters, gradients, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, rows, along)

    def rmsprop_step(
        self,
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        square_avgs: Sequence[Array],
        grad_avgs: Sequence[Array | None],
        momenta: Sequence[Array | None],
        rows: Sequence[Row],
        along: Along = ALONE,
    ) -> None:
        adaptive.rmsprop_step(parameters, gradients, square_avgs, grad_avgs, momenta, rows, along)

    def adagrad_step(
        self,
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        sums: Sequence[Array],
        rows: Sequence[Row],
        along: Along = ALONE,
    ) -> None:
        adaptive.adagrad_step(parameters, gradients, sums, rows, along)

    def muon_step(
        self,
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        momenta: Sequence[Array],
        steps: int,
        rows: Sequence[Row],
        along: Along = ALONE,
    ) -> None:
        muon.step(self, parameters, gradients, momenta, steps, rows, along)

    def moving_average_step(self, averages: Sequence[Array], parameters: Sequence[Array], row: Row) -> None:
        optimizer.moving_average_step(averages, parameters, row)

    def lookahead_step(self, slow: Sequence[Array], parameters: Sequence[Array], row: Row) -> None:
        optimizer.lookahead_step(slow, parameters, row)

    def scale_by(self, x: Array, factor: Array) -> Array:
        return loss_scale.scale_by(x, factor)

    def check_gradients(self, gradients: Sequence[Array], found_inf: Array, inverse_scale: Array | None = None) -> None:
        loss_scale.check_gradients(gradients, found_inf, inverse_scale)

    def update_scale(self, state: Array, found_inf: Array, growth: float, backoff: float, interval: int) -> None:
        loss_scale.update_scale(state, found_inf, growth, backoff, interval)

    def total_norm(self, arrays: Sequence[Array], order: float) -> Array:
        return clip.total_norm(arrays, order)

    def clip_all(self, arrays: Sequence[Array], norm: Array, limit: float, small: float) -> None:
        clip.clip_all(arrays, norm, limit, small)

    def clamp_all(self, arrays: Sequence[Array], limit: float) -> None:
        clip.clamp_all(arrays, limit)
