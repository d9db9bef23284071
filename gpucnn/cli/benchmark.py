"""`gpucnn bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpucnn.cli.options import DataDir, Quiet, check_writable, usable_device
from gpucnn.cli.output import Output


def bench(
    device: Annotated[
        str | None,
        typer.Option("--device", help="cpu, cuda, cuda:1 or emulated; default: the CPU and, if there is one, the GPU."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Examples a step.")] = 128,
    steps: Annotated[int, typer.Option("--steps", help="Training steps a repeat.")] = 20,
    repeats: Annotated[int, typer.Option("--repeats", help="How often each is timed; they take turns.")] = 5,
    synthetic: Annotated[bool, typer.Option("--synthetic", help="Leave the input pipeline out.")] = False,
    data_dir: DataDir = None,
    peers: Annotated[
        bool, typer.Option("--peers/--no-peers", help="Measure PyTorch too, where it is installed.")
    ] = True,
    memory: Annotated[
        bool, typer.Option("--memory", help="Also measure peak memory, in processes of their own.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write the record, with every repeat, to this file.")
    ] = None,
    report: Annotated[
        list[Path] | None,
        typer.Option(
            "--report",
            help="Measure nothing: print a record (.json) in Markdown, or make the tables and"
            " pictures of a document (.md) anew from the records that it names. May be given several times.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Print the lecture's table with this machine's rows: training speed of the lecture network in examples/sec."""
    from gpucnn import bench as benchmark
    from gpucnn.serialization import atomic_write

    output = Output(quiet)
    if report:
        _report(report, output)
        return
    options = benchmark.Options(batch_size, steps, repeats, device, synthetic, data_dir, peers, memory)
    if json is not None:
        check_writable(json)
    usable_device(device)
    record = benchmark.measure(options, output.say)
    if json is not None:
        atomic_write(json, record.to_json().encode())
        output.say(f"record: {json}")
    output.say("")
    output.result(benchmark.as_text(record))


def _report(paths: list[Path], output: Output) -> None:
    from gpucnn import bench as benchmark
    from gpucnn.bench import documents

    for path in paths:
        if path.suffix != ".md":
            output.result(benchmark.as_markdown(benchmark.read(path)))
            continue
        for written in documents.render(path):
            output.say(f"written: {written}")
