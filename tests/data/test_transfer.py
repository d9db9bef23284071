"""The way to a GPU, on a device made for the purpose: NumPy arrays, a stream whose copies happen as late as they may,
and page-locked memory that is overwritten as soon as nobody holds it."""

from __future__ import annotations

import threading
import weakref
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from gpucnn.data import DataLoader, Dataset, transfer
from gpucnn.device import Device


class _Locked(bytearray):
    """A block of page-locked memory; a bytearray of its own class can be watched."""


class _LateStream:
    """Does what was put into it when an event is asked for that lies behind it, and not before."""

    def __init__(self):
        self.waiting = []
        self.sums = []  # of what the copies found, in order

    def run(self, count):
        for _ in range(count):
            self.waiting.pop(0)()


class _Event:
    made = 0

    def __init__(self, disable_timing=False):
        assert disable_timing
        self._stream, self._behind = None, None

    def record(self, stream):
        self._stream, self._behind = stream, []
        stream.waiting.append(lambda: self._behind.append(True))

    @property
    def done(self):
        return bool(self._behind)

    def synchronize(self):
        while not self._behind:
            self._stream.run(1)


class _DeviceArray(np.ndarray):
    """An array whose ``set`` only puts the copy into a stream, which knows the memory by its address, as CUDA does, and
    does not keep it alive."""

    def set(self, host, stream):
        assert host.flags.c_contiguous and (host.shape, host.dtype) == (self.shape, self.dtype)
        owner = host
        while isinstance(owner, np.ndarray):
            owner = owner.base
        memory = weakref.ref(owner.obj if isinstance(owner, memoryview) else owner)

        def copy():
            block = memory()
            assert block is not None, "page-locked memory was let go while a copy was under way"
            self[...] = np.frombuffer(block, self.dtype, self.size).reshape(self.shape)

        stream.waiting.append(copy)


class _Gpu:
    """What Transfer uses of a backend, and of CuPy."""

    name = "cuda"

    def __init__(self, locked_blocks=1000):
        self.stream = _LateStream()
        self.allocators = set()
        self.blocks = []
        self.left = locked_blocks

        class CUDARuntimeError(RuntimeError):
            pass

        def allocate(size):
            if self.left == 0:
                raise CUDARuntimeError("cudaErrorMemoryAllocation")
            self.left -= 1
            self.allocators.add(threading.current_thread().name)
            block = _Locked(size + 16)  # pools hand out more than was asked for
            self.blocks.append(weakref.ref(block))
            return block

        def empty(shape, dtype):
            return np.full(shape, 99, dtype).view(_DeviceArray)

        cuda = SimpleNamespace(
            alloc_pinned_memory=allocate,
            get_current_stream=lambda: self.stream,
            Event=_Event,
            runtime=SimpleNamespace(CUDARuntimeError=CUDARuntimeError),
        )
        self.xp = SimpleNamespace(__name__="cupy", ndarray=_DeviceArray, empty=empty, cuda=cuda)

    def context(self):
        return nullcontext()

    def held(self):
        return sum(block() is not None for block in self.blocks)


@pytest.fixture
def gpu(monkeypatch):
    """The machine's ``cpu`` made to look like a GPU to the loader."""
    fake = _Gpu()
    monkeypatch.setattr(transfer.backends, "get", lambda device: fake)
    return fake


def _way(gpu):
    way = transfer.to(Device("cpu"))
    assert isinstance(way, transfer.PageLockedTransfer)
    return way


def test_numpy_devices_need_no_staging():
    for device in ("cpu", "emulated"):
        way = transfer.to(Device(device))
        images = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
        assert way.stage(images) is images
        there = way.send(images)
        assert there.shape == (2, 5, 3, 4) and str(there.device).startswith(device)
        assert there.data.transpose(0, 2, 3, 1).flags.c_contiguous and not np.shares_memory(there.data, images)
        np.testing.assert_array_equal(there.numpy(), images.transpose(0, 3, 1, 2))
        way.close()


def test_memory_is_held_until_its_copy_is_done_and_no_longer(gpu):
    way = _way(gpu)
    source = np.arange(24, dtype=np.float32).reshape(1, 2, 4, 3)
    tensors = []
    for k in range(3):
        tensors.append(way.send(way.stage(source[:, :, ::-1] + k)))
    assert gpu.held() == 3 and (tensors[0].data == 99).all()  # nothing has happened yet, nothing was let go
    gpu.stream.run(2)  # the first copy and its event
    np.testing.assert_array_equal(tensors[0].data.transpose(0, 2, 3, 1), source[:, :, ::-1])
    assert gpu.held() == 3
    labels = way.send(way.stage(np.arange(5)))
    assert gpu.held() == 3  # the first one went, this one came
    way.close()
    assert gpu.held() == 0 and gpu.stream.waiting == []
    for k, there in enumerate(tensors):
        assert there.shape == (1, 3, 2, 4)
        np.testing.assert_array_equal(there.data.transpose(0, 2, 3, 1), source[:, :, ::-1] + k)
    np.testing.assert_array_equal(labels.data, np.arange(5))


def test_without_page_locked_memory_the_copy_takes_the_array_itself(gpu):
    gpu.left = 0
    way = _way(gpu)
    array = np.arange(6, dtype=np.float32)
    assert way.stage(array) is array
    assert way.stage(np.empty((0, 3), np.float32)).shape == (0, 3)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_loader_stages_on_its_thread_and_copies_behind_the_kernels(gpu, prefetch):
    images = np.random.default_rng(1).integers(0, 256, (23, 4, 5, 3), dtype=np.uint8)
    loader = DataLoader(
        Dataset(images, np.arange(23) % 3, "abc"), 5, shuffle=True, seed=2, prefetch=prefetch, device="cpu"
    )
    batches = list(loader)
    assert gpu.allocators == ({"gpucnn-prefetch"} if prefetch else {threading.current_thread().name})
    assert gpu.stream.waiting == [] and gpu.held() == 0  # the epoch's end waits for its last copies
    for k, (x, y) in enumerate(batches):
        expected, labels = loader.host_batch(0, k)
        np.testing.assert_array_equal(np.asarray(x.data).transpose(0, 2, 3, 1), expected)
        np.testing.assert_array_equal(np.asarray(y.data), labels)


def test_a_loop_that_is_left_waits_for_its_copies(gpu):
    images = np.zeros((23, 4, 5, 3), np.uint8)
    loader = DataLoader(Dataset(images, np.zeros(23, int), "a"), 5, device="cpu")
    batches = iter(loader)
    next(batches)
    next(batches)
    assert len(gpu.stream.waiting) == 8  # two arrays a batch, each a copy and an event
    batches.close()
    assert gpu.stream.waiting == [] and gpu.held() == 0
