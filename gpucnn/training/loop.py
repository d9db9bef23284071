"""The training loop, from the top: a run is epochs, an epoch is steps and an evaluation, a step is six lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from gpucnn import random
from gpucnn.autograd import no_grad
from gpucnn.data import DataLoader, Dataset
from gpucnn.functional import cross_entropy
from gpucnn.nn import Module
from gpucnn.optim import SGD, MovingAverage, Optimizer
from gpucnn.optim.lr_scheduler import LRScheduler
from gpucnn.tensor import Tensor
from gpucnn.training import recipes
from gpucnn.training.callbacks import Callback
from gpucnn.training.errors import TrainingError
from gpucnn.training.metrics import Metrics, NotFiniteError, Pending, Speed

READ_STEPS_CUDA = 20  # reading a loss waits for the GPU, so it is done this seldom there; elsewhere it is free
WINDOW_STEPS = 50  # steps that one line of the metrics stands for


@dataclass
class EpochRecord:
    """What is known after an epoch. Accuracies are in [0, 1]; ``test_*`` are of the weights, ``average_*`` of their
    moving average, both None where there is no test part or no average."""

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_accuracy: float
    test_loss: float | None
    test_accuracy: float | None
    average_loss: float | None
    average_accuracy: float | None
    examples_per_second: float
    train_seconds: float
    evaluation_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The fields, fit for JSON."""
        return asdict(self)


