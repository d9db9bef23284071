"""The tape: what is recorded, in which order it is walked back, what is freed, and what raises."""

from __future__ import annotations

import gc
import threading
import tracemalloc
import weakref
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import Function, Tensor


def leaf(*values: float) -> Tensor:
    return gpucnn.tensor(np.array(values), device="cpu", requires_grad=True)


class Multiply(Function):
    """The lecture's example, as on its slide."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        z = x * y
        return z

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor) -> Any:
        x, y = ctx.saved_tensors
        grad_x = y * grad_z
        grad_y = x * grad_z
        return grad_x, grad_y


@pytest.mark.parametrize("device", ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_lectures_multiply(device: str) -> None:
    x = gpucnn.tensor([2.0, -1.0], device=device, requires_grad=True)
    y = gpucnn.tensor([3.0, 5.0], device=device, requires_grad=True)
    z = Multiply.apply(x, y)
    z.backward(gpucnn.tensor([1.0, 10.0], device=device))
    assert z.tolist() == [6.0, -5.0] and x.grad.tolist() == [3.0, 50.0] and y.grad.tolist() == [2.0, -10.0]


def test_gradients_of_a_tensor_used_twice_add_up() -> None:
    x = leaf(3.0)
    y = x * x
    (y + y * x).sum().backward()  # x^2 + x^3
    assert x.grad is not None and x.grad.item() == 2 * 3 + 3 * 9


def test_gradients_accumulate_over_backward_calls() -> None:
    x = leaf(1.0, 2.0)
    (x * 2).sum().backward()
    (x * 3).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [5.0, 5.0]


def test_nodes_are_visited_after_all_users_of_their_results() -> None:
    """A diamond in which one way is longer: the gradient of y is complete before y's node is visited."""
    visits = []

    class Traced(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, name: str) -> Tensor:
            ctx.name = name
            return x * 1.0

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            visits.append((ctx.name, grad.item()))
            return grad, None

    x = leaf(1.0)
    y = Traced.apply(x, "y")
    long = Traced.apply(Traced.apply(y, "a"), "b")
    (long + y).sum().backward()
    assert visits == [("b", 1.0), ("a", 1.0), ("y", 2.0)]


def test_a_chain_of_ten_thousand_calls_does_not_recurse() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(10_000):
        y = y + 1.0
    y.backward()
    assert x.grad is not None and x.grad.item() == 1.0
    del y  # the graph goes without recursion too


def test_needs_input_grad_says_what_to_compute() -> None:
    seen = []

    class Probe(Function):
        @staticmethod
        def forward(ctx: Any, a: Tensor, b: Tensor, c: int) -> Tensor:
            seen.append(ctx.needs_input_grad)
            return a + b

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            seen.append(ctx.needs_input_grad)
            return None, grad, None

    a, b = gpucnn.tensor([1.0], device="cpu"), gpucnn.tensor([2.0], device="cpu", requires_grad=True)
    Probe.apply(a, b, 3).backward()
    assert seen == [(False, True, False)] * 2
    with gpucnn.no_grad():
        assert not Probe.apply(a, b, 3).requires_grad
    assert seen[-1] == (False, False, False)


