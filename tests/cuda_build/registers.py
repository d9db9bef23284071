"""The committed table of registers, and the command that makes it anew, from the root of the repository:

    python -m tests.cuda_build.registers

It compiles every kernel for every architecture with the NVRTC that is installed, prints what each kernel uses and how
long it took, and writes tests/cuda_build/registers.json. The table holds for one build of NVRTC only, for another
gives other numbers.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("registers.json")


def read_table() -> dict[str, Any]:
    """{"nvrtc": "12.9.86", "registers": {source: {kernel: {architecture: registers}}}}"""
    table: dict[str, Any] = json.loads(TABLE.read_text("utf-8"))
    return table


def nvrtc_build() -> str | None:
    """The full version of the NVRTC wheel that gpucnn uses, such as "12.9.86"; None where it is not from a wheel."""
    from gpucnn.backends.cuda.compiler import nvrtc_version

    version = nvrtc_version()
    for name in ("nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc"):
        try:
            build = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if build.startswith(version + "."):
            return build
    return None


def main() -> int:
    from gpucnn.backends.cuda.cache import KernelCache
    from gpucnn.backends.cuda.compiler import compile_all

    with tempfile.TemporaryDirectory() as folder:
        report = compile_all(cache=KernelCache(Path(folder)))
    print(report)
    registers: dict[str, dict[str, dict[str, int]]] = {}
    for built in report.built:
        for kernel, usage in sorted(built.kernels.items()):
            registers.setdefault(built.source, {}).setdefault(kernel, {})[built.architecture] = usage.registers
    lines = [f'{{\n "nvrtc": {json.dumps(nvrtc_build())},\n "registers": {{']
    sources = []
    for source, kernels in registers.items():
        rows = ",\n".join(f"   {json.dumps(kernel)}: {json.dumps(numbers)}" for kernel, numbers in kernels.items())
        sources.append(f"  {json.dumps(source)}: {{\n{rows}\n  }}")
    lines.append(",\n".join(sources))
    lines.append(" }\n}\n")
    TABLE.write_text("\n".join(lines), "utf-8")
    print(f"wrote {TABLE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
