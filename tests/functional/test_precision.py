"""The precision policy: what is rounded, in how many launches, and what stays float32."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gpucnn
import gpucnn.functional as F
from gpucnn import Tensor, backends, dtypes, layout, nn
from gpucnn.device import device as named
from gpucnn.functional import half_weights
from gpucnn.geometry import Conv2dGeometry
from gpucnn.precision import require
from tests.kernels.halves import HALVES, half_types, tensor_core_values
from tests.support import reference
from tests.support.tolerance import assert_close

Array = NDArray[Any]
ON_GPU = ["emulated", pytest.param("cuda", marks=pytest.mark.gpu)]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def leaf(array: Array, device: str = "emulated") -> Tensor:
    return gpucnn.tensor(array, device=device, requires_grad=True)


# ---- the policy itself ----


def test_the_policy_nests_and_is_float32_at_first() -> None:
    assert gpucnn.get_precision() == "float32"
    twice = gpucnn.precision("float16")
    with gpucnn.precision("bfloat16"), twice:
        assert gpucnn.get_precision() == "float16"
        with gpucnn.precision("float32"), twice, pytest.raises(KeyError):
            assert gpucnn.get_precision() == "float16"
            raise KeyError
        assert gpucnn.get_precision() == "float16"
    assert gpucnn.get_precision() == "float32"


def test_as_a_decorator() -> None:
    @gpucnn.precision("tf32")
    def inside() -> str:
        return gpucnn.get_precision()

    assert (inside(), gpucnn.get_precision()) == ("tf32", "float32")

    def generator() -> Any:
        yield 1

    with pytest.raises(TypeError, match="precision: generator is suspended as it runs"):
        gpucnn.precision("tf32")(generator)


def test_each_thread_has_its_own() -> None:
    seen: list[str] = []
    with gpucnn.precision("bfloat16"):
        thread = threading.Thread(target=lambda: seen.append(gpucnn.get_precision()))
        thread.start()
        thread.join()
    assert seen == ["float32"]


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"expected one of 'float32', 'tf32', 'float16', 'bfloat16', got 'half'"):
        gpucnn.precision("half")


@pytest.mark.parametrize(
    ("arch", "name", "has"),
    [
        ("61", "float16", "float32"),
        ("70", "tf32", "float32"),
        ("75", "bfloat16", "float32, float16"),
        ("75", "tf32", "float32, float16"),
    ],
)
def test_a_gpu_that_lacks_it_is_named(arch: str, name: str, has: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_EMULATOR_ARCH", arch)
    x, w = leaf(normal(2, 3)), leaf(normal(4, 3))
    message = rf"linear: emulated \(standing for sm_{arch}\) does not compute in {name}, it has {has}; float16 needs"
    with gpucnn.precision(name), pytest.raises(ValueError, match=message):
        F.linear(x, w)
    with pytest.raises(ValueError, match=f"train: emulated .* does not compute in {name}"):
        require(name, named("emulated"), "train")
    require("float32", named("emulated"))
    require(name, named("cpu"))


# ---- what is computed ----


@half_types
@pytest.mark.parametrize("device", ON_GPU)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_conv2d(device: str, dtype: Any, activation: str | None) -> None:
    g = Conv2dGeometry.of((2, 8, 5, 7), (16, 8, 3, 3), 1, 1, 1, 1)
    x, w, b = normal(2, 8, 5, 7), normal(16, 8, 3, 3, seed=1), normal(16, seed=2)
    dy = normal(2, 16, 5, 7, seed=3).astype(dtype)
    xt, wt, bt = (leaf(array, device) for array in (x, w, b))
    with gpucnn.precision(dtype.name):
        y = F.conv2d(xt, wt, bt, padding=1, activation=activation)
    assert y.dtype == dtype
    y.backward(gpucnn.tensor(dy, device=device))
    assert [t.grad.dtype for t in (xt, wt, bt)] == [np.float32] * 3
    half = [array.astype(dtype).astype(np.float32) for array in (x, w)]
    nhwc = [np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (*half, dy.astype(np.float32))]
    expected = reference.conv2d_fprop(nhwc[0], nhwc[1], b, g)
    value = np.maximum(expected.value, 0) if activation else expected.value
    assert_close(y.numpy().transpose(0, 2, 3, 1), value, expected.scale)
    gradient = np.where(y.numpy().transpose(0, 2, 3, 1).astype(np.float32) > 0, nhwc[2], 0) if activation else nhwc[2]
    dx, dw = reference.conv2d_dgrad(gradient, nhwc[1], g), reference.conv2d_wgrad(nhwc[0], gradient, g)
    # dx was rounded to the half type between dgrad and the cast back
    assert_close(xt.grad.numpy().transpose(0, 2, 3, 1).astype(dtype), dx.value, dx.scale)
    assert_close(wt.grad.numpy().transpose(0, 2, 3, 1), dw.value, dw.scale)
    assert_close(bt.grad.numpy(), gradient.sum((0, 1, 2), dtype=np.float64), np.abs(gradient).sum((0, 1, 2)))


@half_types
@pytest.mark.parametrize("device", ON_GPU)
def test_linear_and_matmul(device: str, dtype: Any) -> None:
    x, w, b = normal(6, 24), normal(16, 24, seed=1), normal(16, seed=2)
    xt, wt, bt = (leaf(array, device) for array in (x, w, b))
    with gpucnn.precision(dtype.name):
        y, z = F.linear(xt, wt, bt), xt @ wt.detach().T
    (half_x, half_w) = (array.astype(dtype).astype(np.float64) for array in (x, w))
    scale = np.abs(half_x) @ np.abs(half_w.T)
    assert y.dtype == z.dtype == dtype
    assert_close(y.numpy(), half_x @ half_w.T + b, scale + np.abs(b))
    assert_close(z.numpy(), half_x @ half_w.T, scale)
    dy = normal(6, 16, seed=3).astype(dtype)
    y.backward(gpucnn.tensor(dy, device=device))
    assert wt.grad.dtype == np.float32
    up = dy.astype(np.float64)
    assert_close(wt.grad.numpy(), up.T @ half_x, np.abs(up.T) @ np.abs(half_x))
    assert_close(xt.grad.numpy().astype(dtype), up @ half_w, np.abs(up) @ np.abs(half_w))


@half_types
def test_a_half_input_takes_float32_parameters_without_a_policy(dtype: Any) -> None:
    x = gpucnn.tensor(normal(6, 24).astype(dtype), device="emulated")
    w, b = leaf(normal(16, 24, seed=1)), leaf(normal(16, seed=2))
    with gpucnn.precision(dtype.name):
        expected = F.linear(x, w, b)
    y = F.linear(x, w, b)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.numpy().astype(np.float32), expected.numpy().astype(np.float32))
    with pytest.raises(TypeError, match=r"linear: tensors of two dtypes: input float32, weight"):
        F.linear(gpucnn.tensor(normal(6, 24), device="emulated"), w.detach().to(dtype=dtype))


def test_tf32_rounds_inputs_to_ten_bits() -> None:
    x, w = normal(8, 32), normal(16, 32, seed=1)
    with gpucnn.precision("tf32"):
        y = F.linear(leaf(x), leaf(w))
    rounded = [tensor_core_values(a).astype(np.float64) for a in (x, w)]
    assert y.dtype == np.float32
    assert_close(y.numpy(), rounded[0] @ rounded[1].T, np.abs(rounded[0]) @ np.abs(rounded[1].T))


@pytest.mark.parametrize("name", ["tf32", "float16", "bfloat16"])
def test_cpu_computes_in_float32_whatever_the_policy(name: str) -> None:
    arrays = normal(2, 3, 5, 5), normal(4, 3, 3, 3, seed=1), normal(4, seed=2)
    results = []
    for precision in ("float32", name):
        x, w, b = (leaf(array, "cpu") for array in arrays)
        with gpucnn.precision(precision):
            y = F.conv2d(x, w, b, activation="relu")
        y.sum().backward()
        results.append([y.numpy(), x.grad.numpy(), w.grad.numpy(), b.grad.numpy()])
    for left, right in zip(*results, strict=True):
        assert left.dtype == right.dtype == np.float32
        np.testing.assert_array_equal(left, right)


def test_backward_computes_as_its_forward_did() -> None:
    x, w = leaf(normal(4, 8)), leaf(normal(8, 8, seed=1))
    with gpucnn.precision("bfloat16"):
        y = F.linear(x, w)
    with gpucnn.precision("float16"):
        y.backward(gpucnn.ones(4, 8, dtype="bfloat16", device="emulated"))
    assert x.grad.dtype == np.float32
    half = [a.astype(dtypes.bfloat16()).astype(np.float64) for a in (normal(4, 8), normal(8, 8, seed=1))]
    ones = np.ones((4, 8))
    assert_close(w.grad.numpy(), ones.T @ half[0], ones.T @ np.abs(half[0]))


# ---- the weights' rounded copies ----


def casts(run: Any) -> list[str]:
    engine: Any = backends.get(named("emulated")).engine  # type: ignore[attr-defined]
    with engine.record() as launches:
        run()
    return [launch.kernel for launch in launches if "cast" in launch.kernel]


class Net(nn.Module):
    """Filters of one channel, of several and in NHWC, and a matrix."""

    def __init__(self) -> None:
        super().__init__()
        place = {"device": "emulated"}
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, **place), nn.Conv2d(8, 8, 3, **place)
        self.conv3 = nn.Conv2d(8, 8, 2, data_format="NHWC", **place)
        self.linear = nn.Linear(8, 8, **place)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.conv1(x)).permute(0, 2, 3, 1)
        y: Tensor = self.linear(self.conv3(x).reshape(-1, 8))
        return y


def changed(model: nn.Module) -> None:
    with gpucnn.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)


def test_all_weights_are_rounded_in_one_launch_into_the_same_memory() -> None:
    model, other = Net(), Net()
    x = gpucnn.tensor(normal(1, 1, 6, 6), device="emulated").to(dtype="float16")
    with gpucnn.precision("float16"):
        assert casts(lambda: model(x)) == ["cast_all_float16"] * 4
        assert casts(lambda: model(x)) == []
        weights = [model.conv1.weight, model.conv2.weight, model.conv3.weight, model.linear.weight]
        half = np.dtype(np.float16)
        before = [half_weights.rounded(weight, half) for weight in weights]
        for _ in range(2):
            changed(model)
            assert casts(lambda: model(x)) == ["cast_all_float16"]
        for weight, copy in zip(weights, before, strict=True):
            assert half_weights.rounded(weight, half) is copy
            np.testing.assert_array_equal(copy, weight.numpy().astype(half))
            assert copy.shape == weight.shape and layout.is_dense(copy)
        other(x)  # in use beside the first one: from now on one launch is for both
        changed(model)
        changed(other)
        assert casts(lambda: (other(x), model(x))) == ["cast_all_float16"]
        for network in (model, other):
            weight = network.conv2.weight
            np.testing.assert_array_equal(half_weights.rounded(weight, half), weight.numpy().astype(half))


def test_a_moved_or_replaced_weight_is_rounded_anew() -> None:
    w = leaf(normal(8, 8))
    half = np.dtype(np.float16)
    first = half_weights.rounded(w, half)
    w.data = w.data + np.float32(1)
    np.testing.assert_array_equal(half_weights.rounded(w, half), (normal(8, 8) + np.float32(1)).astype(half))
    w.data = np.ascontiguousarray(normal(4, 8))
    assert half_weights.rounded(w, half).shape == (4, 8) and first.shape == (8, 8)


def test_copies_go_with_their_weights() -> None:
    known = half_weights._copies.known
    gc.collect()
    count = len(known)
    weights = [leaf(normal(8, 8)) for _ in range(3)]
    for weight in weights:
        for dtype in HALVES:
            half_weights.rounded(weight, dtype)
    assert len(known) == count + 6
    del weights, weight
    gc.collect()
    assert len(known) == count


def test_a_weight_changed_between_forward_and_backward_is_noticed() -> None:
    x, w = leaf(normal(4, 8)), leaf(normal(8, 8, seed=1))
    with gpucnn.precision("float16"):
        y = F.linear(x, w)
    with gpucnn.no_grad():
        w.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified in place"):
        y.sum().backward()


def test_copies_go_when_their_weights_move_away() -> None:
    known = half_weights._copies.known
    gc.collect()
    count = len(known)
    layer = nn.Linear(8, 8, device="emulated")
    half_weights.rounded(layer.weight, np.dtype(np.float16))
    assert len(known) == count + 1
    layer.to("cpu")
    assert len(known) == count


def test_a_weight_that_is_another_array_is_rounded_anew_wherever_it_lies() -> None:
    w = leaf(normal(8, 8))
    for _ in range(4):
        half_weights.rounded(w, np.dtype(np.float16))
        w.data = w.data * np.float32(2)  # which frees the memory that the next line takes
        w.data = w.data * np.float32(2)
        np.testing.assert_array_equal(half_weights.rounded(w, np.dtype(np.float16)), w.numpy().astype(np.float16))


def test_the_copy_of_a_weight_that_was_replaced_is_not_written() -> None:
    half = np.dtype(np.float16)
    kept, moved, replaced = leaf(normal(8, 8)), leaf(normal(8, 8)), leaf(normal(8, 8))
    weights = [kept, moved, replaced]
    for _ in range(2):  # from the second round on all in one launch
        copies = [half_weights.rounded(weight, half) for weight in weights]
        for weight in weights:
            with gpucnn.no_grad():
                weight.mul_(2.0)
    before = [copy.copy() for copy in copies]
    moved.data, moved.device = np.ones((8, 8), np.float32), named("cpu")
    replaced.data = np.ones((4, 80), np.float32)  # larger than the copy
    assert half_weights.rounded(kept, half) is copies[0]
    np.testing.assert_array_equal(copies[0], kept.numpy().astype(half))
    for copy, old in zip(copies[1:], before[1:], strict=True):
        np.testing.assert_array_equal(copy, old)


def test_a_matrix_changed_between_forward_and_backward_is_noticed() -> None:
    x, w = leaf(normal(4, 8)), leaf(normal(8, 8, seed=1))
    with gpucnn.precision("float16"):
        y = x @ w
        with gpucnn.no_grad():
            w.mul_(2.0)
        x @ w  # rounds again, into the memory that y's backward would read
    with pytest.raises(RuntimeError, match="modified in place"):
        y.sum().backward()
