"""The launch code over CuPy's own arrays and CuPy's own passing of arguments, without a GPU.

The arrays lie at addresses that nobody reads, and a launch gets as far as the driver, which is missing (or, where there
is a GPU, finds no function behind it). So every array passes the launcher's checks as it would on a GPU, and CuPy
takes every argument that the launcher hands on.
"""

from __future__ import annotations

import itertools
import types
from pathlib import Path
from typing import Any

import cupy
import ml_dtypes
import numpy as np
import pytest

from gpucnn.backends.cuda.backend import CudaBackend
from gpucnn.backends.cuda.engine import _CudaKernel
from gpucnn.backends.launch import Launcher
from gpucnn.backends.updates import Along, MuonNumbers
from gpucnn.geometry import Conv2dGeometry, Pool2dGeometry
from tests.support import updates


class Owner:
    """What memory that CuPy did not allocate belongs to."""


_addresses = itertools.count(1 << 40, 1 << 32)


def array(shape: Any, dtype: Any = np.float32, shift: int = 0) -> Any:
    """A cupy.ndarray of GPU 0, `shift` bytes past a multiple of 2**32."""
    memory = cupy.cuda.UnownedMemory(next(_addresses), 1 << 31, Owner(), 0)
    return cupy.ndarray(shape, dtype, memptr=cupy.cuda.MemoryPointer(memory, shift))


class Engine:
    """GPU 0, whose kernels are launched up to the point where CuPy calls the driver."""

    xp, index, name, capturing = cupy, 0, "cuda:0", False
    empty = staticmethod(array)

    def __init__(self) -> None:
        self.names: list[str] = []

    def launched(self, *_: Any) -> None:
        """Nothing is recorded before the launch came as far as it can."""

    def kernel(self, declaration: Any) -> Any:
        function = cupy.cuda.function.Function.__new__(cupy.cuda.function.Function)
        kernel = _CudaKernel.__new__(_CudaKernel)
        kernel.engine, kernel.declaration, kernel.dynamic_shared = self, declaration, 48 * 1024
        kernel.current_device = lambda: 0

        def raw(grid: Any, block: Any, args: Any, shared_mem: int) -> None:
            with pytest.raises((cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError)):
                function(grid, block, args, shared_mem=shared_mem, stream=types.SimpleNamespace(ptr=0))
            self.names.append(declaration.name)

        kernel.raw = raw
        return kernel

    def pointer_table(self, arrays: Any) -> Any:
        return array((len(arrays),), np.uint64)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = CudaBackend(Engine())
    monkeypatch.setattr(made, "constant", lambda values: array(values.shape, values.dtype))
    monkeypatch.setattr(made, "overwrite", lambda array, values: None)
    monkeypatch.setattr(made, "counters", lambda count: array((count,), np.uint32))
    return made


def test_every_family_of_kernels_is_launched(backend: Any) -> None:
    g = Conv2dGeometry.of((8, 64, 24, 24), (64, 64, 5, 5), padding=2)
    x, w, dy = array(g.input_shape), array(g.weight_shape), array(g.output_shape)
    for bias in (None, array((64,))):
        assert backend.conv2d_fprop(x, w, bias, g).shape == g.output_shape
    backend.conv2d_dgrad(dy, w, g)
    backend.conv2d_wgrad(x, dy, g)
    assert backend.bias_grad(dy).shape == (64,)
    p = Pool2dGeometry.of((8, 64, 24, 24), 3, 2, 1)
    _, index = backend.max_pool2d_forward(x, p)
    backend.max_pool2d_backward(array(p.output_shape), index, p)
    _, kept = backend.lrn_forward(x, 9, 1e-3, 0.75, 1.0, True)
    backend.lrn_backward(x, x, kept, 9, 1e-3, 0.75, 1.0)
    planes = array((8, 64, 12, 12)).transpose(0, 2, 3, 1)
    backend.lrn_backward_of_pooled(planes, index, p, x, 9, 1e-3, 0.75, 1.0)
    backend.max_pool2d_backward_of_lrn(*(array(p.output_shape) for _ in "yx"), 9, 1e-3, 0.75, 1.0, True, index, p)
    weight = array((64,))
    statistics = backend.batch_norm_statistics(x, array((64,)), array((64,)), 0.1)
    backend.batch_norm_forward(x, statistics, weight, weight, 1e-5)
    backend.batch_norm_backward(x, x, statistics, weight, 1e-5, True, (True, True, True))
    backend.dropout(x, 0.5, (2**64 - 1, 3, 1))
    backend.linear_forward(array((128, 2304)), array((384, 2304)), array((384,)))
    labels, logits = array((128,), np.int64), array((128, 10))
    losses, log_sum_exp = backend.softmax_cross_entropy_forward(logits, labels)
    backend.softmax_cross_entropy_backward(losses, logits, labels, log_sum_exp)
    backend.softmax_cross_entropy_step(logits, labels, 0.1, 1 / 128)
    assert backend.engine.names == [
        "conv2d_fprop_128x64_vec4", "conv2d_fprop_128x64_vec4", "conv2d_dgrad_128x64_vec4",
        "conv2d_wgrad_64x128_vec4", "column_sums",
        "max_pool2d_forward_3x3_vec4", "max_pool2d_backward_3x3_vec4", "lrn_forward_9_vec4", "lrn_backward_9_vec4",
        "lrn_backward_pool_9_vec4", "max_pool2d_backward_lrn_9_vec4",
        "batch_norm_statistics_vec4", "batch_norm_forward_vec4", "batch_norm_sums_vec4", "batch_norm_backward_vec4",
        "dropout_vec4",
        "gemm_nt_128x64_vec4", "cross_entropy_forward_long", "cross_entropy_backward_long", "cross_entropy_step_long",
    ]  # fmt: skip


