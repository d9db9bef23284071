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
    network: Annotated[str, typer.Option("--network", help="lecture, lenet5, resnet9 or all.")] = "lecture",
    batch_size: Annotated[int, typer.Option("--batch-size", help="Examples a step.")] = 128,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Training steps a repeat; default: two seconds' worth on two cores.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", help="How often each is timed; they take turns.")] = 5,
    synthetic: Annotated[bool, typer.Option("--synthetic", help="Leave the input pipeline out.")] = False,
    data_dir: DataDir = None,
    peers: Annotated[
        bool, typer.Option("--peers/--no-peers", help="Measure PyTorch too, where it is installed.")
    ] = True,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Threads on the CPU, for everybody; default: one a processor.")
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory/--no-memory", help="Also measure peak memory, in processes of their own.")
    ] = False,
    latency: Annotated[
        bool, typer.Option("--latency/--no-latency", help="Also time the inference of one image.")
    ] = False,
    scaling: Annotated[
        bool,
        typer.Option("--scaling/--no-scaling", help="Also measure batch sizes of 1 to 1024, on one thread and on all."),
    ] = False,
    footprint: Annotated[
        bool, typer.Option("--footprint/--no-footprint", help="Also time imports and measure installations.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write the record, with every repeat, to this file, as it grows.")
    ] = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="Add to the record that the file of --json holds already.")
    ] = False,
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
    """Training speed in examples/sec, beside PyTorch where it is installed; of the lecture network in its table."""
    from gpucnn import bench as benchmark

    output = Output(quiet)
    if report:
        _report(report, output)
        return
    networks = benchmark.NETWORKS if network == "all" else (network,)
    options = benchmark.Options(
        networks, batch_size, steps, repeats, device, synthetic, data_dir, peers, threads, memory, latency, scaling,
        footprint,
    )  # fmt: skip
    if json is not None:
        check_writable(json)
    elif extend:
        raise ValueError("--extend: name the record with --json")
    usable_device(device)
    before = benchmark.read(json) if extend and json is not None else None

    def keep(record: benchmark.Record) -> None:
        if json is not None:
            (before.merged(record) if before is not None else record).write(json)

    record = benchmark.measure(options, output.say, keep)
    if json is not None:
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
