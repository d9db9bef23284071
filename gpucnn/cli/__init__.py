"""The command line: `gpucnn train | eval | predict | plot | show | summary | bench | profile | doctor`, or `python -m
gpucnn`.

Exit codes: 0, 1 for a run that failed, 2 for bad input, 130 after Ctrl-C and 143 after SIGTERM; bad input is one
line on standard error. typer and rich are imported in this folder and nowhere else, and what a command needs is
imported inside it, so that `gpucnn --version` and `gpucnn --help` answer at once.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line on `arguments` (default: the process's own) and return the exit code."""
    from gpucnn.cli.app import run

    return run(arguments)
