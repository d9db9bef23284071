"""What may watch a training run: the base class of callbacks, and what a progress display is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from gpucnn.training.loop import EpochRecord, Trainer
    from gpucnn.training.metrics import StepsRecord


class Callback:
    """Called by :class:`~gpucnn.training.loop.Trainer` in the order in which callbacks were given. Exceptions end the
    run.

    What a callback must remember over a resume it gives in :meth:`state_dict`: that is part of every checkpoint, under
    the callback's ``name``. Callbacks with a state stand before :class:`~gpucnn.training.checkpoint.Checkpoints`, so
    that a checkpoint knows what happened up to it.
    """

    @property
    def name(self) -> str:
        """What a checkpoint calls this callback's state."""
        return type(self).__name__

    def on_start(self, trainer: Trainer) -> None:
        """Before the first step, also of a run that is resumed."""

    def on_epoch_start(self, trainer: Trainer) -> None:
        """Before the steps of an epoch, or the rest of them."""

    def on_step(self, trainer: Trainer) -> None:
        """After every step; ``trainer.step`` counts it already."""

    def on_message(self, trainer: Trainer, text: str) -> None:
        """The loop has something to say to people, such as that steps are not captured."""

    def on_read(self, trainer: Trainer) -> None:
        """After the losses of the last steps were read from the device."""

    def on_steps(self, trainer: Trainer, record: StepsRecord) -> None:
        """After every ``log_steps`` steps, before the last one's :meth:`on_step`: their means."""

    def on_evaluation_step(self, trainer: Trainer, done: int, total: int) -> None:
        """After every batch of an evaluation, ``done`` of ``total``."""

    def stops(self, val_loss: float, val_accuracy: float) -> bool:
        """Whether :meth:`on_epoch_end` will stop the run after an epoch with these figures of the validation part: its
        evaluation is then the one with test-time augmentation. Asked before it, changes nothing."""
        return False

    def on_epoch_end(self, trainer: Trainer, record: EpochRecord) -> None:
        """After an epoch's evaluation; ``trainer.epoch`` counts the epoch already."""

    def on_end(self, trainer: Trainer) -> None:
        """After the last step, also where an exception ended the run."""

    def state_dict(self) -> dict[str, Any] | None:
        """What :meth:`load_state_dict` needs; None for a callback without a state. A checkpoint is about to be written:
        what belongs to it must be on the disk before this returns."""
        return None

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the state of a checkpoint, before :meth:`on_start`."""


def callback_states(callbacks: Iterable[Callback]) -> dict[str, dict[str, Any]]:
    """The states of those callbacks that have one, by name."""
    states = {name: callback.state_dict() for name, callback in _named(callbacks)}
    return {name: state for name, state in states.items() if state is not None}


def load_callback_states(callbacks: Iterable[Callback], states: Mapping[str, Mapping[str, Any]]) -> None:
    """Gives each callback its state of :func:`callback_states`. A callback without one begins anew, and a state
    without its callback is left aside: a run may be resumed with other callbacks. Raises ValueError, TypeError or
    KeyError for what is no such state."""
    if not isinstance(states, Mapping):
        raise TypeError(f"the states of callbacks cannot be {states!r:.80}")
    for name, callback in _named(callbacks):
        if name in states:
            callback.load_state_dict(states[name])


def _named(callbacks: Iterable[Callback]) -> Iterator[tuple[str, Callback]]:
    """Each callback with its name; the second of a name is ``name#2``."""
    seen: Counter[str] = Counter()
    for callback in callbacks:
        seen[callback.name] += 1
        number = seen[callback.name]
        yield (callback.name if number == 1 else f"{callback.name}#{number}"), callback


class Progress(Protocol):
    """What a display of a run's progress is told. Numbers are of now: fractions in [0, 1], seconds, examples per
    second."""

    def message(self, text: str) -> None:
        """A line for the reader."""

    def start_epoch(self, epoch: int, epochs: int, steps: int, done: int) -> None:
        """Epoch ``epoch`` of ``epochs`` (from 1) begins: ``steps`` steps, of which ``done`` were done before a run was
        resumed."""

    def step(
        self, done: int, examples_per_second: float, loss: float, accuracy: float, seconds_left: float | None
    ) -> None:
        """``done`` steps of the epoch; loss and accuracy are the epoch's means so far; the time left is that of the
        whole run."""

    def evaluating(self, done: int, total: int) -> None:
        """``done`` of ``total`` batches of an evaluation."""

    def end_epoch(self, record: dict[str, Any]) -> None:
        """An epoch's line of metrics.jsonl."""


class Silent:
    """A display that shows nothing; a base for those that show something."""

    def message(self, text: str) -> None:
        """Shows nothing."""

    def start_epoch(self, epoch: int, epochs: int, steps: int, done: int) -> None:
        """Shows nothing."""

    def step(
        self, done: int, examples_per_second: float, loss: float, accuracy: float, seconds_left: float | None
    ) -> None:
        """Shows nothing."""

    def evaluating(self, done: int, total: int) -> None:
        """Shows nothing."""

    def end_epoch(self, record: dict[str, Any]) -> None:
        """Shows nothing."""


class Report(Callback):
    """Tells a :class:`Progress` what happens."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_epoch_start(self, trainer: Trainer) -> None:
        done = trainer.train_loader.state["batch"]
        self.progress.start_epoch(trainer.epoch + 1, trainer.epochs, len(trainer.train_loader), done)

    def on_message(self, trainer: Trainer, text: str) -> None:
        self.progress.message(text)

    def on_read(self, trainer: Trainer) -> None:
        totals = trainer.epoch_metrics
        self.progress.step(
            trainer.train_loader.state["batch"],
            trainer.speed.examples_per_second,
            totals.loss,
            totals.accuracy,
            trainer.seconds_left(),
        )

    def on_evaluation_step(self, trainer: Trainer, done: int, total: int) -> None:
        self.progress.evaluating(done, total)

    def on_epoch_end(self, trainer: Trainer, record: EpochRecord) -> None:
        self.progress.end_epoch(record.to_dict())
