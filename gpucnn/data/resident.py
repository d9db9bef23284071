"""Batches made on the device: the data set lies there, and one launch makes each batch.

The host's loader sends every batch over the bus; this one sends the data set once, as bytes, and then only numbers. Its
batches have the same bits as :class:`DataLoader`'s, so it makes no difference to a run which of the two it has.
"""

from __future__ import annotations

import functools
from collections.abc import Generator
from typing import Any

import numpy as np

from gpucnn import backends, dtypes, layout
from gpucnn.backends.cuda.augment import BatchRecipe, make_batch
from gpucnn.backends.cuda.step import write_state
from gpucnn.data.dataset import Dataset
from gpucnn.data.loader import DataLoader
from gpucnn.data.recipe import recipe
from gpucnn.data.transforms import Transform
from gpucnn.device import Device
from gpucnn.tensor import Tensor, resolve_device

MEMORY_SHARE = 4  # a data set takes at most one part in so many of a GPU's memory


def loader_for(
    dataset: Dataset,
    batch_size: int = 1,
    shuffle: bool = False,
    transform: Transform | None = None,
    drop_last: bool = False,
    seed: int | None = None,
    prefetch: int = 2,
    device: str | Device | None = None,
) -> DataLoader:
    """A loader whose batches are made where they are used, if they can be: a :class:`ResidentLoader`, else a
    :class:`DataLoader`. The batches are the same. Arguments are those of both.

    On the device it is for pixels (uint8), for transforms of the package's own, as far as
    :func:`gpucnn.data.recipe.recipe` knows them, and for a data set of at most a quarter of the GPU's memory.
    """
    host = DataLoader(dataset, batch_size, shuffle, transform, drop_last, seed, prefetch, device)
    if _why_not(dataset, host.transform, resolve_device(device)) is not None:
        return host
    return ResidentLoader(dataset, batch_size, shuffle, host.transform, drop_last, host.seed, prefetch, device)


def _why_not(dataset: Dataset, transform: Transform, device: Device) -> str | None:
    """Why batches cannot be made on the device; None where they can."""
    backend = backends.get(device)
    if backend.name == "cpu":
        return "the device cpu has no kernels"
    if dataset.images.dtype != np.uint8:
        return f"images are {dataset.images.dtype}, not pixels (uint8)"
    shape = tuple(dataset.images.shape[1:])
    if recipe(transform, shape) is None:
        return f"the kernel has no form of {type(transform).__name__} for images {shape}"
    size, memory = dataset.images.nbytes + dataset.labels.nbytes, _memory(backend)
    if memory is not None and size * MEMORY_SHARE > memory:
        return f"the data set has {size:,} bytes, more than 1/{MEMORY_SHARE} of the {memory:,} of {device}"
    return None


def _memory(backend: Any) -> int | None:
    """Bytes of a GPU; None for the emulated one, which has the host's."""
    if backend.xp is np:
        return None
    with backend.context():
        return int(backend.xp.cuda.runtime.memGetInfo()[1])