def test_updates_take_channels_last_parameters(backend: Any) -> None:
    def arrays() -> list[Any]:
        return [array((64, 5, 5, 3)).transpose(0, 3, 1, 2), array((64,)), array((10, 192), shift=4)]

    updates.sgd_step(backend, arrays(), arrays(), None, 0.1, 0.0, 0.0, [0.1, 0.0, 0.2], False, True)
    updates.sgd_step(backend, arrays(), arrays(), arrays(), 0.1, 0.9, 0.0, 0.0, True, False)
    updates.moving_average_step(backend, arrays(), arrays(), 0.9)
    decays = [0.1, 0.0, 0.2]
    updates.adam_step(backend, *(arrays() for _ in range(4)), None, 1e-3, 0.9, 0.999, 1e-8, decays, True, False, 7)
    updates.rmsprop_step(backend, *(arrays() for _ in range(5)), 1e-3, 0.9, 1e-8, 0.9, decays, False)
    updates.adagrad_step(backend, *(arrays() for _ in range(3)), 1e-3, 1e-8, decays, False)
    filters = [array((1, 64, 75)), array((1, 10, 192), shift=4)]
    numbers = updates.rows(backend, [MuonNumbers(0.1, 1.0, 0.6, 0.4, 1e-7, 1.0, 1.0, 3.0, -4.0, 2.0)] * 2)
    along = Along(
        averages=[None, filters[1]], average=updates.average_row(backend, 0.9), inverse_scale=array((1,)),
        found_inf=array((1,)), skipped=[array((1,), np.int32) for _ in filters],
    )  # fmt: skip
    backend.muon_step(filters, filters, filters, 1, numbers, along)
    backend.check_gradients(arrays(), array((1,)), array((1,)))
    backend.update_scale(array((4,)), array((2,)), 2.0, 0.5, 2000)
    assert backend.scale_by(array(()), array((1,))).shape == ()
    assert backend.total_norm(arrays(), 2.0).shape == (1,)
    backend.clip_all(arrays(), array((1,)), 1.0, 1e-6)
    backend.clamp_all(arrays(), 0.5)
    assert backend.engine.names == [
        "sgd_step", "sgd_step", "moving_average_step", "adam_step", "rmsprop_step", "adagrad_step", "muon_prepare",
        "muon_gram", "muon_polynomial", "muon_finish", "check_gradients", "update_scale", "scale_by", "total_norm",
        "clip_all", "clamp_all",
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_arrays_are_passed(backend: Any, dtype: Any) -> None:
    launch = Launcher(backend.engine, Path(__file__).parents[1] / "kernels")
    name = f"reverse_{np.dtype(dtype).name}x8"
    launch("half.cu", name, 1, 32, array((5, 8), dtype), array((5, 8), dtype), 5)
    with pytest.raises(ValueError, match="multiple of 16 bytes"):
        launch("half.cu", name, 1, 32, array((5, 8), dtype, shift=2), array((5, 8), dtype), 5)
    assert backend.engine.names == [name]


def test_slices_off_16_bytes_take_scalar_kernels(backend: Any) -> None:
    backend.relu_forward(array((2, 8), shift=4))
    backend.relu_forward(array((2, 8)))
    assert backend.engine.names == ["relu_forward", "relu_forward_vec4"]


def test_what_a_kernel_cannot_take_is_refused(backend: Any) -> None:
    with pytest.raises(TypeError, match=r"argument x must be a cupy\.ndarray on cuda:0, got numpy\.ndarray"):
        backend.launch("relu.cu", "relu_forward", 1, 256, np.zeros(4, np.float32), array((4,)), 4)
    with pytest.raises(ValueError, match="argument x must be C-contiguous"):
        backend.launch("relu.cu", "relu_forward", 1, 256, array((4, 4)).T, array((4, 4)), 16)
    with pytest.raises(ValueError, match=r"argument x .* multiple of 16 bytes"):
        backend.launch("relu.cu", "relu_forward_vec4", 1, 256, array((8,), shift=4), array((8,)), 2)
    assert backend.engine.names == []


def test_the_other_operand_is_on_another_gpu(backend: Any) -> None:
    memory = cupy.cuda.UnownedMemory(next(_addresses), 64, Owner(), 1)
    elsewhere = cupy.ndarray((4,), np.float32, memptr=cupy.cuda.MemoryPointer(memory, 0))
    with pytest.raises(ValueError, match="argument x is on cuda:1, the kernel runs on cuda:0"):
        backend.launch("relu.cu", "relu_forward", 1, 256, elsewhere, array((4,)), 4)
