"""The networks, the optimizers and the schedules of the recipes in plain PyTorch, written from their sources alone.

Modules have the names that gpucnn's networks give them, so that weights can be copied over by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


NETWORKS = {"resnet9": ResNet9, "airbench94": Airbench94}


class Muon(torch.optim.Optimizer):
    """Muon as airbench94_muon has it, in the dtype of the parameters: the filters are scaled to norm sqrt(K), then
    moved by the learning rate times the orthogonalized Nesterov momentum."""

    def __init__(self, params: Any, lr: float, momentum: float, nesterov: bool, ns_steps: int) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("buffer", torch.zeros_like(p))
                buffer.mul_(group["momentum"]).add_(p.grad)
                g = p.grad.add(buffer, alpha=group["momentum"]) if group["nesterov"] else buffer
                p.mul_(len(p) ** 0.5 / p.norm())
                p.add_(newton_schulz(g.reshape(len(g), -1), group["ns_steps"]).view_as(g), alpha=-group["lr"])


def newton_schulz(g: Tensor, steps: int) -> Tensor:
    """The nearest (semi-)orthogonal matrix of g (K, M), roughly: K. Jordan's quintic iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / (g.norm() + 1e-7)
    if len(g) > g.shape[1]:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if len(g) > g.shape[1] else x


def optimizer(table: Mapping[str, Any], parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of a recipe's table. Raises ValueError for one that has no form here."""
    options = {key: value for key, value in table.items() if key not in ("name", "epochs")}
    if table["name"] == "sgd":
        return torch.optim.SGD(parameters, **options)
    if table["name"] == "muon" and options.pop("renormalize", False) and options.pop("weight_decay", 0.1) == 0.0:
        return Muon(parameters, **options)
    raise ValueError(f"training_peer: no PyTorch form of the optimizer {dict(table)}")


def factor(schedule: Mapping[str, Any], step: int, total: int) -> float:
    """The learning rate's factor of step ``step``, counted from 0, of ``total``. Raises ValueError for a schedule that
    has no form here."""
    name = schedule["name"]
    if "warmup" not in schedule:
        if name == "constant":
            return 1.0
        if name == "linear":
            return 1.0 + (schedule.get("end", 0.0) - 1.0) * min(step / total, 1.0)
        if name == "piecewise":
            at = schedule["epochs"]
            return float(np.interp(step / total * at[-1], at, schedule["factors"]))
        if name == "cosine" and not schedule.get("end"):
            return (1.0 + math.cos(math.pi * min(step / total, 1.0))) / 2.0
    raise ValueError(f"training_peer: no PyTorch form of the schedule {dict(schedule)}")


def logits_of_views(network: nn.Module, images: Tensor, views: str) -> Tensor:
    """Logits averaged over "none", "mirror" or "six" views of the images, as airbench has them."""
    if views == "none":
        return network(images)

    def mirrored(x: Tensor) -> Tensor:
        return (network(x) + network(x.flip(3))) / 2

    if views == "mirror":
        return mirrored(images)
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    moved = mirrored(padded[:, :, :-2, :-2]) + mirrored(padded[:, :, 2:, 2:])
    return mirrored(images) / 2 + moved / 4
