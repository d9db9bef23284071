"""The runtime's library and its structures, through ctypes. native/state.h is the other half."""

from __future__ import annotations

import ctypes
import threading
from ctypes import POINTER, Structure, byref, c_char, c_double, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path

from gpucnn.backends.emulator import build

NULL, IN, OUT, INOUT, TABLE = -1, 0, 1, 2, 3
END_FLUSH, START_FLUSH = 0, 1
FORWARD, REVERSED, SHUFFLED = 0, 1, 2


class Array(Structure):
    """One array of a launch."""

    _fields_ = (
        ("host", c_void_p),
        ("result", c_void_p),
        ("bytes", c_size_t),
        ("direction", c_int32),
        ("alignment", c_int32),
        ("phase", c_int32),
        ("table_first", c_int32),
        ("table_count", c_int32),
        ("device", c_uint64),
        ("read_map", c_void_p),
        ("written_map", c_void_p),
        ("map_offset", c_size_t),
        ("requested_read", c_uint64),
        ("requested_written", c_uint64),
    )


class Launch(Structure):
    """One run of a kernel."""

    _fields_ = (
        ("enter", c_void_p),
        ("arguments", c_void_p),
        ("arrays", POINTER(Array)),
        ("array_count", c_int64),
        ("grid", c_uint32 * 3),
        ("block", c_uint32 * 3),
        ("static_shared", c_size_t),
        ("dynamic_shared", c_size_t),
        ("shared_alignment", c_size_t),
        ("placement", c_int32),
        ("order", c_int32),
        ("seed", c_uint64),
        ("poison", c_int32),
        ("shared_poison", c_int32),
        ("timeout_seconds", c_double),
        ("count_traffic", c_int32),
    )


class Fault(Structure):
    """What went wrong in a run, if `kind` is not 0."""

    _fields_ = (
        ("kind", c_int32),
        ("line", c_int32),
        ("array", c_int32),
        ("write", c_int32),
        ("block", c_uint32 * 3),
        ("thread", c_uint32 * 3),
        ("offset", c_int64),
        ("address", c_uint64),
        ("code_offset", c_uint64),
        ("file", c_char * 512),
        ("object", c_char * 512),
        ("message", c_char * 768),
    )


class Runtime:
    """The loaded runtime. Its state is the process's: one launch at a time, under ``lock``."""

    def __init__(self) -> None:
        self.shared_object = ctypes.CDLL(str(build.runtime_library()))
        self.lock = threading.Lock()
        self.shared_object.gpucnn_structure_size.restype = c_size_t
        for which, structure in enumerate((Array, Launch, Fault)):
            size = self.shared_object.gpucnn_structure_size(c_int32(which))
            if size != ctypes.sizeof(structure):
                raise RuntimeError(
                    f"{structure.__name__} has {ctypes.sizeof(structure)} bytes here, {size} in the emulator's runtime"
                )
        self.shared_object.gpucnn_shared_alignment.restype = c_size_t
        self.shared_object.gpucnn_shared_alignment.argtypes = (c_void_p,)
        self.shared_object.gpucnn_launch.argtypes = (POINTER(Launch), POINTER(Fault))

    def run(self, launch: Launch) -> Fault | None:
        """Runs a kernel once. Returns what went wrong; without a fault, the arrays' results have been copied."""
        fault = Fault()
        kind = self.shared_object.gpucnn_launch(byref(launch), byref(fault))
        return fault if kind else None


@cache
def runtime() -> Runtime:
    """The process's runtime, compiled and loaded at first use."""
    return Runtime()


class KernelLibrary:
    """A compiled ``.cu`` file: the entries of its kernels and the shared memory of its static variables."""

    def __init__(self, path: Path) -> None:
        self.shared_object = ctypes.CDLL(str(path))
        measure = self.shared_object.gpucnn_static_shared
        measure.restype = c_size_t
        self.static_shared = int(measure())
        if self.static_shared > 1 << 24:
            raise RuntimeError(
                f"the C++ compiler ({' '.join(build.find_compiler())}) does not ask __tls_get_addr for thread-local"
                " variables, which the emulator's shared memory needs: set CXX to g++"
            )
        self.shared_alignment = int(runtime().shared_object.gpucnn_shared_alignment(ctypes.cast(measure, c_void_p)))

    def entry(self, name: str) -> int:
        """The address of the function that calls kernel ``name``."""
        address = ctypes.cast(getattr(self.shared_object, f"gpucnn_enter_{name}"), c_void_p).value
        assert address is not None
        return address

    def argument_sizes(self, name: str, count: int) -> list[int]:
        """The bytes of each of the kernel's arguments, as the compiler sees them; ``count`` is how many are
        expected.
        """
        sizes = (c_size_t * (count + 64))()
        found = getattr(self.shared_object, f"gpucnn_describe_{name}")(sizes)
        return list(sizes[:found])
