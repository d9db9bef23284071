"""What a kernel takes, read from its declaration in the ``.cu`` file, which is the only place that says so.

A kernel is declared literally, never by a macro, as

    extern "C" __global__ void __launch_bounds__(256) relu_forward(
        IN float* __restrict__ x, OUT float* __restrict__ y, long long size)

Every pointer says by IN, OUT or INOUT (kernels/common.cuh) what the kernel does with it. There are four kinds of
parameter: a scalar; an array (``IN float* x``); a table, which is an array of pointers to arrays (``INOUT float*
const* parameters``); and a struct by value, whose definition is looked for in the file and in what it includes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn import dtypes, settings

SCALAR_TYPES: dict[str, type[np.generic]] = {
    "int": np.int32,
    "unsigned": np.uint32,
    "unsigned char": np.uint8,
    "long long": np.int64,
    "unsigned long long": np.uint64,
    "float": np.float32,
    "double": np.float64,
}
_PREFIXES: dict[str, type[np.generic]] = {"float": np.float32, "int": np.int32, "uint": np.uint32, "uchar": np.uint8}
VECTOR_TYPES: dict[str, tuple[type[np.generic], int]] = {
    **{f"{prefix}{width}": (scalar, width) for prefix, scalar in _PREFIXES.items() for width in (2, 4)},
    "ucharx8": (np.uint8, 8),  # indices of eight half lanes: kernels/lanes.cuh
    "intx8": (np.int32, 8),
}
# Half types (kernels/half.cuh) stand in memory only: as what pointers point to, never by value.
HALF_TYPES: dict[str, tuple[str, int]] = {
    f"{half}{suffix}": (half, width)
    for half in ("float16", "bfloat16")
    for suffix, width in (("", 1), ("x2", 2), ("x8", 8))
}
POINTER_TYPES = (*SCALAR_TYPES, *VECTOR_TYPES, *HALF_TYPES)
SYNONYMS = {"unsigned int": "unsigned", "long long int": "long long", "unsigned long long int": "unsigned long long"}
MAX_THREADS = 1024  # of a block, on every architecture
MOST_ALIGNMENT = 16  # bytes that one instruction moves; a longer vector takes several


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a kernel.

    ``dtype`` is that of the scalar, of the array's elements, of the elements of each array of a table, or of the
    struct (an aligned structured dtype). An array starts at a multiple of ``alignment`` bytes and its size is a
    multiple of ``vector`` elements (``float4*``: 16 bytes, 4 elements; ``float16x8*``: 16 bytes, 8 elements).
    """

    name: str
    c_type: str
    kind: str  # "scalar" | "array" | "table" | "struct"
    direction: str | None  # "in" | "out" | "inout"; None by value
    dtype: np.dtype[Any]
    alignment: int
    vector: int = 1
    restrict: bool = False

    @property
    def written(self) -> bool:
        """Whether the kernel writes through this pointer."""
        return self.direction in ("out", "inout")


@dataclass(frozen=True, slots=True)
class Declaration:
    """One kernel: where it stands, its parameters and the most threads its blocks may have."""

    name: str
    source: Path
    parameters: tuple[Parameter, ...] = field(repr=False)
    max_threads: int = MAX_THREADS

    @property
    def signature(self) -> str:
        """The declaration in short, for messages: ``relu_forward(in float* x, out float* y, long long size)``."""
        parts = (" ".join(filter(None, (p.direction, p.c_type, p.name))) for p in self.parameters)
        return f"{self.name}({', '.join(parts)})"


class DeclarationError(ValueError):
    """A ``.cu`` file declares a kernel in a way that the launcher cannot check."""


def kernel_sources() -> list[Path]:
    """Every ``.cu`` file of the package, by name."""
    return sorted(settings.kernels_path().glob("*.cu"))


def declarations(path: str | Path) -> dict[str, Declaration]:
    """The kernels of a ``.cu`` file by name, in the file's order; a bare name is looked for in the package's kernels.

    The result is kept until the file, or one that it includes, changes. Raises DeclarationError (a ValueError) with
    file and line.
    """
    source = source_path(path)
    files = included_files(source)
    return _declarations(source, tuple((file, file.stat().st_mtime_ns) for file in files))


