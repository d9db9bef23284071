"""Memory is lent to one array at a time, comes back when the last view is gone, and is kept within bounds."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import layout
from gpucnn.backends.numpy import memory

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    memory.release()
    yield
    memory.release()


def address(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])


def array(size: int, dtype: Any = np.uint8) -> np.ndarray[Any, Any]:
    return memory.empty((size // np.dtype(dtype).itemsize,), dtype)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 5), (7,), (1000, 1000), (3, 5, 7, 11, 13), (1 << 14, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.bool_, np.int32])
def test_an_array_is_as_numpy_would_make_it(shape: tuple[int, ...], dtype: Any) -> None:
    ours, theirs = memory.empty(shape, dtype), np.empty(shape, dtype)
    assert type(ours) is np.ndarray and ours.flags.writeable and ours.flags.c_contiguous
    assert (ours.shape, ours.dtype, ours.strides) == (theirs.shape, theirs.dtype, theirs.strides)
    if ours.nbytes >= memory.LEAST:
        assert address(ours) % memory.ALIGNMENT == 0
    ours.fill(1)
    assert ours.all()


@pytest.mark.parametrize("size", [memory.LEAST + 8, 300_000, memory.PAGES, 5 * MIB, 40 * MIB + 12])
def test_memory_comes_back_when_the_array_is_gone_and_not_before(size: int) -> None:
    first, second = array(size), array(size)
    places = address(first), address(second)
    assert abs(places[0] - places[1]) >= size
    del first
    third = array(size - size % 64)  # of the same size class
    assert address(third) == places[0]
    fourth = array(size)
    assert address(fourth) not in places


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[1:3],
        lambda a: a.T,
        lambda a: a.reshape(-1)[5:].reshape(1, -1),
        lambda a: a.view(np.int32)[::2],
        lambda a: np.broadcast_to(a[:1, :1], (5, 5)),
        lambda a: a.view(np.recarray),
        lambda a: np.ndarray((3,), np.float32, a, 8),
        lambda a: np.frombuffer(a, np.uint8)[3:],
        lambda a: memoryview(a),
        lambda a: np.lib.stride_tricks.as_strided(a, (4,), (8,)),
        lambda a: np.from_dlpack(a)[:1],
        lambda a: layout.nchw(a.reshape(1, 1, *a.shape)),
        lambda a: gpucnn.Tensor(a, "cpu").detach(),
    ],
)
@pytest.mark.parametrize("columns", [100, 2000])
def test_any_view_keeps_the_memory(view: Any, columns: int) -> None:
    made = memory.empty((512, columns), np.float32)
    place, alias = address(made), view(made)
    del made
    assert address(memory.empty((512, columns), np.float32)) != place
    del alias
    again = [memory.empty((512, columns), np.float32) for _ in range(2)]
    assert place in map(address, again)


def test_a_tensor_given_to_another_library_keeps_the_memory() -> None:
    tensor = gpucnn.Tensor(memory.empty((1000, 300), np.float32), "cpu")
    other = np.from_dlpack(tensor)
    place = address(tensor.data)
    del tensor
    assert address(memory.empty((1000, 300), np.float32)) != place
    assert address(other) == place


def test_the_owner_of_lent_memory_is_the_array_that_it_is_lent_to() -> None:
    for size in (memory.LEAST, 4 * MIB):
        made = array(size, np.float32)
        assert layout.owner(made) is made
        assert layout.owner(made[3:].reshape(1, -1).T) is made
        place, gone = address(made), weakref.ref(layout.owner(made[1:]))
        del made
        again = array(size, np.float32)  # an owner of its own, in the same place
        assert address(again) == place and gone() is None


def test_what_is_kept_stays_within_what_was_lent_at_once() -> None:
    state = memory._memory
    several = [array(MIB * (i % 5 + 3)) for i in range(20)]
    most = state.lent
    bound = most + most // 8 + memory.SPARE
    for i in range(300):
        several[i % 20] = array(MIB * (i * 7 % 9 + 1))
        most = max(most, state.lent)
        bound = most + most // 8 + memory.SPARE
        assert state.lent + state.kept <= bound
        assert state.kept == sum(size * len(buffers) for size, buffers in state.free.items())
    del several
    array(MIB)
    assert 0 < state.kept <= bound
    for _ in range(2 * memory.WINDOW + 1):  # nothing large is wanted any more
        array(MIB)
    assert state.lent + state.kept <= (state.lent + MIB) * 9 // 8 + memory.SPARE
    memory.release()
    assert state.kept == 0


def test_the_sizes_of_buffers_are_at_most_an_eighth_too_large() -> None:
    for size in [*range(memory.LEAST, memory.LEAST + 100), 12345678, (1 << 30) - 1, 1 << 30, (1 << 30) + 1]:
        assert size <= memory._rounded(size) <= size * 1.126


def test_where_the_system_has_no_memory_what_is_kept_is_given_back_first(monkeypatch: pytest.MonkeyPatch) -> None:
    array(64 * MIB)
    real, failures = memory._new_buffer, []

    def scarce(size: int) -> Any:
        if memory._memory.kept:
            failures.append(size)
            raise MemoryError
        return real(size)

    held = array(100 * MIB)  # the peak, so that what is kept may stay
    array(64 * MIB)
    monkeypatch.setattr(memory, "_new_buffer", scarce)
    del held
    array(20 * MIB)
    made = array(30 * MIB)
    assert failures and made.nbytes == 30 * MIB


@pytest.mark.parametrize("shape", [(1 << 45,), (1 << 62,)])
def test_too_large_an_array_is_numpys_error(shape: tuple[int, ...]) -> None:
    with pytest.raises((MemoryError, ValueError)) as theirs:
        np.empty(shape, np.float32)
    with pytest.raises(theirs.type, match=r"Unable to allocate|array is too big") as ours:
        memory.empty(shape, np.float32)
    assert str(ours.value) == str(theirs.value)


def test_where_no_buffer_can_be_had_numpy_may_have_memory_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(size: int) -> Any:
        raise OSError(12, "Cannot allocate memory")  # too many mappings, for instance

    monkeypatch.setattr(memory, "_new_buffer", refuse)
    made = array(3 * MIB)
    assert made.flags.owndata and made.nbytes == 3 * MIB


def test_garbage_collected_in_the_middle_of_a_call_may_want_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    real, inner = memory._new_buffer, []

    def collecting(size: int) -> Any:
        inner.append(array(2 * MIB))  # as a __del__ would
        memory.release()
        return real(size)

    state = memory._memory
    array(5 * MIB)
    memory.release()
    before = state.lent
    monkeypatch.setattr(memory, "_new_buffer", collecting)
    made = array(2 * MIB)
    made.fill(1)
    inner[0].fill(2)
    assert made.all() and (made == 1).all()
    assert state.lent == before + 2 * MIB
    assert state.kept == sum(size * len(buffers) for size, buffers in state.free.items())


def test_what_a_finalizer_sees_or_saves_from_a_cycle_of_garbage_keeps_its_memory() -> None:
    """Weak references into a cycle call back before finalizers run; an array itself is not part of one."""
    saved: list[np.ndarray[Any, Any]] = []

    class Holder:
        def __init__(self) -> None:
            self.own, self.array = self, array(3 * MIB)
            self.array.fill(7)

        def __del__(self) -> None:
            array(3 * MIB).fill(1)
            saved.append(self.array)

    Holder()
    gc.collect()
    array(3 * MIB).fill(2)
    assert len(saved) == 1 and (saved[0] == 7).all()


def test_a_cycle_of_garbage_gives_its_memory_back() -> None:
    cycle: list[Any] = [array(3 * MIB)]
    place = address(cycle[0])
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert address(array(3 * MIB)) == place


def test_threads_never_share_a_buffer() -> None:
    wrong: list[int] = []

    def work(mark: int) -> None:
        held: list[np.ndarray[Any, Any]] = []
        for i in range(300):
            made = array((64 << 10) * (i % 4 + 1), np.int64)
            made[::512] = mark * 1000 + i
            held.append(made)
            if len(held) > 3:
                oldest = held.pop(0)
                if not (oldest[::512] == mark * 1000 + i - 3).all():
                    wrong.append(i)

    workers = [threading.Thread(target=work, args=(mark,)) for mark in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_memory_of_its_own() -> None:
    kept = array(2 * MIB, np.int32)
    kept.fill(7)
    array(2 * MIB)  # a buffer that both find free
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            array(100 << 10)

    thread = threading.Thread(target=busy)  # so that a fork may fall into a call
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                try:
                    mine = array(2 * MIB, np.int32)
                    mine.fill(9)
                    kept.fill(8)
                    good = (mine == 9).all() and address(mine) != address(kept)
                finally:
                    os._exit(0 if good else 1)
            other = array(2 * MIB, np.int32)
            other.fill(5)
            _, status = os.waitpid(child, 0)
            assert status == 0
            assert (kept == 7).all() and (other == 5).all()
    finally:
        stop.set()
        thread.join()


def test_training_steps_touch_no_new_memory_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = memory._new_buffer

    def counted(size: int) -> Any:
        made.append(size)
        return real(size)

    monkeypatch.setattr(memory, "_new_buffer", counted)
    model = gpucnn.nn.Sequential(gpucnn.nn.Conv2d(4, 16, 3, padding=1), gpucnn.nn.ReLU(), gpucnn.nn.MaxPool2d(2)).to(
        "cpu"
    )
    x = gpucnn.tensor(np.ones((64, 4, 32, 32), np.float32), device="cpu")
    counts = []
    for _ in range(4):
        made.clear()
        model(x).sum().backward()
        counts.append(len(made))
    assert counts[0] > 2 and counts[2:] == [0, 0]
