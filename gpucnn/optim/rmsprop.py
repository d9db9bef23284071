"""RMSprop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpucnn.backends.updates import RmspropNumbers
from gpucnn.optim.fused import FusedOptimizer
from gpucnn.optim.optimizer import Params, check_not_negative
from gpucnn.tensor import Tensor


class RMSprop(FusedOptimizer):
    """RMSprop (Tieleman and Hinton, 2012), as ``torch.optim.RMSprop``.

    g = gradient + weight_decay * p; s = alpha * s + (1 - alpha) * g * g; with ``centered`` (Graves, 2013) a += (1 -
    alpha) * (g - a) and s - a * a stands for s below; d = g / (sqrt(s) + eps); with ``momentum`` buffer = momentum *
    buffer + d, and d is that; p -= lr * d. ``maximize`` takes minus the gradient. Parameters without a gradient are
    left alone.

    The state of a parameter is ``step``, ``square_avg``, ``grad_avg`` (centered) and ``momentum_buffer``. One launch
    updates all parameters of a device and dtype. Raises ValueError for options out of range.
    """

    primitive = "rmsprop_step"
    states = ("square_avg", "grad_avg", "momentum_buffer")
    fields = len(RmspropNumbers._fields)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "alpha": alpha,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "centered": centered,
                "maximize": maximize,
            },
        )

    def check_group(self, group: Mapping[str, Any]) -> None:
        check_not_negative("RMSprop", group, "lr", "alpha", "eps", "weight_decay", "momentum")
        if group["alpha"] > 1.0:
            raise ValueError(f"RMSprop: alpha must be at most 1, got {group['alpha']!r}")

    def arrays(self, group: Mapping[str, Any]) -> dict[str, float]:
        wanted = {"square_avg": True, "grad_avg": bool(group["centered"]), "momentum_buffer": group["momentum"] > 0}
        return dict.fromkeys((name for name, needed in wanted.items() if needed), 0.0)

    def numbers(self, group: Mapping[str, Any], parameter: Tensor) -> RmspropNumbers:
        lr, decay, alpha, eps, momentum = (
            float(group[name]) for name in ("lr", "weight_decay", "alpha", "eps", "momentum")
        )
        return RmspropNumbers(lr, decay, alpha, 1.0 - alpha, eps, momentum, float(bool(group["maximize"])))
