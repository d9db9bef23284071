"""GPUs: whether there is one, its memory, and compiling the kernels ahead.

The functions take a device's number, 0 by default. Those that need a GPU raise RuntimeError with the reason where it
cannot be used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpucnn import settings
from gpucnn.backends.cuda import driver
from gpucnn.backends.cuda.memory import tracker

if TYPE_CHECKING:
    from gpucnn.backends.cuda.compiler import Report
    from gpucnn.backends.cuda.precompile import KernelState

__all__ = [
    "compile_all",
    "compile_state",
    "device_count",
    "empty_cache",
    "get_device_capability",
    "get_device_name",
    "is_available",
    "max_memory_allocated",
    "memory_allocated",
    "on_import",
    "reset_peak_memory_stats",
    "synchronize",
]


def on_import() -> None:
    """Compile the kernels of the default path for the visible GPUs into the cache; ``import gpucnn`` calls this.

    Nothing happens without a GPU or with ``GPUCNN_COMPILE=lazy``, and what goes wrong waits for the first launch and
    for ``gpucnn doctor``; another value of GPUCNN_COMPILE for the first use of a device, which the command line can
    tell in one line.
    """
    try:
        mode = settings.compile_mode()
    except ValueError:
        return
    if mode == "import" and driver.query().problem is None and driver.is_available():
        from gpucnn.backends.cuda import precompile

        precompile.fill_cache()


def compile_all(
    arch: int | str | Sequence[int | str] | None = None,
    *,
    sources: Iterable[str | Path] | None = None,
    threads: int | None = None,
    check: bool = True,
) -> Report:
    """Compile the kernels into the cache, on any machine with CuPy and NVRTC: no GPU and no driver are needed.

    ``arch`` is one or several of 80, "80", "sm_80", "90a", ...; None means every architecture that gpucnn is tested
    for (sm_50 to sm_120). ``sources`` are ``.cu`` files, by default all of the package's; ``threads`` defaults to the
    processors there are. The report, which can be printed, has each kernel's registers, spills and shared memory, and
    names in ``left_out`` the architectures that this NVRTC does not build. Raises ValueError for what is not an
    architecture, and CompileError (a RuntimeError) where NVRTC is missing or, with ``check``, where a source fails,
    after the others are done.
    """
    from gpucnn.backends.cuda import compiler

    return compiler.compile_all(arch, sources=sources, threads=threads, check=check)


def compile_state(architectures: Sequence[str] | None = None) -> list[KernelState]:
    """Whether each kernel source is compiled, for the visible GPUs or the architectures named; compiles nothing,
    never raises."""
    from gpucnn.backends.cuda import precompile

    return precompile.compile_state(architectures)


def is_available() -> bool:
    """Whether a GPU can be used: there is a driver, a device and CuPy."""
    return driver.is_available()


def device_count() -> int:
    """The number of GPUs that this process can use; 0 where none can be."""
    return len(driver.devices()) if driver.is_available() else 0


def get_device_name(device: int = 0) -> str:
    """The GPU's name as the driver gives it."""
    driver.require(device)
    return driver.devices()[device].name


def get_device_capability(device: int = 0) -> tuple[int, int]:
    """The GPU's compute capability: (8, 6) for sm_86."""
    driver.require(device)
    return driver.devices()[device].capability


def synchronize(device: int = 0) -> None:
    """Wait until the GPU has done all that it was given, and raise what kernels found wrong in their data."""
    driver.require(device)
    from gpucnn import backends
    from gpucnn.device import Device

    backends.get(Device("cuda", device)).synchronize()


def memory_allocated(device: int = 0) -> int:
    """Bytes of GPU memory that arrays hold, as the memory pool rounds them (512); 0 where no GPU was used.

    Counted are the arrays that were made since gpucnn first used a GPU.
    """
    return tracker.now(device)


def max_memory_allocated(device: int = 0) -> int:
    """The most bytes that :func:`memory_allocated` ever was, since the start or :func:`reset_peak_memory_stats`.

    Exact: every allocation and release is counted. What the CUDA context, the modules and the pool's unused blocks
    take is not in it.
    """
    return tracker.most(device)


def reset_peak_memory_stats(device: int = 0) -> None:
    """Let :func:`max_memory_allocated` start anew from what is allocated now."""
    tracker.reset(device)


def empty_cache() -> None:
    """Give the memory pool's unused blocks, on the GPU and pinned on the host, back to the driver."""
    if not driver.is_available():
        return
    import cupy

    cupy.get_default_memory_pool().free_all_blocks()
    cupy.get_default_pinned_memory_pool().free_all_blocks()
