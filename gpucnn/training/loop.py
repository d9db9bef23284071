"""The training loop, from the top: a run is epochs, an epoch is steps and an evaluation, a step is a dozen lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from gpucnn import random
from gpucnn.data import DataLoader
from gpucnn.functional import cross_entropy
from gpucnn.nn import Module
from gpucnn.nn.utils import clip_grad_norm_
from gpucnn.optim import MovingAverage, Optimizer
from gpucnn.optim.lr_scheduler import LRScheduler
from gpucnn.tensor import Tensor
from gpucnn.training import views
from gpucnn.training.callbacks import Callback, callback_states, load_callback_states
from gpucnn.training.errors import TrainingError
from gpucnn.training.metrics import Metrics, NotFiniteError, Pending, Speed, StepsRecord

READ_STEPS_CUDA = 20  # reading a loss waits for the GPU, so it is done this seldom there; elsewhere it is free


@dataclass
class EpochRecord:
    """What is known after an epoch. Accuracies are in [0, 1]; ``val_*`` are of the images held out of the training
    set, with the moving average of the weights where there is one; ``test_*`` are of the weights, ``average_*`` of
    their moving average; ``tta_*`` are of the last epoch's test-time augmentation. What there is not is None."""

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    average_loss: float | None
    average_accuracy: float | None
    tta_accuracy: float | None
    examples_per_second: float
    train_seconds: float
    evaluation_seconds: float
    tta_seconds: float | None

    def to_dict(self) -> dict[str, Any]:
        """The fields, fit for JSON."""
        return asdict(self)


