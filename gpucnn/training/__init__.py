"""Training: ``training.train(config)`` for a run in a folder, ``training.fit(model, data)`` for a call without one."""

from __future__ import annotations

from gpucnn.training.callbacks import Callback, Progress, Report, Silent
from gpucnn.training.config import RESUMABLE, Config
from gpucnn.training.errors import TrainingError, TrainingInterrupted
from gpucnn.training.loop import EpochRecord, Trainer, evaluate, fit
from gpucnn.training.metrics import Metrics
from gpucnn.training.recipes import RECIPES, config_for, transforms
from gpucnn.training.run import LoadedRun, Summary, load_run, train

__all__ = [
    "RECIPES",
    "RESUMABLE",
    "Callback",
    "Config",
    "EpochRecord",
    "LoadedRun",
    "Metrics",
    "Progress",
    "Report",
    "Silent",
    "Summary",
    "Trainer",
    "TrainingError",
    "TrainingInterrupted",
    "config_for",
    "evaluate",
    "fit",
    "load_run",
    "train",
    "transforms",
]
