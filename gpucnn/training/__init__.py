"""Training: ``training.train(config)`` for a run in a folder, ``training.fit(model, data)`` for a call without one."""

from __future__ import annotations

from gpucnn.training.callbacks import Callback, Progress, Report, Silent
from gpucnn.training.config import RESUMABLE, Config
from gpucnn.training.errors import TrainingError, TrainingInterrupted
from gpucnn.training.fit import fit
from gpucnn.training.inputs import transforms
from gpucnn.training.loop import EpochRecord, Trainer, evaluate
from gpucnn.training.metrics import Metrics
from gpucnn.training.recipes import config_for
from gpucnn.training.repeat import Repeated, repeat
from gpucnn.training.run import LoadedRun, Summary, load_run, train

__all__ = [
    "RESUMABLE",
    "Callback",
    "Config",
    "EpochRecord",
    "LoadedRun",
    "Metrics",
    "Progress",
    "Repeated",
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
    "repeat",
    "train",
    "transforms",
]
