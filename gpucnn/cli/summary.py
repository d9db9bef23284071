"""`gpucnn summary`: what a network consists of."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from gpucnn.cli.output import Output
from gpucnn.cli.tables import print_table

if TYPE_CHECKING:
    from gpucnn.nn.summary import Row

HEADER = ("layer", "kind", "output", "parameters", "MFLOP", "training", "memory")


def summary(
    model: Annotated[str, typer.Argument(help="lecture, lenet5, resnet9, airbench94, resnet20.")],
    input_shape: Annotated[
        str | None, typer.Option("--input-shape", help="C,H,W of an image, such as 3,64,64; default: the model's own.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Examples that the memory is for.")] = 128,
    classes: Annotated[int, typer.Option("--classes", help="How many classes it tells apart.")] = 10,
) -> None:
    """Print a network's layers, their output shapes, parameters, FLOPs and memory."""
    from gpucnn import models
    from gpucnn.nn.summary import summarize, total

    output = Output()
    for option, value in (("--batch-size", batch_size), ("--classes", classes)):
        if value < 1:
            raise ValueError(f"{option} must be at least 1, got {value}")
    name = models.canonical_name(model)
    network = models.create(name, num_classes=classes, device="cpu")
    shape = parsed_shape(input_shape) if input_shape is not None else tuple(network.input_shape)
    rows = summarize(network, shape)
    whole = total(rows)
    output.say(f"{name}: images {_shape(shape)}, {classes} {'class' if classes == 1 else 'classes'}")
    print_table(
        output,
        HEADER,
        [_cells(row, batch_size) for row in rows],
        right=(3, 4, 5, 6),
        last=_cells(whole, batch_size),
    )
    trained = "all trained" if whole.trained == whole.parameters else f"of which {whole.trained:,} are trained"
    output.result(f"parameters: {whole.parameters:,}, {trained}")
    output.result(
        f"FLOPs an example: {whole.flops:,} forward, {whole.training_flops:,} in training, counting convolutions and"
        " matrix products, 2 for a multiply-add"
    )
    output.result(
        f"memory at batch size {batch_size}: weights {size(whole.parameter_bytes)},"
        f" gradients {size(whole.parameter_bytes * whole.trained // max(whole.parameters, 1))},"
        f" outputs of all layers {size(whole.activation_bytes * batch_size)}"
    )


def parsed_shape(text: str) -> tuple[int, ...]:
    """(3, 32, 32) of "3,32,32" or "3x32x32". Raises ValueError for anything else."""
    parts = re.split(r"[,x]", text.strip("() "))
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ValueError(f"--input-shape must be C,H,W, such as 3,32,32, got {text!r}")
    return tuple(int(part) for part in parts)


def size(number: int) -> str:
    """Bytes for a person: 512 B, 1.5 KiB, 20.1 MiB, 3.0 GiB."""
    if number < 1024:
        return f"{number} B"
    amount = float(number)
    for unit in ("KiB", "MiB"):
        amount /= 1024
        if amount < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} GiB"


def _cells(row: Row, batch_size: int) -> tuple[str, ...]:
    """A row of the table; what is 0 is left empty."""
    return (
        row.name,
        row.kind,
        _shape(row.output_shape[1:]) if row.output_shape is not None else "not called",
        f"{row.parameters:,}" if row.parameters else "",
        f"{row.flops / 1e6:,.2f}" if row.flops else "",
        f"{row.training_flops / 1e6:,.2f}" if row.training_flops else "",
        size(row.activation_bytes * batch_size) if row.activation_bytes else "",
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)
