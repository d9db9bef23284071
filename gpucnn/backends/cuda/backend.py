"""The devices ``cuda`` and ``emulated``: the primitives of gpucnn/backends/base.py on the kernels in kernels/.

One class serves both, for what differs is the engine underneath: ``CudaEngine`` launches cubins on CuPy arrays,
``EmulatorEngine`` runs the same ``.cu`` files on NumPy arrays. The launch code of each family of operators is a module
of functions that take the backend first; here they are only gathered.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from gpucnn import dtypes
from gpucnn.backends.base import Array, Backend, BatchStatistics, RandomKey
from gpucnn.backends.capture import NotCapturable, refuse_read
from gpucnn.backends.cuda import (
    activation,
    adaptive_pool2d,
    arithmetic,
    batch_norm,
    cast,
    clip,
    conv2d,
    cross_entropy,
    driver,
    elementwise,
    faults,
    linear,
    loss_scale,
    lrn,
    lrn_pool2d,
    muon,
    optimizer,
    pool2d,
    scatter,
    tuning,
)
from gpucnn.backends.cuda.counters import Counters
from gpucnn.backends.launch import Launcher
from gpucnn.backends.updates import ALONE, Along, Row
from gpucnn.geometry import AdaptivePool2dGeometry, Conv2dGeometry, Pool2dGeometry
from gpucnn.layout import memory_axes
from gpucnn.random import Purpose

NEEDS = {"float32": 0, "float16": 75, "tf32": 80, "bfloat16": 80}  # the least compute capability of each precision

NEEDS = {"float32": 0, "float16": 75, "tf32": 80, "bfloat16": 80}  # the least compute capability of each precision


class CudaBackend(Backend):
    """Primitives on one GPU, or on the emulator, in float32.

    Modules of launch code use ``launch(file, kernel, grid, block, *arguments)``, ``empty(shape, dtype)``, ``xp`` and
    ``engine``.
    """

    recomputes = True

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.launch = Launcher(engine)
        self.name = engine.name.partition(":")[0]  # engines on GPUs are called cuda:0, cuda:1
        self.xp = engine.xp
        self._counters = Counters(engine)
        timer = None if self.xp is np else tuning.event_timer(engine)
        self.tuner = tuning.Tuner(self._device_name, timer)

    def _device_name(self) -> str:
        """What choices of instances belong to: the kind of GPU."""
        return self.name if self.xp is np else str(driver.devices()[self.engine.index].name)

    def empty(self, shape: int | tuple[int, ...], dtype: Any = np.float32) -> Array:
        """A new C-contiguous array whose elements are not set yet."""
        return self.engine.empty(shape, dtype)

    def counters(self, count: int) -> Array:
        """At least ``count`` zeros (uint32) for kernels that find out which block arrives last (last_block.cuh).

        Kernels leave them at zero, so the array serves every launch of a stream in turn; two streams never share one.
        """
        return self._counters.get(count)

    def constant(self, values: Any) -> Array:
        """A NumPy array on the device, to be kept: it is there before this returns, so any stream may use it."""
        if self.engine.capturing:
            return self.engine.capture.constant(np.asarray(values))
        with self.context():
            array = self.xp.array(values)
            if self.xp is not np:
                self.xp.cuda.get_current_stream().synchronize()
        return array

    def overwrite(self, array: Array, values: Any) -> None:
        """Copies a NumPy array into an array on the device, in the order of the current stream; waits for nothing."""
        with self.context():
            if self.xp is np:
                array[...] = values
            else:
                array.set(values, stream=self.xp.cuda.get_current_stream())

    def context(self) -> AbstractContextManager[Any]:
        if self.name == "emulated":
            return nullcontext()
        device: AbstractContextManager[Any] = self.xp.cuda.Device(self.engine.index)
        return device

    def from_host(self, array: Any) -> Array:
        if self.engine.capturing:
            raise NotCapturable("a copy from the host cannot be captured: make such tensors before the step")
        view, back = _by_memory_order(array)
        with self.context():
            return self.xp.array(view, order="C", copy=True).transpose(back)

    def to_host(self, array: Array) -> Any:
        refuse_read(self.engine)
        view, back = _by_memory_order(array)
        with self.context():
            host = view.copy() if self.xp is np else view.get()
            self.check_faults()
        return host.transpose(back)

    def synchronize(self) -> None:
        refuse_read(self.engine)
        with self.context():
            if self.xp is not np:
                self.xp.cuda.Device(self.engine.index).synchronize()
            self.check_faults()

    @property
    def capturing(self) -> bool:  # type: ignore[override]
        """Whether this thread's launches are recorded and not run."""
        return bool(self.engine.capturing)

    def stream_offset(self, purpose: int = Purpose.DROPOUT) -> Array | None:
        """While a step is captured an int64 array (1,) on the device: a kernel that draws from a random stream of this
        ``purpose`` adds it to the stream's step, so that each replay has numbers of its own. None otherwise."""
        return self.engine.capture.offset(purpose) if self.engine.capturing else None

    def check_faults(self) -> None:
        """Raises what kernels found wrong in their data since the last check (ValueError for a label out of range)."""
        faults.check(self)

    # ---- convolution -----------------------------------------------------------------------------

    def conv2d_fprop(
        self,
        x: Array,
        w: Array,
        bias: Array | None,
        g: Conv2dGeometry,
        activation: str | None = None,
        tf32: bool = False,
    ) -> Array:
        return conv2d.fprop(self, x, w, bias, g, activation, tf32)

    def conv2d_dgrad(
        self, dy: Array, w: Array, g: Conv2dGeometry, mask: Array | None = None, tf32: bool = False
    ) -> Array:
        return conv2d.dgrad(self, dy, w, g, mask, tf32)

    def conv2d_wgrad(
        self, x: Array, dy: Array, g: Conv2dGeometry, bias: bool = False, tf32: bool = False
    ) -> tuple[Array, Array | None]:
        return conv2d.wgrad(self, x, dy, g, bias, tf32)

    def bias_grad(self, dy: Array) -> Array:
        return elementwise.bias_grad(self, dy)

    # ---- pooling ---------------------------------------------------------------------------------

    def max_pool2d_forward(self, x: Array, g: Pool2dGeometry) -> tuple[Array, Array]:
        return pool2d.max_forward(self, x, g)

    def max_pool2d_backward(self, dy: Array, index: Array, g: Pool2dGeometry) -> Array:
        return pool2d.max_backward(self, dy, index, g)

    def avg_pool2d_forward(self, x: Array, g: Pool2dGeometry, count_include_pad: bool, divisor: int | None) -> Array:
        return pool2d.avg_forward(self, x, g, count_include_pad, divisor)

    def avg_pool2d_backward(self, dy: Array, g: Pool2dGeometry, count_include_pad: bool, divisor: int | None) -> Array:
        return pool2d.avg_backward(self, dy, g, count_include_pad, divisor)

    def adaptive_max_pool2d_forward(self, x: Array, g: AdaptivePool2dGeometry) -> tuple[Array, Array]:
        return adaptive_pool2d.max_forward(self, x, g)

    def adaptive_max_pool2d_backward(self, dy: Array, index: Array, g: AdaptivePool2dGeometry) -> Array:
        return adaptive_pool2d.max_backward(self, dy, index, g)

    def adaptive_avg_pool2d_forward(self, x: Array, g: AdaptivePool2dGeometry) -> Array:
        return adaptive_pool2d.avg_forward(self, x, g)

    def adaptive_avg_pool2d_backward(self, dy: Array, g: AdaptivePool2dGeometry) -> Array:
        return adaptive_pool2d.avg_backward(self, dy, g)

    # ---- elementwise and normalisation -----------------------------------------------------------

    def relu_forward(self, x: Array) -> Array:
        return elementwise.relu_forward(self, x)

    def relu_backward(self, dy: Array, y: Array) -> Array:
        return elementwise.relu_backward(self, dy, y)

    def gelu_forward(self, x: Array, tanh: bool, keep: bool) -> tuple[Array, Array | None]:
        return activation.gelu_forward(self, x, tanh, keep)

    def gelu_backward(self, dy: Array, kept: Array, tanh: bool) -> Array:
        return activation.gelu_backward(self, dy, kept, tanh)

    def silu_forward(self, x: Array, keep: bool) -> tuple[Array, Array | None]:
        return activation.silu_forward(self, x, keep)

    def silu_backward(self, dy: Array, kept: Array) -> Array:
        return activation.silu_backward(self, dy, kept)

    def lrn_forward(
        self, x: Array, size: int, alpha: float, beta: float, k: float, keep: bool
    ) -> tuple[Array, Array | None]:
        return lrn.forward(self, x, size, alpha, beta, k), None

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
        return lrn.backward(self, dy, x, size, alpha, beta, k, mask)

    def lrn_backward_of_pooled(
        self, dy: Array, index: Array, g: Pool2dGeometry, x: Array, size: int, alpha: float, beta: float, k: float,
        mask: bool = False,
    ) -> Array:  # fmt: skip
        return lrn_pool2d.lrn_backward(self, dy, index, g, x, size, alpha, beta, k, mask)

    def max_pool2d_backward_of_lrn(
        self, dy: Array, x: Array, size: int, alpha: float, beta: float, k: float, mask: bool, index: Array,
        g: Pool2dGeometry,
    ) -> Array:  # fmt: skip
        return lrn_pool2d.max_pool2d_backward(self, dy, x, size, alpha, beta, k, mask, index, g)

    def batch_norm_statistics(
        self,
        x: Array,
        running_mean: Array | None,
        running_var: Array | None,
        momentum: float,
        batches: Array | None = None,
    ) -> BatchStatistics:
        return batch_norm.statistics(self, x, running_mean, running_var, momentum, batches)

    def batch_norm_forward(
        self,
        x: Array,
        statistics: BatchStatistics,
        weight: Array | None,
        bias: Array | None,
        eps: float,
        activation: str | None = None,
    ) -> Array:
        return batch_norm.forward(self, x, statistics, weight, bias, eps, activation)

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
        return batch_norm.backward(self, dy, x, statistics, weight, eps, training, needs, bias, activation)

    def dropout(self, x: Array, p: float, key: RandomKey) -> Array:
        return elementwise.dropout(self, x, p, key)

    # ---- arithmetic ------------------------------------------------------------------------------

    def computes(self, dtype: Any) -> bool:
        return bool(dtype == np.float32) or dtypes.is_half(dtype)

    @property
    def precisions(self) -> tuple[str, ...]:
        capability = self.capability
        return tuple(name for name, least in NEEDS.items() if capability >= least)

    @property
    def capability(self) -> int:
        """The GPU's compute capability, 80 for 8.0; on the emulator that of the GPU that it stands for."""
        if self.name == "emulated":
            return int(self.engine.arch)
        major, minor = driver.devices()[self.engine.index].capability
        return 10 * int(major) + int(minor)

    def add(self, x: Array, y: Array, activation: str | None = None) -> Array:
        return arithmetic.add(self, x, y, activation)

    def scale(self, x: Array, factor: float, by: Array | None = None, dtype: Any = None) -> Array:
        return arithmetic.scale(self, x, factor, by, dtype)

    def cast(self, x: Array, dtype: Any) -> Array:
        return cast.cast(self, x, dtype)

    def cast_all(self, arrays: Sequence[Array], outs: Sequence[Array]) -> None:
        cast.cast_all(self, arrays, outs)

    def transpose(self, x: Array) -> Array:
        return arithmetic.transpose(self, x)

    def resize_rows(self, x: Array, columns: int) -> Array:
        return arithmetic.resize_rows(self, x, columns)

    # ---- matrices --------------------------------------------------------------------------------

    def matmul(
        self, a: Array, b: Array, transpose_a: bool = False, transpose_b: bool = False, tf32: bool = False
    ) -> Array:
        return linear.matmul(self, a, b, transpose_a, transpose_b, tf32)

    def linear_forward(
        self, x: Array, w: Array, bias: Array | None, activation: str | None = None, tf32: bool = False
    ) -> Array:
        return linear.linear_forward(self, x, w, bias, activation, tf32)

    def linear_dgrad(self, dy: Array, w: Array, mask: Array | None = None, tf32: bool = False) -> Array:
        return linear.linear_dgrad(self, dy, w, mask, tf32)

    def linear_wgrad(self, x: Array, dy: Array, bias: bool = False, tf32: bool = False) -> tuple[Array, Array | None]:
        return linear.linear_wgrad(self, x, dy, bias, tf32)

    # ---- loss ------------------------------------------------------------------------------------

    def softmax_cross_entropy_forward(
        self, logits: Array, labels: Array, smoothing: float = 0.0
    ) -> tuple[Array, Array]:
        return cross_entropy.forward(self, logits, labels, smoothing)

    def softmax_cross_entropy_backward(
        self, dlosses: Array, logits: Array, labels: Array, log_sum_exp: Array, smoothing: float = 0.0
    ) -> Array:
        return cross_entropy.backward(self, dlosses, logits, labels, log_sum_exp, smoothing)

    def softmax_cross_entropy_step(
        self, logits: Array, labels: Array, smoothing: float, factor: float
    ) -> tuple[Array, Array, Array]:
        return cross_entropy.step(self, logits, labels, smoothing, factor)

    # ---- indexing --------------------------------------------------------------------------------

    def scatter_add(self, size: int, positions: Array, values: Array) -> Array:
        return scatter.add(self, size, positions, values)

    # ---- optimizers ------------------------------------------------------------------------------

    def sgd_step(
        self,
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        momenta: Sequence[Array | None],
        rows: Sequence[Row],
        along: Along = ALONE,
    ) -> None:
        optimizer.sgd_step(self, parameters, gradients, momenta, rows, along)

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
        optimizer.adam_step(self, parameters, gradients, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, rows, along)

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
        optimizer.rmsprop_step(self, parameters, gradients, square_avgs, grad_avgs, momenta, rows, along)

    def adagrad_step(
        self,
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        sums: Sequence[Array],
        rows: Sequence[Row],
        along: Along = ALONE,
    ) -> None:
        optimizer.adagrad_step(self, parameters, gradients, sums, rows, along)

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
        optimizer.moving_average_step(self, averages, parameters, row)

    def lookahead_step(self, slow: Sequence[Array], parameters: Sequence[Array], row: Row) -> None:
        optimizer.lookahead_step(self, slow, parameters, row)

    def scale_by(self, x: Array, factor: Array) -> Array:
        return loss_scale.scale_by(self, x, factor)

    def check_gradients(self, gradients: Sequence[Array], found_inf: Array, inverse_scale: Array | None = None) -> None:
        loss_scale.check_gradients(self, gradients, found_inf, inverse_scale)

    def update_scale(self, state: Array, found_inf: Array, growth: float, backoff: float, interval: int) -> None:
        loss_scale.update_scale(self, state, found_inf, growth, backoff, interval)

    def total_norm(self, arrays: Sequence[Array], order: float) -> Array:
        return clip.total_norm(self, arrays, order)

    def clip_all(self, arrays: Sequence[Array], norm: Array, limit: float, small: float) -> None:
        clip.clip_all(self, arrays, norm, limit, small)

    def clamp_all(self, arrays: Sequence[Array], limit: float) -> None:
        clip.clamp_all(self, arrays, limit)


def _by_memory_order(array: Array) -> tuple[Array, tuple[int, ...]]:
    """``array`` with its axes in the order of memory, and the axes that transpose that back.

    CuPy copies between host and device in C order (it keeps no other for four axes), so this order goes across instead.
    """
    order = memory_axes(array)
    back = tuple(order.index(axis) for axis in range(array.ndim))
    return array.transpose(order), back