def test_outputs_that_nothing_used_get_zeros_and_marked_ones_no_gradient() -> None:
    class Split(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Any:
            index = gpucnn.tensor([0], device="cpu")
            ctx.mark_non_differentiable(index)
            return x * 2.0, x * 3.0, index

        @staticmethod
        def backward(ctx: Any, first: Tensor, second: Tensor, third: Tensor) -> Any:
            assert second.tolist() == [0.0, 0.0]
            return first * 2.0 + second * 3.0

    x = leaf(1.0, 1.0)
    first, _, index = Split.apply(x)
    assert not index.requires_grad
    first.backward(gpucnn.tensor([1.0, 4.0], dtype=np.float64, device="cpu"))
    assert x.grad is not None and x.grad.tolist() == [2.0, 8.0]


def test_a_marked_output_of_real_numbers_takes_no_gradient() -> None:
    class Parts(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Any:
            whole = gpucnn.tensor(np.floor(x.numpy()), device="cpu")
            ctx.mark_non_differentiable(whole)
            return x - whole, whole

        @staticmethod
        def backward(ctx: Any, fraction: Tensor, whole: Tensor) -> Any:
            return fraction

    x = leaf(1.25, -0.5)
    fraction, whole = Parts.apply(x)
    assert fraction.requires_grad and not whole.requires_grad and whole.is_leaf
    (fraction * whole).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1.0, -1.0]


@pytest.mark.parametrize("made", [False, True])
def test_a_forward_that_gives_a_tensor_back_leaves_it_as_it_was(made: bool) -> None:
    """Its argument, or a tensor from elsewhere that was recorded already: the output is a tensor of its own."""

    class Gives(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return elsewhere if made else x

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            return grad * 10.0

    x = leaf(1.0, 2.0)
    elsewhere = x * 3.0
    node = elsewhere.node
    y = Gives.apply(x)
    assert y is not x and x.is_leaf and elsewhere.node is node and not y.is_leaf
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [10.0, 10.0]
    elsewhere.sum().backward()
    assert x.grad.tolist() == [13.0, 13.0]


def test_nothing_is_recorded_while_backward_runs() -> None:
    class Asks(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            answers.append(gpucnn.is_grad_enabled())
            return x * 1.0

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            answers.append(gpucnn.is_grad_enabled())
            return grad * other

    answers: list[bool] = []
    x, other = leaf(1.0), leaf(2.0)
    Asks.apply(x).backward()
    assert answers == [False, False] and gpucnn.is_grad_enabled()
    assert x.grad is not None and x.grad.item() == 2.0 and not x.grad.requires_grad


def test_no_grad_is_a_context_a_decorator_and_a_matter_of_one_thread() -> None:
    x = leaf(1.0)
    with gpucnn.no_grad():
        assert not (x * 2).requires_grad and not gpucnn.is_grad_enabled()
        with gpucnn.enable_grad():
            assert (x * 2).requires_grad
        others: list[bool] = []
        thread = threading.Thread(target=lambda: others.append(gpucnn.is_grad_enabled()))
        thread.start()
        thread.join()
        assert others == [True]
    assert gpucnn.is_grad_enabled() and (x * 2).requires_grad

    @gpucnn.no_grad()
    def double(t: Tensor) -> Tensor:
        return t * 2

    assert not double(x).requires_grad
    with pytest.raises(ZeroDivisionError), gpucnn.no_grad():
        raise ZeroDivisionError
    assert gpucnn.is_grad_enabled()


def test_detach_shares_memory_and_stops_gradients() -> None:
    x = leaf(1.0, 2.0)
    y = x.detach()
    assert not y.requires_grad and y.is_leaf
    (x * y).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1.0, 2.0]
    y.fill_(5)
    assert x.tolist() == [5.0, 5.0]


def test_leaf_gradients_share_no_memory() -> None:
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    seed = gpucnn.tensor(np.ones(2), device="cpu")
    (x + y).backward(seed)
    assert x.grad is not None and y.grad is not None
    x.grad.fill_(7)
    assert y.grad.tolist() == [1.0, 1.0] and seed.tolist() == [1.0, 1.0]
    z = leaf(1.0, 2.0)
    z.sum().backward()
    assert z.grad is not None
    z.grad[0] = 5.0  # a broadcast view could not be written
    assert z.grad.tolist() == [5.0, 1.0]


def test_a_gradient_that_repeats_one_element_is_copied() -> None:
    class Total(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.sum()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            return Tensor(np.broadcast_to((grad * 3.0).data, (2,)), "cpu")

    x = leaf(1.0, 2.0)
    Total.apply(x).backward()
    assert x.grad is not None
    x.grad[0] = 5.0
    assert x.grad.tolist() == [5.0, 3.0]


def test_the_gradient_given_to_backward_is_brought_to_the_dtype_and_off_the_tape() -> None:
    x = leaf(1.0, 2.0)
    given = gpucnn.tensor([3.0, 4.0], device="cpu", requires_grad=True)  # float32
    x.backward(given)
    assert x.grad is not None and x.grad.dtype == np.float64 and not x.grad.requires_grad
    given.grad = None
    x.backward(gpucnn.ones(2, dtype=np.float64, device="cpu"))
    assert x.grad.tolist() == [4.0, 5.0] and given.tolist() == [3.0, 4.0]
    y = leaf(1.0)
    y.backward(gpucnn.tensor(np.array([2.0]), device="cpu", requires_grad=True))
    assert y.grad is not None and not y.grad.requires_grad and y.grad.is_leaf


def test_a_gradient_that_repeats_elements_is_copied_for_a_leaf_with_gaps() -> None:
    """A leaf whose memory is not dense has no order to bring its gradient into, which would copy it anyway."""

    class Total(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.shape = x.shape
            return x.sum()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return Tensor(np.broadcast_to(grad.data.copy(), ctx.shape), "cpu")

    x = gpucnn.from_dlpack(np.ones((3, 4))[:, ::2]).requires_grad_()
    Total.apply(x).backward()
    Total.apply(x).backward()
    assert x.grad is not None and x.grad.tolist() == [[2.0, 2.0]] * 3


# ---- what is freed ----


def test_backward_frees_what_was_saved_and_a_second_one_says_so() -> None:
    x = leaf(2.0)
    middle = x.exp()
    saved = weakref.ref(middle.data)
    y = (middle * middle).sum()
    del middle
    y.backward(retain_graph=True)
    first = x.grad.item()
    assert saved() is not None
    y.backward()
    assert saved() is None
    assert x.grad.item() == 2 * first
    with pytest.raises(RuntimeError, match="backward a second time through a graph whose saved tensors are freed"):
        y.backward()


def test_what_forward_left_on_its_context_is_freed_too() -> None:
    class Keeps(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.array = np.ones(3)
            kept.append(weakref.ref(ctx.array))
            return x * 1.0

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            return grad * float(ctx.array[0])

    kept: list[weakref.ref[Any]] = []
    y = Keeps.apply(leaf(1.0))
    y.backward(retain_graph=True)
    assert kept[0]() is not None
    y.backward()
    assert kept[0]() is None and y.item() == 1.0


def test_a_graph_without_backward_goes_without_the_cycle_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        x = leaf(1.0)
        y = x.exp().sqrt() * x  # exp and sqrt save their own outputs
        node = weakref.ref(y)
        del y
        assert node() is None
    finally:
        gc.enable()


def test_peak_memory_of_a_deep_chain_stays_at_what_backward_still_needs() -> None:
    """Forward keeps one array a call (its saved output); backward frees each as it passes: no second set builds up."""
    depth, size = 20, 1 << 18
    x = gpucnn.tensor(np.zeros(size, np.float32), device="cpu", requires_grad=True)
    one_array = x.data.nbytes
    tracemalloc.start()
    try:
        y = x
        for _ in range(depth):
            y = y.exp() if y is x else (y * 0.1).exp()
        loss = y.sum()
        del y
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        loss.backward()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (
        held < (depth + 2) * one_array
    )  # exp saves its output; y * 0.1 with a number saves nothing of its own size twice
    assert peak - held < 5 * one_array
    assert after < 3 * one_array


# ---- what raises ----


def test_a_saved_tensor_modified_in_place_is_noticed() -> None:
    x, y = leaf(1.0, 2.0), gpucnn.tensor(np.array([3.0, 4.0]), device="cpu")
    z = (x * y).sum()
    y += 1
    with pytest.raises(RuntimeError, match="saved for backward was modified in place"):
        z.backward()


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.fill_(2),
        lambda t: t.zero_(),
        lambda t: t.copy_(np.ones(2)),
        lambda t: t.add_(1),
        lambda t: t.div_(2),
        lambda t: t.__setitem__(0, 5.0),
        lambda t: t.__setitem__(slice(None), [1.0, 2.0]),
    ],
)
def test_every_way_of_changing_in_place_is_noticed(change: Any) -> None:
    x, y = leaf(1.0, 2.0), gpucnn.tensor(np.array([3.0, 4.0]), device="cpu")
    z = (x * y).sum()
    change(y)
    with pytest.raises(RuntimeError, match="saved for backward was modified in place"):
        z.backward()


@pytest.mark.parametrize("view", [lambda t: t[0], lambda t: t.T, lambda t: t.reshape(4), lambda t: t.detach()])
def test_a_change_through_a_view_is_noticed_too(view: Any) -> None:
    x = gpucnn.tensor(np.ones((2, 2)), device="cpu", requires_grad=True)
    y = gpucnn.tensor(np.ones((2, 2)), device="cpu")
    z = (x * y).sum()
    view(y).fill_(2)
    with pytest.raises(RuntimeError, match="modified in place"):
        z.backward()


def test_in_place_changes_of_recorded_tensors_are_refused() -> None:
    x = leaf(1.0)
    with pytest.raises(RuntimeError, match="add_: in-place changes of tensors that require gradients"):
        x += 1
    with pytest.raises(RuntimeError, match="item assignment"):
        x[0] = 1
    with gpucnn.no_grad():
        x += 1
    assert x.item() == 2.0


def test_backward_says_what_it_needs() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="needs gradient="):
        (x * 2).backward()
    with pytest.raises(RuntimeError, match="requires no gradient"):
        gpucnn.zeros(1, device="cpu").backward()
    with pytest.raises(RuntimeError, match="gradients of gradients are not supported"):
        (x * 2).sum().backward(create_graph=True)
    with pytest.raises(ValueError, match=r"gradient is \(3,\) on cpu, the tensor \(2,\)"):
        (x * 2).backward(gpucnn.zeros(3, device="cpu"))
    with pytest.raises(TypeError, match="only floating-point tensors have gradients, got int64"):
        gpucnn.tensor([1], device="cpu", requires_grad=True)


def test_tensors_of_two_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="mul: tensors on two devices: operand 0 on cpu, operand 1 on emulated"):
        leaf(1.0) * gpucnn.zeros(1, dtype=np.float64, device="emulated")
    with pytest.raises(ValueError, match="Multiply: tensors on two devices: cpu and emulated"):
        Multiply.apply(leaf(1.0), gpucnn.zeros(1, device="emulated"))


class Wrong(Function):
    """Backward returns whatever the class attribute says."""

    answer: Any = None

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1.0

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return Wrong.answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda: (gpucnn.zeros(2, device="cpu"), None), "Wrong: backward returned 2 gradients for 1 arguments"),
        (lambda: gpucnn.zeros(3, device="cpu"), r"gradient of shape \(3,\) for argument 0 of shape \(2,\)"),
        (lambda: 1.0, "backward must return tensors or None, got float"),
    ],
)
def test_a_backward_that_answers_wrongly_is_named(answer: Any, message: str) -> None:
    Wrong.answer = answer()
    with pytest.raises((RuntimeError, TypeError), match=message):
        Wrong.apply(leaf(1.0, 2.0)).sum().backward()


