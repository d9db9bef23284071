"""Is there a GPU that can be used, and if not, why not.

The questions go to the driver's own library through ctypes: ``cuInit``, ``cuDeviceGetCount`` and
``cuDeviceGetAttribute`` create no context and take no memory on the GPU. Where that library is missing CuPy, which is
slow to import, is not touched.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

# Values of the CUDA driver API, as in cuda.h.
CUDA_ERROR_NO_DEVICE = 100
ERROR_TEXTS = {
    34: "the library is a stub for linking, not a driver",
    CUDA_ERROR_NO_DEVICE: "it finds no GPU",
    802: "the system is not yet initialised",
    803: "the driver's library and kernel module have different versions: restart the machine",
    804: "this GPU does not allow the compatibility package that is installed",
    999: "unknown error: is the kernel module loaded?",
}
COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76  # attributes of a device
OLDEST_DRIVER = (12, 0)  # CuPy's CUDA 12 wheels run on any driver of CUDA 12 (525 or newer)


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU that this process sees: ``capability`` is its compute capability, (8, 6) for sm_86; ``memory`` in
    bytes."""

    index: int
    name: str
    capability: tuple[int, int]
    memory: int


@dataclass(frozen=True, slots=True)
class Driver:
    """What the NVIDIA driver says. ``problem`` is None where there is at least one GPU; ``cuda`` is the newest CUDA
    it serves."""

    found: bool
    cuda: tuple[int, int] | None
    devices: tuple[Device, ...]
    problem: str | None


def is_available() -> bool:
    """Whether CUDA can be used: driver, GPU and CuPy."""
    return unavailable_reason() is None


def require(index: int = 0) -> None:
    """Raises RuntimeError with the reason where ``cuda:index`` cannot be used."""
    reason = unavailable_reason()
    if reason is not None:
        raise RuntimeError(f"cuda:{index} cannot be used: {reason}")
    if not 0 <= index < len(devices()):
        raise RuntimeError(f"cuda:{index} cannot be used: this process sees {len(devices())} GPU(s), numbered from 0")


def devices() -> tuple[Device, ...]:
    """The GPUs that this process sees (CUDA_VISIBLE_DEVICES), whether CuPy is installed or not."""
    return query().devices


@lru_cache(maxsize=1)
def unavailable_reason() -> str | None:
    """Why CUDA cannot be used, in one line with the command that mends it; None where it can."""
    driver = query()
    if driver.problem is not None:
        return driver.problem
    if driver.cuda is not None and driver.cuda < OLDEST_DRIVER:
        version = ".".join(map(str, driver.cuda))
        return f"the NVIDIA driver is too old (CUDA {version}): install version 525 or newer"
    import importlib.util

    if importlib.util.find_spec("cupy") is None:
        return f"no CuPy: {install_command(driver)}"
    try:
        import cupy

        usable = bool(cupy.is_available())
    except Exception as error:  # a broken installation raises anything: ImportError, OSError, CUDARuntimeError
        return f"CuPy cannot be imported ({_first_line(error)}): {install_command(driver)}"
    if not usable:
        return f"CuPy {cupy.__version__} finds no device though the driver lists {len(driver.devices)}"
    return None


def install_command(driver: Driver) -> str:
    """The pip command that installs the CuPy for these GPUs."""
    from gpucnn import cupy_choice

    gpus = cupy_choice.Gpus(tuple(device.capability for device in driver.devices), driver.cuda)
    return f"pip install 'gpucnn[{cupy_choice.choose(gpus) or 'cuda12'}]'"


def installation_problems() -> list[str]:
    """What is wrong with the CuPy that is installed, beyond whether it can be used; for ``gpucnn doctor``."""
    from gpucnn import cupy_choice

    installed = cupy_choice.installed_cupy()
    driver = query()
    problems = []
    if len(installed) > 1:
        names = " ".join(installed)
        problems.append(
            f"{' and '.join(installed)} are installed side by side and overwrite each other's files:"
            f" pip uninstall -y {names}, then {install_command(driver)}"
        )
    old = [device for device in driver.devices if device.capability < cupy_choice.OLDEST_FOR_CUDA13]
    if old and "cupy-cuda13x" in installed:
        problems.append(
            f"CUDA 13 does not serve {old[0].name} (compute capability {'.'.join(map(str, old[0].capability))}):"
            f" pip uninstall -y cupy-cuda13x, then {install_command(driver)}"
        )
    return problems


@lru_cache(maxsize=1)
def query() -> Driver:
    """Ask the driver, once a process. Never raises."""
    library = _load_library()
    if library is None:
        name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
        return Driver(False, None, (), f"no NVIDIA driver ({name} was not found)")
    status = int(library.cuInit(0))
    version = ctypes.c_int()
    cuda = None
    if library.cuDriverGetVersion(ctypes.byref(version)) == 0 and version.value:
        cuda = (version.value // 1000, version.value % 1000 // 10)
    if status == CUDA_ERROR_NO_DEVICE:
        return Driver(True, cuda, (), _no_device())
    if status != 0:
        text = ERROR_TEXTS.get(status, "see cuInit in the CUDA driver API")
        return Driver(True, cuda, (), f"the NVIDIA driver does not start (cuInit error {status}: {text})")
    count = ctypes.c_int()
    library.cuDeviceGetCount(ctypes.byref(count))
    found = tuple(_device(library, index) for index in range(count.value))
    return Driver(True, cuda, found, None if found else _no_device())


def _no_device() -> str:
    from os import environ

    visible = environ.get("CUDA_VISIBLE_DEVICES")
    hidden = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
    return f"no device: the NVIDIA driver is installed and finds no GPU{hidden}"


def _device(library: Any, index: int) -> Device:
    handle, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    memory, name = ctypes.c_size_t(), ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(handle), index)
    library.cuDeviceGetName(name, len(name), handle)
    library.cuDeviceGetAttribute(ctypes.byref(major), COMPUTE_CAPABILITY_MAJOR, handle)
    library.cuDeviceGetAttribute(ctypes.byref(minor), COMPUTE_CAPABILITY_MINOR, handle)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    return Device(index, name.value.decode(errors="replace"), (major.value, minor.value), memory.value)


def _load_library() -> Any:
    """The driver's library, or None. ``ctypes.util.find_library`` would start compilers and linkers to look for
    it."""
    if sys.platform == "darwin":
        return None
    names = ["nvcuda.dll"] if sys.platform == "win32" else ["libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"]
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _first_line(error: Exception) -> str:
    lines = [line.strip(" =") for line in str(error).splitlines() if line.strip(" =")]
    return lines[0] if lines else type(error).__name__
