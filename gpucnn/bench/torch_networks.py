"""PyTorch's form of the networks that we measure ourselves against, layer for layer and constant for constant, written
from their sources alone.

Modules have the names that gpucnn's networks give them, so that weights can be copied over by name.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WEIGHT_DECAY = 0.004  # on the lecture network's two hidden linear layers alone


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

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm1(self.pool1(torch.relu(self.conv1(images))))
        x = self.pool2(self.norm2(torch.relu(self.conv2(x))))
        x = torch.relu(self.local3(x.flatten(1)))
        x = torch.relu(self.local4(x))
        return self.softmax_linear(x)

    def sets(self) -> dict[str, list[nn.Parameter]]:
        """One optimizer has them all."""
        return {"all": list(self.parameters())}

    def groups(self, weight_decay: float = WEIGHT_DECAY) -> list[dict[str, Any]]:
        """For that optimizer: the hidden linear layers' weights with weight decay, the others without."""
        decayed = [self.local3.weight, self.local4.weight]
        others = [p for p in self.parameters() if all(p is not other for other in decayed)]
        return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


class LeNet5(nn.Module):
    """LeNet-5 with max-pooling and ReLU: images (N, 1, 28, 28) to logits (N, classes)."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.conv1(images)), 2)
        x = F.max_pool2d(torch.relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))

    def sets(self) -> dict[str, list[nn.Parameter]]:
        """One optimizer has them all."""
        return {"all": list(self.parameters())}


class Unit(nn.Module):
    """conv 3 x 3 -> batch norm -> ReLU, and a max-pool 2 if ``pool`` (D. Page, "How to train your ResNet", 2018)."""

    def __init__(self, channels_in: int, channels_out: int, pool: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        return F.max_pool2d(x, 2) if self.pool else x


class Residual(nn.Module):
    """x + unit(unit(x))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.unit1, self.unit2 = Unit(channels, channels), Unit(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.unit2(self.unit1(x))


class ResNet9(nn.Module):
    """Page's network: images (N, 3, 32, 32) to logits (N, classes), which he multiplies by 0.125."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.prep = Unit(3, 64)
        self.layer1, self.residual1 = Unit(64, 128, pool=True), Residual(128)
        self.layer2 = Unit(128, 256, pool=True)
        self.layer3, self.residual3 = Unit(256, 512, pool=True), Residual(512)
        self.linear = nn.Linear(512, classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.residual1(self.layer1(self.prep(images)))
        x = self.residual3(self.layer3(self.layer2(x)))
        return 0.125 * self.linear(x.amax((2, 3)))

    def sets(self) -> dict[str, list[nn.Parameter]]:
        """One optimizer has them all."""
        return {"all": list(self.parameters())}


class ConvGroup(nn.Module):
    """conv -> max-pool 2 -> norm -> GELU -> conv -> norm -> GELU (K. Jordan's airbench94)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out, eps=1e-12, momentum=0.4)
        self.norm2 = nn.BatchNorm2d(channels_out, eps=1e-12, momentum=0.4)
        for norm in (self.norm1, self.norm2):
            norm.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Airbench94(nn.Module):
    """K. Jordan's network: a fixed whitening layer with a trained bias, three groups, logits divided by 256."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.requires_grad_(False)
        self.group1, self.group2, self.group3 = ConvGroup(24, 64), ConvGroup(64, 256), ConvGroup(256, 256)
        self.head = nn.Linear(256, classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.group3(self.group2(self.group1(F.gelu(self.whiten(images)))))
        return self.head(F.max_pool2d(x, 3).flatten(1)) / 256

    def sets(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters by the optimizer that has them."""
        trained = dict(self.named_parameters())
        return {
            "whitening_bias": [self.whiten.bias],
            "biases": [p for name, p in trained.items() if "norm" in name and name.endswith("bias")],
            "filters": [p for p in trained.values() if p.ndim == 4 and p.requires_grad],
            "head": [self.head.weight],
        }


NETWORKS: dict[str, type[nn.Module]] = {
    "lecture_cnn": LectureNetwork,
    "lenet5": LeNet5,
    "resnet9": ResNet9,
    "airbench94": Airbench94,
}


def network_for(model: str) -> nn.Module:
    """A new network by gpucnn's name for it. Raises ValueError for one that has no form here."""
    if model not in NETWORKS:
        raise ValueError(f"training: no PyTorch form of {model}; there is one of {', '.join(NETWORKS)}")
    return NETWORKS[model]()
