"""Training in PyTorch as a reader of its guides would have it, at its several speeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gpucnn.bench.torch_pipeline import Pipeline
from gpucnn.bench.torch_recipes import newton_schulz
from gpucnn.bench.torch_step import TorchStep
from gpucnn.bench.workload import RATE, Workload

WARM_UP_STEPS = 3  # before a capture: PyTorch's guide asks for it
HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Mode:
    """A way of running a step.

    Args:
        channels_last: the memory layout of images and filters.
        compiled: the mode of torch.compile, or None for eager.
        captured: whether the whole step, optimizers included, is one CUDA graph.
        precisions: in which it may be the fastest; empty for all.
    """

    channels_last: bool
    compiled: str | None = None
    captured: bool = False
    precisions: tuple[str, ...] = ()

    def suits(self, precision: str) -> bool:
        """Whether it is measured in ``precision``."""
        return not self.precisions or precision in self.precisions


MODES = {
    "eager": Mode(channels_last=False),
    "channels-last": Mode(channels_last=True),
    "max-autotune, step captured": Mode(channels_last=True, compiled="max-autotune-no-cudagraphs", captured=True),
    "contiguous, step captured": Mode(  # cuDNN's Winograd and FFT are of this layout
        channels_last=False, compiled="max-autotune-no-cudagraphs", captured=True, precisions=("float32",)
    ),
    "reduce-overhead": Mode(channels_last=True, compiled="reduce-overhead"),
    "max-autotune": Mode(channels_last=True, compiled="max-autotune"),
}
"""From what everybody writes to what PyTorch can do, and then the others: whoever comes late may be left out. In
half precision all of them run under autocast; losses are not scaled, which leaves PyTorch less to do than gpucnn."""


class TorchTraining(TorchStep):
    """Training steps of a recipe in PyTorch; forward, loss and augmentation are one compiled function in the modes that
    compile.

    Args:
        workload: of the recipe.
        batch_size: examples a step.
        images, labels: uint8 (N, H, W, C) and int64 (N,), NumPy.
        transform: gpucnn's training transform, see :class:`Pipeline`.
        rate: a factor of all learning rates, which stay as they are from step to step.
        backend: of torch.compile, in the place of its own; then the mode is left out (tests).
    """

    def __init__(
        self, workload: Workload, batch_size: int, images: Any, labels: Any, transform: Any, precision: str,
        device: str, mode: Mode, rate: float = RATE, backend: str | None = None,
    ) -> None:  # fmt: skip
        self.mode, self.half = mode, HALF.get(precision)
        super().__init__(workload, device, mode.channels_last, rate, precision, self._newton_schulz(backend))
        self.batch_size = batch_size
        self.pipeline = Pipeline(images, labels, transform, self.device, mode.channels_last)
        self.chosen = torch.zeros(batch_size, dtype=torch.int64, device=self.device)
        self.odd_epoch = torch.zeros((), dtype=torch.bool, device=self.device)
        self.loss = torch.zeros((), device=self.device)
        self.forward: Any = self._forward
        if mode.compiled is not None:
            for tensor in (*self.pipeline.tensors(), self.chosen, self.odd_epoch):
                torch._dynamo.mark_static_address(tensor)  # or each replay would copy it, the data set too
            options: dict[str, Any] = {"mode": mode.compiled} if backend is None else {"backend": backend}
            self.forward = torch.compile(self._forward, **options)
        self._batches = self._all_batches()
        self._graph = self._captured() if mode.captured and self.device.type == "cuda" else None

    def run(self, steps: int) -> None:
        """So many training steps; the device may be at work still when this returns."""
        for _ in range(steps):
            chosen, odd = next(self._batches)
            self.chosen.copy_(chosen)
            if odd is not None:
                self.odd_epoch.fill_(odd)
            if self._graph is None:
                self._step()
            else:
                self._graph.replay()

    def last_loss(self) -> float:
        """The last step's loss, a mean over its examples."""
        value = float(self.loss)
        return value / self.batch_size if self.workload.reduction == "sum" else value

    # ---- the parts of a step ----

    def _forward(self, chosen: Tensor, odd_epoch: Tensor) -> Tensor:
        images, labels = self.pipeline(chosen, odd_epoch)
        with torch.autocast(
            self.device.type, self.half, enabled=self.half is not None, cache_enabled=not self.mode.captured
        ):
            logits = self.network(images)
        return self.loss_of(logits.float(), labels)

    def _step(self) -> None:
        if self.mode.compiled is not None:
            torch.compiler.cudagraph_mark_step_begin()
        loss = self.take(lambda: self.forward(self.chosen, self.odd_epoch))
        with torch.no_grad():
            self.loss.copy_(loss)

    def _captured(self) -> torch.cuda.CUDAGraph:
        """The whole step as a CUDA graph, after steps on a stream of their own."""
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_STEPS):
                self._step()
        torch.cuda.current_stream(self.device).wait_stream(side)
        for each in self.optimizers:
            each.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        return graph

    def _newton_schulz(self, backend: str | None) -> Any:
        """In half precision in bfloat16, as airbench94_muon has it; compiled in the modes that compile."""
        iterate = newton_schulz
        if self.mode.compiled is not None:
            options: dict[str, Any] = {} if backend is None else {"backend": backend}
            iterate = torch.compile(newton_schulz, dynamic=False, **options)  # few shapes: a kernel for each
        return iterate if self.half is None else lambda g, steps: iterate(g.bfloat16(), steps).to(g.dtype)

    def _all_batches(self) -> Iterator[tuple[Tensor, bool | None]]:
        """Indices of a batch, and whether the epoch is odd where that changes."""
        n, size, epoch = len(self.pipeline.labels), self.batch_size, 0
        while True:
            order = torch.randperm(n, device=self.device)
            for first in range(0, n - size + 1, size):
                yield order[first : first + size], epoch % 2 == 1 if first == 0 else None
            epoch += 1
