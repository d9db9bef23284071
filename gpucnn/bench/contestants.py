"""Who is measured: gpucnn and PyTorch, each as an object that takes training steps on batches of the same pipeline.

A step is what the network's recipe says: forward, loss, backward, its optimizers, and the moving average of the weights
where it has one.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gpucnn.bench.sections import OURS, PEER
from gpucnn.bench.workload import RATE, Workload

CLASSES = 10
SYNTHETIC_BATCHES = 4  # turned over, so that no step finds its input still in the cache


class Trainer(Protocol):
    """Takes training steps."""

    takes_arrays: bool  # whether ``step`` wants NumPy arrays, and not gpucnn's tensors

    def step(self, images: Any, labels: Any) -> Any:
        """One training step on a batch of this trainer's own kind of tensor or array; returns the loss."""

    def inference(self, images: np.ndarray) -> Callable[[], Any]:
        """A forward pass in evaluation mode, without gradients, on images that are on the device already."""

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""


@dataclass(frozen=True)
class Contestant:
    """A framework on a device in a memory layout.

    Args:
        framework: "gpucnn" or "PyTorch".
        device: "cpu", "cuda:0" or "emulated".
        layout: "channels_last" or "contiguous"; gpucnn knows only the former.
    """

    framework: str
    device: str
    layout: str

    def __str__(self) -> str:
        return f"{self.framework} {self.layout} on {self.device}"

    def trainer(self, workload: Workload) -> Trainer:
        """A network with fresh weights and all that its training steps need."""
        if self.framework == OURS:
            return GpucnnTrainer(workload, self.device)
        from gpucnn.bench.torch_step import TorchTrainer

        return TorchTrainer(workload, self.device, self.layout == "channels_last")

    @property
    def feed(self) -> str:
        """The device on which the pipeline hands batches over: PyTorch takes NumPy arrays and moves them itself."""
        return self.device if self.framework == OURS else "cpu"

    @property
    def version(self) -> str:
        """The framework's version."""
        if self.framework == OURS:
            import gpucnn

            return gpucnn.__version__
        import torch

        return str(torch.__version__)


class GpucnnTrainer:
    """Training steps in gpucnn, eager."""

    takes_arrays = False

    def __init__(self, workload: Workload, device: str) -> None:
        import gpucnn
        from gpucnn import backends, models, training
        from gpucnn.training import build

        gpucnn.manual_seed(0)
        config = training.config_for(workload.model)
        self._workload, self._device = workload, device
        self._backend = backends.get(gpucnn.device(device))
        self.model: Any = models.create(workload.model, device=device)
        self._optimizers = build.optimizers(config, self.model)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * RATE
        self.average = build.average(config, self.model)

    def step(self, images: Any, labels: Any) -> Any:
        from gpucnn import functional

        workload = self._workload
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss = functional.cross_entropy(self.model(images), labels, workload.reduction, workload.label_smoothing)
        loss.backward()
        for optimizer in self._optimizers:
            optimizer.step()
        if self.average is not None:
            self.average.update()
        return loss

    def inference(self, images: np.ndarray) -> Callable[[], Any]:
        import gpucnn

        self.model.eval()
        x = gpucnn.tensor(images, device=self._device)

        def run() -> Any:
            with gpucnn.no_grad():
                return self.model(x)

        return run

    def synchronize(self) -> None:
        self._backend.synchronize()


def set_threads(count: int, measured: Iterable[Contestant]) -> None:
    """How many threads of the CPU everybody who is measured may use."""
    from gpucnn.backends.numpy import threads

    threads.set_thread_count(count)
    if any(contestant.framework == PEER for contestant in measured):
        from gpucnn.bench import torch_settings

        torch_settings.set_threads(count)


def torch_installed() -> bool:
    """Whether PyTorch can be imported, found out without importing it."""
    return importlib.util.find_spec("torch") is not None


def contestants(device: str | None, peers: bool) -> list[Contestant]:
    """All that can be measured here: on `device`, or on the CPU and, where there is one, the first GPU.

    PyTorch comes in both of its layouts; the table shows the better one. It has no emulated device.
    """
    from gpucnn.backends.cuda import driver

    devices = [device] if device else ["cpu", *(["cuda:0"] if driver.is_available() else [])]
    chosen = []
    for place in devices:
        chosen.append(Contestant(OURS, place, "channels_last"))
        if peers and torch_installed() and _torch_has(place):
            chosen += [Contestant(PEER, place, layout) for layout in ("channels_last", "contiguous")]
    return chosen


def _torch_has(device: str) -> bool:
    if device == "cpu":
        return True
    if not device.startswith("cuda"):
        return False
    from gpucnn.bench.torch_settings import gpu_available

    return gpu_available()


def synthetic_batches(workload: Workload, batch_size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """A few random batches: images float32 (N, C, H, W) over channels-last memory, labels int64 (N,)."""
    generator = np.random.default_rng(0)
    c, h, w = workload.input_shape
    batches = []
    for _ in range(SYNTHETIC_BATCHES):
        images = generator.standard_normal((batch_size, h, w, c), dtype=np.float32)
        batches.append((images.transpose(0, 3, 1, 2), generator.integers(0, CLASSES, batch_size)))
    return batches
