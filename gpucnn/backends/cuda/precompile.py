"""Compiling at import: every kernel of the default path for the visible GPUs, so that the first step does not wait.

It loads no module and makes no context: compute capabilities come from the driver's attributes. What goes wrong is
kept for the first launch, which raises, and for ``gpucnn doctor``; it never breaks the import.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from gpucnn.backends.cuda import compiler, driver, shipped
from gpucnn.backends.cuda.cache import KernelCache
from gpucnn.backends.declarations import declarations, kernel_sources

log = logging.getLogger(__name__)

_failures: dict[tuple[str, str], str] = {}  # (source, architecture) to what went wrong at import
_failure: str | None = None  # what kept import from compiling anything


def fill_cache() -> None:
    """Compile the default path for the visible GPUs. Never raises: what goes wrong is logged and kept."""
    global _failure
    try:
        built = compile_default_path()
    except Exception as error:  # whatever it is, import goes on and the first launch meets it again
        _failure = f"{type(error).__name__}: {error}"
        log.warning("kernels were not compiled at import (%s); gpucnn doctor tells more", _failure)
        return
    for one in built:
        if one.error is not None:
            _failures[one.source, one.architecture] = one.error
            log.warning("%s was not compiled for %s: %s", one.source, compiler.target_name(one.architecture), one.error)


def compile_default_path() -> list[compiler.Built]:
    """Compile, or find in the cache, every source of the default path for every visible GPU's architecture."""
    found = visible_architectures()
    programs = [program for program in map(compiler.Program.read, kernel_sources()) if not program.rare]
    return compiler.build([(program, one) for one in found for program in programs], KernelCache())


def visible_architectures() -> tuple[str, ...]:
    """What to compile for the GPUs that this process sees, each once.

    A GPU too old for this NVRTC, as one that only drives the screen may be, is left out beside others; the doctor names
    it. Raises compiler.CompileError where none is left.
    """
    found: dict[str, None] = {}
    too_old = None
    for device in driver.devices():
        try:
            found[compiler.architecture_of(device.capability)] = None
        except compiler.CompileError as error:
            too_old = error
    if too_old is not None and not found:
        raise too_old
    return tuple(found)


@dataclass(frozen=True, slots=True)
class KernelState:
    """The compile state of one source: "compiled", "not compiled" or "failed", with the error; ``kernels`` by
    name."""

    source: str
    architecture: str | None
    state: str
    kernels: dict[str, compiler.KernelUsage | None] = field(default_factory=dict)
    error: str | None = None


def compile_state(architectures: Sequence[str] | None = None, cache: KernelCache | None = None) -> list[KernelState]:
    """Each source's state for ``architectures``, by default the visible GPUs'; compiles nothing.

    With no GPU and none named, each source comes once, with architecture None. Never raises: what is wrong is in the
    states.
    """
    states = []
    try:
        if architectures is None:
            architectures = visible_architectures()
        sources = kernel_sources()
    except Exception as error:
        return [KernelState("all kernels", None, "failed", error=f"{type(error).__name__}: {error}")]
    for source in sources:
        for architecture in architectures or (None,):
            try:
                states.append(_state(source.name, architecture, cache or KernelCache()))
            except Exception as error:
                states.append(
                    KernelState(source.name, architecture, "failed", error=f"{type(error).__name__}: {error}")
                )
    return states


def _state(source: str, architecture: str | None, cache: KernelCache) -> KernelState:
    names: dict[str, compiler.KernelUsage | None] = dict.fromkeys(declarations(source))
    if architecture is None:
        return KernelState(source, None, "not compiled", names)
    program = compiler.Program.read(source)
    entry = shipped.lookup(program.shipped_name(architecture), architecture)
    if entry is None:
        entry = cache.lookup(program.cache_name(architecture))
    if entry is not None:
        usage = {name: compiler.KernelUsage(**values) for name, values in entry.record["kernels"].items()}
        return KernelState(source, architecture, "compiled", {**names, **usage})
    error = _failures.get((source, architecture), _failure)
    return KernelState(source, architecture, "not compiled" if error is None else "failed", names, error)
