"""Who is measured: gpucnn and PyTorch, each as an object that takes training steps on batches of the same pipeline.

A step is what the tutorial's step is: forward, mean cross-entropy, backward, SGD with weight decay on two layers,
and the moving average of all weights.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

LEARNING_RATE = 0.1
SIDE, CHANNELS, CLASSES = 24, 3, 10
SYNTHETIC_BATCHES = 4  # turned over, so that no step finds its input still in the cache


class Trainer(Protocol):
    """Takes training steps."""

    takes_arrays: bool  # whether ``step`` wants NumPy arrays, and not gpucnn's tensors

    def step(self, images: Any, labels: Any) -> Any:
        """One training step on a batch of this trainer's own kind of tensor or array; returns the loss."""

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

    def trainer(self) -> Trainer:
        """A network with fresh weights and all that its training steps need."""
        if self.framework == "gpucnn":
            return GpucnnTrainer(self.device)
        from gpucnn.bench.torch_lecture import LectureTrainer

        return LectureTrainer(self.device, self.layout)

    @property
    def feed(self) -> str:
        """The device on which the pipeline hands batches over: PyTorch takes NumPy arrays and moves them itself."""
        return self.device if self.framework == "gpucnn" else "cpu"

    @property
    def version(self) -> str:
        """The framework's version."""
        if self.framework == "gpucnn":
            import gpucnn

            return gpucnn.__version__
        import torch

        return str(torch.__version__)


class GpucnnTrainer:
    """Training steps of the lecture network in gpucnn."""

    takes_arrays = False

    def __init__(self, device: str) -> None:
        import gpucnn
        from gpucnn import backends, models, nn, optim
        from gpucnn.optim.moving_average import MovingAverage, tutorial_decay

        gpucnn.manual_seed(0)
        self._backend = backends.get(gpucnn.device(device))
        self.model = models.lecture_cnn(device=device)
        self._loss = nn.CrossEntropyLoss()
        self._optimizer = optim.SGD(self.model.parameter_groups(), lr=LEARNING_RATE)
        self.average = MovingAverage(self.model.parameters(), tutorial_decay())

    def step(self, images: Any, labels: Any) -> Any:
        self._optimizer.zero_grad()
        loss = self._loss(self.model(images), labels)
        loss.backward()
        self._optimizer.step()
        self.average.update()
        return loss

    def synchronize(self) -> None:
        self._backend.synchronize()


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
        chosen.append(Contestant("gpucnn", place, "channels_last"))
        if peers and torch_installed() and _torch_has(place):
            chosen += [Contestant("PyTorch", place, layout) for layout in ("channels_last", "contiguous")]
    return chosen


def _torch_has(device: str) -> bool:
    if device == "cpu":
        return True
    if not device.startswith("cuda"):
        return False
    from gpucnn.bench.torch_settings import gpu_available

    return gpu_available()


def synthetic_batches(batch_size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """A few random batches: images float32 (N, 3, 24, 24) over channels-last memory, labels int64 (N,)."""
    generator = np.random.default_rng(0)
    batches = []
    for _ in range(SYNTHETIC_BATCHES):
        images = generator.standard_normal((batch_size, SIDE, SIDE, CHANNELS), dtype=np.float32)
        batches.append((images.transpose(0, 3, 1, 2), generator.integers(0, CLASSES, batch_size)))
    return batches
