"""Optimizers and what goes with them, with PyTorch's names."""

from gpucnn.optim import lr_scheduler
from gpucnn.optim.adagrad import Adagrad
from gpucnn.optim.adam import Adam, AdamW
from gpucnn.optim.lookahead import Lookahead
from gpucnn.optim.moving_average import MovingAverage, tutorial_decay
from gpucnn.optim.muon import Muon
from gpucnn.optim.optimizer import Optimizer
from gpucnn.optim.rmsprop import RMSprop
from gpucnn.optim.sgd import SGD
from gpucnn.optim.step_all import prepare_all, step_all

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Lookahead",
    "MovingAverage",
    "Muon",
    "Optimizer",
    "RMSprop",
    "lr_scheduler",
    "prepare_all",
    "step_all",
    "tutorial_decay",
]
