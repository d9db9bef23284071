"""Steps of optimizers by PyTorch's documentation, one element after the other.

Each function is the whole history of one number: its values ``gradients`` come step by step, and it returns the
number and the state after the last, computed in ``real`` (float64, or float32 as the plain computation of the
tolerance rule).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Numbers = Sequence[Any]


def adam(
    theta: Any,
    gradients: Numbers,
    real: Any = np.float64,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    maximize: bool = False,
    decoupled: bool = False,
) -> dict[str, Any]:
    """torch.optim.Adam and, decoupled, AdamW."""
    beta1, beta2 = betas
    theta, m, v, largest = real(theta), real(0), real(0), real(0)
    for t, gradient in enumerate(gradients, 1):
        g = real(-gradient if maximize else gradient)
        if decoupled:
            theta = theta - real(lr * weight_decay) * theta
        else:
            g = g + real(weight_decay) * theta
        m = real(beta1) * m + real(1 - beta1) * g
        v = real(beta2) * v + real(1 - beta2) * g * g
        largest = max(largest, v)
        corrected = (largest if amsgrad else v) / real(1 - beta2**t)
        theta = theta - real(lr) * (m / real(1 - beta1**t)) / (np.sqrt(corrected) + real(eps))
    state = {"parameter": theta, "exp_avg": m, "exp_avg_sq": v}
    return {**state, "max_exp_avg_sq": largest} if amsgrad else state


def rmsprop(
    theta: Any,
    gradients: Numbers,
    real: Any = np.float64,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    maximize: bool = False,
) -> dict[str, Any]:
    """torch.optim.RMSprop."""
    theta, s, a, buffer = real(theta), real(0), real(0), real(0)
    for gradient in gradients:
        g = real(-gradient if maximize else gradient) + real(weight_decay) * theta
        s = real(alpha) * s + real(1 - alpha) * g * g
        a = real(alpha) * a + real(1 - alpha) * g
        d = g / (np.sqrt(s - a * a if centered else s) + real(eps))
        buffer = real(momentum) * buffer + d
        theta = theta - real(lr) * (buffer if momentum else d)
    state = {"parameter": theta, "square_avg": s}
    state |= {"grad_avg": a} if centered else {}
    return state | ({"momentum_buffer": buffer} if momentum else {})


def adagrad(
    theta: Any,
    gradients: Numbers,
    real: Any = np.float64,
    lr: float = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
    maximize: bool = False,
) -> dict[str, Any]:
    """torch.optim.Adagrad."""
    theta, total = real(theta), real(initial_accumulator_value)
    for t, gradient in enumerate(gradients, 1):
        g = real(-gradient if maximize else gradient) + real(weight_decay) * theta
        total = total + g * g
        theta = theta - real(lr / (1 + (t - 1) * lr_decay)) * g / (np.sqrt(total) + real(eps))
    return {"parameter": theta, "sum": total}


def over_arrays(
    rule: Callable[..., dict[str, Any]],
    start: Array,
    gradients: Sequence[Array],
    real: Any = np.float64,
    **options: Any,
) -> dict[str, Array]:
    """``rule`` on every element of ``start`` (any shape), as arrays of that shape."""
    histories = np.stack([np.ravel(g) for g in gradients], axis=1) if start.size else np.zeros((0, len(gradients)))
    results = [rule(x, history, real, **options) for x, history in zip(start.ravel(), histories, strict=True)]
    names = rule(1.0, [1.0], **options)
    return {name: np.array([r[name] for r in results], real).reshape(start.shape) for name in names}
