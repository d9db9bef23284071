"""The GEMM kernels against the formula in float64, instance by instance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gpucnn.backends.cuda import linear
from gpucnn.backends.cuda.backend import CudaBackend
from gpucnn.backends.emulator import EmulatorEngine
from tests.numpy_backend.geometries import normal
from tests.support import reference
from tests.support.tolerance import check

Array = NDArray[Any]

INSTANCES = [
    (letters, instance)
    for letters in ("nn", "nt", "tn", "tt")
    for instance in linear.INSTANCES
    if letters != "tt" or instance == "64x64_scalar"
]
SIZES = [(1, 1, 1), (3, 5, 7), (65, 129, 17), (128, 64, 8), (4, 4, 4), (132, 68, 20), (20, 12, 1000)]  # M, N, K


def operands(m: int, n: int, k: int, letters: str, batch: tuple[int, ...] = ()) -> tuple[Array, Array]:
    """A and B as ``letters`` says that they are stored."""
    a = normal(1, (*batch, *((k, m) if letters[0] == "t" else (m, k))), np.float32)
    b = normal(2, (*batch, *((n, k) if letters[1] == "t" else (k, n))), np.float32)
    return a, b


@pytest.mark.parametrize(("letters", "instance"), INSTANCES)
@pytest.mark.parametrize("batch", [(), (3,)], ids=["single", "batch"])
def test_every_instance_computes_the_formula(backend: Any, letters: str, instance: str, batch: tuple[int, ...]) -> None:
    sizes = [s for s in SIZES if "scalar" in instance or all(size % 4 == 0 for size in s)]
    transposes = letters[0] == "t", letters[1] == "t"
    for m, n, k in sizes:
        a, b = operands(m, n, k, letters, batch)
        with backend.engine.record() as launches:
            c = linear.matmul(backend, backend.from_host(a), backend.from_host(b), *transposes, instance=instance)
        assert launches[0].kernel == f"gemm_{letters}_{instance}"
        assert c.shape == (*batch, m, n)
        check(backend.to_host(c), reference.matmul, a, b, *transposes)


@pytest.mark.parametrize("k", [200, 1000, 3000])
@pytest.mark.parametrize(("letters", "instance"), INSTANCES)
def test_a_long_sum_is_split_and_joined_in_order(backend: Any, letters: str, instance: str, k: int) -> None:
    a, b = operands(20, 12, k, letters)
    transposes = letters[0] == "t", letters[1] == "t"
    a_, b_ = backend.from_host(a), backend.from_host(b)
    with backend.engine.record() as launches:
        first = backend.to_host(linear.matmul(backend, a_, b_, *transposes, instance=instance))
    assert [launch.kernel for launch in launches] == [f"gemm_{letters}_{instance}"]
    assert launches[0].grid[1] > 1
    check(first, reference.matmul, a, b, *transposes)
    second = backend.to_host(linear.matmul(backend, a_, b_, *transposes, instance=instance))
    assert first.tobytes() == second.tobytes()
    assert not backend.to_host(backend.counters(4096)).any()


@pytest.mark.parametrize(("m", "n", "k"), [(1, 10, 192), (9, 10, 2304), (130, 66, 75), (7, 12, 4)])
def test_linear_forward(backend: Any, m: int, n: int, k: int) -> None:
    x, w, bias = normal(1, (m, k), np.float32), normal(2, (n, k), np.float32), normal(3, (n,), np.float32)
    x_, w_, bias_ = map(backend.from_host, (x, w, bias))
    check(backend.to_host(backend.linear_forward(x_, w_, bias_)), reference.linear_forward, x, w, bias)
    check(backend.to_host(backend.linear_forward(x_, w_, None)), reference.linear_forward, x, w, None)


@pytest.mark.parametrize(("m", "n", "k"), [(9, 10, 192), (132, 68, 72), (4, 8, 2304), (1, 1, 1)])
def test_a_linear_layer_takes_one_launch_each_way(backend: Any, m: int, n: int, k: int) -> None:
    x, w, bias, dy = (normal(i, shape, np.float32) for i, shape in enumerate(((m, k), (n, k), (n,), (m, n))))
    x_, w_, bias_, dy_ = map(backend.from_host, (x, w, bias, dy))
    with backend.engine.record() as launches:
        y = backend.linear_forward(x_, w_, bias_, activation="relu")
        dx = backend.linear_dgrad(dy_, w_, mask=x_)
        dw, db = backend.linear_wgrad(x_, dy_, bias=True)
    kind = "64x64_scalar" if k % 4 or n % 4 else "128x64_vec4"
    letters = [launch.kernel.replace("gemm_", "").partition("_")[0] for launch in launches]
    assert letters == ["nt", "nn", "tn"] and launches[1].kernel == f"gemm_nn_{kind}"
    check(backend.to_host(y), reference.linear_forward_relu, x, w, bias)
    check(backend.to_host(dx), reference.linear_dgrad_masked, dy, w, x)
    check(backend.to_host(dw), reference.matmul, dy, x, True)
    check(backend.to_host(db), reference.bias_grad, dy)
    assert backend.linear_wgrad(x_, dy_)[1] is None


@pytest.mark.parametrize("arch", [61, 90])
@pytest.mark.parametrize(("letters", "instance"), INSTANCES)
def test_with_and_without_asynchronous_copies(letters: str, instance: str, arch: int) -> None:
    backend = CudaBackend(EmulatorEngine(arch=arch))
    transposes = letters[0] == "t", letters[1] == "t"
    a, b = operands(132, 68, 52, letters)
    check(linear.matmul(backend, a, b, *transposes, instance=instance), reference.matmul, a, b, *transposes)


@pytest.mark.parametrize(
    ("letters", "sizes"), [("nn", (9, 8, 8)), ("nt", (9, 8, 8)), ("tn", (8, 8, 9)), ("tt", (8, 8, 8))]
)
def test_which_instance_runs(backend: Any, letters: str, sizes: tuple[int, int, int]) -> None:
    a, b = map(backend.from_host, operands(*sizes, letters))
    with backend.engine.record() as launches:
        backend.matmul(a, b, letters[0] == "t", letters[1] == "t")
    kind = "64x64_scalar" if letters == "tt" else "128x64_vec4"  # vectors need only rows in memory of fours
    assert [launch.kernel for launch in launches] == [f"gemm_{letters}_{kind}"]


def test_an_array_off_16_bytes_takes_the_scalar_instance(backend: Any) -> None:
    a, b = operands(12, 8, 16, "nn")
    shifted = backend.empty((a.size + 1,))[1:].reshape(a.shape)
    shifted[...] = backend.from_host(a)
    with backend.engine.record() as launches:
        c = backend.matmul(shifted, backend.from_host(b))
    assert [launch.kernel for launch in launches] == ["gemm_nn_64x64_scalar"]
    check(backend.to_host(c), reference.matmul, a, b)


def test_empty_products(backend: Any) -> None:
    x, w, bias = np.zeros((3, 0), np.float32), np.zeros((4, 0), np.float32), normal(1, (4,), np.float32)
    y = backend.to_host(backend.linear_forward(*map(backend.from_host, (x, w, bias))))
    np.testing.assert_array_equal(y, np.broadcast_to(bias, (3, 4)))  # a sum of no terms is 0
    no_rows = backend.matmul(*map(backend.from_host, (np.zeros((0, 5), np.float32), np.zeros((5, 4), np.float32))))
    assert no_rows.shape == (0, 4)
    dy = normal(2, (3, 4), np.float32)
    dw, db = backend.linear_wgrad(*map(backend.from_host, (x, dy)), bias=True)  # no inputs
    assert dw.shape == (4, 0)
    check(backend.to_host(db), reference.bias_grad, dy)
    dw, db = backend.linear_wgrad(*map(backend.from_host, (np.zeros((0, 5), np.float32), dy[:0])), bias=True)
    assert not backend.to_host(dw).any() and not backend.to_host(db).any() and db.shape == (4,)