class ResidentLoader(DataLoader):
    """A :class:`DataLoader` whose data set lies on the device and whose batches are made there, by one launch each.

    The images are copied when the first batch is asked for; what is changed in the data set's arrays after that is not
    seen. ``prefetch`` is taken and means nothing: there is nothing to wait for.

    Inside a captured step :meth:`load_into` makes the batch that the device's own counters name, so that every replay
    has the next one: ``device_state`` is int64 (4,), [epoch, batch, step, 0]. The step's last launch
    (:func:`gpucnn.backends.cuda.step.advance_step`) moves them on, :meth:`positions` counts along on the host, and
    :meth:`write_state` sets the device's where the two part: at the start, after a resumption.

    Args:
        dtype: of the images: "float32", "float16" or "bfloat16"; the float32 batch rounded once.

    Raises:
        ValueError: as DataLoader; and what cannot be made on the device, see :func:`loader_for`.
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
        dtype: Any = "float32",
    ) -> None:
        super().__init__(dataset, batch_size, shuffle, transform, drop_last, seed, prefetch, device)
        self._place = resolve_device(device)
        reason = _why_not(dataset, self.transform, self._place)
        if reason is not None:
            raise ValueError(f"ResidentLoader: {reason}; DataLoader makes such batches on the host")
        self.dtype = dtype
        self._backend: Any = backends.get(self._place)
        found = recipe(self.transform, tuple(dataset.images.shape[1:]))
        assert found is not None
        self.recipe: BatchRecipe = found

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the images. Raises ValueError when it is set to another than the three."""
        return self._dtype

    @dtype.setter
    def dtype(self, dtype: Any) -> None:
        found = dtypes.as_dtype(dtype)
        if found.name not in ("float32", "float16", "bfloat16"):
            raise ValueError(f"ResidentLoader: images are float32, float16 or bfloat16, got {found.name}")
        self._dtype = found

    @functools.cached_property
    def _stored(self) -> tuple[Any, Any]:
        """Images and labels on the device."""
        return self._backend.constant(self.dataset.images), self._backend.constant(self.dataset.labels)

    @functools.cached_property
    def device_state(self) -> Any:
        """int64 (4,) on the device: epoch and batch that the next :meth:`load_into` makes, the run's step, 0."""
        return self._backend.constant(np.array([self._epoch, self._batch, 0, 0], np.int64))

    @property
    def whole_batches(self) -> int:
        """Batches of an epoch that have ``batch_size`` examples."""
        return len(self.dataset) // self.batch_size

    # ---- by value: any batch ----

    def make(self, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        """Batch ``batch`` of epoch ``epoch``, as new tensors."""
        rows = min(self.batch_size, len(self.dataset) - batch * self.batch_size)
        images, labels = self._empty(rows)
        self._launch(images, labels, epoch, batch, None)
        return images, labels

    def __iter__(self) -> Generator[tuple[Tensor, Tensor], None, None]:
        for epoch, batch in self.positions():
            yield self.make(epoch, batch)

    def positions(self) -> Generator[tuple[int, int], None, None]:
        """What a ``for`` loop over the loader does, but for the making: (epoch, batch) for each batch of the epoch, or
        for those that are left of it. For steps that make their batches themselves, with :meth:`load_into`."""
        if not self._resumed:  # the loop before was left in the middle: this one starts the next epoch
            self._epoch, self._batch = self._epoch + 1, 0
        self._resumed = False
        epoch = self._epoch
        for batch in range(self._batch, len(self)):
            self._batch = batch + 1
            yield epoch, batch
        self._epoch, self._batch, self._resumed = epoch + 1, 0, True

    # ---- by the device's counters: inside a captured step ----

    def buffers(self) -> tuple[Tensor, Tensor]:
        """New tensors for a whole batch: images (N, C, H, W), channels-last in memory, and labels int64 (N,). Whatever
        :meth:`load_into` needs is on the device after this."""
        assert self._stored and self.device_state is not None
        return self._empty(self.batch_size)

    def load_into(self, images: Tensor, labels: Tensor) -> None:
        """Fills tensors like those of :meth:`buffers` with the batch that ``device_state`` names: one launch."""
        self._launch(images, labels, 0, 0, self.device_state)

    def write_state(self, epoch: int, batch: int, step: int) -> None:
        """Sets ``device_state``. A copy from the host: not while capturing."""
        write_state(self._backend, self.device_state, epoch, batch, step)

    # ---- the launch ----

    def _empty(self, rows: int) -> tuple[Tensor, Tensor]:
        with self._backend.context():
            images = self._backend.empty((rows, *self.recipe.shape), self.dtype)
            labels = self._backend.empty((rows,), np.int64)
        return Tensor(layout.nchw(images), self._place), Tensor(labels, self._place)

    def _launch(self, images: Tensor, labels: Tensor, epoch: int, batch: int, state: Any) -> None:
        stored_images, stored_labels = self._stored
        with self._backend.context():
            make_batch(
                self._backend, stored_images, stored_labels, self.recipe,
                images.data.transpose(0, 2, 3, 1), labels.data,
                seed=self.seed, epoch=epoch, number=batch, batch_size=self.batch_size, batches=len(self),
                shuffle=self.shuffle, state=state,
            )  # fmt: skip
