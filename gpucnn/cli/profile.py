"""`gpucnn profile`: one training step, kernel by kernel."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpucnn.cli.options import Quiet, check_writable, usable_device
from gpucnn.cli.output import Output
from gpucnn.cli.tables import print_table

if TYPE_CHECKING:
    from gpucnn.bench.ceilings import Ceilings
    from gpucnn.bench.profile import Call, Profile

HEADER = ("kernel", "launches", "blocks", "MFLOP", "MB", "floor us")
MEASURED = ("us", "% FLOP/s", "% memory")


def profile(
    model: Annotated[str, typer.Argument(help="lecture, lenet5, resnet9, airbench94, resnet20.")] = "lecture",
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Examples a step; default: the recipe's.")
    ] = None,
    precision: Annotated[str, typer.Option("--precision", help="float32, tf32, float16 or bfloat16.")] = "float32",
    device: Annotated[
        str | None, typer.Option("--device", help="cuda, cuda:1 or emulated; default: cuda where a GPU is usable.")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option("--gpu", help="Whose ceilings to compare with, such as h200; default: this GPU's.")
    ] = None,
    every: Annotated[bool, typer.Option("--every", help="A line for each launch, in their order.")] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the roofline into this PNG.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write everything to this file.")] = None,
    quiet: Quiet = False,
) -> None:
    """Take one training step apart: which kernels run, their FLOPs and bytes, the least time that a GPU needs for them,
    and, on a GPU, the time that they took."""
    import datetime

    from gpucnn import machine
    from gpucnn.bench import ceilings, timing
    from gpucnn.bench.step import DEFAULT_GPU, profile_step

    output = Output(quiet)
    for file in (plot, json):
        if file is not None:
            check_writable(file)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {batch_size}")
    chosen = usable_device(device) if device is not None else usable_device(_default())
    if chosen.type == "cpu":
        raise ValueError("profile: the device cpu launches no kernels; --device emulated counts them without a GPU")
    limits = ceilings.of(gpu or (_name(chosen.index) if chosen.type == "cuda" else DEFAULT_GPU))
    limits.rate(ceilings.TENSOR_CORES.get(precision, "float32"))
    found = profile_step(model, batch_size, precision, chosen, limits.arch)
    print_profile(output, found, limits, every)
    if plot is not None:
        draw(found, limits, plot)
        output.say(f"roofline: {plot}")
    if json is not None:
        head = {"date": datetime.date.today().isoformat(), "machine": machine.describe()}
        timing.keep(json, {**head, **found.to_dict(limits)})
        output.say(f"record: {json}")


def _default() -> str:
    from gpucnn.backends.cuda import driver

    return "cuda" if driver.is_available() else "emulated"


def _name(index: int) -> str:
    from gpucnn import cuda

    return cuda.get_device_name(index)


def print_profile(output: Output, found: Profile, limits: Ceilings, every: bool) -> None:
    """The table, and the step's totals under it."""
    from gpucnn.bench.profile import together

    measured = any(call.seconds is not None for call in found.calls)
    header = HEADER + (MEASURED if measured else ())
    groups = [(call, 1) for call in found.calls] if every else together(found.calls)
    rows = [_cells(call, count, limits, measured) for call, count in groups]
    floor = found.floor(limits)
    total: tuple[str, ...] = (
        "total", f"{len(found.calls)}", "", f"{found.flops / 1e6:,.1f}", _megabytes(found.size), _micro(floor)
    )  # fmt: skip
    if measured:
        seconds = sum(call.seconds or 0.0 for call in found.calls)
        total = (*total, _micro(seconds), "", f"{100 * found.size / limits.bandwidth / seconds:.0f}")
    where = f"{found.network}, batch {found.batch_size}, {found.precision}, on {found.device}"
    output.say(f"{where}; ceilings of {limits.name}: {limits.source}")
    print_table(output, header, rows, right=range(1, len(header)), last=total)
    most = f"{found.batch_size / floor:,.0f} examples/sec at most"
    output.result(
        f"{len(found.calls)} launches; floor {_micro(floor)} us a step, {most}"
        + ("" if measured else "; times: not measured")
    )


def _cells(call: Call, count: int, limits: Ceilings, measured: bool) -> tuple[str, ...]:
    cells = (
        call.kernel,
        str(count),
        f"{math.prod(call.grid):,}",
        f"{count * call.flops / 1e6:,.1f}" if call.flops else "",
        _megabytes(count * call.size),
        _micro(count * call.floor(limits)),
    )
    if not measured or call.seconds is None:
        return cells
    rate = 100 * call.flops / limits.rate(call.arithmetic) / call.seconds
    memory = 100 * call.size / limits.bandwidth / call.seconds
    return (*cells, _micro(count * call.seconds), f"{rate:.0f}" if call.flops else "", f"{memory:.0f}")


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.2f}"


def _micro(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f}"


def draw(found: Profile, limits: Ceilings, path: Path) -> None:
    """The roofline of a profile."""
    from gpucnn.viz.roofline import Point, draw_roofline

    kinds = {call.arithmetic for call in found.calls if call.flops}
    points = [Point(c.kernel, c.flops, c.size, limits.rate(c.arithmetic), c.seconds) for c in found.calls]
    step = f"{found.network}, batch {found.batch_size}, {found.precision}"
    title = f"{step}: one training step under the ceilings of {limits.name}"
    draw_roofline(points, {kind: limits.rate(kind) for kind in sorted(kinds)}, limits.bandwidth, path, title)
