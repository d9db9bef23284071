"""Memory that tensors share: views, in-place changes and their versions, gradients, copies, threads."""

from __future__ import annotations

import copy
import threading
import time
from typing import Any

import numpy as np
import pytest

import gpucnn
import gpucnn.functional as F
from gpucnn import Function, Tensor, indexing, layout, nn

DEVICES = ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)]


def leaf(*values: float) -> Tensor:
    return gpucnn.tensor(np.array(values), device="cpu", requires_grad=True)


# ---- in place ----


def test_a_change_by_a_tensor_that_requires_gradients_is_refused() -> None:
    """PyTorch records it; to go on as if nothing were lost would make its gradient 0."""
    total, loss = gpucnn.zeros(1, dtype=np.float64, device="cpu"), leaf(2.0) * 3.0
    with pytest.raises(RuntimeError, match="add_: in-place changes of tensors that require gradients, or by such"):
        total += loss
    with pytest.raises(RuntimeError, match="item assignment"):
        total[0] = loss
    with pytest.raises(RuntimeError, match="copy_"):
        total.copy_(loss)
    with gpucnn.no_grad():
        total += loss
    assert total.tolist() == [6.0]


def test_in_place_arithmetic_stays_on_one_device() -> None:
    with pytest.raises(ValueError, match="mul_: tensors on two devices: cpu and emulated"):
        gpucnn.ones(2, device="cpu").mul_(gpucnn.ones(2, device="emulated"))


@pytest.mark.parametrize("device", DEVICES)
def test_overlapping_sources_are_read_before_they_are_written(device: str) -> None:
    x = gpucnn.arange(5, device=device)
    x[1:] = x[:-1]
    assert x.tolist() == [0, 0, 1, 2, 3]
    m = gpucnn.tensor([[1.0, 2.0], [3.0, 4.0]], device=device)
    m += m.T
    assert m.tolist() == [[2.0, 5.0], [5.0, 8.0]]


@pytest.mark.parametrize("device", DEVICES)
def test_lists_and_tensors_without_axes_are_written(device: str) -> None:
    x = gpucnn.zeros(4, device=device)
    x[1:3] = [5, 6]
    x[gpucnn.tensor(3, device=device)] = gpucnn.tensor(7.0, device=device)
    assert x.tolist() == [0, 5, 6, 7]
    assert x.fill_(gpucnn.tensor(2.0, device=device)).tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("view", [lambda x: x.expand(1, 3), lambda x: x.reshape(1, 3), lambda x: x.expand(1, 1, 3)])
def test_shapes_of_the_same_elements_are_views(view: Any) -> None:
    x = gpucnn.ones(1, 3, device="cpu")
    y = view(x)
    assert y.version is x.version
    y.fill_(4)
    assert x.tolist() == [[4.0, 4.0, 4.0]]


def test_what_no_gradient_needs_may_change() -> None:
    """Of a product only the other factor is needed, so that only its change is an error."""
    one, image = gpucnn.ones(1, 1, device="cpu"), gpucnn.ones(1, 1, 1, 1, device="cpu")
    for compute in (
        lambda w: w * one,
        lambda w: w @ one,
        lambda w: F.linear(w, one),
        lambda w: F.linear(one, w),
        lambda w: F.conv2d(w.reshape(1, 1, 1, 1), image),
        lambda w: F.conv2d(image, w.reshape(1, 1, 1, 1)),
    ):
        w = gpucnn.ones(1, 1, device="cpu", requires_grad=True)
        y = compute(w)
        with gpucnn.no_grad():
            w += 1
        y.backward()
        assert w.grad is not None and w.grad.tolist() == [[1.0]]


# ---- gradients ----


