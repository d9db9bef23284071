"""The training loop, from the top: a run is epochs, an epoch is steps and an evaluation, a step is a dozen lines."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from gpucnn import random
from gpucnn.data import DataLoader, ResidentLoader
from gpucnn.device import Device
from gpucnn.nn import Module
from gpucnn.optim import MovingAverage, Optimizer
from gpucnn.optim.lr_scheduler import LRScheduler
from gpucnn.precision import HALF, require
from gpucnn.precision import precision as computing_in
from gpucnn.training import evaluation, views
from gpucnn.training.callbacks import Callback, callback_states, load_callback_states
from gpucnn.training.errors import TrainingError
from gpucnn.training.evaluation import READ_STEPS_CUDA, Rounds, evaluate
from gpucnn.training.metrics import Batch, Metrics, NotFiniteError, Speed, StepsRecord
from gpucnn.training.step import TrainingStep

__all__ = ["EpochRecord", "Trainer", "evaluate"]


class _Window(NamedTuple):
    """The steps of a line of the metrics: the last of them, the same in epochs, its learning rate."""

    step: int
    epoch: float
    lr: float


@dataclass
class EpochRecord:
    """What is known after an epoch. Accuracies are in [0, 1]; ``val_*`` are of the images held out of the training
    set, with the moving average of the weights where there is one; ``test_*`` are of the weights, ``average_*`` of
    their moving average; ``tta_*`` are of the last epoch's test-time augmentation; ``skipped_steps`` counts the run's
    steps whose gradients overflowed in float16. What there is not is None."""

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
    skipped_steps: int | None = None

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
        precision: of convolutions and matrix products, see :func:`gpucnn.precision`; with "float16" the loss is scaled,
            and steps whose gradients overflow are skipped.
        graph: whether steps are captured as one CUDA graph and replayed, which gives the same bits: None on ``cuda``
            where it can be done, True on ``cuda`` and ``emulated`` or TrainingError, False never.

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
        precision: str = "float32",
        graph: bool | None = None,
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
        require(precision, parameter.device, "Trainer: precision")
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
        self.precision = precision
        self.scaler = _scaler(precision, parameter.device)
        if isinstance(train, ResidentLoader) and precision in HALF:
            train.dtype = precision  # the launch that makes a batch rounds it: the first layer would, in one of its own
        self.tuner = getattr(parameter.backend, "tuner", None)  # which kernels were chosen by time
        self.work = TrainingStep(self, graph)
        self._windows: deque[_Window] = deque()  # that wait for their last losses
        self._results: deque[Batch] = deque()  # that are fetched and not added up yet
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
            with closing(self.work.epoch()) as steps:
                for _ in steps:
                    self._finish_step()
                    if self.step % self.log_steps == 0:
                        self._windows.append(_Window(self.step, self.step / len(self.train_loader), self.lr))
                    if self.step % self.read_steps == 0:
                        self._take(self.work.start_reading)
                    self._call("on_step")
            self.read()
        finally:
            self.speed.stop()
        self.trained = True

    def _go_on(self) -> None:
        for scheduler in self.schedulers:
            scheduler.step()

    def _finish_step(self) -> None:
        """The host's part: what the step was done with, and the schedules' next."""
        self.lr = float(self.optimizers[0].param_groups[0]["lr"])
        if self.schedule_every == "step":
            self._go_on()
        self.step += 1

    def read(self) -> None:
        """Fetches the losses of all steps so far. Raises TrainingError for the first that is not finite."""
        self._take(self.work.read)

    def _take(self, fetch: Callable[[], list[Batch]]) -> None:
        """Adds up what ``fetch`` gives, and ends the windows of steps that are whole with it."""
        try:
            results = fetch()
        except NotFiniteError as error:
            raise TrainingError(
                f"the loss became {error.value} at step {error.step} (epoch {self.epoch + 1})", error.step
            ) from None
        self._results += results
        told = not self._results
        while self._results:
            batch = self._results.popleft()
            self.epoch_metrics.add(batch.loss, batch.correct, batch.examples)
            self.window_metrics.add(batch.loss, batch.correct, batch.examples)
            self.speed.add(batch.examples)
            told = False
            last = not self._results or self._results[0].step != batch.step
            if last and self._windows and self._windows[0].step == batch.step:
                self._call("on_read")
                told = True
                self._end_window(self._windows.popleft())
        if not told:
            self._call("on_read")

    def _end_window(self, window: _Window) -> None:
        metrics, self.window_metrics = self.window_metrics, Metrics()
        speed = self.speed.examples_per_second
        record = StepsRecord(window.step, window.epoch, metrics.loss, metrics.accuracy, window.lr, speed)
        self._call("on_steps", record)

    def tell(self, text: str) -> None:
        """Something that a person should know, once."""
        self._call("on_message", text)

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
            skipped_steps=self.skipped_steps,
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
        rounds = Rounds(self, [part for part in (self.val_loader, self.test_loader, again) if part is not None])
        val = weights = averaged = None
        if self.test_loader is not None:
            weights = self._evaluation(self.test_loader, rounds.watch)
        with self._averaged_weights():
            if self.val_loader is not None:
                val = self._evaluation(self.val_loader, rounds.watch)
            if self.test_loader is not None and self.average is not None:
                averaged = self._evaluation(self.test_loader, rounds.watch)
        return val, weights, averaged

    def _evaluated_with_views(self) -> tuple[Metrics | None, float | None]:
        """The test part with several views of each image, and the seconds that it took."""
        if self.tta == "none" or self.test_loader is None:
            return None, None
        started = time.perf_counter()
        rounds = Rounds(self, [self.test_loader])
        with self._averaged_weights():
            return self._evaluation(self.test_loader, rounds.watch, self.tta), time.perf_counter() - started

    def _evaluation(self, loader: DataLoader, watch: Callable[[int, int], None], tta: str = "none") -> Metrics:
        with computing_in(self.precision):
            return evaluation.run(self.model, loader, watch, tta)

    def _stops(self, val: Metrics) -> bool:
        """Whether a callback will end the run after this epoch."""
        return any(callback.stops(val.loss, val.accuracy) for callback in self.callbacks)

    def _averaged_weights(self) -> Any:
        return self.average.applied() if self.average is not None else nullcontext()

    def _call(self, event: str, *args: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *args)

    @property
    def skipped_steps(self) -> int | None:
        """Steps that were left out because a gradient overflowed; None where losses are not scaled."""
        return None if self.scaler is None else int(self.scaler.skipped_steps)

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
        of the data, random streams, callbacks, kernels chosen by time, and the sums of the epoch so far.

        Reads what is pending first, and so raises TrainingError where :meth:`read` does.
        """
        self.read()
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average.state_dict() if self.average is not None else None,
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "instances": dict(self.tuner.used) if self.tuner is not None else {},
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
        self.work.forget()
        if self.tuner is not None:
            self.tuner.load(state.get("instances") or {})  # no older checkpoint has any
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        for scheduler, saved in zip(self.schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(saved)
        if self.scaler is not None and state.get("scaler") is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.train_loader.load_state_dict(state["loader"])
        random.default_generator.load_state_dict(state["random"])
        load_callback_states(self.callbacks, state["callbacks"])
        self.epoch, self.step, self.trained = int(state["epoch"]), int(state["step"]), bool(state["trained"])
        self.lr = float(state["lr"])
        self.epoch_metrics = Metrics.from_dict(state["epoch_metrics"])
        self.window_metrics = Metrics.from_dict(state["window_metrics"])
        self.epoch_seconds = float(state["epoch_seconds"])


def _scaler(precision: str, device: Device) -> Any:
    """What scales losses, where gradients are float16."""
    if precision != "float16" or device.type == "cpu":
        return None
    from gpucnn.amp import GradScaler

    return GradScaler(device=device)