class Trainer:
    """Trains ``model`` on the batches of ``train``, and evaluates it after each epoch.

    Args:
        model: (N, C, H, W) to logits (N, classes); its parameters are on the device that the loaders deliver to.
        train, test: batches; ``test`` may be None.
        optimizer: over the model's parameters; several where sets of them are trained in different ways.
        average: a moving average of the model's parameters, updated after each step; evaluation uses it, besides the
            weights.
        scheduler: of the learning rates, one or several.
        callbacks: called in this order.
        read_steps: how often losses are read from the device; every step on cpu and emulated, every 20 on cuda where
            it is None.
        val: batches of images held out of the training set, which "best" and early stop look at.
        schedule_every: "epoch" or "step": when schedulers go on.
        accumulate: in how many parts a batch goes through the network; their gradients add up.
        reduction: whether the "mean" or the "sum" of the examples' losses is minimised.
        label_smoothing: of the training loss; evaluation has none.
        clip_norm: largest norm of all gradients together.
        tta: test-time augmentation of the evaluation after the last epoch, see :mod:`gpucnn.training.views`.
        log_steps: how many steps a line of the metrics stands for.

    ``epoch`` counts finished epochs, ``step`` finished steps, ``epoch_metrics`` the epoch's training examples so far.
    """

    def __init__(
        self,
        model: Module,
        train: DataLoader,
        test: DataLoader | None,
        optimizer: Optimizer | Sequence[Optimizer],
        average: MovingAverage | None = None,
        scheduler: LRScheduler | Sequence[LRScheduler] | None = None,
        callbacks: Sequence[Callback] = (),
        read_steps: int | None = None,
        *,
        val: DataLoader | None = None,
        schedule_every: str = "epoch",
        accumulate: int = 1,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        clip_norm: float | None = None,
        tta: str = "none",
        log_steps: int = 50,
    ) -> None:
        if schedule_every not in ("epoch", "step"):
            raise ValueError(f"Trainer: schedule_every must be 'epoch' or 'step', got {schedule_every!r}")
        if accumulate < 1 or log_steps < 1:
            raise ValueError(f"Trainer: accumulate and log_steps must be positive, got {accumulate} and {log_steps}")
        if reduction not in ("mean", "sum"):
            raise ValueError(f"Trainer: reduction must be 'mean' or 'sum', got {reduction!r}")
        if tta not in views.VIEWS:
            raise ValueError(f"Trainer: tta must be one of {', '.join(views.VIEWS)}, got {tta!r}")
        self.model, self.train_loader, self.val_loader, self.test_loader = model, train, val, test
        self.optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
        self.schedulers = [scheduler] if isinstance(scheduler, LRScheduler) else list(scheduler or ())
        self.average = average
        self.callbacks = list(callbacks)
        self.schedule_every, self.accumulate, self.clip_norm = schedule_every, accumulate, clip_norm
        self.reduction, self.label_smoothing, self.tta, self.log_steps = reduction, label_smoothing, tta, log_steps
        parameter = next(iter(model.parameters()))
        self.read_steps = read_steps or (READ_STEPS_CUDA if parameter.device.type == "cuda" else 1)
        self.epochs = 0
        self.epoch = 0
        self.step = 0
        self.lr = float(self.optimizers[0].param_groups[0]["lr"])  # that of the last step, first optimizer and group
        self.stopped: str | None = None  # why the run ended early
        self.trained = False  # whether the epoch's steps are done and only its evaluation is left
        self.epoch_metrics = Metrics()
        self.window_metrics = Metrics()
        self.epoch_seconds = 0.0  # of the epoch's training, before a run was resumed
        self.speed = Speed()
        self._pending = Pending()
        self._evaluation_seconds: float | None = None

    def stop(self, reason: str) -> None:
        """Ends the run after the epoch under way; ``reason`` is for people."""
        self.stopped = reason

    def run(self, epochs: int) -> list[EpochRecord]:
        """Trains until ``epochs`` epochs are finished, counted from the first; returns a record for each finished in
        this call.

        Raises:
            TrainingError: a loss became NaN or infinite; names the step. Besides, whatever a callback raises.
        """
        self.epochs = epochs
        self.stopped = None
        records = []
        try:
            self._call("on_start")
            while self.epoch < epochs and self.stopped is None:
                if not self.trained:
                    self._train_epoch()
                record = self._evaluate_epoch()
                records.append(record)
                self._call("on_epoch_end", record)
        finally:
            self._call("on_end")
        return records

    # ---- training ----

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
                    if self.step % self.log_steps == 0:
                        self._end_window()
                    self._call("on_step")
            self.read()
        finally:
            self.speed.stop()
        self.trained = True

    def _train_step(self, images: Tensor, labels: Tensor) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        for part, part_labels in self._parts(images, labels):
            logits = self.model(part)
            if self.step == 0:
                _check_classes(logits, self.train_loader)
            loss = cross_entropy(logits, part_labels, reduction=self.reduction, label_smoothing=self.label_smoothing)
            share = part_labels.shape[0] / labels.shape[0] if self.reduction == "mean" else 1.0
            (loss if share == 1.0 else loss * share).backward()
            self._pending.add(loss, logits, part_labels, self.step + 1, self.reduction == "sum")
        if self.clip_norm is not None:
            clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.lr = float(self.optimizers[0].param_groups[0]["lr"])
        for optimizer in self.optimizers:
            optimizer.step()
        if self.average is not None:
            self.average.update()
        if self.schedule_every == "step":
            self._go_on()
        self.step += 1

    def _parts(self, images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The batch in ``accumulate`` parts, of sizes that differ by one at most."""
        n, parts = labels.shape[0], min(self.accumulate, labels.shape[0])
        if parts == 1:
            return [(images, labels)]
        ends = [n * k // parts for k in range(parts + 1)]
        return [(images[a:b], labels[a:b]) for a, b in pairwise(ends)]

    def _go_on(self) -> None:
        for scheduler in self.schedulers:
            scheduler.step()

    def read(self) -> None:
        """Fetches the losses of the steps since the last call. Raises TrainingError for the first that is not
        finite."""
        if not len(self._pending):
            return
        try:
            results = self._pending.read()
        except NotFiniteError as error:
            raise TrainingError(
                f"the loss became {error.value} at step {error.step} (epoch {self.epoch + 1})", error.step
            ) from None
        for loss, correct, examples in results:
            self.epoch_metrics.add(loss, correct, examples)
            self.window_metrics.add(loss, correct, examples)
            self.speed.add(examples)
        self._call("on_read")

    def _end_window(self) -> None:
        self.read()
        window, self.window_metrics = self.window_metrics, Metrics()
        epoch, speed = self.step / len(self.train_loader), self.speed.examples_per_second
        self._call("on_steps", StepsRecord(self.step, epoch, window.loss, window.accuracy, self.lr, speed))

    # ---- evaluation ----

    def _evaluate_epoch(self) -> EpochRecord:
        started = time.perf_counter()
        try:
            val, weights, averaged = self._evaluated()
            self._evaluation_seconds = time.perf_counter() - started
            last = self.epoch + 1 >= self.epochs or (val is not None and self._stops(val))
            with_views, tta_seconds = self._evaluated_with_views() if last else (None, None)
        except NotFiniteError as error:
            raise TrainingError(
                f"the loss of an evaluation became {error.value} after step {self.step} (epoch {self.epoch + 1})",
                self.step,
            ) from None
        seconds = self.epoch_seconds + self.speed.seconds
        record = EpochRecord(
            epoch=self.epoch + 1,
            step=self.step,
            lr=self.lr,
            train_loss=self.epoch_metrics.loss,
            train_accuracy=self.epoch_metrics.accuracy,
            val_loss=val.loss if val else None,
            val_accuracy=val.accuracy if val else None,
            test_loss=weights.loss if weights else None,
            test_accuracy=weights.accuracy if weights else None,
            average_loss=averaged.loss if averaged else None,
            average_accuracy=averaged.accuracy if averaged else None,
            tta_accuracy=with_views.accuracy if with_views else None,
            examples_per_second=self.epoch_metrics.examples / seconds if seconds else 0.0,
            train_seconds=seconds,
            evaluation_seconds=self._evaluation_seconds,
            tta_seconds=tta_seconds,
        )
        self.epoch += 1
        self.trained = False
        self.epoch_metrics, self.epoch_seconds, self.speed = Metrics(), 0.0, Speed()
        if self.schedule_every == "epoch":
            self._go_on()
        return record

    def _evaluated(self) -> tuple[Metrics | None, Metrics | None, Metrics | None]:
        """The images held out; the test part with the weights, and with their moving average."""
        again = self.test_loader if self.average is not None else None
        rounds = _Rounds(self, [part for part in (self.val_loader, self.test_loader, again) if part is not None])
        val = weights = averaged = None
        if self.test_loader is not None:
            weights = _evaluate(self.model, self.test_loader, rounds.watch)
        with self._averaged_weights():
            if self.val_loader is not None:
                val = _evaluate(self.model, self.val_loader, rounds.watch)
            if self.test_loader is not None and self.average is not None:
                averaged = _evaluate(self.model, self.test_loader, rounds.watch)
        return val, weights, averaged

    def _evaluated_with_views(self) -> tuple[Metrics | None, float | None]:
        """The test part with several views of each image, and the seconds that it took."""
        if self.tta == "none" or self.test_loader is None:
            return None, None
        started = time.perf_counter()
        rounds = _Rounds(self, [self.test_loader])
        with self._averaged_weights():
            return _evaluate(self.model, self.test_loader, rounds.watch, self.tta), time.perf_counter() - started

    def _stops(self, val: Metrics) -> bool:
        """Whether a callback will end the run after this epoch."""
        return any(callback.stops(val.loss, val.accuracy) for callback in self.callbacks)

    def _averaged_weights(self) -> Any:
        return self.average.applied() if self.average is not None else nullcontext()

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

    # ---- saving ----

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`load_state_dict` needs to go on bit by bit: weights, optimizers, average, schedules, order
        of the data, random streams, callbacks, and the sums of the epoch so far. Reads what is pending first, and so
        raises TrainingError where :meth:`read` does."""
        self.read()
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average.state_dict() if self.average is not None else None,
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "loader": self.train_loader.state_dict(),
            "random": random.default_generator.state_dict(),
            "callbacks": callback_states(self.callbacks),
            "epoch": self.epoch,
            "step": self.step,
            "lr": self.lr,
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
        for kind, own in (("optimizers", self.optimizers), ("schedulers", self.schedulers)):
            if len(state[kind]) != len(own):
                raise ValueError(f"the checkpoint has {len(state[kind])} {kind}, this run {len(own)}")
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        for scheduler, saved in zip(self.schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(saved)
        self.train_loader.load_state_dict(state["loader"])
        random.default_generator.load_state_dict(state["random"])
        load_callback_states(self.callbacks, state["callbacks"])
        self.epoch, self.step, self.trained = int(state["epoch"]), int(state["step"]), bool(state["trained"])
        self.lr = float(state["lr"])
        self.epoch_metrics = Metrics.from_dict(state["epoch_metrics"])
        self.window_metrics = Metrics.from_dict(state["window_metrics"])
        self.epoch_seconds = float(state["epoch_seconds"])


class _Rounds:
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
        return _evaluate(model, loader, watch, tta)
    except NotFiniteError as error:
        raise ValueError(
            f"evaluate: the model's loss is {error.value}: its weights or its input are not finite"
        ) from None


def _evaluate(
    model: Module, loader: DataLoader, watch: Callable[[int, int], None] | None, tta: str = "none"
) -> Metrics:
    totals, pending = Metrics(), Pending()
    with views.evaluation_mode(model), closing(iter(loader)) as batches:
        for k, (images, labels) in enumerate(batches, start=1):
            logits = views.logits(model, images, tta)
            if k == 1:
                _check_classes(logits, loader)
            pending.add(cross_entropy(logits, labels), logits, labels)
            if len(pending) == READ_STEPS_CUDA or k == len(loader):
                for result in pending.read():
                    totals.add(*result)
            if watch is not None:
                watch(k, len(loader))
    return totals


def _check_classes(logits: Tensor, loader: DataLoader) -> None:
    """Raises ValueError where the network's head and the data set differ in their classes."""
    classes = len(loader.dataset.classes)
    if logits.ndim != 2 or logits.shape[1] != classes:
        raise ValueError(
            f"the network gives logits {tuple(logits.shape)}, the data set {loader.dataset.name} has {classes} classes"
        )
