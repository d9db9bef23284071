"""Loss, accuracy and speed, read from the device seldom enough not to hold it up."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import gpucnn
from gpucnn.tensor import Tensor


class NotFiniteError(ArithmeticError):
    """A loss that is NaN or infinite; ``step`` is what its batch was given."""

    def __init__(self, step: int, value: float) -> None:
        super().__init__(f"loss {value}")
        self.step = step
        self.value = value


@dataclass
class Metrics:
    """Sums over examples; their means are what people read."""

    loss_sum: float = 0.0
    correct: int = 0
    examples: int = 0

    @property
    def loss(self) -> float:
        """Mean loss of an example, NaN without any."""
        return self.loss_sum / self.examples if self.examples else math.nan

    @property
    def accuracy(self) -> float:
        """The part of the examples whose largest logit is their label's, in [0, 1]; NaN without any."""
        return self.correct / self.examples if self.examples else math.nan

    def add(self, loss: float, correct: int, examples: int) -> None:
        """A batch: its mean loss, and how many of its examples were right."""
        self.loss_sum += loss * examples
        self.correct += correct
        self.examples += examples

    def to_dict(self) -> dict[str, Any]:
        """The three sums, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Metrics:
        """The sums of :meth:`to_dict`."""
        return cls(float(values["loss_sum"]), int(values["correct"]), int(values["examples"]))


@dataclass(frozen=True)
class StepsRecord:
    """Means over the last ``log_steps`` steps. ``step`` counts steps, ``epoch`` is the same as a fraction of epochs,
    ``lr`` that of the first group of parameters; accuracy in [0, 1]."""

    step: int
    epoch: float
    loss: float
    accuracy: float
    lr: float
    examples_per_second: float

    def to_dict(self) -> dict[str, Any]:
        """The fields, fit for JSON."""
        return asdict(self)


class Batch(NamedTuple):
    """What came out of a batch: its step, mean loss, right answers, examples."""

    step: int
    loss: float
    correct: int
    examples: int


class Pending:
    """Losses and counts of right answers that are still on the device. :meth:`read` fetches all of them in two
    copies."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, Tensor, int, int, bool]] = []

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, loss: Tensor, correct: Tensor, examples: int, step: int = 0, summed: bool = False) -> None:
        """A batch of step ``step``: its mean or ``summed`` loss and its right answers, of one element each."""
        self._batches.append((loss.detach().reshape(1), correct.detach().reshape(1), examples, step, summed))

    def read(self) -> list[Batch]:
        """The results of each batch since the last call.

        Raises:
            NotFiniteError: a loss is NaN or infinite.
            ValueError: what the data got wrong, such as a label out of range.
        """
        batches, self._batches = self._batches, []
        if not batches:
            return []
        losses = gpucnn.cat([batch[0] for batch in batches]).numpy().tolist()
        corrects = gpucnn.cat([batch[1] for batch in batches]).numpy().tolist()
        results = []
        for loss, correct, (_, _, n, step, summed) in zip(losses, corrects, batches, strict=True):
            if not math.isfinite(loss):
                raise NotFiniteError(step, loss)
            results.append(Batch(step, loss / n if summed else loss, correct, n))
        return results


class Speed:
    """Examples per second of training over the last few seconds; evaluation and checkpoints in between are left out."""

    WINDOW_SECONDS = 10.0

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()
        self._started: float | None = None
        self._seconds = 0.0
        self._examples = 0

    def start(self) -> None:
        """The clock runs."""
        self._started = time.perf_counter()
        self._marks.append((self._seconds, self._examples))

    def stop(self) -> None:
        """The clock stands."""
        self._seconds = self.seconds
        self._started = None

    @property
    def seconds(self) -> float:
        """Seconds that the clock has run."""
        running = time.perf_counter() - self._started if self._started is not None else 0.0
        return self._seconds + running

    def add(self, examples: int) -> None:
        """So many examples are done."""
        self._examples += examples
        self._marks.append((self.seconds, self._examples))
        while len(self._marks) > 2 and self._marks[-1][0] - self._marks[0][0] > self.WINDOW_SECONDS:
            self._marks.popleft()

    @property
    def examples_per_second(self) -> float:
        """Over the window; 0 before the first example."""
        if len(self._marks) < 2:
            return 0.0
        (t0, n0), (t1, n1) = self._marks[0], self._marks[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0
