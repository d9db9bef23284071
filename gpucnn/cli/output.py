"""What the commands print: rich on a terminal, plain lines elsewhere, nothing but results under --quiet."""

from __future__ import annotations

import os
import sys


class Output:
    """Lines for a person. `say` is what --quiet silences; `result` is what the command was started for."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    @property
    def rich(self) -> bool:
        """Whether to draw: on a terminal that can, without NO_COLOR and --quiet."""
        terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        return terminal and not os.environ.get("NO_COLOR") and not self.quiet

    def say(self, line: str) -> None:
        """A line about what is going on."""
        if not self.quiet:
            print(line, flush=True)

    def result(self, text: str) -> None:
        """What was asked for."""
        print(text, flush=True)


def rate(examples_per_second: float) -> str:
    """A speed, with decimals where it is a slow one."""
    digits = 0 if examples_per_second >= 10 else 2
    return f"{examples_per_second:,.{digits}f} examples/sec"


def count(number: int, thing: str) -> str:
    """1 epoch, 2 epochs."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def duration(seconds: float) -> str:
    """Seconds as 7 s, 4:05 or 1:02:03."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"