class Trainer:
    """Trains ``model`` on the batches of ``train``, and evaluates it on those of ``test`` after each epoch.

    Args:
        model: (N, C, H, W) to logits (N, classes); its parameters are on the device that the loaders deliver to.
        train, test: batches; ``test`` may be None.
        optimizer: over the model's parameters.
        average: a moving average of the model's parameters, updated after each step; evaluation uses it, besides the
            weights.
        scheduler: stepped after each epoch.
        callbacks: called in this order.
        read_steps: how often losses are read from the device; every step on cpu and emulated, every 20 on cuda where
            it is None.

    ``epoch`` counts finished epochs, ``step`` finished steps, ``epoch_metrics`` the epoch's training examples so far.
    """

    def __init__(
        self,
        model: Module,
        train: DataLoader,
        test: DataLoader | None,
        optimizer: Optimizer,
        average: MovingAverage | None = None,
        scheduler: LRScheduler | None = None,
        callbacks: Sequence[Callback] = (),
        read_steps: int | None = None,
    ) -> None:
        self.model, self.train_loader, self.test_loader = model, train, test
        self.optimizer, self.average, self.scheduler = optimizer, average, scheduler
        self.callbacks = list(callbacks)
        parameter = next(iter(model.parameters()))
        self.read_steps = read_steps or (READ_STEPS_CUDA if parameter.device.type == "cuda" else 1)
        self.epochs = 0
        self.epoch = 0
        self.step = 0
        self.trained = False  # whether the epoch's steps are done and only its evaluation is left
        self.epoch_metrics = Metrics()
        self.window_metrics = Metrics()
        self.epoch_seconds = 0.0  # of the epoch's training, before a run was resumed
        self.speed = Speed()
        self._pending = Pending()
        self._evaluation_seconds: float | None = None

    def run(self, epochs: int) -> list[EpochRecord]:
        """Trains until ``epochs`` epochs are finished, counted from the first; returns a record for each finished in
        this call.

        Raises:
            TrainingError: a loss became NaN or infinite; names the step. Besides, whatever a callback raises.
        """
        self.epochs = epochs
        self._call("on_start")
        records = []
        while self.epoch < epochs:
            if not self.trained:
                self._train_epoch()
            record = self._evaluate_epoch()
            records.append(record)
            self._call("on_epoch_end", record)
        return records

    def _train_epoch(self) -> None:
        self.model.train()
        self.speed.start()
        self._call("on_epoch_start")
        try:
            with closing(iter(self.train_loader)) as batches:
                for images, labels in batches:
                    self._train_step(images, labels)
                    if self.step % self.read_steps == 0:
                        self.read()
                    self._call("on_step")
            self.read()
        finally:
            self.speed.stop()
        self.trained = True

    def _train_step(self, images: Tensor, labels: Tensor) -> None:
        logits = self.model(images)
        loss = cross_entropy(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        self.step += 1
        self._pending.add(loss, logits, labels)

    def read(self) -> None:
        """Fetches the losses of the steps since the last call. Raises TrainingError for the first that is not
        finite."""
        if not len(self._pending):
            return
        first = self.step - len(self._pending) + 1
        try:
            results = self._pending.read()
        except NotFiniteError as error:
            step = first + error.index
            raise TrainingError(
                f"the loss became {error.value} at step {step} (epoch {self.epoch + 1})", step
            ) from None
        for loss, correct, examples in results:
            self.epoch_metrics.add(loss, correct, examples)
            self.window_metrics.add(loss, correct, examples)
            self.speed.add(examples)
        self._call("on_read")

    def _evaluate_epoch(self) -> EpochRecord:
        started = time.perf_counter()
        try:
            weights, averaged = self._tested()
        except NotFiniteError as error:
            raise TrainingError(
                f"the loss on the test part became {error.value} after step {self.step} (epoch {self.epoch + 1})",
                self.step,
            ) from None
        self._evaluation_seconds = time.perf_counter() - started
        seconds = self.epoch_seconds + self.speed.seconds
        record = EpochRecord(
            epoch=self.epoch + 1,
            step=self.step,
            lr=self.optimizer.param_groups[0]["lr"],
            train_loss=self.epoch_metrics.loss,
            train_accuracy=self.epoch_metrics.accuracy,
            test_loss=weights.loss if weights else None,
            test_accuracy=weights.accuracy if weights else None,
            average_loss=averaged.loss if averaged else None,
            average_accuracy=averaged.accuracy if averaged else None,
            examples_per_second=self.epoch_metrics.examples / seconds if seconds else 0.0,
            train_seconds=seconds,
            evaluation_seconds=self._evaluation_seconds,
        )
        self.epoch += 1
        self.trained = False
        self.epoch_metrics, self.epoch_seconds, self.speed = Metrics(), 0.0, Speed()
        if self.scheduler is not None:
            self.scheduler.step()
        return record

    def _tested(self) -> tuple[Metrics | None, Metrics | None]:
        """The test part with the weights, and with their moving average."""
        if self.test_loader is None:
            return None, None
        if self.average is None:
            return _evaluate(self.model, self.test_loader, self._watch(0, 1)), None
        weights = _evaluate(self.model, self.test_loader, self._watch(0, 2))
        with self.average.applied():
            return weights, _evaluate(self.model, self.test_loader, self._watch(1, 2))

    def _watch(self, done: int, rounds: int) -> Callable[[int, int], None]:
        return lambda k, n: self._call("on_evaluation_step", done * n + k, rounds * n)

    def _call(self, event: str, *args: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *args)

    def seconds_left(self) -> float | None:
        """An estimate for the rest of the run at the speed of the last seconds; None where there is none yet."""
        speed = self.speed.examples_per_second
        if not speed:
            return None
        epochs_left = self.epochs - self.epoch
        examples = epochs_left * self.train_loader.examples - self.epoch_metrics.examples
        return max(examples, 0) / speed + epochs_left * (self._evaluation_seconds or 0.0)

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`load_state_dict` needs to go on bit by bit: weights, optimizer, average, schedule, order of
        the data, random streams, and the sums of the epoch so far. Reads what is pending first, and so raises
        TrainingError where :meth:`read` does."""
        self.read()
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "scheduler": self.scheduler.state_dict() if self.scheduler is not None else None,
            "loader": self.train_loader.state_dict(),
            "random": random.default_generator.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "trained": self.trained,
            "epoch_metrics": self.epoch_metrics.to_dict(),
            "window_metrics": self.window_metrics.to_dict(),
            "epoch_seconds": self.epoch_seconds + self.speed.seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a :meth:`state_dict`. Raises ValueError for one of another model, optimizer or data set,
        KeyError for none."""
        if (state["average"] is None) != (self.average is None):
            raise ValueError("the checkpoint and this run differ in whether they have a moving average")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.train_loader.load_state_dict(state["loader"])
        random.default_generator.load_state_dict(state["random"])
        self.epoch, self.step, self.trained = int(state["epoch"]), int(state["step"]), bool(state["trained"])
        self.epoch_metrics = Metrics.from_dict(state["epoch_metrics"])
        self.window_metrics = Metrics.from_dict(state["window_metrics"])
        self.epoch_seconds = float(state["epoch_seconds"])


def evaluate(model: Module, loader: DataLoader, watch: Callable[[int, int], None] | None = None) -> Metrics:
    """Mean cross-entropy and accuracy of ``model`` over one pass of ``loader``; the model's mode is left as it was.

    ``watch(done, total)`` is called after each batch. An evaluation that an exception ends leaves nothing behind.
    Raises ValueError where the loss is NaN or infinite.
    """
    try:
        return _evaluate(model, loader, watch)
    except NotFiniteError as error:
        raise ValueError(
            f"evaluate: the model's loss is {error.value}: its weights or its input are not finite"
        ) from None


def _evaluate(model: Module, loader: DataLoader, watch: Callable[[int, int], None] | None) -> Metrics:
    totals, pending = Metrics(), Pending()
    training = model.training
    model.eval()
    try:
        with no_grad(), closing(iter(loader)) as batches:
            for k, (images, labels) in enumerate(batches, start=1):
                logits = model(images)
                pending.add(cross_entropy(logits, labels), logits, labels)
                if len(pending) == READ_STEPS_CUDA or k == len(loader):
                    for result in pending.read():
                        totals.add(*result)
                if watch is not None:
                    watch(k, len(loader))
    finally:
        model.train(training)
    return totals


def fit(
    model: Module,
    train: DataLoader | Dataset,
    test: DataLoader | Dataset | None = None,
    *,
    epochs: int = 1,
    batch_size: int = 128,
    lr: float = 0.05,
    momentum: float = 0.9,
    optimizer: Optimizer | None = None,
    average: MovingAverage | None = None,
    scheduler: LRScheduler | None = None,
    callbacks: Sequence[Callback] = (),
    seed: int | None = None,
) -> list[EpochRecord]:
    """Trains ``model`` in one call and returns a record for each epoch. Nothing is written; callbacks can.

    Args:
        model: the network, on its device.
        train, test: loaders; or data sets, of which loaders of ``batch_size`` are made that shuffle the training part
            and apply the model's own augmentation.
        epochs: passes over ``train``.
        optimizer: SGD with ``lr`` and ``momentum`` where it is None; ``lr`` and ``momentum`` are not looked at
        otherwise. average, scheduler, callbacks: see :class:`Trainer`.
        seed: of order and augmentation; ``gpucnn.manual_seed``'s where it is None.

    Raises:
        TrainingError: the loss became NaN or infinite.
    """
    parameter = next(iter(model.parameters()))

    def loader(part: DataLoader | Dataset, training: bool) -> DataLoader:
        if isinstance(part, DataLoader):
            return part
        transform = recipes.transforms(model, part.name)[0 if training else 1]
        return DataLoader(part, batch_size, training, transform, seed=seed, device=parameter.device)

    if optimizer is None:
        groups = model.parameter_groups() if hasattr(model, "parameter_groups") else model.parameters()
        optimizer = SGD(groups, lr=lr, momentum=momentum)
    test_loader = loader(test, False) if test is not None else None
    trainer = Trainer(model, loader(train, True), test_loader, optimizer, average, scheduler, callbacks)
    return trainer.run(epochs)