def test_a_function_is_used_through_apply_with_tensors() -> None:
    with pytest.raises(TypeError, match="Multiply: expected at least one tensor"):
        Multiply.apply(1.0, 2.0)
    with pytest.raises(TypeError, match="save_for_backward takes tensors"):

        class Saves(Function):
            @staticmethod
            def forward(ctx: Any, x: Tensor) -> Tensor:
                ctx.save_for_backward(3)
                return x

        Saves.apply(leaf(1.0))


def test_gradcheck_finds_a_wrong_gradient() -> None:
    class Off(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2.0

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad * 2.01

    x = leaf(1.0, 2.0)
    assert gpucnn.gradcheck(lambda t: t * 2.0, x)
    assert not gpucnn.gradcheck(Off.apply, x, raise_exception=False)
    with pytest.raises(AssertionError, match=r"input 0 of shape \(2,\): 2 of 2 elements differ; at \(0,\)"):
        gpucnn.gradcheck(Off.apply, x)
    with pytest.raises(TypeError, match="finite differences need float64"):
        gpucnn.gradcheck(lambda t: t, gpucnn.zeros(1, device="cpu", requires_grad=True))
    with pytest.raises(ValueError, match="no input requires a gradient"):
        gpucnn.gradcheck(lambda t: t, gpucnn.zeros(1, dtype=np.float64, device="cpu"))
