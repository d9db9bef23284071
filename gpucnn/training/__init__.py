"""Training: ``training.train(config)`` for a run in a folder, ``training.fit(model, data)`` for a call without one."""

from __future__ import annotations

from gpucnn.training.callbacks import Callback, Progress, Report, Silent
from gpucnn.training.config import RESUMABLE, Config
from gpucnn.training.early_stop import EarlyStop
from gpucnn.training.errors import TrainingError, TrainingInterrupted
from gpucnn.training.fit import fit
from gpucnn.training.inputs import transforms
from gpucnn.training.loggers import CSVLog, JSONLines, TensorBoard
from gpucnn.training.loop import EpochRecord, Trainer, evaluate
from gpucnn.training.metrics import Metrics, StepsRecord
from gpucnn.training.recipes import config_for
from gpucnn.training.repeat import Repeated, repeat
from gpucnn.training.run import LoadedRun, Summary, load_run, train

__all__ = [
    "RESUMABLE",
    "CSVLog",
    "Callback",
    "Config",
    "EarlyStop",
    "EpochRecord",
    "JSONLines",
    "LoadedRun",
    "Metrics",
    "Progress",
    "Repeated",
    "Report",
    "Silent",
    "StepsRecord",
    "Summary",
    "TensorBoard",
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
