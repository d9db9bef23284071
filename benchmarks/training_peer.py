"""Trains the PyTorch form of a recipe from the same initial weights and on the same batches as `gpucnn train` does.

    python -m benchmarks.training_peer resnet9 --epochs 5 --seed 0 --out peer.jsonl

Weights are copied from gpucnn's network as it starts, whitening included, and batches come from gpucnn's loader with
the recipe's augmentation. All else is PyTorch: network, loss, gradients, optimizers, learning rates, evaluation;
float32 on the CPU. See compare_curves.py for what is made of the file.

The file has a line about the run, then one for each step: "step" from 1, "loss" (the training loss, a mean over the
batch's examples), "lr" (the first optimizer's, of that step); and one for each epoch: "test_accuracy", "test_loss",
"train_loss", "seconds" of its training, and after the last one the recipe's "tta_accuracy".
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from gpucnn import data, machine, models, random
from gpucnn.bench.torch_networks import NETWORKS
from gpucnn.bench.torch_recipes import factor, logits_of_views, optimizer
from gpucnn.cli.train import parsed
from gpucnn.training import build
from gpucnn.training.config import Config
from gpucnn.training.recipes import config_for

EVALUATION_BATCH = 500
RECIPES = ("resnet9", "airbench94")


@dataclass
class Set:
    """Parameters that one optimizer has, trained for ``steps`` steps on a schedule of that length."""

    optimizer: torch.optim.Optimizer
    lr: float
    steps: int


class Peer:
    """A recipe's training in PyTorch, step by step.

    ``noise`` is a relative change of all initial weights, drawn from a normal distribution: two runs that differ by
    1e-7 alone show how far rounding errors carry.

    Raises ValueError for a recipe that has no form here.
    """

    def __init__(self, config: Config, noise: float = 0.0) -> None:
        if config.model not in RECIPES or config.accumulate != 1 or config.clip_norm or config.average_decay:
            raise ValueError(f"training_peer: no PyTorch form of {config.model} with these options")
        self.config = config
        limits = (config.train_images, config.test_images)
        train, test = data.find(config.data, config.data_dir, print, config.default_data, limits)
        random.manual_seed(config.seed)
        self.ours = ours = models.create(config.model, num_classes=len(train.classes), device="cpu")
        part, held_out = build.split(train, config.val_split, config.seed)
        self.parts = part, held_out, test
        self.loaders = build.loaders(config, ours, *self.parts)
        build.start_from_data(ours, part, "cpu")
        self.network = NETWORKS[config.model](len(train.classes))
        self.network.load_state_dict(
            {name: torch.from_numpy(value.numpy()) for name, value in ours.state_dict().items()}
        )
        draws = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.network.parameters():
                parameter.mul_(1.0 + noise * torch.randn(parameter.shape, generator=draws))
        self.network.to(memory_format=torch.channels_last)
        self.steps_per_epoch = len(self.loaders.train)
        self.sets = list(self._sets())
        self.step_count = 0
        self.lr = math.nan

    def _sets(self) -> Iterator[Set]:
        tables = {"all": self.config.optimizer} if "name" in self.config.optimizer else self.config.optimizer
        parameters = self.network.sets()
        for name, table in tables.items():
            steps = math.ceil(table.get("epochs", self.config.epochs) * self.steps_per_epoch)
            yield Set(optimizer(table, parameters[name]), table["lr"], steps)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        """One training step; the loss as a mean over the examples."""
        training = [each for each in self.sets if self.step_count < each.steps]
        self.network.zero_grad(set_to_none=True)
        loss = F.cross_entropy(
            self.network(images),
            labels,
            reduction=self.config.reduction,
            label_smoothing=self.config.label_smoothing,
        )
        loss.backward()
        for each in training:
            for group in each.optimizer.param_groups:
                group["lr"] = each.lr * factor(self.config.schedule, self.step_count, each.steps)
            each.optimizer.step()
        self.lr = training[0].optimizer.param_groups[0]["lr"]
        self.step_count += 1
        value = float(loss.detach())
        if not math.isfinite(value):
            raise RuntimeError(f"training_peer: the loss became {value} at step {self.step_count}")
        return value / len(labels) if self.config.reduction == "sum" else value

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One epoch of gpucnn's batches; the images share memory with gpucnn's and are channels-last."""
        with closing(iter(self.loaders.train)) as batches:
            for images, labels in batches:
                yield torch.from_numpy(images.data), torch.from_numpy(labels.data)

    @torch.no_grad()
    def evaluate(self, views: str = "none") -> tuple[float, float]:
        """Mean loss and accuracy over the test part."""
        self.network.eval()
        loss, right, examples = 0.0, 0, 0
        with closing(iter(self.loaders.test)) as batches:
            for images, labels in batches:
                x, y = torch.from_numpy(images.data), torch.from_numpy(labels.data)
                for at in range(0, len(y), EVALUATION_BATCH):
                    part = y[at : at + EVALUATION_BATCH]
                    logits = logits_of_views(self.network, x[at : at + EVALUATION_BATCH], views)
                    loss += float(F.cross_entropy(logits, part, reduction="sum"))
                    right += int((logits.argmax(1) == part).sum())
                    examples += len(part)
        self.network.train()
        return loss / examples, right / examples


