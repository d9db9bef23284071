"""Imports point downwards only: a file knows its own floor and those below, and nothing above."""

from __future__ import annotations

import ast
from pathlib import Path

import gpucnn

PACKAGE = Path(gpucnn.__file__).parent

# From the ground up. A name stands for a module or a folder; `backends.emulator` comes before `backends`.
FLOORS = [
    {"settings", "cupy_choice", "device", "dtypes", "geometry", "random"},
    {
        "backends.base",
        "backends.capture",
        "backends.declarations",
        "backends.launch",
        "backends.labels",
        "backends.updates",
        "layout",
    },
    {"backends.cuda.driver", "backends.cuda.cache", "backends.cuda.memory", "backends.cuda.shipped"},
    {"backends.cuda.compiler"},
    {"backends.numpy", "backends.cuda", "backends.emulator"},
    {"backends"},
    {"precision", "autograd", "indexing", "tensor", "creation"},
    {"functional", "gradient_check"},
    {"graphs", "cuda"},
    {"nn", "optim", "serialization", "amp"},
    {"models"},
    {"data", "viz", "machine"},
    {"training"},
    {"bench", "doctor"},
    {"cli"},
    {"__main__"},
]


def floor(module: str) -> int | None:
    """The floor of ``gpucnn.<module>`` by its longest name in FLOORS; None for the package itself."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        for number, names in enumerate(FLOORS):
            if name in names:
                return number
    return None


def imported(path: Path) -> set[str]:
    """The modules of gpucnn that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("gpucnn.") for alias in node.names if alias.name.startswith("gpucnn.")}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "gpucnn":
            base = node.module.removeprefix("gpucnn").lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}" if base else alias.name
                as_path = PACKAGE / Path(*full.split("."))
                found.add(full if as_path.is_dir() or as_path.with_suffix(".py").is_file() else base)
    return found - {""}


def test_imports_point_downwards() -> None:
    upwards, unknown = [], []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if module == "__init__":
            continue  # the roof: it gathers the public names
        own = floor(module)
        if own is None:
            unknown.append(module)
            continue
        for other in imported(path):
            theirs = floor(other)
            if theirs is None or theirs > own:
                upwards.append(f"{module} imports {other}")
    assert unknown == [] and upwards == []
