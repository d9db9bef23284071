"""Adagrad."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpucnn.backends.updates import AdagradNumbers
from gpucnn.optim.fused import FusedOptimizer
from gpucnn.optim.optimizer import Params, check_not_negative
from gpucnn.tensor import Tensor


class Adagrad(FusedOptimizer):
    """Adagrad (Duchi, Hazan and Singer, 2011), as ``torch.optim.Adagrad``.

    g = gradient + weight_decay * p; sum += g * g, from ``initial_accumulator_value``; p -= lr / (1 + (t - 1) *
    lr_decay) * g / (sqrt(sum) + eps) in step t. ``maximize`` takes minus the gradient. Parameters without a gradient
    are left alone.

    The state of a parameter, made at its first step, is ``step`` and ``sum``. One launch updates all parameters of a
    device and dtype. Raises ValueError for options out of range.
    """

    primitive = "adagrad_step"
    states = ("sum",)
    fields = len(AdagradNumbers._fields)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "eps": eps,
                "maximize": maximize,
            },
        )

    def check_group(self, group: Mapping[str, Any]) -> None:
        check_not_negative("Adagrad", group, "lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps")

    def arrays(self, group: Mapping[str, Any]) -> dict[str, float]:
        return {"sum": float(group["initial_accumulator_value"])}

    def numbers(self, group: Mapping[str, Any], parameter: Tensor) -> AdagradNumbers:
        lr, lr_decay, step = float(group["lr"]), float(group["lr_decay"]), int(self.state[parameter]["step"])
        now = lr / (1.0 + (step - 1) * lr_decay)
        decay, maximize = float(group["weight_decay"]), float(bool(group["maximize"]))
        return AdagradNumbers(now, decay, float(group["eps"]), maximize, float(step), lr, lr_decay)
