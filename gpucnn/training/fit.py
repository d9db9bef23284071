"""Training in one call, without a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpucnn.data import DataLoader, Dataset, loader_for
from gpucnn.nn import Module
from gpucnn.optim import SGD, MovingAverage, Optimizer
from gpucnn.optim.lr_scheduler import LRScheduler
from gpucnn.training.build import start_from_data
from gpucnn.training.callbacks import Callback
from gpucnn.training.inputs import transforms
from gpucnn.training.loop import EpochRecord, Trainer


def fit(
    model: Module,
    train: DataLoader | Dataset,
    test: DataLoader | Dataset | None = None,
    *,
    epochs: int = 1,
    batch_size: int = 128,
    lr: float = 0.05,
    momentum: float = 0.9,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    average: MovingAverage | None = None,
    scheduler: LRScheduler | Sequence[LRScheduler] | None = None,
    callbacks: Sequence[Callback] = (),
    seed: int | None = None,
    val: DataLoader | Dataset | None = None,
    augmentation: Mapping[str, Any] | None = None,
    init_from_data: bool = True,
    precision: str = "float32",
    graph: bool | None = None,
    **options: Any,
) -> list[EpochRecord]:
    """Trains ``model`` in one call and returns a record for each epoch. Nothing is written; callbacks can.

    A model whose first weights come from data (airbench94's whitening) gets them from ``train`` where it is a data set;
    ``init_from_data=False`` keeps those of a network that was trained before.

    Args:
        model: the network, on its device.
        train, test, val: loaders; or data sets, of which loaders of ``batch_size`` are made that shuffle the training
            part and apply the model's own augmentation, or ``augmentation``: arguments of
            :class:`gpucnn.data.Augment`, such as ``{"flip": "random", "translate": 4}``. Images that are float32 (see
            :class:`gpucnn.data.TensorDataset`) are left as they are.
        epochs: passes over ``train``.
        optimizer: SGD with ``lr`` and ``momentum`` where it is None; ``lr`` and ``momentum`` are not looked at
            otherwise. average, scheduler, callbacks, options (``schedule_every``, ``accumulate``, ``label_smoothing``,
            ``clip_norm``, ``tta``, ...): see :class:`Trainer`.
        precision: of convolutions and matrix products: "float32", "tf32", "float16" or "bfloat16".
        graph: whether the steps become one CUDA graph: None on ``cuda`` where that can be, True or an error, False
            never. The results are the same.
        seed: of order and augmentation; ``gpucnn.manual_seed``'s where it is None.

    Raises:
        TrainingError: the loss became NaN or infinite.
        ValueError: a batch larger than the training part, or classes that are not those of the network's head.
    """
    device = next(iter(model.parameters())).device

    def loader(part: DataLoader | Dataset | None, training: bool = False) -> DataLoader | None:
        if part is None or isinstance(part, DataLoader):
            return part
        if training and batch_size > len(part):
            raise ValueError(f"fit: batch_size {batch_size} is larger than the {len(part)} training images")
        transform = None  # float32 images are the network's input as they are
        if part.images.dtype == np.uint8:
            transform = transforms(model, part.name, augmentation)[0 if training else 1]
        return loader_for(part, batch_size, training, transform, seed=seed, device=device)

    batches = loader(train, training=True)
    assert batches is not None
    if init_from_data and isinstance(train, Dataset):
        start_from_data(model, train, device)
    if optimizer is None:
        groups = model.parameter_groups() if hasattr(model, "parameter_groups") else model.parameters()
        optimizer = SGD(groups, lr=lr, momentum=momentum)
    trainer = Trainer(
        model, batches, loader(test), optimizer, average, scheduler, callbacks, val=loader(val), precision=precision,
        graph=graph, **options,
    )  # fmt: skip
    return trainer.run(epochs)
