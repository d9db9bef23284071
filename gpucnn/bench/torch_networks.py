"""PyTorch's form of the networks that we measure ourselves against, layer for layer and constant for constant.

The one file of the package that imports PyTorch, and only the benchmark imports it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from gpucnn.bench.contestants import LEARNING_RATE

WEIGHT_DECAY = 0.004  # on the two hidden linear layers alone
AVERAGE_DECAY = 0.9999


class LectureNetwork(nn.Module):
    """TensorFlow's CIFAR-10 tutorial network: images (N, 3, 24, 24) to logits (N, 10).

    TensorFlow's "same" 3x3 pooling with stride 2 on an even size pads bottom and right by one only, which is what
    `ceil_mode` does. Its LRN with radius 4 and alpha 0.001 / 9 is PyTorch's with size 9 and alpha 1e-3.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 5, padding=2)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm1 = nn.LocalResponseNorm(9, alpha=1e-3, beta=0.75, k=1.0)
        self.conv2 = nn.Conv2d(64, 64, 5, padding=2)
        self.norm2 = nn.LocalResponseNorm(9, alpha=1e-3, beta=0.75, k=1.0)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.local3 = nn.Linear(6 * 6 * 64, 384)
        self.local4 = nn.Linear(384, 192)
        self.softmax_linear = nn.Linear(192, 10)
        initial = ((self.conv1, 0.05, 0.0), (self.conv2, 0.05, 0.1), (self.local3, 0.04, 0.1), (self.local4, 0.04, 0.1),
                   (self.softmax_linear, 1 / 192, 0.0))  # fmt: skip
        for layer, std, bias in initial:
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.constant_(layer.bias, bias)

    def forward(self, images: Any) -> Any:
        x = self.norm1(self.pool1(torch.relu(self.conv1(images))))
        x = self.pool2(self.norm2(torch.relu(self.conv2(x))))
        x = torch.relu(self.local3(x.flatten(1)))
        x = torch.relu(self.local4(x))
        return self.softmax_linear(x)


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
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
        torch.manual_seed(0)
        self.network = LectureNetwork().to(self.device, memory_format=self.memory_format)
        self.loss = nn.CrossEntropyLoss()
        decayed = [self.network.local3.weight, self.network.local4.weight]
        others = [p for p in self.network.parameters() if all(p is not other for other in decayed)]
        groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, lr=LEARNING_RATE)
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


def gpu_available() -> bool:
    """Whether this PyTorch can use a GPU here."""
    return bool(torch.cuda.is_available())
