"""Muon: momentum whose steps are made orthogonal, for the filters and weight matrices inside a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpucnn.autograd import running_on
from gpucnn.layout import memory_axes, memory_view
from gpucnn.optim.memory import matched, suits, zeros_like
from gpucnn.optim.optimizer import Optimizer, Params, check_not_negative
from gpucnn.tensor import Tensor

Array = Any

COEFFICIENTS = (3.4445, -4.775, 2.0315)
ADJUSTMENTS = (None, "original", "match_rms_adamw")
MOST_STEPS = 99


class Muon(Optimizer):
    """Muon, as ``torch.optim.Muon``, for weights (K, M) and filters (K, C, R, S), which count as (K, C * R * S).

    buffer = momentum * buffer + (1 - momentum) * gradient, from zeros; d = momentum * buffer + (1 - momentum) *
    gradient with ``nesterov``, else the buffer; with ``renormalize`` p is scaled to Frobenius norm sqrt(K); p *= 1 - lr
    * weight_decay; p -= lr * factor * orthogonalize(d), by :func:`orthogonalize`. The factor is sqrt(max(1, K / M))
    where ``adjust_lr_fn`` is None or "original", and 0.2 * sqrt(max(K, M)) for "match_rms_adamw". Parameters without a
    gradient are left alone.

    All but the norms is computed in the dtype of the parameters (PyTorch orthogonalizes in bfloat16); parameters of one
    shape and equal options go through :func:`orthogonalize` as one batch. Filters are those of ``data_format="NCHW"``
    layers, whose first axis is K.

    Method: K. Jordan and others, "Muon: an optimizer for hidden layers in neural networks", 2024; ``renormalize`` is
    from his airbench94. Raises ValueError for options out of range and for parameters of fewer than two axes.
    """

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

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = self.evaluate(closure)
        for (device, *_), (options, parameters) in self._batches().items():
            with running_on(device):
                self._update(parameters, options)
            for parameter in parameters:
                parameter.modified()
        return loss

    def _batches(self) -> dict[tuple[Any, ...], tuple[Mapping[str, Any], list[Tensor]]]:
        """Parameters with a gradient by device, dtype, K, M and options, with the group of the first of them."""
        batches: dict[tuple[Any, ...], tuple[Mapping[str, Any], list[Tensor]]] = {}
        for group in self.param_groups:
            options = tuple(float(group[name]) for name in ("lr", "weight_decay", "momentum", "eps"))
            switches = bool(group["nesterov"]), bool(group["renormalize"]), group["adjust_lr_fn"], group["ns_steps"]
            for parameter in group["params"]:
                if parameter.grad is None or not parameter.data.size:
                    continue
                rows = parameter.shape[0]
                sizes = rows, parameter.data.size // rows
                key = (parameter.device, parameter.dtype, sizes, options, switches, tuple(group["ns_coefficients"]))
                batches.setdefault(key, (group, []))[1].append(parameter)
        return batches

    def _update(self, parameters: list[Tensor], options: Mapping[str, Any]) -> None:
        """One step of parameters that all are (K, M)."""
        backend = parameters[0].backend
        xp, rows = backend.xp, parameters[0].shape[0]
        columns = parameters[0].data.size // rows
        tall = rows > columns  # then the transposed is orthogonalized: the products are smaller
        steps = xp.empty((len(parameters), *sorted((rows, columns))), parameters[0].dtype)
        for parameter, step in zip(parameters, steps, strict=True):
            direction = xp.moveaxis(self._direction(parameter, options), _row_axis(parameter), 0)
            (step.T if tall else step)[...] = direction.reshape(rows, columns)
        a, b, c = map(float, options["ns_coefficients"])
        steps = orthogonalize(backend, steps, (a, b, c), int(options["ns_steps"]), float(options["eps"]))
        lr = float(options["lr"])
        steps *= lr * _factor(options["adjust_lr_fn"], rows, columns)
        kept = 1.0 - lr * float(options["weight_decay"])
        for parameter, step in zip(parameters, steps, strict=True):
            weight, axis = memory_view(parameter.data), _row_axis(parameter)
            if options["renormalize"]:
                weight *= math.sqrt(rows) / xp.maximum(_norms(xp, weight[None])[0], float(options["eps"]))
            if kept != 1.0:
                weight *= kept
            moved = xp.moveaxis(weight, axis, 0)
            moved -= (step.T if tall else step).reshape(moved.shape)

    def _direction(self, parameter: Tensor, options: Mapping[str, Any]) -> Array:
        """The gradient, smoothed by the momentum, in the memory order of the parameter; the buffer is brought up to
        date.
        """
        momentum = float(options["momentum"])
        state = self.state.setdefault(parameter, {})
        known = state.get("momentum_buffer")
        if known is None:
            state["momentum_buffer"] = zeros_like(parameter)
        elif not suits(known, parameter):
            state["momentum_buffer"] = zeros_like(parameter).copy_(known)
        buffer = memory_view(state["momentum_buffer"].data)
        assert parameter.grad is not None
        part = matched(parameter.grad, parameter) * (1.0 - momentum)
        buffer *= momentum
        buffer += part
        if not options["nesterov"]:
            return buffer
        part += buffer * momentum
        return part


def orthogonalize(
    backend: Any,
    x: Array,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    steps: int = 5,
    eps: float = 1e-7,
) -> Array:
    """About U V^T of each x = U S V^T, x (B, K, M) with K <= M preferably: (B, K, M); the singular values come out near
    1, not at it.

    x / max(|x|, eps), then ``steps`` times x = a x + (b A + c A A) x, A = x x^T, (a, b, c) the coefficients: the
    quintic Newton-Schulz iteration, tuned for the steepest rise from 0. Every singular value s goes through a s + b s^3
    + c s^5. x is overwritten.
    """
    a, b, c = coefficients
    x /= backend.xp.maximum(_norms(backend.xp, x), eps)[:, None, None]
    for _ in range(steps):
        gram = backend.matmul(x, x, transpose_b=True)
        polynomial = backend.matmul(gram, gram)
        polynomial *= c
        gram *= b
        polynomial += gram
        higher = backend.matmul(polynomial, x)
        x *= a
        x += higher
    return x


def _norms(xp: Any, arrays: Array) -> Array:
    """The Frobenius norm of each of ``arrays`` (B, ...), C-contiguous: (B,). Of float16 in float32: the square of 256
    is infinite there.
    """
    flat = arrays.reshape(len(arrays), -1)
    if flat.dtype.itemsize < 4:
        flat = flat.astype("float32")
    return xp.sqrt((flat * flat).sum(axis=1))


def _factor(adjust_lr_fn: str | None, rows: int, columns: int) -> float:
    if adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))


def _row_axis(parameter: Tensor) -> int:
    """Where the parameter's first axis stands in the order of its memory."""
    return memory_axes(parameter.data).index(0)
