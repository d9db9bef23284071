"""Evaluation: mean loss and accuracy over one pass of a loader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from gpucnn.data import DataLoader
from gpucnn.functional import cross_entropy_with_correct
from gpucnn.nn import Module
from gpucnn.tensor import Tensor
from gpucnn.training import views
from gpucnn.training.metrics import Metrics, NotFiniteError, Pending

if TYPE_CHECKING:
    from gpucnn.training.loop import Trainer

READ_STEPS_CUDA = 20  # reading a loss waits for the GPU, so it is done this seldom there; elsewhere it is free


class Rounds:
    """Tells callbacks how far an evaluation over several loaders is."""

    def __init__(self, trainer: Trainer, loaders: Sequence[DataLoader]) -> None:
        self.trainer, self.done = trainer, 0
        self.total = sum(len(loader) for loader in loaders)

    def watch(self, done: int, total: int) -> None:
        self.done += 1
        self.trainer._call("on_evaluation_step", self.done, self.total)


def evaluate(
    model: Module, loader: DataLoader, watch: Callable[[int, int], None] | None = None, tta: str = "none"
) -> Metrics:
    """Mean cross-entropy and accuracy of ``model`` over one pass of ``loader``; the model's mode is left as it was.

    ``watch(done, total)`` is called after each batch; ``tta`` averages several views of each image, see
    :mod:`gpucnn.training.views`. An evaluation that an exception ends leaves nothing behind. Raises ValueError where
    the loss is NaN or infinite.
    """
    try:
        return run(model, loader, watch, tta)
    except NotFiniteError as error:
        raise ValueError(
            f"evaluate: the model's loss is {error.value}: its weights or its input are not finite"
        ) from None


def run(model: Module, loader: DataLoader, watch: Callable[[int, int], None] | None, tta: str = "none") -> Metrics:
    totals, pending = Metrics(), Pending()
    with views.evaluation_mode(model), closing(iter(loader)) as batches:
        for k, (images, labels) in enumerate(batches, start=1):
            logits = views.logits(model, images, tta)
            if k == 1:
                check_classes(logits, loader)
            pending.add(*cross_entropy_with_correct(logits, labels), labels.shape[0])
            if len(pending) == READ_STEPS_CUDA or k == len(loader):
                for batch in pending.read():
                    totals.add(batch.loss, batch.correct, batch.examples)
            if watch is not None:
                watch(k, len(loader))
    return totals


def check_classes(logits: Tensor, loader: DataLoader) -> None:
    """Raises ValueError where the network's head and the data set differ in their classes."""
    classes = len(loader.dataset.classes)
    if logits.ndim != 2 or logits.shape[1] != classes:
        raise ValueError(
            f"the network gives logits {tuple(logits.shape)}, the data set {loader.dataset.name} has {classes} classes"
        )
