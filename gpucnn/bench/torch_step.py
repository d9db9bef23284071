"""A training step in PyTorch: network, loss, optimizers and moving average of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gpucnn.bench.torch_networks import network_for
from gpucnn.bench.torch_recipes import optimizers
from gpucnn.bench.torch_settings import settled
from gpucnn.bench.workload import RATE, Workload


class TorchStep:
    """The network of a workload in PyTorch eager, with all that a training step needs. Optimizers are PyTorch's fused
    ones, on the CPU too, where they are its fastest.

    Args:
        workload: what is trained.
        device: "cpu" or "cuda" or "cuda:<index>", PyTorch's names.
        channels_last: the memory format of weights and images.
        rate: a factor of all learning rates, which stay as they are from step to step.
        precision: "tf32" lets float32 products round their inputs.
        orthogonalize: Muon's iteration, in the place of its own.

    Raises ValueError for a network that has no form here.
    """

    def __init__(
        self, workload: Workload, device: str, channels_last: bool, rate: float = RATE, precision: str = "float32",
        orthogonalize: Any = None,
    ) -> None:  # fmt: skip
        settled(precision)
        torch.manual_seed(0)
        self.workload, self.device = workload, torch.device(device)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        network = network_for(workload.model)
        self.network = network.to(self.device, memory_format=self.memory_format).train()
        self.optimizers = optimizers(workload.optimizer, self.network, rate, orthogonalize)
        self.parameters = list(self.network.parameters())
        keeps = workload.average_decay is not None
        self.average = [parameter.detach().clone() for parameter in self.parameters] if keeps else []
        self.steps = 0

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The recipe's loss."""
        workload = self.workload
        return F.cross_entropy(
            logits, labels, reduction=workload.reduction, label_smoothing=workload.label_smoothing
        )  # fmt: skip

    def take(self, loss_of_batch: Callable[[], Tensor]) -> Tensor:
        """One training step on the batch whose loss ``loss_of_batch`` computes; that loss."""
        for each in self.optimizers:
            each.zero_grad(set_to_none=True)
        loss = loss_of_batch()
        loss.backward()
        for each in self.optimizers:
            each.step()
        self.steps += 1
        if self.average:
            decay = min(self.workload.average_decay or 0.0, (1 + self.steps) / (10 + self.steps))
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.parameters, 1 - decay)
        return loss

    def synchronize(self) -> None:
        """Waits until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class TorchTrainer(TorchStep):
    """Training steps on batches from the host, and forward passes: the peer of ``gpucnn bench``."""

    takes_arrays = True

    def step(self, images: np.ndarray, labels: np.ndarray) -> Tensor:
        """One training step on images (N, C, H, W), float32, any strides, and labels (N,); the loss as a tensor."""
        x = torch.from_numpy(images).to(self.device, memory_format=self.memory_format, non_blocking=True)
        y = torch.from_numpy(labels).to(self.device, torch.int64, non_blocking=True)
        return self.take(lambda: self.loss_of(self.network(x), y))

    def inference(self, images: np.ndarray) -> Callable[[], Any]:
        """A forward pass in evaluation mode on images that are on the device already."""
        self.network.eval()
        x = torch.from_numpy(images).to(self.device, memory_format=self.memory_format)

        def run() -> Tensor:
            with torch.inference_mode():
                return self.network(x)

        return run
