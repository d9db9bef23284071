"""A cubin's machine code (SASS), kernel by kernel, as NVIDIA's disassembler prints it.

The disassembler is nvdisasm from the wheel nvidia-cuda-nvdisasm, or the one on the PATH. Version 13 reads sm_75 and
newer. Cubins that NVRTC hands out through CuPy lack their last byte, a zero; it is put back here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_INSTRUCTION = re.compile(
    r"/\*(?P<address>[0-9a-f]{4,})\*/\s+(?:@(?P<guard>!?U?P\w+)\s+)?(?P<opcode>[A-Z][\w.]*)(?P<rest>.*)"
)
_TARGET = re.compile(r"`\((\.L_\w+)\)")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its address, its opcode with modifiers ("LDG.E.128"), and the whole text."""

    address: int
    opcode: str
    text: str

    def has(self, *parts: str) -> bool:
        """Whether the opcode is or begins with ``parts[0]`` and has all other parts among its modifiers."""
        name, *modifiers = self.opcode.split(".")
        return name == parts[0] and set(parts[1:]) <= set(modifiers)


@dataclass(frozen=True)
class Kernel:
    """The instructions of one kernel and its loops, each as (first, last) index of its instructions."""

    name: str
    instructions: tuple[Instruction, ...]
    loops: tuple[tuple[int, int], ...]

    def count(self, *parts: str) -> int:
        """How many instructions have this name and these modifiers: ``count("LDGSTS", "BYPASS", "128")``."""
        return sum(one.has(*parts) for one in self.instructions)

    def opcodes(self) -> Counter[str]:
        """How often each opcode stands in the code, without modifiers."""
        return Counter(one.opcode.partition(".")[0] for one in self.instructions)

    def hot_loop(self, *parts: str) -> tuple[Instruction, ...]:
        """The innermost loop with the most such instructions; empty where no loop has one."""

        def holds(loop: tuple[int, int]) -> int:
            return sum(one.has(*parts) for one in self.instructions[loop[0] : loop[1] + 1])

        inner = [
            loop
            for loop in self.loops
            if holds(loop)
            and not any(
                other != loop and loop[0] <= other[0] and other[1] <= loop[1] and holds(other) for other in self.loops
            )
        ]
        if not inner:
            return ()
        first, last = max(inner, key=holds)
        return self.instructions[first : last + 1]


def nvdisasm() -> Path | None:
    """The disassembler, if there is one."""
    try:
        files = metadata.files("nvidia-cuda-nvdisasm") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.stem == "nvdisasm" and (found := Path(str(file.locate()))).is_file():
            return found
    named = shutil.which("nvdisasm")
    return Path(named) if named else None


def disassemble(cubin: Path) -> dict[str, Kernel]:
    """The kernels of a cubin by name. Raises RuntimeError with what the disassembler says."""
    program = nvdisasm()
    if program is None:
        raise RuntimeError("there is no nvdisasm: pip install nvidia-cuda-nvdisasm")
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "kernels.cubin")
        whole.write_bytes(cubin.read_bytes() + b"\0")
        done = subprocess.run([str(program), "-c", str(whole)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"nvdisasm {cubin.name}: {done.stderr.strip() or done.returncode}")
    return read(done.stdout)


def read(text: str) -> dict[str, Kernel]:
    """The kernels in the disassembler's text."""
    sections = re.split(r"^\.text\.(\w+):[ \t]*$", text, flags=re.MULTILINE)[1:]
    return {name: _kernel(name, body.splitlines()) for name, body in zip(sections[::2], sections[1::2], strict=True)}


def _kernel(name: str, lines: Iterable[str]) -> Kernel:
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    branches: list[tuple[int, str]] = []
    for line in lines:
        if line.startswith(".L_"):
            labels[line.strip().rstrip(":")] = len(instructions)
        match = _INSTRUCTION.search(line)
        if match is None:
            continue
        target = _TARGET.search(match["rest"])
        if target and match["opcode"].startswith("BRA"):
            branches.append((len(instructions), target[1]))
        instructions.append(Instruction(int(match["address"], 16), match["opcode"], line.strip()))
    loops = {(labels[label], place) for place, label in branches if label in labels and labels[label] <= place}
    # nvdisasm ends a kernel with a branch to itself and padding: no loop of the program's.
    return Kernel(name, tuple(instructions), tuple(sorted(loop for loop in loops if loop[0] != loop[1])))
