"""Learning rates that change with the epoch, as ``torch.optim.lr_scheduler``: call ``step()`` after each epoch, or
after each step where the schedule counts those.
"""

from gpucnn.optim.lr_scheduler.base import LRScheduler
from gpucnn.optim.lr_scheduler.combined import ChainedScheduler, SequentialLR
from gpucnn.optim.lr_scheduler.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from gpucnn.optim.lr_scheduler.factors import (
    ConstantLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    PiecewiseLinearLR,
    PolynomialLR,
    StepLR,
)
from gpucnn.optim.lr_scheduler.functions import LambdaLR, MultiplicativeLR
from gpucnn.optim.lr_scheduler.one_cycle import OneCycleLR
from gpucnn.optim.lr_scheduler.plateau import ReduceLROnPlateau

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PiecewiseLinearLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]