def test_a_gradient_that_is_a_saved_tensor_is_copied() -> None:
    class Scale(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
            ctx.save_for_backward(w)
            ctx.kept = w
            return (x * w).sum()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            return (ctx.saved_tensors[0] if ctx.kept.item() > 2 else ctx.kept), None

    for weight in (2.0, 3.0):
        x, w = leaf(1.0), gpucnn.tensor(np.array([weight]), device="cpu")
        for _ in range(2):
            Scale.apply(x, w).backward()
        assert x.grad is not None and x.grad.tolist() == [2 * weight] and w.tolist() == [weight]


def test_threads_add_to_one_leaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum lost between one thread's look and another's would be lost here: each waits at that place."""
    like = layout.like

    def slow(*arrays: Any) -> Any:
        time.sleep(1e-4)
        return like(*arrays)

    monkeypatch.setattr(layout, "like", slow)
    x = gpucnn.zeros(1000, device="cpu", requires_grad=True)

    def work() -> None:
        for _ in range(50):
            (x * 1.0).sum().backward()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert x.grad is not None and x.grad.numpy().min() == x.grad.numpy().max() == 200


# ---- recording ----


def test_no_grad_may_be_entered_again_within_itself() -> None:
    quiet = gpucnn.no_grad()
    with quiet:
        with quiet:
            assert not gpucnn.is_grad_enabled()
        assert not gpucnn.is_grad_enabled()
    assert gpucnn.is_grad_enabled()


def test_no_grad_refuses_what_runs_after_it_returned() -> None:
    with pytest.raises(TypeError, match="no_grad: batches is suspended as it runs"):

        @gpucnn.no_grad()
        def batches() -> Any:
            yield 1


def test_errors_in_a_function_leave_recording_on() -> None:
    class Fails(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, when: str) -> Tensor:
            if when == "forward":
                raise ZeroDivisionError
            return x * 1.0

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            raise ZeroDivisionError

    x = leaf(1.0)
    with pytest.raises(ZeroDivisionError):
        Fails.apply(x, "forward")
    assert gpucnn.is_grad_enabled()
    with pytest.raises(ZeroDivisionError):
        Fails.apply(x, "backward").backward()
    assert gpucnn.is_grad_enabled() and (x * 2).requires_grad


# ---- copies ----


def test_deepcopy_copies_a_leaf_in_its_memory_order_and_no_tape() -> None:
    x = nn.Parameter(gpucnn.randn(2, 3, 4, 5, device="cpu"))
    (x * 2).sum().backward()
    y = copy.deepcopy(x)
    assert isinstance(y, nn.Parameter) and y.requires_grad and y.data.strides == x.data.strides
    assert y.grad is not None and x.grad is not None and y.grad.data is not x.grad.data
    with gpucnn.no_grad():
        y.fill_(0)
    assert x.numpy().any() and x.version is not y.version
    with pytest.raises(RuntimeError, match="deepcopy: only leaves are copied"):
        copy.deepcopy(x * 2)


def test_dlpack_without_a_copy_refuses_where_one_is_needed() -> None:
    with pytest.raises(BufferError, match=r"shape \(2, 3, 4, 5\) is not in C order"):
        gpucnn.zeros(2, 3, 4, 5, device="cpu").__dlpack__(copy=False)


# ---- indices ----


@pytest.mark.parametrize("index", [1.5, "a", (0, 1.5), [0.5], {0}])
def test_what_is_no_index_is_refused(index: Any) -> None:
    x = gpucnn.zeros(2, 3, device="cpu")
    with pytest.raises(IndexError, match=r"index of a tensor of shape \(2, 3\): .* is no index"):
        x[index]
    with pytest.raises(IndexError, match="is no index"):
        x[index] = 0


def test_an_index_that_changes_after_its_use_does_not_change_the_gradient() -> None:
    x, index = leaf(1.0, 2.0), gpucnn.tensor([0, 0], device="cpu")
    y = x[index].sum()
    index.fill_(1)
    y.backward()
    assert x.grad is not None and x.grad.tolist() == [2.0, 0.0]


ROWS, MASK = np.array([0, 1]), np.array([[True, False, True], [False, True, True]])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((np.array([0, 2]),), "index 2 is out of bounds for axis 0 with size 2"),
        ((ROWS, np.array([0, -4])), "index -4 is out of bounds for axis 1 with size 3"),
        ((None, ..., np.array([4])), "index 4 is out of bounds for axis 2 with size 4"),
        ((MASK, np.array([4])), "index 4 is out of bounds for axis 2 with size 4"),
        ((True, 0, slice(1), np.array([[-5]])), "index -5 is out of bounds for axis 2 with size 4"),
        ((ROWS, ROWS, np.array([3])), None),
        ((..., ROWS, None, np.array([-4, 3])), None),
        ((np.array([], np.int64),), None),
    ],
)
def test_bounds_of_arrays_of_integers(parts: tuple[Any, ...], message: str | None) -> None:
    """CuPy wraps such indices around, so on cuda this check stands before it; NumPy agrees with it here."""
    if message is None:
        np.zeros((2, 3, 4))[parts]
        indexing.check_bounds(parts, (2, 3, 4))
        return
    with pytest.raises(IndexError):
        np.zeros((2, 3, 4))[parts]
    with pytest.raises(IndexError, match=message):
        indexing.check_bounds(parts, (2, 3, 4))
