"""Gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpucnn.autograd import no_grad
from gpucnn.creation import tensor
from gpucnn.tensor import Tensor, float64


def gradcheck(
    function: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Compares the gradients of ``function`` at ``inputs`` with central differences, element by element, in float64.

    The outputs are weighted by fixed, unequal numbers, so that an upstream gradient that a backward mixes up shows.
    ``inputs`` that require gradients must be float64. Returns True, or raises AssertionError (returns False if not
    ``raise_exception``) naming input, element and both values.
    """
    arguments = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    checked = [(i, x) for i, x in enumerate(arguments) if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise ValueError("gradcheck: no input requires a gradient")
    for index, x in checked:
        if x.dtype != float64:
            raise TypeError(f"gradcheck: input {index} is {x.dtype}; finite differences need float64")
        if not x.is_leaf:
            raise ValueError(f"gradcheck: input {index} is the result of recorded calls; pass a leaf")

    before = [x.grad for _, x in checked]
    for _, x in checked:
        x.grad = None
    outputs = _outputs(function, arguments)
    weights = [np.random.default_rng(i).uniform(0.5, 1.5, y.shape) for i, y in enumerate(outputs)]
    for y, weight in zip(outputs, weights, strict=True):
        if y.requires_grad:
            y.backward(tensor(weight, dtype=y.dtype, device=y.device), retain_graph=True)
    analytic = [np.zeros(x.shape) if x.grad is None else x.grad.numpy() for _, x in checked]
    for (_, x), grad in zip(checked, before, strict=True):
        x.grad = grad

    for (index, x), gradient in zip(checked, analytic, strict=True):
        numeric = _central_differences(function, arguments, index, weights, eps)
        wrong = ~(np.abs(gradient - numeric) <= atol + rtol * np.abs(numeric))
        if wrong.any():
            if not raise_exception:
                return False
            place = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise AssertionError(
                f"gradcheck: input {index} of shape {x.shape}: {int(wrong.sum())} of {wrong.size} elements differ;"
                f" at {place}"
                f" backward gives {gradient[place]!r}, finite differences {numeric[place]!r}"
            )
    return True


def _outputs(function: Callable[..., Any], arguments: Sequence[Any]) -> list[Tensor]:
    result = function(*arguments)
    return [y for y in (result if isinstance(result, tuple) else (result,)) if y.is_floating_point()]


def _central_differences(
    function: Callable[..., Any], arguments: Sequence[Any], index: int, weights: Sequence[Any], eps: float
) -> np.ndarray[Any, Any]:
    x = arguments[index]
    values = x.numpy()
    numeric = np.zeros(x.shape)
    with no_grad():
        for place in np.ndindex(*x.shape):
            sides = []
            for sign in (1, -1):
                moved = values.copy()
                moved[place] += sign * eps
                trial = [*arguments[:index], tensor(moved, device=x.device), *arguments[index + 1 :]]
                sides.append(
                    sum(float((y.numpy() * w).sum()) for y, w in zip(_outputs(function, trial), weights, strict=True))
                )
            numeric[place] = (sides[0] - sides[1]) / (2 * eps)
    return numeric
