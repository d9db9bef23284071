"""CUDA sources to cubins with NVRTC, which needs no GPU and no driver, in parallel and through a cache on disk.

NVRTC is reached through CuPy's binding to it. The worker threads call that binding and nothing else: a thread that
imports while the main thread is still inside ``import gpucnn`` would wait for ever.
"""

from __future__ import annotations

import hashlib
import re
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpucnn import settings
from gpucnn.backends.cuda import shipped
from gpucnn.backends.cuda.cache import Entry, KernelCache
from gpucnn.backends.declarations import includes, kernel_sources, source_path

# Every architecture that the kernels are built for: the lecture's GPUs (5.0 and 6.1) and everything since.
ARCHITECTURES = ("50", "61", "70", "75", "80", "86", "89", "90", "90a", "100", "120")
OPTIONS = ("--std=c++17", "--ptxas-options=-v")
RECORD_FORMAT = 1  # part of every key: raise it when the record or the options' meaning changes
TEGRA = (53, 62, 72, 87, 101, 110)  # systems on a chip: their cubins run on no other GPU, nor those of others on them
RARE = "// gpucnn: compiled on first use"  # a source with this line is not on the default path
OLD_ARCHITECTURE_WARNING = "nvrtc: warning: Architectures prior to '<compute/sm>_75' are deprecated"


class CompileError(RuntimeError):
    """NVRTC is missing or refused a source; the text has its log."""


@dataclass(frozen=True, slots=True)
class KernelUsage:
    """What one kernel uses, by ptxas: registers a thread, bytes spilled (stores and loads), static shared bytes a
    block."""

    registers: int
    spill_stores: int
    spill_loads: int
    shared: int

    @property
    def spills(self) -> int:
        """Bytes spilled to local memory, stores and loads together."""
        return self.spill_stores + self.spill_loads


