"""One training step of several optimizers, the moving average and loss scaling, in as few launches as there can be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gpucnn.optim.fused import FusedOptimizer, Part, launch
from gpucnn.optim.lookahead import Lookahead
from gpucnn.optim.moving_average import MovingAverage
from gpucnn.optim.optimizer import Optimizer

if TYPE_CHECKING:
    from gpucnn.amp import GradScaler


def prepare_all(optimizers: Iterable[Optimizer], average: MovingAverage | None = None) -> None:
    """The host's part of a :func:`step_all` that is replayed afterwards: counts and numbers (learning rates, bias
    corrections, decays) are brought up to date and copied to the device, on the current stream. Steps captured by
    :func:`gpucnn.cuda.graph` do this by themselves.
    """
    for optimizer in optimizers:
        optimizer.prepare()
    if average is not None:
        average.prepare()


def step_all(
    optimizers: Iterable[Optimizer],
    average: MovingAverage | None = None,
    scaler: GradScaler | None = None,
    zero_grad: bool = False,
) -> None:
    """One step of each of ``optimizers``, then ``average.update()``, as if called one by one, in fewer launches.

    Parameters of several optimizers of one kind share a launch, and parameters that ``average`` covers are averaged in
    the launch that updates them; one more takes what is left (buffers). With ``scaler`` the gradients are unscaled on
    the way, and the optimizers skip on the device where any gradient is infinite or NaN; ``scaler.update()`` is still
    to be called. ``zero_grad`` leaves the gradients at zero, in the same launch.

    While a step is captured this only launches, and the host's part is done before each replay.
    """
    given = list(optimizers)
    inner = [optimizer.optimizer if isinstance(optimizer, Lookahead) else optimizer for optimizer in given]
    fused = [(optimizer, optimizer.updated()) for optimizer in inner if isinstance(optimizer, FusedOptimizer)]
    for optimizer, pairs in fused:
        optimizer.begin_or_register(pairs, scaled=scaler is not None)
    if average is not None:
        average.begin_or_register()
    parts: list[Part] = [(optimizer, pairs, None) for optimizer, pairs in fused]
    if scaler is not None:
        parts = scaler.checked(fused)
    # Lookahead moves the parameters once more, so an average that is taken along would miss that.
    alone = average is None or len(fused) < len(inner) or any(isinstance(each, Lookahead) for each in given)
    covered = {} if alone or average is None else average.covered(p for _, pairs in fused for _, p in pairs)
    launch(parts, covered, None if average is None else average.rows(), zero_grad)
    for each, own in zip(given, inner, strict=True):
        if not isinstance(own, FusedOptimizer):
            own.step()
        if isinstance(each, Lookahead):
            each.follow()
    if average is not None:
        average.launch(without=covered)
