"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpucnn.backends.updates import AdamNumbers, adam_numbers
from gpucnn.optim.fused import FusedOptimizer
from gpucnn.optim.optimizer import Params, check_not_negative
from gpucnn.tensor import Tensor


class Adam(FusedOptimizer):
    """Adam (Kingma and Ba, 2015), as ``torch.optim.Adam``.

    g = gradient + weight_decay * p; m += (1 - beta1) * (g - m); v = beta2 * v + (1 - beta2) * g * g; p -= lr * m' /
    (sqrt(v') + eps), where m' = m / (1 - beta1**t) and v' = v / (1 - beta2**t) in step t, computed in float64. With
    ``amsgrad`` (Reddi and others, 2018) the largest v so far stands for v, ``maximize`` takes minus the gradient, and
    ``decoupled_weight_decay`` makes it :class:`AdamW`. Parameters without a gradient are left alone.

    The state of a parameter is ``step``, ``exp_avg``, ``exp_avg_sq`` and, with ``amsgrad``, ``max_exp_avg_sq``. One
    launch updates all parameters of a device and dtype. Raises ValueError for options out of range.
    """

    primitive = "adam_step"
    states = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    fields = len(AdamNumbers._fields)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )

    def check_group(self, group: Mapping[str, Any]) -> None:
        check_not_negative(self.name, group, "lr", "eps", "weight_decay")
        betas = group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"{self.name}: betas must be two numbers, got {betas!r}")
        if not all(isinstance(beta, (int, float)) and 0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"{self.name}: betas must be at least 0 and below 1, got {tuple(betas)}")

    def arrays(self, group: Mapping[str, Any]) -> dict[str, float]:
        names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if group["amsgrad"] else ("exp_avg", "exp_avg_sq")
        return dict.fromkeys(names, 0.0)

    def numbers(self, group: Mapping[str, Any], parameter: Tensor) -> AdamNumbers:
        beta1, beta2 = map(float, group["betas"])
        lr, eps, decay = (float(group[name]) for name in ("lr", "eps", "weight_decay"))
        switches = bool(group["decoupled_weight_decay"]), bool(group["maximize"])
        return adam_numbers(lr, beta1, beta2, eps, decay, *switches, int(self.state[parameter]["step"]))


class AdamW(Adam):
    """:class:`Adam` with decoupled weight decay (Loshchilov and Hutter, 2019), as ``torch.optim.AdamW``: p *= 1 - lr *
    weight_decay before the step, and g is the gradient alone.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True  # also where the state is Adam's