@dataclass(frozen=True, slots=True)
class Built:
    """One source for one architecture. ``seconds`` is NVRTC's time, 0 where the cache had it; ``error`` None where it
    worked."""

    source: str
    architecture: str
    path: Path | None
    cached: bool
    seconds: float
    kernels: dict[str, KernelUsage]
    warnings: tuple[str, ...]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What :func:`compile_all` did. ``left_out`` names the architectures that this NVRTC cannot build."""

    nvrtc: str
    seconds: float
    left_out: tuple[str, ...]
    built: tuple[Built, ...] = field(repr=False)

    @property
    def failed(self) -> tuple[Built, ...]:
        """What could not be compiled, or not be written to the cache."""
        return tuple(one for one in self.built if one.error is not None)

    def __str__(self) -> str:
        lines = [f"{'source':24} {'arch':7} {'seconds':>7}  kernel: registers, spilled bytes, shared bytes"]
        for one in self.built:
            usage = ", ".join(f"{name}: {k.registers} {k.spills} {k.shared}" for name, k in one.kernels.items())
            seconds = "cached" if one.cached else f"{one.seconds:.2f}"
            lines.append(f"{one.source:24} {target_name(one.architecture):7} {seconds:>7}  {one.error or usage}")
        for architecture in self.left_out:
            lines.append(f"{target_name(architecture)} left out: NVRTC {self.nvrtc} does not build it")
        lines.append(f"{len(self.built)} compiled or found in {self.seconds:.2f} s with NVRTC {self.nvrtc}")
        return "\n".join(lines)


def compile_all(
    arch: int | str | Sequence[int | str] | None = None,
    *,
    sources: Iterable[str | Path] | None = None,
    cache: KernelCache | None = None,
    threads: int | None = None,
    check: bool = True,
    to_ship: bool = False,
) -> Report:
    """Compile kernels for architectures, on any machine with CuPy and NVRTC: no GPU and no driver are needed.

    ``arch`` is one or several of 80, "80", "sm_80", "90a", ...; None means :data:`ARCHITECTURES`. ``sources`` are
    ``.cu`` files, by default all of the package's. Architectures that this NVRTC does not build are named in
    ``Report.left_out``. ``to_ship`` names the images as a wheel holds them, and takes none from there. Raises
    ValueError for what is not an architecture, and CompileError where ``check`` is true and a source fails, after the
    others are done.
    """
    started = time.perf_counter()
    nvrtc = load_nvrtc()
    wanted = architectures(arch)
    buildable = [a for a in wanted if _buildable(a, nvrtc.getSupportedArchs())]
    programs = [Program.read(source) for source in (kernel_sources() if sources is None else sources)]
    jobs = [(program, a) for a in buildable for program in programs]
    built = build(jobs, cache or KernelCache(), threads, to_ship)
    left_out = tuple(a for a in wanted if a not in buildable)
    report = Report(nvrtc_version(), time.perf_counter() - started, left_out, tuple(built))
    if check and report.failed:
        raise CompileError(
            "\n".join(f"{one.source} for {target_name(one.architecture)}: {one.error}" for one in report.failed)
        )
    return report


def architectures(arch: int | str | Sequence[int | str] | None) -> tuple[str, ...]:
    """``arch`` as names without "sm_", each once. Raises ValueError."""
    if arch is None:
        return ARCHITECTURES
    names = []
    for one in [arch] if isinstance(arch, (int, str)) else arch:
        match = re.fullmatch(r"(?:sm_)?(\d{2,3}[af]?)", str(one).strip().lower())
        if match is None:
            raise ValueError(f"compile_all: an architecture is written 80, '80' or 'sm_80', got {one!r}")
        names.append(match[1])
    return tuple(dict.fromkeys(names))


def architecture_of(capability: tuple[int, int]) -> str:
    """What to compile for a GPU of this compute capability: its own architecture where NVRTC knows it ("90a" for
    9.0).

    Otherwise the nearest lower minor version of the same major, whose cubins it runs, or "compute_N", PTX that the
    driver translates, for a GPU that is newer than this NVRTC. (CUDA C++ Programming Guide, "Binary Compatibility": not
    between Tegra and other GPUs.) What the wheel ships needs no NVRTC. Raises CompileError for a GPU that is too old,
    and where NVRTC is needed and missing.
    """
    number = capability[0] * 10 + capability[1]
    own = "90a" if number == 90 else str(number)
    if own in shipped.architectures():
        return own
    supported = sorted(load_nvrtc().getSupportedArchs())
    if number in supported:
        return own
    below = [s for s in supported if s < number and s not in TEGRA]
    if not below:
        raise CompileError(
            f"NVRTC {nvrtc_version()} does not compile for compute capability {capability[0]}.{capability[1]}:"
            " install gpucnn[cuda12] in place of gpucnn[cuda13]"
        )
    runs = below[-1] // 10 == capability[0] and number not in TEGRA
    return str(below[-1]) if runs else f"compute_{below[-1]}"


@dataclass(frozen=True, slots=True)
class Program:
    """A source and the files that it includes, as read at one moment: what is hashed is what is compiled."""

    name: str
    text: str
    headers: tuple[tuple[str, str], ...]  # (name as included, text)

    @classmethod
    def read(cls, source: str | Path) -> Program:
        """Read a ``.cu`` file; a bare name is looked for in the package's kernels."""
        path = source_path(source)
        headers = ((name, file.read_text("utf-8")) for name, file in includes(path).items())
        return cls(path.name, path.read_text("utf-8"), tuple(headers))

    @property
    def rare(self) -> bool:
        """Whether the source is left out of what is compiled at import."""
        return RARE in self.text

    @property
    def weight(self) -> int:
        """About how long it takes to compile, beside others: its kernels, each with all that is included."""
        return self.text.count("__global__") * (len(self.text) + sum(len(text) for _, text in self.headers))

    def cache_name(self, architecture: str) -> str:
        """The name of its compiled image: it changes with sources, options, NVRTC's version and architecture."""
        return self._name(architecture, nvrtc_version())

    def shipped_name(self, architecture: str) -> str:
        """The name of its image in a wheel: it changes with sources, options and architecture."""
        return self._name(architecture, "any NVRTC")

    def _name(self, architecture: str, nvrtc: str) -> str:
        parts = [str(RECORD_FORMAT), nvrtc, *_options(architecture), self.name, self.text]
        parts += [part for header in self.headers for part in header]
        digest = hashlib.sha256(b"".join(f"{len(p)}:{p}".encode() for p in parts)).hexdigest()[:24]
        suffix = "ptx" if architecture.startswith("compute_") else "cubin"
        return f"{Path(self.name).stem}-{target_name(architecture)}-{digest}.{suffix}"


