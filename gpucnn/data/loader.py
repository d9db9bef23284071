"""Batches for training: shuffled, transformed ahead of time on a thread of their own, and handed out as tensors.

A batch is a function of (seed, epoch, position) alone. So a loader's state is two numbers, and a run that goes on from
them sees the batches that it would have seen.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from queue import SimpleQueue
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpucnn import random
from gpucnn.data import transfer
from gpucnn.data.dataset import Dataset
from gpucnn.data.transforms import AsIs, Normalize, Transform
from gpucnn.device import Device
from gpucnn.random import Purpose
from gpucnn.tensor import Tensor, resolve_device

Item = TypeVar("Item")
HostBatch = tuple[NDArray[np.float32], NDArray[np.int64]]


class DataLoader:
    """Iterates over a data set in batches; each ``for`` loop is one epoch.

    Yields pairs (images, labels) of tensors on ``device``: images float32 (N, C, H, W), channels-last in memory,
    labels int64 (N,).

    Args:
        dataset: images and labels.
        batch_size: N; the last batch of an epoch holds what is left. More than there are images is an error where
            they are shuffled or ``drop_last`` is set, that is in training; evaluation takes the one short batch.
        shuffle: a new order in each epoch, the permutation of the stream (seed, epoch, SHUFFLE).
        transform: uint8 (N, H, W, C), seed, step, epoch, indices -> float32 (N, H', W', C), see
            :mod:`gpucnn.data.transforms`. Without one, pixels are scaled to [0, 1], and float32 images
            (:class:`gpucnn.data.TensorDataset`) stay as they are.
        drop_last: leaves out an epoch's last batch where it is smaller than the others.
        seed: of order and augmentation; ``gpucnn.manual_seed``'s where it is None.
        prefetch: how many batches are prepared ahead, on one background thread; 0 prepares each when it is asked for.
            For a GPU that thread leaves them in page-locked memory, from where they are copied while the host goes on.
        device: where the tensors are; the default device where it is None.

    Raises:
        ValueError: a batch size below 1 or, in training, above the number of images; a negative prefetch; no images.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        transform: Transform | None = None,
        drop_last: bool = False,
        seed: int | None = None,
        prefetch: int = 2,
        device: str | Device | None = None,
    ) -> None:
        for name, count, least in (("batch_size", batch_size, 1), ("prefetch", prefetch, 0)):
            if not isinstance(count, (int, np.integer)) or count < least:
                raise ValueError(f"DataLoader: {name} must be at least {least}, and whole, got {count!r}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.transform: Transform = transform if transform is not None else _default(dataset)
        self.drop_last = drop_last
        self.seed = random.default_generator.seed if seed is None else seed
        self.prefetch = prefetch
        self.device = device
        self._epoch = 0
        self._batch = 0  # batches of the epoch handed out
        self._resumed = True  # whether an iteration starts at _batch instead of at a new epoch
        if not len(dataset):
            raise ValueError(f"DataLoader: 0 images make no batch of {batch_size}")
        if batch_size > len(dataset) and (shuffle or drop_last):
            why = "drop_last would leave it out" if drop_last else "shuffle, so for training"
            raise ValueError(
                f"DataLoader: batch_size {batch_size} is more than the {len(dataset)} images of the data set ({why}):"
                f" expected at most {len(dataset)}"
            )

    def __len__(self) -> int:
        """Batches in an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole if self.drop_last or not rest else whole + 1

    @property
    def examples(self) -> int:
        """Examples that an epoch hands out."""
        return min(len(self.dataset), len(self) * self.batch_size)

    @property
    def state(self) -> dict[str, int]:
        """{"epoch": e, "batch": b}: b batches of epoch e have been handed out. Where b is the whole epoch, the loop
        over it has not ended yet; after it has, the state is that of the next epoch's beginning."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """The next iteration goes on from ``state``, in the middle of an epoch where that is where it was.

        Raises:
            ValueError: numbers that no state of this loader can have.
        """
        epoch, batch = state.get("epoch"), state.get("batch")
        if not isinstance(epoch, int) or not isinstance(batch, int) or epoch < 0 or not 0 <= batch <= len(self):
            raise ValueError(f"DataLoader: expected an epoch and a batch from 0 to {len(self)}, got {dict(state)}")
        self._epoch, self._batch, self._resumed = epoch, batch, True

    def state_dict(self) -> dict[str, int]:
        """:attr:`state`."""
        return self.state

    def host_batch(self, epoch: int, batch: int) -> HostBatch:
        """Batch ``batch`` of epoch ``epoch`` as NumPy arrays: float32 (N, H, W, C) and int64 (N,)."""
        return self._make(self._order(epoch), epoch, batch)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        n = len(self.dataset)
        return random.permutation(n, (self.seed, epoch, Purpose.SHUFFLE)) if self.shuffle else np.arange(n)

    def _make(self, order: NDArray[np.int64], epoch: int, batch: int) -> HostBatch:
        chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
        step = epoch * len(self) + batch
        images = self.transform(self.dataset.images[chosen], seed=self.seed, step=step, epoch=epoch, indices=chosen)
        return images, self.dataset.labels[chosen]

    def __iter__(self) -> Generator[tuple[Tensor, Tensor], None, None]:
        if not self._resumed:  # the loop before was left in the middle: this one starts the next epoch
            self._epoch, self._batch = self._epoch + 1, 0
        self._resumed = False
        epoch, order = self._epoch, self._order(self._epoch)
        way = transfer.to(resolve_device(self.device))

        def staged(batch: int) -> HostBatch:
            images, labels = self._make(order, epoch, batch)
            return way.stage(images), way.stage(labels)

        batches = _ahead(staged, self._batch, len(self), self.prefetch)
        try:
            for images, labels in batches:
                self._batch += 1
                yield way.send(images), way.send(labels)
        finally:
            batches.close()
            way.close()
        self._epoch, self._batch, self._resumed = epoch + 1, 0, True


def _default(dataset: Dataset) -> Transform:
    return AsIs() if dataset.images.dtype == np.float32 else Normalize()


def _ahead(
    make: Callable[[int], Item], start: int, stop: int, depth: int
) -> Generator[Item, None, None] | _Prefetched[Item]:
    """make(start), ..., make(stop - 1), up to ``depth`` of them made ahead on a thread."""
    return _Prefetched(make, start, stop, depth) if depth else (make(k) for k in range(start, stop))


class _Prefetched(Generic[Item]):
    """An iterator whose items are made ahead by a thread, at most ``depth`` of them waiting. What ``make`` raises is
    raised by ``next`` at that item's turn. The thread ends with the last item, with an exception, with :meth:`close`,
    or when the iterator is forgotten."""

    def __init__(self, make: Callable[[int], Item], start: int, stop: int, depth: int) -> None:
        self._left = stop - start
        self._ready: SimpleQueue[tuple[Item | None, BaseException | None]] = SimpleQueue()
        self._room = threading.Semaphore(depth)
        self._closing = threading.Event()
        # The thread holds no reference to self, so that forgetting the iterator ends the thread.
        self._thread = threading.Thread(
            target=_produce,
            args=(make, start, stop, self._ready, self._room, self._closing),
            name="gpucnn-prefetch",
            daemon=True,
        )
        self._thread.start()

    def __iter__(self) -> _Prefetched[Item]:
        return self

    def __next__(self) -> Item:
        if self._left == 0 or self._closing.is_set():
            self.close()
            raise StopIteration
        item, error = self._ready.get()
        if error is not None:
            self.close()
            raise error
        self._left -= 1
        self._room.release()
        return item  # type: ignore[return-value]

    def close(self) -> None:
        """Stops the thread and waits for it; at most the item that it is making is waited for."""
        self._closing.set()
        self._room.release()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def __del__(self) -> None:
        self._closing.set()
        self._room.release()


def _produce(
    make: Callable[[int], Item],
    start: int,
    stop: int,
    ready: SimpleQueue[tuple[Item | None, BaseException | None]],
    room: threading.Semaphore,
    closing: threading.Event,
) -> None:
    for k in range(start, stop):
        room.acquire()
        if closing.is_set():
            return
        try:
            ready.put((make(k), None))
        except BaseException as error:
            ready.put((None, error))
            return
