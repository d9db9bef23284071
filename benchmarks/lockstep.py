"""Trains a recipe in gpucnn and in PyTorch side by side, both from the same weights at every step.

    python -m benchmarks.lockstep airbench94 --steps 50 --out benchmarks/results/NAME.json

After each step PyTorch's network takes over gpucnn's weights and running statistics; optimizers keep their own state.
So the difference of a step's losses is what forward, backward and update of one step differ by, and not what a
training at a high learning rate makes of last bits: two runs in PyTorch whose first weights differ by 1e-7 come as far
apart as gpucnn and PyTorch do when they are left alone (training_peer.py, --noise).
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.training_peer import Peer
from gpucnn import machine
from gpucnn.cli.train import parsed
from gpucnn.training import Callback, Trainer, build
from gpucnn.training.config import Config
from gpucnn.training.metrics import StepsRecord
from gpucnn.training.recipes import config_for


class EnoughSteps(Exception):
    """So many steps as were asked for are done."""


class Beside(Callback):
    """Takes each step in PyTorch too, compares, and gives PyTorch gpucnn's weights."""

    def __init__(self, peer: Peer, most_steps: int) -> None:
        self.peer, self.most_steps = peer, most_steps
        self.steps: list[dict[str, float]] = []
        self._batches = iter(())

    def on_epoch_start(self, trainer: Trainer) -> None:
        self._batches = self.peer.batches()

    def on_steps(self, trainer: Trainer, record: StepsRecord) -> None:
        theirs = self.peer.step(*next(self._batches))
        ours = record.loss
        state = {name: torch.from_numpy(value.numpy()) for name, value in trainer.model.state_dict().items()}
        apart = self._update_difference(state)
        self.peer.network.load_state_dict(state)
        self.steps.append(
            {
                "step": record.step,
                "gpucnn": ours,
                "PyTorch": theirs,
                "difference": abs(ours - theirs) / abs(theirs),
                "weights_difference": apart,
            }
        )
        print(json.dumps(self.steps[-1]), flush=True)
        if record.step == self.most_steps:
            raise EnoughSteps

    def _update_difference(self, state: dict[str, torch.Tensor]) -> float:
        """|ours - theirs| / |theirs| over all trained weights after the step, in the Euclidean norm."""
        pairs = [(state[name], p.detach()) for name, p in self.peer.network.named_parameters() if p.requires_grad]
        apart = sum(_square(ours - theirs) for ours, theirs in pairs)
        return (apart / sum(_square(theirs) for _, theirs in pairs)) ** 0.5


def _square(values: torch.Tensor) -> float:
    return float(values.double().square().sum())


def run(config: Config, most_steps: int) -> dict[str, Any]:
    """The losses of ``most_steps`` steps, or of the whole run where that has fewer, and how far they differ."""
    peer = Peer(config)
    model, steps_per_epoch = peer.ours, len(peer.loaders.train)
    optimizers = build.optimizers(config, model)
    beside = Beside(peer, most_steps)
    # A loader of its own: the peer asks its own for the same batches.
    loaders = build.loaders(config, model, *peer.parts)
    trainer = Trainer(
        model,
        loaders.train,
        None,
        optimizers,
        scheduler=build.schedulers(config, optimizers, steps_per_epoch),
        callbacks=[*build.freezes(config, model, steps_per_epoch), beside],
        schedule_every="step",
        reduction=config.reduction,
        label_smoothing=config.label_smoothing,
        log_steps=1,
    )
    with contextlib.suppress(EnoughSteps):
        trainer.run(config.epochs)
    differences = [step["difference"] for step in beside.steps]
    return {
        "config": config.to_dict(),
        "machine": machine.describe(),
        "largest_difference": max(differences),
        "largest_weights_difference": max(step["weights_difference"] for step in beside.steps),
        "steps": beside.steps,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lockstep", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipe", help="resnet9, airbench94, or a TOML file for one of them")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--epochs", type=int, help="the schedule is stretched to them")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in gpucnn train")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    options = parser.parse_args(arguments)
    changes = {key: getattr(options, key) for key in ("epochs", "batch_size", "seed")}
    config = config_for(recipe=options.recipe, **changes, **parsed(options.set), device="cpu")
    result = run(config, options.steps)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result) + "\n", encoding="utf-8")
    print(f"{len(result['steps'])} steps: losses differ by {result['largest_difference']:.1e} at most")


if __name__ == "__main__":
    main()
