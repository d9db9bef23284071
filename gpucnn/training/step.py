"""The device's part of a training step: run launch by launch, or captured once and replayed.

A step is captured when one of the same kind has been run before it: that one loaded the kernels and made the
optimizers' state. What changes the kind of a step (parameters that are frozen) leads to a new capture; an epoch's
smaller last batch is always run launch by launch. Both ways are the same launches in the same order, so runs are equal
bit by bit whichever way their steps went.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gpucnn import layout
from gpucnn.backends.capture import NotCapturable
from gpucnn.backends.cuda.step import write_state
from gpucnn.data import ResidentLoader
from gpucnn.functional import cross_entropy_with_correct, half_weights
from gpucnn.graphs import CapturedStep
from gpucnn.nn.utils import clip_grad_norm_
from gpucnn.optim import step_all
from gpucnn.precision import precision
from gpucnn.tensor import Tensor
from gpucnn.training import step_memory
from gpucnn.training.errors import TrainingError
from gpucnn.training.evaluation import check_classes
from gpucnn.training.metrics import Batch, Pending
from gpucnn.training.ring import Ring

if TYPE_CHECKING:
    from gpucnn.training.loop import Trainer

Kind = tuple[Any, ...]
NO_END = 2**62  # batches of an epoch, where the device does not count them


class TrainingStep:
    """Does the steps of a :class:`~gpucnn.training.loop.Trainer`.

    ``graph``: True captures, or raises where that cannot be; False never does; None does on ``cuda`` where it can be.
    """

    def __init__(self, trainer: Trainer, graph: bool | None) -> None:
        self.trainer = trainer
        self.device = next(iter(trainer.model.parameters())).device
        self.required = graph is True
        if self.required and self.device.type == "cpu":
            raise ValueError(
                "Trainer: graph=True needs a model on cuda or emulated, this one is on cpu; None or False (--no-graph)"
                " runs steps launch by launch"
            )
        self.graph = self.device.type == "cuda" if graph is None else graph
        loader = trainer.train_loader
        self.ring: Ring | None = None
        self.pending = Pending()
        if self.device.type != "cpu":
            backend: Any = next(iter(trainer.model.parameters())).backend
            if isinstance(loader, ResidentLoader):
                state, batches = loader.device_state, len(loader)
            else:
                state, batches = backend.constant(np.zeros(4, np.int64)), NO_END
            self.ring = Ring(self.device, state, batches, 2 * trainer.read_steps + 1, trainer.accumulate)
        self._at: tuple[int, int, int] | None = None  # what the device's counters are
        self._warm: Kind | None = None  # the kind of the last step that was run launch by launch
        self._kind: Kind | None = None  # the kind of the captured one
        self._captured: CapturedStep | None = None

    # ---- an epoch ----

    def epoch(self) -> Generator[None, None, None]:
        """A step in each turn, until the epoch's end."""
        loader = self.trainer.train_loader
        if isinstance(loader, ResidentLoader):
            with closing(loader.positions()) as positions:
                for epoch, batch in positions:
                    self._resident_step(loader, epoch, batch)
                    yield
            return
        with closing(iter(loader)) as batches:
            for images, labels in batches:
                self._step(images, labels)
                yield

    def forget(self) -> None:
        """Lets go of what was captured: arrays that it reads may have been replaced."""
        self._warm = self._kind = self._captured = self._at = None

    def _resident_step(self, loader: ResidentLoader, epoch: int, batch: int) -> None:
        rows = loader.batch_size if batch < loader.whole_batches else len(loader.dataset) % loader.batch_size
        kind = (rows, *self._settings())
        self._place((epoch, batch, self.trainer.step))
        if rows == loader.batch_size and self._can_replay(kind, lambda: self.capture(loader)):
            self._replay(rows)
        else:
            self._eagerly(*self._made(loader, epoch, batch), kind)
        last = batch + 1 == len(loader)
        self._at = (epoch + last, 0 if last else batch + 1, self.trainer.step + 1)

    def _made(self, loader: ResidentLoader, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        with step_memory.explained(self.trainer):
            return loader.make(epoch, batch)

    def _step(self, images: Tensor, labels: Tensor) -> None:
        kind = (tuple(images.shape), images.dtype, *self._settings())
        self._place((0, self.trainer.step, self.trainer.step))
        if labels.shape[0] == self.trainer.train_loader.batch_size and self._can_replay(
            kind, lambda: self._capture_batch(images, labels)
        ):
            assert self._captured is not None
            for own, given in zip(self._captured.inputs, (images, labels), strict=True):
                own.data[...] = given.data
            self._replay(labels.shape[0])
        else:
            self._eagerly(images, labels, kind)
        self._at = (0, self.trainer.step + 1, self.trainer.step + 1)

    def _settings(self) -> tuple[Any, ...]:
        """What a step does besides its batch, as far as it may change during a run."""
        trainer = self.trainer
        trained = [parameter.requires_grad for parameter in trainer.model.parameters()]
        options = trainer.accumulate, trainer.reduction, trainer.label_smoothing, trainer.clip_norm, trainer.precision
        return *options, *trained

    def _place(self, at: tuple[int, int, int]) -> None:
        """Brings the device where a step expects it: copies in half precision of weights that are not trained, which
        an evaluation with averages may have changed, and the counters, which are wrong at the start of a run."""
        half_weights.refresh(p for p in self.trainer.model.parameters() if not p.requires_grad)
        if self.ring is None or self._at == at:
            return
        write_state(self.ring.backend, self.ring.state, *at)

    # ---- one step ----

    def _eagerly(self, images: Tensor, labels: Tensor, kind: Kind) -> None:
        examples = labels.shape[0]
        other_places = self.ring is not None and len(self._sizes(examples)) != self.trainer.accumulate
        if other_places and self.ring is not None:
            self.ring.start()  # fewer parts than other steps have: their places in the ring would be taken
        with step_memory.explained(self.trainer):
            self.run(images, labels)
        self._warm = kind
        self._note(examples)
        if other_places and self.ring is not None:
            self.ring.start()

    def _replay(self, examples: int) -> None:
        assert self._captured is not None
        with step_memory.explained(self.trainer):
            self._captured.replay()
        self._note(examples)

    def _note(self, examples: int) -> None:
        if self.ring is not None:
            self.ring.note(self.trainer.step + 1, self._sizes(examples), self.trainer.reduction == "sum")

    def run(self, images: Tensor, labels: Tensor) -> None:
        """All launches of a step after its batch's. No value is looked at."""
        trainer = self.trainer
        for parameter in self._trained():
            parameter.modified()  # rounded to a half type in every step, captured or not, after an evaluation too
        for optimizer in trainer.optimizers:
            optimizer.zero_grad()
        sizes = self._sizes(labels.shape[0])
        ends = np.cumsum([0, *sizes]).tolist()
        for part, (begin, end) in enumerate(pairwise(ends)):
            whole = len(sizes) == 1
            some, their = (images, labels) if whole else (images[begin:end], labels[begin:end])
            with precision(trainer.precision):
                logits = trainer.model(some)
            if trainer.step == 0:
                check_classes(logits, trainer.train_loader)
            loss, correct = cross_entropy_with_correct(logits, their, trainer.reduction, trainer.label_smoothing)
            share = (end - begin) / labels.shape[0] if trainer.reduction == "mean" else 1.0
            minimised = loss if share == 1.0 else loss * share
            if trainer.scaler is None:
                minimised.backward()
            else:
                trainer.scaler.backward(minimised)
            if self.ring is None:
                self.pending.add(loss, correct, end - begin, trainer.step + 1, trainer.reduction == "sum")
            else:
                self.ring.put(loss.detach(), correct, part, len(sizes))
        if trainer.clip_norm is not None:
            if trainer.scaler is not None:
                trainer.scaler.unscale_(trainer.optimizers)
            clip_grad_norm_(trainer.model.parameters(), trainer.clip_norm)
        step_all(trainer.optimizers, trainer.average, trainer.scaler)
        if trainer.scaler is not None:
            trainer.scaler.update()

    def _trained(self) -> list[Tensor]:
        return [parameter for parameter in self.trainer.model.parameters() if parameter.requires_grad]

    def _sizes(self, examples: int) -> list[int]:
        """A batch in parts, of sizes that differ by one at most."""
        parts = min(self.trainer.accumulate, examples)
        ends = [examples * k // parts for k in range(parts + 1)]
        return [b - a for a, b in pairwise(ends)]

    # ---- capture ----

    def _can_replay(self, kind: Kind, capture: Any) -> bool:
        """Whether a step of this kind is captured; captures it if one has been run before."""
        if not self.graph:
            return False
        if self._captured is not None and self._kind == kind and not self._captured.seed_changed:
            return True
        if self._warm != kind:
            return False
        self._captured = None  # its memory is needed
        try:
            with step_memory.explained(self.trainer):
                self._captured, self._kind = capture(), kind
        except (NotCapturable, TrainingError) as error:
            if self.required or not (isinstance(error, NotCapturable) or step_memory.ran_out(error)):
                raise TrainingError(f"the step cannot be captured: {error}", self.trainer.step + 1) from error
            self.graph = False
            self.trainer.tell(f"steps are run launch by launch, not as one CUDA graph: {error}")
            return False
        return True

    def capture(self, loader: ResidentLoader) -> CapturedStep:
        """A whole step with the making of its batch; one has been run before."""
        images, labels = loader.buffers()

        def step() -> None:
            loader.load_into(images, labels)
            self.run(images, labels)

        return CapturedStep(step, (), self.device, weights=self._trained())

    def _capture_batch(self, images: Tensor, labels: Tensor) -> CapturedStep:
        own = [Tensor(layout.canonical(tensor.data.copy()), self.device) for tensor in (images, labels)]
        return CapturedStep(self.run, own, self.device, weights=self._trained())

    # ---- results ----

    def __len__(self) -> int:
        return len(self.pending) if self.ring is None else len(self.ring)

    def start_reading(self) -> list[Batch]:
        """Results that have come, and lets the rest come."""
        if self.ring is None:
            return self.pending.read()
        if self.ring.backend.xp is np:
            return self.ring.read()
        found = self.ring.ready()
        self.ring.start()
        return found

    def read(self) -> list[Batch]:
        """All results, waited for."""
        return self.pending.read() if self.ring is None else self.ring.read()
