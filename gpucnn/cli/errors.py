"""From exceptions and signals to one line and an exit code."""

from __future__ import annotations

import errno
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import typer

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 128 + signal.SIGINT

# An operating-system error that speaks of the machine and not of a path that somebody gave.
_MACHINE_ERRORS = {errno.ENOSPC, errno.EIO, errno.ENOMEM, errno.EDQUOT if hasattr(errno, "EDQUOT") else errno.ENOSPC}

_Command = TypeVar("_Command", bound=Callable[..., Any])
_show_tracebacks = False


class Terminated(KeyboardInterrupt):
    """SIGTERM: whoever cleans up after Ctrl-C cleans up after it in the same way."""

    signum = signal.SIGTERM


def show_tracebacks(show: bool) -> None:
    """Whether errors are shown with their traceback (`gpucnn --traceback ...`)."""
    global _show_tracebacks
    _show_tracebacks = show


def one_line(error: BaseException) -> str:
    """The error's message on one line; its kind where it has none."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, MemoryError):
        text = f"out of memory {error}"
    else:
        text = str(error)
    return " ".join(text.split()) or type(error).__name__


def exit_code(error: BaseException) -> int:
    """2 for bad input, 1 for what failed although the input was right, 130 and 143 for signals."""
    if isinstance(error, KeyboardInterrupt):  # a training run that was stopped says by which signal
        return 128 + getattr(error, "signum", signal.SIGINT)
    if isinstance(error, (ValueError, TypeError)):
        return BAD_INPUT
    if isinstance(error, OSError) and error.errno not in _MACHINE_ERRORS:
        return BAD_INPUT
    return FAILED


def complain(message: str) -> None:
    """One line on standard error."""
    print(f"gpucnn: {message}", file=sys.stderr, flush=True)


def guarded(command: _Command) -> _Command:
    """A command whose exceptions end in one line on standard error and an exit code."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            with _sigterm_raises():
                return command(*args, **kwargs)
        except BrokenPipeError:  # the reader of our output has gone: nothing to say, and nobody to say it to
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FAILED) from None
        except (typer.Exit, typer.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if _show_tracebacks:
                raise
            if isinstance(error, KeyboardInterrupt):
                complain(one_line(error) if str(error) else "stopped")
            else:
                complain(one_line(error))
            raise typer.Exit(exit_code(error)) from None

    return run  # type: ignore[return-value]


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Within it, SIGTERM raises Terminated in the main thread (elsewhere signals are left alone)."""

    def terminate(signum: int, frame: FrameType | None) -> None:
        raise Terminated

    try:
        previous = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