def included_files(source: Path) -> list[Path]:
    """``source`` and every file that it includes with quotes, directly or not, each once."""
    return [source, *includes(source).values()]


def source_path(path: str | Path) -> Path:
    """``path`` itself, or the package's kernel file of that name. Raises FileNotFoundError naming the files there
    are."""
    found = Path(path)
    if found.parent == Path("."):
        found = settings.kernels_path() / found
    if not found.is_file():
        have = ", ".join(sorted(p.name for p in found.parent.glob("*.cu"))) or "no .cu file"
        raise FileNotFoundError(f"no kernel file {found.name} in {found.parent}, which has {have}")
    return found


def includes(source: Path) -> dict[str, Path]:
    """Every file that ``source`` includes with quotes, directly or not, by the name in the ``#include``.

    It is looked for beside ``source``, then among the package's kernels. Raises DeclarationError.
    """
    found: dict[str, Path] = {}
    files = [source]
    for file in files:  # grows while it is walked
        for name in _INCLUDE.findall(file.read_text(encoding="utf-8")):
            if name in found:
                continue
            included = source.parent / name
            if not included.is_file():
                included = settings.kernels_path() / name
            if not included.is_file():
                raise DeclarationError(f'{file.name} includes "{name}", which is not in {source.parent}')
            found[name] = included
            files.append(included)
    return found


_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.MULTILINE)


def _text(file: Path) -> str:
    return _without_comments(file.read_text(encoding="utf-8"))


def _without_comments(text: str) -> str:
    """``text`` with comments blanked out; lines keep their numbers."""

    def blank(match: re.Match[str]) -> str:
        return match[0] if match[0].startswith('"') else re.sub(r"[^\n]", " ", match[0])

    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', blank, text, flags=re.DOTALL)


_KERNEL = re.compile(
    r'extern\s+"C"\s+(?P<global>__global__)\s+(?:__launch_bounds__\s*\((?P<before>[^)]*)\)\s*)?void\s+'
    r"(?:__launch_bounds__\s*\((?P<after>[^)]*)\)\s*)?(?P<name>\w+)\s*\((?P<parameters>[^)]*)\)\s*\{"
)


@lru_cache(maxsize=256)
def _declarations(source: Path, stamps: tuple[tuple[Path, int], ...]) -> dict[str, Declaration]:
    texts = [_text(file) for file, _ in stamps]
    structs = {
        name: body
        for text in texts
        for name, body in re.findall(r"\bstruct\s+(\w+)\s*\{(.*?)\n?\}\s*;", text, re.DOTALL)
    }
    constants = {name: int(value) for text in texts for name, value in _CONSTANT.findall(text)}
    text = texts[0]
    found: dict[str, Declaration] = {}
    matches = {match.start("global"): match for match in _KERNEL.finditer(text)}
    for use in re.finditer(r"\b__global__\b", text):
        where = f"{source.name}:{text.count(chr(10), 0, use.start()) + 1}"
        match = matches.get(use.start())
        if match is None:
            raise DeclarationError(
                f'{where}: a kernel is declared literally: extern "C" __global__ void __launch_bounds__(N) name(...) {{'
            )
        name = match["name"]
        if name in found:
            raise DeclarationError(f"{where}: kernel {name} is declared twice")
        pieces = [piece.strip() for piece in match["parameters"].split(",") if piece.strip()]
        parameters = tuple(_parameter(piece, structs, f"{where}: kernel {name}") for piece in pieces)
        bounds = match["before"] or match["after"]
        found[name] = Declaration(name, source, parameters, _max_threads(bounds, constants, f"{where}: kernel {name}"))
    return found


_CONSTANT = re.compile(r"\bconstexpr\s+(?:int|unsigned)\s+(\w+)\s*=\s*(\d+)\s*;")


