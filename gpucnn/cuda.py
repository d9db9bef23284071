"""GPUs: whether there is one, its memory, and compiling the kernels ahead.

The functions take a device's number, 0 by default. Those that need a GPU raise RuntimeError with the reason where it
cannot be used.
"""

from __future__ import annotations

from gpucnn.backends.cuda import driver
from gpucnn.backends.cuda.compiler import compile_all
from gpucnn.backends.cuda.memory import tracker
from gpucnn.backends.cuda.precompile import compile_state, on_import

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
