"""How much memory a training step needs on its device, by the model's own count, and what an error says of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpucnn.backends.cuda.memory import tracker
from gpucnn.data import ResidentLoader
from gpucnn.nn import Module
from gpucnn.nn.summary import summarize
from gpucnn.optim import MovingAverage, Optimizer
from gpucnn.precision import HALF
from gpucnn.tensor import Tensor
from gpucnn.training.errors import TrainingError

if TYPE_CHECKING:
    from gpucnn.training.loop import Trainer


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a training step: ``fixed`` whatever the batch, and ``per_example``.

    Fixed are parameters and buffers, a gradient for each parameter that is trained, the optimizers' state, the moving
    average, and with half precision the parameters' copies. An example has its input, what each layer keeps for
    backward, and the two largest gradients of activations that are there at once. The library's own needs (the CUDA
    context, modules, what the pool rounds up) are not counted.
    """

    fixed: int
    per_example: int

    def needed(self, examples: int) -> int:
        """Bytes for a batch."""
        return self.fixed + examples * self.per_example

    def largest_batch(self, available: int) -> int:
        """The most examples whose step fits into so many bytes; 0 where none does."""
        return max(available - self.fixed, 0) // self.per_example if self.per_example else 0


def of_step(
    model: Module,
    optimizers: Iterable[Optimizer],
    average: MovingAverage | None = None,
    input_shape: tuple[int, ...] | None = None,
    precision: str = "float32",
) -> StepMemory:
    """The count for ``model``, called once on one example. Raises ValueError for a model without an input_shape."""
    rows = summarize(model, input_shape)
    shape = tuple(getattr(model, "input_shape", ()) if input_shape is None else input_shape)
    half = precision in HALF
    outputs = [row.activation_bytes // (2 if half else 1) for row in rows if row.activation_bytes]
    own = [*model.parameters(), *model.buffers()]
    fixed = sum(tensor.data.nbytes for tensor in own)
    parameters = list(model.parameters())
    fixed += sum(p.data.nbytes for p in parameters if p.requires_grad)
    fixed += sum(_state_bytes(optimizer) for optimizer in optimizers)
    if average is not None:
        fixed += sum(tensor.data.nbytes for tensor in (*average.averages, *average.buffer_averages))
    if half:
        fixed += sum(p.data.nbytes // 2 for p in parameters)
    return StepMemory(fixed, 4 * math.prod(shape) + sum(outputs) + sum(sorted(outputs)[-2:]))


def _state_bytes(optimizer: Optimizer) -> int:
    """Of the state that is there; before the first step as much as most optimizers make, two arrays a parameter."""
    optimizer = getattr(optimizer, "optimizer", optimizer)
    there = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    if there:
        return sum(value.data.nbytes for value in there)
    members = [p for group in optimizer.param_groups for p in group["params"]]
    arrays = 2 if "betas" in optimizer.defaults else 1
    return arrays * sum(p.data.nbytes for p in members)


def ran_out(error: BaseException) -> bool:
    """Whether an error, or what led to it, is CuPy's for memory that the GPU does not have."""
    while error is not None:
        if type(error).__name__ == "OutOfMemoryError":
            return True
        error = error.__cause__  # type: ignore[assignment]
    return False


@contextmanager
def explained(trainer: Trainer) -> Iterator[None]:
    """Turns running out of the device's memory into a TrainingError with what the step needs and what would fit."""
    try:
        yield
    except TrainingError:
        raise
    except Exception as error:
        if not ran_out(error):
            raise
        raise TrainingError(_told(trainer), trainer.step + 1) from error


def _told(trainer: Trainer) -> str:
    device = next(iter(trainer.model.parameters())).device
    loader = trainer.train_loader
    free, total, ours = _free(trainer)
    text = f"{device} ran out of memory at step {trainer.step + 1} (batch {loader.batch_size}"
    text += f" in {trainer.accumulate} parts" if trainer.accumulate > 1 else ""
    try:
        count = of_step(trainer.model, trainer.optimizers, trainer.average, _shape(trainer), trainer.precision)
    except Exception:  # the count runs the model once, on a device that has just run out of memory
        return f"{text}): {_size(free)} of {_size(total)} are free"
    part = -(-loader.batch_size // trainer.accumulate)
    largest = count.largest_batch(free + ours)
    advice = f"the largest batch that fits by this count is {largest}" if largest else "no batch fits by this count"
    more = f" (or --accumulate {-(-loader.batch_size // largest)})" if 0 < largest < part else ""
    return (
        f"{text}): by the model's own count the step needs {_size(count.needed(part))}; {_size(free)} of"
        f" {_size(total)} are free, {_size(ours)} are this process's arrays; {advice}{more}"
    )


def _shape(trainer: Trainer) -> tuple[int, ...] | None:
    shape = getattr(trainer.model, "input_shape", None)
    if shape is not None:
        return tuple(shape)
    images = trainer.train_loader.dataset.images
    _, h, w, c = images.shape
    return (c, h, w)


def _free(trainer: Trainer) -> tuple[int, int, int]:
    """Bytes of the device: those that are free, what CuPy's pool holds unused included; all; and those of arrays,
    less the data set."""
    backend: Any = next(iter(trainer.model.parameters())).backend
    with backend.context():
        xp = backend.xp
        free, total = (int(n) for n in xp.cuda.runtime.memGetInfo())
        free += int(xp.get_default_memory_pool().free_bytes())
    data = trainer.train_loader.dataset
    resident = data.images.nbytes if isinstance(trainer.train_loader, ResidentLoader) else 0
    return free, total, max(tracker.now(backend.engine.index) - resident, 0)


def _size(bytes_: int) -> str:
    return f"{bytes_ / 2**30:.2f} GiB" if bytes_ >= 2**30 else f"{bytes_ / 2**20:.1f} MiB"
