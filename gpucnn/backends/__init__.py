"""Which backend serves which device. A backend is made at the first use of its device, so importing this costs
nothing.
"""

from __future__ import annotations

import functools
import threading

from gpucnn import settings
from gpucnn.backends.base import Backend
from gpucnn.device import Device, device

__all__ = ["Backend", "default_device", "get"]


@functools.cache
def default_device() -> Device:
    """``GPUCNN_DEVICE`` where it is set, else ``cuda`` where a GPU is usable, else ``cpu``."""
    from gpucnn.backends.cuda import driver

    name = settings.device()
    if name is not None:
        return device(name)
    return Device("cuda" if driver.is_available() else "cpu")


_making = threading.Lock()


@functools.cache
def get(device: Device) -> Backend:
    """The backend of ``device``. Raises RuntimeError with the reason where the device cannot be used."""
    with _making:  # threads that ask at the same time get the same one: it holds what kernels found wrong
        return _made(device)


@functools.cache
def _made(device: Device) -> Backend:
    settings.compile_mode()  # a value that makes no sense did not break the import
    if device.type == "cpu":
        from gpucnn.backends.numpy import NumpyBackend

        return NumpyBackend()

    from gpucnn.backends.cuda.backend import CudaBackend

    if device.type == "emulated":
        from gpucnn.backends.emulator.engine import EmulatorEngine

        return CudaBackend(EmulatorEngine())

    from gpucnn.backends.cuda import driver
    from gpucnn.backends.cuda.engine import CudaEngine

    driver.require(device.index)
    return CudaBackend(CudaEngine(device.index))
