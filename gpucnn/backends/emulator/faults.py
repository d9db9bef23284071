"""What a kernel can do wrong: the exceptions, and how a fault that the runtime reports becomes one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
Index = tuple[int, int, int]


class EmulatorFault(RuntimeError):
    """A kernel did what it must not do. The process and the emulator go on; the launch's arrays keep what
    they held before.

    ``kernel`` is its name; ``block`` and ``thread`` (x, y, z), ``file`` and ``line`` say where, each None
    where that is not known.
    """

    def __init__(
        self,
        kernel: str,
        what: str,
        block: Index | None = None,
        thread: Index | None = None,
        file: str | None = None,
        line: int | None = None,
    ) -> None:
        self.kernel, self.block, self.thread, self.file, self.line, self.what = kernel, block, thread, file, line, what
        where = "" if block is None else f", block {block}"
        where += "" if thread is None else f", thread {thread}"
        place = "" if file is None else f" ({file}:{line})"
        super().__init__(f"{kernel}{where}: {what}{place}")


class OutOfBounds(EmulatorFault):
    """An access outside of an array, of shared memory, or through a null pointer."""


class WriteToInput(EmulatorFault):
    """A write to an array that the kernel declares IN."""


class MisalignedAccess(EmulatorFault):
    """A vector access to an address that is no multiple of the vector's size."""


class UndefinedBehaviour(EmulatorFault):
    """Signed overflow, a shift by too much, a float that does not fit an integer."""


class BarrierFault(EmulatorFault):
    """Threads of a block at different barriers, or a thread that left while others wait."""


class WarpFault(EmulatorFault):
    """A warp collective whose mask names a lane that has left or waits elsewhere."""


class KernelTrap(EmulatorFault):
    """``__trap()``, a failed ``assert``, or an integer division by zero."""


class KernelTimeout(EmulatorFault):
    """A launch that took longer than the engine's timeout."""


class KernelStackOverflow(EmulatorFault):
    """A thread used more stack than a fiber has."""


class UnwrittenOutput(EmulatorFault):
    """An element of an OUT array that the kernel never wrote."""


class UninitializedRead(EmulatorFault):
    """The result depends on memory that nobody wrote: shared memory, an output, cp.async data before its wait."""


class OrderDependence(EmulatorFault):
    """The result depends on the order in which threads or blocks run."""


class AliasedArguments(EmulatorFault):
    """An array that the kernel writes overlaps another argument."""


class ResourceFault(EmulatorFault):
    """A launch that no GPU of the architecture takes, or that needs more memory than the host gives."""


# The numbers of include/runtime.h.
MEMORY, OVERRUN, STACK, TIMEOUT, ARITHMETIC, MEMORY_LIMIT = 1, 9, 10, 8, 7, 12
_CLASSES: dict[int, type[EmulatorFault]] = {
    1: OutOfBounds, 2: UndefinedBehaviour, 3: MisalignedAccess, 4: BarrierFault, 5: WarpFault, 6: KernelTrap,
    7: KernelTrap, 8: KernelTimeout, 9: OutOfBounds, 10: KernelStackOverflow, 11: OutOfBounds, 12: ResourceFault,
}  # fmt: skip
_TEXTS = {
    6: "the kernel stopped itself (trap or illegal instruction)",
    7: "integer division by zero",
    8: "the launch took longer than its timeout; this thread was running",
    10: "stack overflow: a thread has 256 KiB",
    12: "the host refused memory or address space for this launch",
}
_ACCESS = {1: "write", 0: "read"}


def exception(kernel: str, fault: Any, buffers: Sequence[Any], shared_bytes: int) -> EmulatorFault:
    """The exception for ``fault`` (runtime.Fault). ``buffers`` are the launch's arrays in the runtime's order."""
    kind = int(fault.kind)
    known = kind not in (OVERRUN, MEMORY_LIMIT)
    block: Index | None = tuple(fault.block) if known else None
    thread: Index | None = tuple(fault.thread) if known else None
    file, line = fault.file.decode(errors="replace") or None, int(fault.line) or None
    if file is None and fault.code_offset:
        file, line = _source_line(fault.object.decode(errors="replace"), int(fault.code_offset))
    cls = _CLASSES[kind]
    what = fault.message.decode(errors="replace") or _TEXTS.get(kind, "")
    if kind in (MEMORY, OVERRUN) and not what:
        what = _access(fault, buffers, shared_bytes)
        if fault.array >= 0 and fault.write == 1 and buffers[fault.array].inside(fault.offset):
            cls = WriteToInput
    return cls(kernel, what, block, thread, file, line)


def _access(fault: Any, buffers: Sequence[Any], shared_bytes: int) -> str:
    access = _ACCESS.get(fault.write, "access")
    if fault.array == -2:
        return f"out-of-bounds {access} at byte {fault.offset} of the block's {shared_bytes} bytes of shared memory"
    if fault.array >= 0:
        return str(buffers[fault.array].describe_access(access, int(fault.offset)))
    if fault.address < 1 << 16:
        return f"{access} through a null pointer (address {fault.address:#x})"
    return f"out-of-bounds {access} at address {fault.address:#x}, far from every array"


def _source_line(library: str, offset: int) -> tuple[str | None, int | None]:
    """The source line of an instruction, by addr2line (of binutils, as the assembler is); (None, None) where
    that fails.
    """
    tool = shutil.which("addr2line")
    if tool is None:
        return None, None
    command = [tool, "-i", "-e", library, hex(offset)]
    try:
        text = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None, None
    for entry in text.splitlines():  # the innermost inlined call first
        file, _, number = entry.partition(" ")[0].rpartition(":")
        if number.isdigit() and int(number) and HERE not in Path(file).resolve().parents:
            return file, int(number)
    return None, None
