"""Optimizers and what goes with them, with PyTorch's names."""

from gpucnn.optim import lr_scheduler
from gpucnn.optim.moving_average import MovingAverage, tutorial_decay
from gpucnn.optim.muon import Muon
from gpucnn.optim.optimizer import Optimizer
from gpucnn.optim.sgd import SGD

__all__ = ["SGD", "MovingAverage", "Muon", "Optimizer", "lr_scheduler", "tutorial_decay"]
