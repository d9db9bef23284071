"""`gpucnn train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpucnn.cli.options import DataDir, DeviceOption, Quiet, usable_device
from gpucnn.cli.output import Output, count, duration

if TYPE_CHECKING:
    from gpucnn.training import Summary


def train(
    model: Annotated[str | None, typer.Option("--model", help="lecture, lenet5, ...; default: lecture.")] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="cifar10, mnist or shapes; default: the set that the model is made for."),
    ] = None,
    data_dir: DataDir = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Passes over the training images; default: 10.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Examples a step.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate.")] = None,
    momentum: Annotated[float | None, typer.Option("--momentum", help="Momentum of SGD.")] = None,
    weight_decay: Annotated[float | None, typer.Option("--weight-decay", help="Weight decay.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of weights, order and augmentation; default: 0.")] = None,
    device: DeviceOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The run's folder; default: runs/<model-data-time>.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in --out already.")] = False,
    resume: Annotated[Path | None, typer.Option("--resume", help="Go on with the run in this folder.")] = None,
    checkpoint_steps: Annotated[
        int | None, typer.Option("--checkpoint-steps", help="A checkpoint every so many steps, besides each epoch's.")
    ] = None,
    train_images: Annotated[int | None, typer.Option("--train-images", help="Only the first so many images.")] = None,
    test_images: Annotated[int | None, typer.Option("--test-images", help="Only the first so many images.")] = None,
    quiet: Quiet = False,
) -> None:
    """Train a network; alone, the lecture network on CIFAR-10 for 10 epochs."""
    from gpucnn import models, training
    from gpucnn.cli.progress import display

    output = Output(quiet)
    if device is not None or resume is None:
        usable_device(device)
    given: dict[str, Any] = {
        "data": data,
        "data_dir": str(data_dir) if data_dir is not None else None,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "seed": seed,
        "device": device,
        "checkpoint_steps": checkpoint_steps,
        "train_images": train_images,
        "test_images": test_images,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if resume is not None:
        if out is not None or overwrite:
            raise ValueError("--resume goes on in the run's own folder: leave --out and --overwrite away")
        if model is not None:
            changes["model"] = models.canonical_name(model)
    else:
        config = training.config_for(model or "lecture", **changes)
    with display(output) as progress:
        if resume is not None:
            summary = training.train(resume=resume, changes=changes, progress=progress)
        else:
            summary = training.train(config, out=out, overwrite=overwrite, progress=progress)
    output.result(_told(summary))


def _told(summary: Summary) -> str:
    """The run in a few lines; they name the data that it really trained on."""
    lines = [
        f"trained {summary.config.model} on {summary.data} ({summary.source}), device {summary.device}:"
        f" {count(summary.epochs, 'epoch')}, {count(summary.steps, 'step')}, {duration(summary.seconds)}"
    ]
    if summary.last is not None and summary.last.test_accuracy is not None:
        weights, averaged = summary.last.test_accuracy, summary.last.average_accuracy
        if averaged is None:
            lines.append(f"test accuracy {weights:.2%}")
        else:
            lines.append(
                f"test accuracy {averaged:.2%} with the moving average of the weights, {weights:.2%} with the weights"
            )
    lines.append(f"run: {summary.folder}")
    return "\n".join(lines)
