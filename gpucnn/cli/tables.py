"""Tables: drawn by rich on a terminal, plain aligned columns elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gpucnn.cli.output import Output

Row = Sequence[str]


def print_table(
    output: Output, header: Row, rows: Sequence[Row], right: Sequence[int], last: Row | None = None
) -> None:
    """Prints ``rows`` under ``header``; the columns of numbers in ``right`` are set to the right, ``last`` stands below
    a line.
    """
    if output.rich:
        _draw(header, rows, right, last)
    else:
        output.result(as_text(header, rows, right, last))


def as_text(header: Row, rows: Sequence[Row], right: Sequence[int], last: Row | None = None) -> str:
    """The table in plain characters, two spaces between its columns."""
    everything = [header, *rows, *([last] if last is not None else [])]
    widths = [max(len(row[column]) for row in everything) for column in range(len(header))]

    def line(row: Row) -> str:
        cells = [f"{text:{'>' if k in right else '<'}{widths[k]}}" for k, text in enumerate(row)]
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * width for width in widths)
    lines = [line(header), rule, *(line(row) for row in rows)]
    if last is not None:
        lines += [rule, line(last)]
    return "\n".join(lines)


def _draw(header: Row, rows: Sequence[Row], right: Sequence[int], last: Row | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_footer=last is not None, pad_edge=False, collapse_padding=True)
    for column, name in enumerate(header):
        table.add_column(
            Text(name),
            Text(last[column]) if last is not None else "",
            justify="right" if column in right else "left",
            no_wrap=column in right,
            overflow="fold",  # a long name goes on in the next line rather than being cut off
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(file=sys.stdout, highlight=False).print(table)
