"""Stochastic gradient descent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gpucnn.backends.updates import SgdNumbers
from gpucnn.optim.fused import FusedOptimizer
from gpucnn.optim.optimizer import Params, check_not_negative
from gpucnn.tensor import Tensor


class SGD(FusedOptimizer):
    """SGD with momentum, Nesterov momentum and weight decay, as ``torch.optim.SGD``.

    d = gradient + weight_decay * p; with momentum, buffer = momentum * buffer + (1 - dampening) * d (d itself the first
    time), and d = d + momentum * buffer with ``nesterov``, else the buffer; p -= lr * d. ``maximize`` takes minus the
    gradient. Parameters without a gradient are left alone.

    One launch updates all parameters of a device and dtype. Raises ValueError for negative options, and for
    ``nesterov`` without momentum or with dampening.
    """

    primitive = "sgd_step"
    states = ("momentum_buffer",)
    fields = len(SgdNumbers._fields)
    counts = False

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        self._begun: dict[Tensor, int] = {}  # steps of each momentum before this one; -1 where that does not matter
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def check_group(self, group: Mapping[str, Any]) -> None:
        check_not_negative("SGD", group, "lr", "momentum", "weight_decay")
        if not (isinstance(group["dampening"], (int, float)) and math.isfinite(group["dampening"])):
            raise ValueError(f"SGD: dampening must be a finite number, got {group['dampening']!r}")
        if group["nesterov"] and (group["momentum"] == 0.0 or group["dampening"] != 0.0):
            raise ValueError(
                "SGD: nesterov needs a momentum above 0 and no dampening,"
                f" got momentum={group['momentum']}, dampening={group['dampening']}"
            )

    def arrays(self, group: Mapping[str, Any]) -> dict[str, float]:
        return {"momentum_buffer": 0.0} if group["momentum"] else {}

    def numbers(self, group: Mapping[str, Any], parameter: Tensor) -> SgdNumbers:
        lr, decay, momentum, dampening = (
            float(group[name]) for name in ("lr", "weight_decay", "momentum", "dampening")
        )
        nesterov, maximize = float(bool(group["nesterov"])), float(bool(group["maximize"]))
        begun = float(self._begun.get(parameter, 0))
        return SgdNumbers(lr, decay, momentum, 1.0 - dampening, nesterov, begun, maximize)

    def _provide(self, group: Mapping[str, Any], parameter: Tensor) -> None:
        if not group["momentum"]:
            return
        known = "momentum_buffer" in self.state.get(parameter, {})
        super()._provide(group, parameter)
        if not known:
            self._begun[parameter] = 0
        elif self._scaled and group["dampening"] and self._begun.get(parameter, -1) >= 0:
            self._begun[parameter] += 1  # if all of these were skipped, this step is the first
        else:
            self._begun[parameter] = -1

    def uncount(self, parameter: Tensor, skipped: int) -> None:
        if self._begun.get(parameter, -1) > 0:
            self._begun[parameter] -= skipped

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._begun.clear()