def _max_threads(bounds: str | None, constants: dict[str, int], where: str) -> int:
    if bounds is None:
        return MAX_THREADS
    first = bounds.split(",")[0].strip()
    threads = int(first) if first.isdigit() else constants.get(first, 0)
    if not 1 <= threads <= MAX_THREADS:
        raise DeclarationError(
            f"{where}: __launch_bounds__({bounds.strip()}) must begin with a number from 1 to {MAX_THREADS},"
            " or with the name of a constexpr int that is one"
        )
    return threads


_POINTER = re.compile(
    r"(?P<direction>IN|OUT|INOUT)\s+(?P<type>\w+(?:\s+\w+)*?)\s*\*\s*(?P<table>const\s*\*\s*)?"
    r"(?P<restrict>__restrict__\s+)?(?P<name>\w+)"
)


def _parameter(text: str, structs: dict[str, str], where: str) -> Parameter:
    text = " ".join(text.split())
    if "*" not in text:
        return _value_parameter(text, structs, where)
    match = _POINTER.fullmatch(text)
    if match is None:
        if not re.match(r"(IN|OUT|INOUT)\b", text):
            raise DeclarationError(f"{where}: pointer parameter {text!r} must begin with IN, OUT or INOUT")
        raise DeclarationError(
            f"{where}: pointer parameter {text!r} must look like `IN float* __restrict__ x` or, for a table of arrays,"
            " `INOUT float* const* __restrict__ xs`"
        )
    c_type = SYNONYMS.get(match["type"], match["type"])
    if c_type not in POINTER_TYPES:
        raise DeclarationError(
            f"{where}: parameter {match['name']} points to the unknown type {c_type!r}"
            f" (known: {', '.join(POINTER_TYPES)})"
        )
    dtype, vector = _element_type(c_type)
    kind, stars = ("table", "* const*") if match["table"] else ("array", "*")
    direction, restrict = match["direction"].lower(), match["restrict"] is not None
    alignment = min(dtype.itemsize * vector, MOST_ALIGNMENT)
    return Parameter(match["name"], c_type + stars, kind, direction, dtype, alignment, vector, restrict)


def _element_type(c_type: str) -> tuple[np.dtype[Any], int]:
    """The dtype of an array behind a pointer, and how many elements one ``c_type`` holds."""
    if c_type in HALF_TYPES:
        half, vector = HALF_TYPES[c_type]
        return dtypes.as_dtype(half), vector
    scalar, vector = VECTOR_TYPES.get(c_type) or (SCALAR_TYPES[c_type], 1)
    return np.dtype(scalar), vector


def _value_parameter(text: str, structs: dict[str, str], where: str) -> Parameter:
    words = text.removeprefix("const ").split()
    c_type, name = " ".join(words[:-1]), words[-1]
    c_type = SYNONYMS.get(c_type, c_type)
    if c_type in SCALAR_TYPES:
        dtype = np.dtype(SCALAR_TYPES[c_type])
        return Parameter(name, c_type, "scalar", None, dtype, dtype.itemsize)
    if c_type in structs:
        dtype = _struct_dtype(c_type, structs[c_type], where)
        return Parameter(name, c_type, "struct", None, dtype, dtype.alignment)
    known = ", ".join([*SCALAR_TYPES, *structs])
    raise DeclarationError(f"{where}: parameter {text!r} has the unknown type {c_type!r} (known: {known})")


def _struct_dtype(name: str, body: str, where: str) -> np.dtype[Any]:
    """The layout of a struct of scalars, as C++ lays it out. It holds data members only."""
    fields: list[tuple[str, type[np.generic]]] = []
    for statement in filter(None, (" ".join(part.split()) for part in body.split(";"))):
        match = re.fullmatch(r"((?:\w+ )+?)(\w+(?: ?, ?\w+)*)", statement)
        c_type = SYNONYMS.get(match[1].strip(), match[1].strip()) if match else None
        if match is None or c_type not in SCALAR_TYPES:
            raise DeclarationError(f"{where}: struct {name} may hold only scalars, not `{statement}`")
        fields += [(field_name.strip(), SCALAR_TYPES[c_type]) for field_name in match[2].split(",")]
    return np.dtype(fields, align=True)
