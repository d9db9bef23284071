"""Stochastic gradient descent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from gpucnn.autograd import running_on
from gpucnn.layout import memory_view
from gpucnn.optim.memory import matched, suits, zeros_like
from gpucnn.optim.optimizer import Optimizer, Params, check_not_negative
from gpucnn.tensor import Tensor


class SGD(Optimizer):
    """SGD with momentum, Nesterov momentum and weight decay, as ``torch.optim.SGD``.

    d = gradient + weight_decay * p; with momentum, buffer = momentum * buffer + (1 - dampening) * d (d itself the first
    time), and d = d + momentum * buffer with ``nesterov``, else the buffer; p -= lr * d. ``maximize`` takes minus the
    gradient. Parameters without a gradient are left alone.

    One launch updates all parameters whose options, weight decay aside, are the same. Raises ValueError for negative
    options, and for ``nesterov`` without momentum or with dampening.
    """

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

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = self.evaluate(closure)
        for options, members in self._launches().items():
            _, _, lr, momentum, dampening, nesterov, maximize, first = options
            parameters, weight_decays = [p for p, _ in members], [decay for _, decay in members]
            backend = parameters[0].backend
            momenta = [memory_view(self.state[p]["momentum_buffer"].data) for p in parameters] if momentum else None
            with running_on(parameters[0].device):
                backend.sgd_step(
                    [memory_view(p.data) for p in parameters],
                    [matched(p.grad, p) for p in parameters if p.grad is not None],
                    momenta,
                    lr,
                    momentum,
                    dampening,
                    weight_decays,
                    nesterov,
                    first,
                    maximize,
                )
            for parameter in parameters:
                parameter.modified()
        return loss

    def _launches(self) -> dict[tuple[Any, ...], list[tuple[Tensor, float]]]:
        """Parameters with a gradient, and their weight decay, by what one launch can update.

        That is one device and dtype, equal options but for weight decay, and momentum begun or not.
        """
        launches: dict[tuple[Any, ...], list[tuple[Tensor, float]]] = {}
        for group in self.param_groups:
            options = tuple(float(group[name]) for name in ("lr", "momentum", "dampening"))
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                first = bool(group["momentum"]) and self._begin_momentum(parameter)
                switches = bool(group["nesterov"]), bool(group["maximize"]), first
                key = (parameter.device, parameter.dtype, *options, *switches)
                launches.setdefault(key, []).append((parameter, float(group["weight_decay"])))
        return launches

    def _begin_momentum(self, parameter: Tensor) -> bool:
        """Makes the momentum buffer where there is none yet, and says whether; one left behind by a move is brought
        along.
        """
        state = self.state.setdefault(parameter, {})
        buffer = state.get("momentum_buffer")
        if buffer is None:
            state["momentum_buffer"] = zeros_like(parameter)
            return True
        if not suits(buffer, parameter):
            state["momentum_buffer"] = zeros_like(parameter).copy_(buffer)
        return False