def build(
    jobs: Sequence[tuple[Program, str]], cache: KernelCache, threads: int | None = None, to_ship: bool = False
) -> list[Built]:
    """Each program for its architecture, from the wheel, the cache or NVRTC, several at a time; the order is that of
    ``jobs``. ``to_ship``: see :func:`compile_all`."""
    results: list[Built | None] = [None] * len(jobs)
    missing = []
    for i, (program, architecture) in enumerate(jobs):
        try:
            entry = None if to_ship else shipped.lookup(program.shipped_name(architecture), architecture)
            if entry is None:
                entry = cache.lookup(_image_name(program, architecture, to_ship))
        except OSError as error:
            results[i] = Built(program.name, architecture, None, False, 0.0, {}, (), str(error))
            continue
        if entry is None:
            missing.append(i)
        else:
            results[i] = _from_entry(program, architecture, entry, cached=True)
    # The longest first, so that none is left running alone at the end.
    missing.sort(key=lambda i: -jobs[i][0].weight)
    compiled = _in_threads([(jobs[i][0], _options(jobs[i][1])) for i in missing], threads)
    for i, (image, log, seconds) in zip(missing, compiled, strict=True):
        results[i] = _store(*jobs[i], image, log, seconds, cache, to_ship)
    return [result for result in results if result is not None]


def _image_name(program: Program, architecture: str, to_ship: bool) -> str:
    return program.shipped_name(architecture) if to_ship else program.cache_name(architecture)


def _in_threads(
    work: list[tuple[Program, tuple[str, ...]]], threads: int | None
) -> list[tuple[bytes | None, str, float]]:
    if not work:
        return []
    nvrtc = load_nvrtc()
    threads = min(len(work), threads or settings.available_cores())
    if threads == 1:
        return [_compile(nvrtc, *one) for one in work]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda one: _compile(nvrtc, *one), work))


def _compile(nvrtc: Any, program: Program, options: tuple[str, ...]) -> tuple[bytes | None, str, float]:
    """(image, or None where NVRTC refuses; log; seconds). Runs in a worker thread: it imports nothing."""
    started = time.perf_counter()
    texts = tuple(text.encode() for _, text in program.headers)
    handle = nvrtc.createProgram(program.text, program.name, texts, tuple(name.encode() for name, _ in program.headers))
    try:
        try:
            nvrtc.compileProgram(handle, options)
        except nvrtc.NVRTCError as error:
            log = nvrtc.getProgramLog(handle).strip()
            return None, f"{error}\n{log}" if log else str(error), time.perf_counter() - started
        if any("compute_" in option for option in options):
            image = nvrtc.getPTX(handle)
            image = image.encode() if isinstance(image, str) else image  # bytes since CuPy 14
        else:
            image = nvrtc.getCUBIN(handle) + b"\0"  # the binding takes a cubin's last byte for the end of a string
        return image, nvrtc.getProgramLog(handle), time.perf_counter() - started
    finally:
        nvrtc.destroyProgram(handle)


