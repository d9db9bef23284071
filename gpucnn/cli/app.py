"""The commands, put together, and what they share: `--version`, `--traceback`, help, and errors on one line."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from gpucnn.cli import errors
from gpucnn.cli.benchmark import bench
from gpucnn.cli.doctor import doctor
from gpucnn.cli.inference import evaluate, predict
from gpucnn.cli.plot import plot
from gpucnn.cli.profile import profile
from gpucnn.cli.show import show
from gpucnn.cli.summary import summary
from gpucnn.cli.train import train


def _plain() -> bool:
    return not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR"))


app = typer.Typer(
    name="gpucnn",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None if _plain() else "rich",
)
app.command("train")(errors.guarded(train))
app.command("eval")(errors.guarded(evaluate))
app.command("predict")(errors.guarded(predict))
app.command("plot")(errors.guarded(plot))
app.command("show")(errors.guarded(show))
app.command("summary")(errors.guarded(summary))
app.command("bench")(errors.guarded(bench))
app.command("profile")(errors.guarded(profile))
app.command("doctor")(errors.guarded(doctor))


def _print_version(asked: bool) -> None:
    if asked:
        import gpucnn

        print(f"gpucnn {gpucnn.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show errors with their traceback.")] = False,
) -> None:
    """Convolutional networks on NVIDIA GPUs, on a CPU, and on an emulator that runs the CUDA kernels."""
    errors.show_tracebacks(traceback)
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit


# BadParameter, UsageError, ClickException: the base of all that typer says of a command line, whichever click it
# carries.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the commands; the exit code."""
    for stream in (sys.stdout, sys.stderr):  # a file's name that the terminal cannot show is no reason to fail
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(args=arguments, prog_name="gpucnn", standalone_mode=False)
    except typer.Abort:
        return errors.INTERRUPTED
    except _CommandLineError as error:
        errors.complain(" ".join(error.format_message().split()))  # type: ignore[attr-defined]
        return errors.BAD_INPUT
    return code if isinstance(code, int) else 0
