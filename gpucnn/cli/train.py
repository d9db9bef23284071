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
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="airbench94, resnet9, lecture, lenet5, resnet20, or a TOML file.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="lecture, resnet9, ...: by its own recipe; default: lecture.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="cifar10, mnist, shapes, ...; default: the set that the recipe is made for."),
    ] = None,
    data_dir: DataDir = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the training images.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Examples a step.")] = None,
    accumulate: Annotated[
        int | None, typer.Option("--accumulate", help="Take a batch through the network in so many parts.")
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate.")] = None,
    momentum: Annotated[float | None, typer.Option("--momentum", help="Momentum.")] = None,
    weight_decay: Annotated[float | None, typer.Option("--weight-decay", help="Weight decay.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any key of the recipe, e.g. optimizer.head.lr=0.5."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of weights, order and augmentation; default: 0.")] = None,
    device: DeviceOption = None,
    val_split: Annotated[
        int | None, typer.Option("--val-split", help="Hold so many training images out; the best run is by these.")
    ] = None,
    early_stop: Annotated[
        int | None, typer.Option("--early-stop", help="Stop after so many epochs without a better validation accuracy.")
    ] = None,
    tta: Annotated[
        str | None, typer.Option("--tta", help="Views of each test image after the last epoch: none, mirror, six.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="float32, tf32, float16 or bfloat16; default: the recipe's.")
    ] = None,
    graph: Annotated[
        bool | None,
        typer.Option("--graph/--no-graph", help="Each step as one CUDA graph; default: on a GPU, where it can be."),
    ] = None,
    autotune: Annotated[
        bool | None,
        typer.Option("--autotune/--no-autotune", help="Choose between kernels by time, on a GPU; kept with the run."),
    ] = None,
    runs: Annotated[
        int | None, typer.Option("--runs", min=1, help="Repeat with this many seeds; prints mean and deviation.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The run's folder; default: runs/<model-data-time>.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in --out already.")] = False,
    resume: Annotated[Path | None, typer.Option("--resume", help="Go on with the run in this folder.")] = None,
    checkpoint_steps: Annotated[
        int | None, typer.Option("--checkpoint-steps", help="A checkpoint every so many steps, besides each epoch's.")
    ] = None,
    checkpoint_minutes: Annotated[
        float | None, typer.Option("--checkpoint-minutes", help="A checkpoint every so many minutes.")
    ] = None,
    log_steps: Annotated[
        int | None, typer.Option("--log-steps", help="Steps that a line of the metrics stands for; default: 50.")
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard's event files.")] = False,
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
        "accumulate": accumulate,
        "lr": lr,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "seed": seed,
        "device": device,
        "val_split": val_split,
        "early_stop": early_stop,
        "tta": tta,
        "precision": precision,
        "graph": graph,
        "autotune": autotune,
        "checkpoint_steps": checkpoint_steps,
        "checkpoint_minutes": checkpoint_minutes,
        "log_steps": log_steps,
        "tensorboard": tensorboard or None,
        "train_images": train_images,
        "test_images": test_images,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    changes |= parsed(settings or [])
    if resume is not None:
        if out is not None or overwrite or recipe is not None or runs is not None:
            raise ValueError(
                "--resume goes on in the run's own folder with its own recipe: leave --out, --overwrite, --recipe and"
                " --runs away"
            )
        if model is not None:
            changes["model"] = models.canonical_name(model)
        with display(output) as progress:
            output.result(told(training.train(resume=resume, changes=changes, progress=progress)))
        return
    model, recipe = (
        None if name is None else str(name) for name in (changes.pop("model", model), changes.pop("recipe", recipe))
    )
    config = training.config_for(model, recipe, **changes)
    with display(output) as progress:
        if runs is not None:
            output.result(training.repeat(config, runs, out=out, overwrite=overwrite, progress=progress).told())
        else:
            output.result(told(training.train(config, out=out, overwrite=overwrite, progress=progress)))


def parsed(settings: list[str]) -> dict[str, Any]:
    """Keys and values of ``KEY=VALUE``; values as in TOML, and what is no TOML is a string."""
    import tomllib

    found: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"--set: expected KEY=VALUE, got {setting!r}")
        try:
            found[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = text.strip()
    return found


def told(summary: Summary) -> str:
    """The run in a few lines; they name the data that it really trained on."""
    from gpucnn.training.views import VIEWS

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
    if summary.last is not None and summary.last.tta_accuracy is not None:
        views = VIEWS[summary.config.tta]
        lines.append(f"test accuracy {summary.last.tta_accuracy:.2%} with {views} views of each image")
    if summary.last is not None and summary.last.val_accuracy is not None:
        lines.append(f"accuracy {summary.last.val_accuracy:.2%} on the {summary.config.val_split} images held out")
    if summary.skipped_steps:
        lines.append(f"skipped {count(summary.skipped_steps, 'step')}: gradients beyond float16")
    if summary.stopped is not None:
        lines.append(f"stopped early: {summary.stopped}")
    lines.append(f"run: {summary.folder}")
    return "\n".join(lines)