def _store(
    program: Program,
    architecture: str,
    image: bytes | None,
    log: str,
    seconds: float,
    cache: KernelCache,
    to_ship: bool,
) -> Built:
    if image is None:
        return Built(program.name, architecture, None, False, seconds, {}, (), log)
    record = {
        "source": program.name,
        "architecture": architecture,
        "nvrtc": nvrtc_version(),
        "seconds": round(seconds, 4),
        "kernels": {name: asdict(usage) for name, usage in parse_usage(log).items()},
        "warnings": parse_warnings(log),
    }
    try:
        entry = cache.store(_image_name(program, architecture, to_ship), image, record)
    except OSError as error:
        return Built(program.name, architecture, None, False, seconds, {}, (), str(error))
    return _from_entry(program, architecture, entry, cached=False)


def _from_entry(program: Program, architecture: str, entry: Entry, cached: bool) -> Built:
    kernels = {name: KernelUsage(**usage) for name, usage in entry.record["kernels"].items()}
    seconds = 0.0 if cached else entry.record["seconds"]
    warnings = tuple(entry.record["warnings"])
    return Built(program.name, architecture, entry.path, cached, seconds, kernels, warnings)


def parse_usage(log: str) -> dict[str, KernelUsage]:
    """Each kernel's usage from the log of ``--ptxas-options=-v``."""
    usages = {}
    for block in re.split(r"Compiling entry function '", log)[1:]:
        name = block[: block.index("'")]
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", block)
        registers = re.search(r"Used (\d+) registers", block)
        shared = re.search(r"(\d+)(?:\+\d+)? bytes smem", block)
        if spills is None or registers is None:
            raise CompileError(f"ptxas's log says nothing about registers or spills of {name}:\n{block}")
        shared_bytes = int(shared[1]) if shared else 0
        usages[name] = KernelUsage(int(registers[1]), int(spills[1]), int(spills[2]), shared_bytes)
    return usages


def parse_warnings(log: str) -> list[str]:
    """The warnings in a log, but for NVRTC's remark that architectures below sm_75 are deprecated."""
    lines = (line.strip() for line in log.splitlines())
    return [line for line in lines if "warning" in line.lower() and not _expected(line)]


def _expected(line: str) -> bool:
    return line.startswith(OLD_ARCHITECTURE_WARNING) or line.startswith("Remark: The warnings can be suppressed")


def _options(architecture: str) -> tuple[str, ...]:
    return (f"--gpu-architecture={target_name(architecture)}", *OPTIONS)


def target_name(architecture: str) -> str:
    """An architecture as NVRTC's options name it: "sm_90a", or "compute_120" for PTX."""
    return architecture if architecture.startswith("compute_") else f"sm_{architecture}"


def _buildable(architecture: str, supported: Iterable[int]) -> bool:
    return int(architecture.rstrip("af")) in supported


_nvrtc: Any = None


def load_nvrtc() -> Any:
    """CuPy's binding to NVRTC, with its library loaded. Raises CompileError where either is missing."""
    global _nvrtc
    if _nvrtc is None:
        try:
            if sys.platform == "win32":
                import cupy  # noqa: F401  (tells Windows where the DLLs are)
            from cupy_backends.cuda.libs import nvrtc  # type: ignore[import-untyped,unused-ignore]

            nvrtc.getVersion()
        except Exception as error:  # no CuPy: ImportError; no library: RuntimeError, from deep inside
            text = str(error).strip().splitlines()
            raise CompileError(
                f"kernels cannot be compiled: CuPy or NVRTC is missing ({text[0] if text else type(error).__name__});"
                " pip install 'gpucnn[cuda12]' brings both"
            ) from error
        _nvrtc = nvrtc
    return _nvrtc


def nvrtc_version() -> str:
    """Such as "12.9". Raises CompileError where NVRTC is missing."""
    major, minor = load_nvrtc().getVersion()
    return f"{major}.{minor}"
