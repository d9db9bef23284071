"""Memory in use and its peak, counted at each allocation and release; a pool of plain Python objects stands in for
the GPU's."""

from __future__ import annotations

import gc
import threading
import types
from typing import Any

import pytest

from gpucnn.backends.cuda.memory import MemoryTracker


class Pooled:
    """A block of the pool: sizes are rounded up to 512 bytes."""

    def __init__(self, size: int, device: int) -> None:
        self.size, self.device_id = -(-size // 512) * 512, device


class Pointer:
    def __init__(self, mem: Any, offset: int) -> None:
        self.mem, self.ptr, self.device_id = mem, 4096 + offset, mem.device_id


class Unowned:
    def __init__(self, ptr: int, size: int, owner: Any, device_id: int) -> None:
        self.ptr, self.size, self.owner, self.device_id = ptr, size, owner, device_id


@pytest.fixture
def tracker() -> MemoryTracker:
    return MemoryTracker()


def allocator(tracker: MemoryTracker, device: int = 0) -> Any:
    return tracker.wrap(lambda size: Pointer(Pooled(size, device), 0), Pointer, Unowned)


def test_the_peak_is_the_most_at_once(tracker) -> None:
    allocate = allocator(tracker)
    a, b = allocate(1000), allocate(600)
    assert tracker.now(0) == tracker.most(0) == 1024 + 1024
    del a
    assert (tracker.now(0), tracker.most(0)) == (1024, 2048)
    c = allocate(100)
    assert (tracker.now(0), tracker.most(0)) == (1536, 2048)
    tracker.reset(0)
    assert tracker.most(0) == 1536
    del b, c
    assert (tracker.now(0), tracker.most(0)) == (0, 1536)


def test_a_view_keeps_the_memory_counted(tracker) -> None:
    whole = allocator(tracker)(512)
    view = Pointer(whole.mem, 128)
    del whole
    assert tracker.now(0) == 512
    del view
    assert tracker.now(0) == 0


def test_devices_are_counted_apart(tracker) -> None:
    first, second = allocator(tracker, 0)(512), allocator(tracker, 1)(1024)
    assert (tracker.now(0), tracker.now(1), tracker.now(2)) == (512, 1024, 0)
    del first, second
    assert (tracker.most(0), tracker.most(1)) == (512, 1024)


def test_memory_released_in_another_thread_is_counted(tracker) -> None:
    allocate = allocator(tracker)
    kept = [allocate(512) for _ in range(200)]

    def churn() -> None:
        for _ in range(200):
            allocate(512)
            kept.pop()

    threads = [threading.Thread(target=churn) for _ in range(1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert tracker.now(0) == 0
    assert tracker.most(0) == 201 * 512


def test_it_is_installed_once_and_around_the_allocator_that_is_there(tracker) -> None:
    current = [lambda size: Pointer(Pooled(size, 0), 0)]
    cuda = types.SimpleNamespace(
        memory=types.SimpleNamespace(MemoryPointer=Pointer, UnownedMemory=Unowned),
        get_allocator=lambda: current[-1],
        set_allocator=current.append,
    )
    for _ in range(2):
        tracker.install(types.SimpleNamespace(cuda=cuda))
    assert len(current) == 2
    memory = current[-1](1)
    assert tracker.now(0) == 512
    assert memory.mem.owner is not None
