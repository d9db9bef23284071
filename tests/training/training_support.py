"""Small runs for the tests of training."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn import load, training

SMALL: dict[str, Any] = {
    "data": "shapes",
    "epochs": 2,
    "batch_size": 16,
    "train_images": 150,  # ten steps an epoch, the last of them smaller
    "test_images": 40,
    "device": "cpu",
    "average_decay": 0.9,
    "momentum": 0.9,
    "lr": 0.02,
}


def small(**changes: Any) -> training.Config:
    """A run of lenet5 on a few generated images, with momentum and a moving average."""
    return training.config_for("lenet5", **{**SMALL, **changes})


def contents(folder: Path, name: str = "checkpoint.safetensors") -> dict[str, Any]:
    """Everything in a checkpoint that must be equal bit by bit: flat, arrays as bytes, without times and the lengths of
    files, whose times have more digits or fewer."""
    flat: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if key not in ("epoch_seconds", "bytes", "config"):
                    walk(item, f"{path}/{key}")
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                walk(item, f"{path}/{index}")
        else:
            flat[path] = value.numpy().tobytes() if hasattr(value, "numpy") else value

    walk(load(folder / name, device="cpu"), "")
    return flat


def lines(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without times and memory."""
    return [_same(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def table(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without times and memory."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [_same(row) for row in csv.DictReader(file)]


def _same(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if "second" not in k and k != "rss_mib"}


def weights(folder: Path) -> list[np.ndarray]:
    """The weights of a checkpoint."""
    return [
        value.numpy() for value in load(folder / "checkpoint.safetensors", device="cpu")["trainer"]["model"].values()
    ]


class Recorder(training.Silent):
    """Remembers what a progress display is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.epochs: list[tuple[int, int, int, int]] = []
        self.steps: list[tuple[int, float, float, float, float | None]] = []
        self.evaluations: list[tuple[int, int]] = []
        self.records: list[dict[str, Any]] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def start_epoch(self, epoch: int, epochs: int, steps: int, done: int) -> None:
        self.epochs.append((epoch, epochs, steps, done))

    def step(self, done, examples_per_second, loss, accuracy, seconds_left) -> None:
        self.steps.append((done, examples_per_second, loss, accuracy, seconds_left))

    def evaluating(self, done: int, total: int) -> None:
        self.evaluations.append((done, total))

    def end_epoch(self, record: dict[str, Any]) -> None:
        self.records.append(record)