def train(config: Config, out: Path, most_steps: int | None = None, noise: float = 0.0, quiet: bool = False) -> None:
    """Trains and writes ``out``, at most ``most_steps`` steps of the run. Raises ValueError as :class:`Peer`."""
    peer = Peer(config, noise)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8", buffering=1) as file:

        def write(kind: str, **values: Any) -> None:
            file.write(json.dumps({"kind": kind, **values}) + "\n")
            if not quiet and (kind == "epoch" or values.get("step", 1) % config.log_steps == 0):
                print(kind, json.dumps(values), flush=True)

        file.write(
            json.dumps({"kind": "run", "config": config.to_dict(), "noise": noise, "machine": machine.describe()})
            + "\n"
        )
        for epoch in range(config.epochs):
            started, total = time.perf_counter(), 0.0
            for images, labels in peer.batches():
                loss = peer.step(images, labels)
                total += loss * len(labels)
                write("step", step=peer.step_count, epoch=peer.step_count / peer.steps_per_epoch, loss=loss, lr=peer.lr)
                if peer.step_count == most_steps:
                    return
            seconds = time.perf_counter() - started
            test_loss, test_accuracy = peer.evaluate()
            last = epoch + 1 == config.epochs and config.tta != "none"
            write(
                "epoch", epoch=epoch + 1, step=peer.step_count, train_loss=total / peer.loaders.train.examples,
                test_loss=test_loss, test_accuracy=test_accuracy,
                tta_accuracy=peer.evaluate(config.tta)[1] if last else None, seconds=seconds,
            )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_peer", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("recipe", help=f"{', '.join(RECIPES)}, or a TOML file for one of them")
    parser.add_argument("--epochs", type=int, help="passes over the training images; the schedule is stretched to them")
    parser.add_argument("--steps", type=int, help="stop after so many steps; the schedule stays as it is")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--data-dir")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in gpucnn train")
    parser.add_argument("--threads", type=int, help="of PyTorch; default: its own choice")
    parser.add_argument("--noise", type=float, default=0.0, help="relative change of the initial weights, e.g. 1e-7")
    parser.add_argument("--out", type=Path, required=True, help="the JSON lines to write")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    changes = {key: getattr(options, key) for key in ("epochs", "batch_size", "seed", "data_dir")}
    config = config_for(recipe=options.recipe, **changes, **parsed(options.set), device="cpu")
    train(config, options.out, options.steps, options.noise)


if __name__ == "__main__":
    main()
