"""GPUs: whether there is one, its memory, and compiling the kernels ahead.

The functions take a device's number, 0 by default. Those that need a GPU raise RuntimeError with the reason where it
cannot be used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpucnn import settings
from gpucnn.backends.cuda import driver
from gpucnn.backends.cuda.memory import tracker

if TYPE_CHECKING:
    from gpucnn.backends.cuda.compiler import Report
    from gpucnn.backends.cuda.precompile import KernelState
    from gpucnn.graphs import GraphedStep
    from gpucnn.tensor import Tensor

__all__ = [
    "autotune",
    "compile_all",
    "compile_state",
    "device_count",
    "empty_cache",
    "get_device_capability",
    "get_device_name",
    "graph",
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


def autotune(enabled: bool = True, device: int = 0) -> None:
    """Choose between kernels' instances by time from now on, or, with ``enabled=False``, by the heuristics alone again.

    Each geometry of a convolution or a product is timed when it first comes up, and the fastest instance is kept on
    disk by GPU, kernels and version. Instances differ in the order in which they add up, and so in the last bits: a
    run keeps its choices in its checkpoint (``gpucnn train --autotune``). Raises RuntimeError without a GPU.
    """
    driver.require(device)
    from gpucnn import backends
    from gpucnn.device import Device

    tuner = backends.get(Device("cuda", device)).tuner  # type: ignore[attr-defined]
    if enabled:
        tuner.enable()
    else:
        tuner.forget()


def graph(step: Callable[..., Any], *example_inputs: Tensor, device: str | None = None, shapes: int = 1) -> GraphedStep:
    """``step`` as one CUDA graph: a callable that copies its inputs to a fixed place, starts all launches of the step
    with one call, and returns the step's outputs.

    ``step(*inputs)`` is run once as it is, on copies of ``example_inputs``: that is a step like any other, and
    ``.first`` has its outputs. Then it is captured: what it asks the device to do is recorded and not done. A call
    replays that, in the same order and with the same bits as ``step`` itself. Outputs, and the gradients that the step
    leaves, are the same tensors each time: the next call overwrites them.

    A replay runs no Python. So the step must do the same launches each time and must not look at values on the host;
    of what gpucnn has, random streams go on and optimizers and moving averages see their new learning rates. Works on
    ``cuda`` and on ``emulated``; ``device`` is where a step without inputs runs.

    >>> trained = gpucnn.cuda.graph(train_step, images, labels)   # doctest: +SKIP
    >>> for images, labels in loader:                             # doctest: +SKIP
    ...     loss = trained(images, labels)

    Args:
        shapes: how many sets of input shapes are captured. A call with new shapes runs the step as it is and captures
            it for the next time; one set too many is an error.

    Raises:
        RuntimeError: the step cannot be captured; names the operator that reads a value on the host, copies from it, or
            calls a library that cannot be captured. Also for a capture within a capture, and on cpu.
        ValueError: at a call, shapes or dtypes that were not captured; names both.
    """
    from gpucnn import graphs

    return graphs.graph(step, example_inputs, device, shapes)
