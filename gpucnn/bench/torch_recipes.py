"""The optimizers, schedules and views of the recipes in plain PyTorch, written from their sources alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Muon as airbench94_muon has it, in the dtype of the parameters: the filters are scaled to norm sqrt(K), then
    moved by the learning rate times the orthogonalized Nesterov momentum. ``orthogonalize`` may be another form of
    :func:`newton_schulz`."""

    def __init__(
        self, params: Any, lr: float, momentum: float, nesterov: bool, ns_steps: int, orthogonalize: Any = None
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps})
        self.orthogonalize = orthogonalize or newton_schulz

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if "buffer" not in state:
                    state["buffer"] = torch.zeros_like(p)
                buffer = state["buffer"]
                buffer.mul_(group["momentum"]).add_(p.grad)
                g = p.grad.add(buffer, alpha=group["momentum"]) if group["nesterov"] else buffer
                p.mul_(len(p) ** 0.5 / p.norm())
                p.add_(self.orthogonalize(g.reshape(len(g), -1), group["ns_steps"]).view_as(g), alpha=-group["lr"])


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


def optimizer(
    table: Mapping[str, Any], parameters: Any, fused: bool = False, orthogonalize: Any = None
) -> torch.optim.Optimizer:
    """The optimizer of a recipe's table; SGD in one kernel if ``fused``. Raises ValueError for one that has no form
    here."""
    options = {key: value for key, value in table.items() if key not in ("name", "epochs")}
    if table["name"] == "sgd":
        return torch.optim.SGD(parameters, fused=fused, **options)
    if table["name"] == "muon" and options.pop("renormalize", False) and options.pop("weight_decay", 0.1) == 0.0:
        return Muon(parameters, orthogonalize=orthogonalize, **options)
    raise ValueError(f"no PyTorch form of the optimizer {dict(table)}")


def optimizers(
    tables: Mapping[str, Any], network: Any, rate: float = 1.0, orthogonalize: Any = None
) -> list[torch.optim.Optimizer]:
    """The optimizers of a recipe, given as its table or its tables by set of parameters, over ``network``'s sets;
    ``rate`` is a factor of their learning rates. SGD is fused."""
    made = []
    for name, table in ({"all": tables} if "name" in tables else tables).items():
        decay = table.get("weight_decay", 0.0)
        parameters = network.groups(decay) if hasattr(network, "groups") else network.sets()[name]
        made.append(optimizer({**table, "lr": table["lr"] * rate}, parameters, True, orthogonalize))
    return made


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
    raise ValueError(f"no PyTorch form of the schedule {dict(schedule)}")


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
