"""Compiles the kernels that a wheel ships (gpucnn/backends/cuda/shipped.py finds them again); ``make wheel`` runs it.

python -m gpucnn.backends.cuda.prebuilt sm_80 sm_90a      compiles every source for two architectures
python -m gpucnn.backends.cuda.prebuilt --remove          takes them away again
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence

from gpucnn.backends.cuda import compiler, shipped
from gpucnn.backends.cuda.cache import KernelCache


def build(names: Sequence[str]) -> compiler.Report:
    """Compile all sources for the architectures ``names`` into ``shipped.folder()``, which holds nothing else then.

    Raises ValueError for what is no architecture, and CompileError where NVRTC is missing, does not know one of them or
    refuses a source; then nothing is left there.
    """
    wanted = compiler.architectures(list(names))
    remove()
    try:
        report = compiler.compile_all(wanted, cache=KernelCache(shipped.folder()), to_ship=True)
        if report.left_out:
            missing = ", ".join(map(compiler.target_name, report.left_out))
            raise compiler.CompileError(f"NVRTC {report.nvrtc} does not compile for {missing}")
    except BaseException:
        remove()
        raise
    shipped.architectures.cache_clear()
    return report


def remove() -> None:
    """Delete ``shipped.folder()``, where there is one."""
    if shipped.folder().is_dir():
        shutil.rmtree(shipped.folder())
    shipped.architectures.cache_clear()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line above; 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m gpucnn.backends.cuda.prebuilt", description="Compile the kernels that a wheel ships."
    )
    parser.add_argument("architectures", nargs="*", metavar="ARCH", help="sm_80, 90a, ...")
    parser.add_argument("--remove", action="store_true", help="delete what was built")
    given = parser.parse_args(arguments)
    if given.remove == bool(given.architectures):
        parser.error("name architectures, or --remove")
    if given.remove:
        remove()
        return 0
    try:
        report = build(given.architectures)
    except (ValueError, compiler.CompileError) as error:
        print(f"prebuilt: {error}", file=sys.stderr)
        return 2
    size = sum(path.stat().st_size for path in shipped.folder().iterdir())
    print(f"{len(report.built)} images, {size / 2**20:.1f} MiB, in {report.seconds:.1f} s with NVRTC {report.nvrtc}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
