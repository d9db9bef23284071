"""Muon: momentum whose steps are made orthogonal, for the filters and weight matrices inside a network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gpucnn.backends.updates import MuonNumbers
from gpucnn.layout import memory_axes, memory_view
from gpucnn.optim.fused import FusedOptimizer
from gpucnn.optim.optimizer import Params, check_not_negative
from gpucnn.tensor import Tensor

Array = Any

COEFFICIENTS = (3.4445, -4.775, 2.0315)
ADJUSTMENTS = (None, "original", "match_rms_adamw")
MOST_STEPS = 99


class Muon(FusedOptimizer):
    """Muon, as ``torch.optim.Muon``, for weights (K, M) and filters (K, C, R, S), which count as (K, C * R * S).

    buffer = momentum * buffer + (1 - momentum) * gradient, from zeros; d = momentum * buffer + (1 - momentum) *
    gradient with ``nesterov``, else the buffer; with ``renormalize`` p is scaled to Frobenius norm sqrt(K); p *= 1 - lr
    * weight_decay; p -= lr * factor * orthogonalize(d). The factor is sqrt(max(1, K / M)) where ``adjust_lr_fn`` is
    None or "original", and 0.2 * sqrt(max(K, M)) for "match_rms_adamw". orthogonalize is a Newton-Schulz iteration, x =
    d / max(|d|, eps), then ``ns_steps`` times x = a x + (b A + c A A) x with A = x x^T and (a, b, c) =
    ``ns_coefficients``. Parameters without a gradient are left alone.

    All but the norms is computed in the dtype of the parameters (PyTorch orthogonalizes in bfloat16). On a GPU matrices
    of all shapes go through the same 1 + 3 * ns_steps launches; on ``cpu`` those of one shape and equal options are a
    batch. Filters are those of ``data_format="NCHW"`` layers, whose first axis is K.

    Method: K. Jordan and others, "Muon: an optimizer for hidden layers in neural networks", 2024; ``renormalize`` is
    from his airbench94. Raises ValueError for options out of range and for parameters of fewer than two axes.
    """

    primitive = "muon_step"
    states = ("momentum_buffer",)
    fields = len(MuonNumbers._fields)
    counts = False

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: Sequence[float] = COEFFICIENTS,
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        renormalize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "nesterov": nesterov,
                "ns_coefficients": ns_coefficients,
                "eps": eps,
                "ns_steps": ns_steps,
                "adjust_lr_fn": adjust_lr_fn,
                "renormalize": renormalize,
            },
        )

    def check_group(self, group: Mapping[str, Any]) -> None:
        check_not_negative("Muon", group, "lr", "weight_decay", "momentum", "eps")
        if group["momentum"] >= 1.0:
            raise ValueError(f"Muon: momentum must be below 1, got {group['momentum']!r}")
        steps, coefficients = group["ns_steps"], group["ns_coefficients"]
        if isinstance(steps, bool) or not isinstance(steps, int) or not 0 <= steps <= MOST_STEPS:
            raise ValueError(f"Muon: ns_steps must be an int from 0 to {MOST_STEPS}, got {steps!r}")
        numbers = isinstance(coefficients, (tuple, list)) and all(isinstance(c, (int, float)) for c in coefficients)
        if not numbers or len(coefficients) != 3 or not all(map(math.isfinite, coefficients)):
            raise ValueError(f"Muon: ns_coefficients must be three finite numbers, got {coefficients!r}")
        if group["adjust_lr_fn"] not in ADJUSTMENTS:
            raise ValueError(
                f"Muon: adjust_lr_fn must be None, 'original' or 'match_rms_adamw', got {group['adjust_lr_fn']!r}"
            )
        for parameter in group["params"]:
            if isinstance(parameter, Tensor) and parameter.ndim < 2:
                raise ValueError(
                    "Muon: parameters must have two axes or more (biases want another optimizer),"
                    f" got shape {tuple(parameter.shape)}"
                )

    def arrays(self, group: Mapping[str, Any]) -> dict[str, float]:
        return {"momentum_buffer": 0.0}

    def extra(self, group: Mapping[str, Any]) -> tuple[Any, ...]:
        return (int(group["ns_steps"]),)

    def takes(self, parameter: Tensor) -> bool:
        return bool(parameter.data.size)

    def numbers(self, group: Mapping[str, Any], parameter: Tensor) -> MuonNumbers:
        lr, decay, momentum, eps = (float(group[name]) for name in ("lr", "weight_decay", "momentum", "eps"))
        rows = parameter.shape[0]
        factor = _factor(group["adjust_lr_fn"], rows, parameter.data.size // rows)
        switches = float(bool(group["nesterov"])), float(bool(group["renormalize"]))
        a, b, c = map(float, group["ns_coefficients"])
        return MuonNumbers(lr * factor, 1.0 - lr * decay, momentum, 1.0 - momentum, eps, *switches, a, b, c)

    def view(self, parameter: Tensor, array: Array) -> Array:
        axis, sizes = memory_axes(parameter.data).index(0), memory_view(parameter.data).shape
        return array.reshape(math.prod(sizes[:axis]), sizes[axis], math.prod(sizes[axis + 1 :]))


def _factor(adjust_lr_fn: str | None, rows: int, columns: int) -> float:
    if adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))
