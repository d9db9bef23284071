"""The device ``emulated``: CUDA kernels compiled for the CPU, a block's threads as fibers, every fault a
Python exception.

``engine.py`` is what the CUDA backend's Python calls, and says how a launch is checked and how to step
through a kernel in gdb; ``build.py`` compiles, ``runtime.py`` and ``native/`` run, ``include/cuda.h`` stands
in for CUDA C++, ``faults.py`` lists what is caught, ``traffic.py`` counts bytes.
"""

from __future__ import annotations

from gpucnn.backends.emulator.engine import EmulatorEngine
from gpucnn.backends.emulator.faults import (
    AliasedArguments,
    BarrierFault,
    EmulatorFault,
    KernelStackOverflow,
    KernelTimeout,
    KernelTrap,
    MisalignedAccess,
    OrderDependence,
    OutOfBounds,
    ResourceFault,
    UndefinedBehaviour,
    UninitializedRead,
    UnwrittenOutput,
    WarpFault,
    WriteToInput,
)

__all__ = [
    "AliasedArguments",
    "BarrierFault",
    "EmulatorEngine",
    "EmulatorFault",
    "KernelStackOverflow",
    "KernelTimeout",
    "KernelTrap",
    "MisalignedAccess",
    "OrderDependence",
    "OutOfBounds",
    "ResourceFault",
    "UndefinedBehaviour",
    "UninitializedRead",
    "UnwrittenOutput",
    "WarpFault",
    "WriteToInput",
]
