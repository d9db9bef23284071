"""Training steps of the lecture network in PyTorch on batches from the host: the peer of ``gpucnn bench``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from gpucnn.bench.contestants import LEARNING_RATE
from gpucnn.bench.torch_networks import LectureNetwork
from gpucnn.bench.torch_settings import settled

AVERAGE_DECAY = 0.9999


class LectureTrainer:
    """Training steps of the lecture network in PyTorch eager, float32: SGD, weight decay, moving average of weights.

    Args:
        device: "cpu" or "cuda" or "cuda:<index>", PyTorch's names.
        layout: "contiguous" or "channels_last", PyTorch's memory format for weights and images.
    """

    takes_arrays = True

    def __init__(self, device: str, layout: str) -> None:
        self.device = torch.device(device)
        self.memory_format = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[layout]
        settled("float32")
        torch.manual_seed(0)
        self.network = LectureNetwork().to(self.device, memory_format=self.memory_format)
        self.loss = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.network.groups(), lr=LEARNING_RATE, fused=self.device.type == "cuda")
        self.parameters = list(self.network.parameters())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.steps = 0

    def step(self, images: np.ndarray, labels: np.ndarray) -> Any:
        """One training step on images (N, 3, 24, 24), float32, any strides, and labels (N,); the loss as a tensor."""
        x = torch.from_numpy(images).to(self.device, memory_format=self.memory_format, non_blocking=True)
        y = torch.from_numpy(labels).to(self.device, torch.int64, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.network(x), y)
        loss.backward()
        self.optimizer.step()
        self.steps += 1
        decay = min(AVERAGE_DECAY, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1 - decay)
        return loss

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
