"""`gpucnn doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from gpucnn.cli.output import Output


def doctor(
    compile_kernels: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile every kernel: for the GPUs here, or for every architecture without one."
        ),
    ] = False,
) -> None:
    """Say what this machine has, what is missing and the command that mends it."""
    from gpucnn import doctor as checks

    output = Output()
    findings = checks.examine()
    if compile_kernels:
        findings = [*findings, *checks.compile_kernels()]
    works, device = checks.default_device_works()
    findings.append(device)
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        output.result(f"{_mark(finding.status, output.rich)} {finding.subject:{width}}  {finding.text}")
        if finding.mend:
            output.result(f"{'':9} {'':{width}}  mend it with: {finding.mend}")
    if not works:
        raise typer.Exit(1)


def _mark(status: str, rich: bool) -> str:
    word = f"[{status}]".ljust(9)
    colours = {"ok": "32", "missing": "31", "note": "33"}
    return f"\x1b[{colours[status]}m{word}\x1b[0m" if rich else word
