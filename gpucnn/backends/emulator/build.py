"""Compiles kernels and the runtime with the system's C++ compiler into shared libraries, and keeps them on disk.

A library's name holds a hash of everything that shapes it: the sources with all that they include, the
options, the compiler's version, the processor. It is written under another name and renamed, so processes
that start together do no harm.

How a ``.cu`` file compiles unchanged: a few generated lines include ``include/cuda.h`` and then the file, and
name an entry function for each kernel. ``__shared__`` is ``thread_local`` there. The compiler asks
``__tls_get_addr`` where such a variable lies, and the generated lines define that function: the answer is the
running block's shared memory, between pages that nobody may touch.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from gpucnn import settings

HERE = Path(__file__).resolve().parent
MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
COMPILERS = ("g++", "c++", "clang++")

COMMON = (
    "-std=c++17", "-g", "-gdwarf-4", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti",
    "-pthread", "-w",
    "-U_FORTIFY_SOURCE", "-fno-omit-frame-pointer", "-Wl,-z,defs",
)  # fmt: skip
# -ffp-contract=off: a*b+c is fused only where the source says fmaf, so that both modes and every compiler
# agree on the bits.
# -Bsymbolic: a kernel named `step` is the kernel, and not the C library's function.
KERNEL = (
    "-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing", "-ftls-model=global-dynamic", "-Wl,-Bsymbolic",
)  # fmt: skip
CHECKS = (
    "alignment", "bounds", "signed-integer-overflow", "shift", "integer-divide-by-zero", "unreachable", "return",
    "vla-bound",
    "float-cast-overflow",
)  # fmt: skip
MODES = {
    "strict": ("-O2", "-fsanitize=" + ",".join(CHECKS), "-fno-sanitize-recover=" + ",".join(CHECKS[:5] + CHECKS[7:])),
    # GCC 12's loop vectorizer reads lanes that it never wrote in batch_norm.cuh's statistics of half types.
    "fast": ("-O3", "-fwrapv", "-fno-tree-loop-vectorize"),
    # Each access to memory calls one of native/traffic.cpp's functions, which stand in for ThreadSanitizer's library.
    "traffic": ("-O2", "-fwrapv", "-fno-tree-vectorize", "-fsanitize=thread"),
}
# ThreadSanitizer's own library would be linked by default.
LIBRARIES = {"traffic": ("-nodefaultlibs", "-lm", "-lc", "-lgcc")}

_EXTERN_SHARED = re.compile(r"\bextern\s+__shared__\s+(?P<type>[^;]*?)\b(?P<name>\w+)\s*\[\s*\]")
_ALIGNMENT = re.compile(r"(?:__align__|alignas|__builtin_align__)\s*\(\s*(\d+)\s*\)")


def require_platform() -> str:
    """This machine's processor, "x86_64" or "aarch64". Raises RuntimeError where the emulator does not work."""
    machine = MACHINES.get(platform.machine().lower())
    if not sys.platform.startswith("linux") or machine is None:
        raise RuntimeError(
            "the device `emulated` needs Linux on x86-64 or aarch64;"
            f" this is {platform.system() or sys.platform} on {platform.machine() or 'an unknown processor'}"
        )
    return machine


def find_compiler() -> tuple[str, ...]:
    """The C++ compiler's command: what CXX says, else the first of g++, c++ and clang++. Raises RuntimeError."""
    named = shlex.split(os.environ.get("CXX", ""))
    if named:
        if shutil.which(named[0]) is None:
            raise RuntimeError(
                f"the device `emulated` needs a C++ compiler, and CXX names {named[0]!r}, which cannot be run"
            )
        return tuple(named)
    for name in COMPILERS:
        if shutil.which(name):
            return (name,)
    raise RuntimeError(
        f"the device `emulated` needs a C++ compiler, and none of {', '.join(COMPILERS)} is there"
        " (on Debian and Ubuntu: apt install g++); CXX can name another"
    )


@cache
def _compiler_version(compiler: tuple[str, ...]) -> str:
    return subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=True).stdout


@cache
def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.machine()
    lines = re.findall(r"^(?:model name|flags|Features|CPU part)\s*:.*$", text, re.MULTILINE)
    return "\n".join(sorted(set(lines)))


def _machine_options(compiler: tuple[str, ...]) -> tuple[str, ...]:
    """Options that name the processor, and the thread-local storage dialect that goes through __tls_get_addr."""
    gcc = "clang" not in _compiler_version(compiler).lower()
    if require_platform() == "aarch64":
        return ("-mcpu=native", *(("-mtls-dialect=trad", "-fno-gnu-unique", "-fno-extern-tls-init") if gcc else ()))
    return ("-march=native", *(("-mtls-dialect=gnu", "-fno-gnu-unique", "-fno-extern-tls-init") if gcc else ()))


def _key(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:24]


def _contents(files: Iterable[Path]) -> list[str | bytes]:
    parts: list[str | bytes] = []
    for file in files:
        parts += [str(file), file.read_bytes()]
    return parts


def _headers() -> list[Path]:
    """What the runtime and the kernels include of the emulator's own."""
    return sorted((HERE / "include").glob("*.h"))


def _cache_folder() -> Path:
    folder = settings.cache_dir() / "emulator"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _compile(command: Sequence[str], target: Path, what: str, texts: dict[str, str]) -> None:
    """Runs the compiler where ``texts`` lie as files, and moves the library that it writes to ``target``."""
    with tempfile.TemporaryDirectory(prefix="build-", dir=target.parent) as folder:
        for name, text in texts.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        done = subprocess.run(
            [*command, "-o", "library.so"], cwd=folder, capture_output=True, text=True, check=False, errors="replace"
        )
        if done.returncode:
            raise RuntimeError(
                f"{what} does not compile for the emulator ({' '.join(command[:1])}):\n{done.stderr[-6000:]}"
            )
        os.replace(Path(folder, "library.so"), target)


def runtime_library() -> Path:
    """The compiled runtime: fibers, guarded memory, fault handling. Compiled at first use."""
    require_platform()
    compiler = find_compiler()
    sources = sorted((HERE / "native").glob("*.cpp"))
    headers = [HERE / "native" / "state.h", *_headers()]
    options = [*COMMON, "-O2"]
    key = _key(*_contents([*sources, *headers]), _compiler_version(compiler), " ".join(options))
    target = _cache_folder() / f"libgpucnn_emulator-{key}.so"
    if not target.exists():
        command = [*compiler, *options, f"-Wl,-soname,{target.name}", *map(str, sources), "-ldl", "-lrt"]
        _compile(command, target, "the emulator's runtime", {})
    return target


def kernel_library(source: Path, files: Sequence[Path], kernels: Sequence[str], mode: str, arch: int) -> Path:
    """The library of ``source``, which includes ``files``, with an entry for each of ``kernels``.

    ``mode`` is "strict" (with UBSan's checks) or "fast"; ``arch`` is the compute capability to stand for (80:
    sm_80).
    """
    compiler = find_compiler()
    runtime = runtime_library()
    files = list(dict.fromkeys([source, *files]))
    headers = _headers()
    options = [*COMMON, *KERNEL, *MODES[mode], *_machine_options(compiler), f"-D__CUDA_ARCH__={arch * 10}"]
    texts = {"kernels.cpp": _wrapper(source, kernels), "shared.s": _shared_symbols(files)}
    key = _key(
        *_contents([*files, *headers]),
        *texts.values(),
        runtime.name,
        _compiler_version(compiler),
        _processor(),
        " ".join(options),
    )
    target = runtime.parent / f"{source.stem}-{key}.so"
    if not target.exists():
        command = [*compiler, *options, "kernels.cpp", "shared.s", str(runtime), "-Wl,-rpath,$ORIGIN"]
        command += LIBRARIES.get(mode, ())
        _compile(command, target, source.name, texts)
    return target


def _quoted(path: Path) -> str:
    return '"' + str(path) + '"'


def _wrapper(source: Path, kernels: Sequence[str]) -> str:
    entries = "\n".join(f"GPUCNN_KERNEL({name})" for name in kernels)
    return f"""\
#include {_quoted(HERE / "include" / "cuda.h")}
#include {_quoted(source.absolute())}

struct gpucnn_tls_index {{ size_t module, offset; }};
extern "C" __attribute__((visibility("hidden"), no_sanitize("thread"))) void* __tls_get_addr(gpucnn_tls_index* index) {{
  return gpucnn_shared_base + index->offset;
}}
extern thread_local unsigned char gpucnn_dynamic_shared[];
GPUCNN_EXPORT size_t gpucnn_static_shared() {{ return (size_t)(gpucnn_dynamic_shared - gpucnn_shared_base); }}
{entries}
"""


def _shared_symbols(files: Iterable[Path]) -> str:
    """Assembler text that defines the names of all ``extern __shared__`` arrays, at one place behind the
    static variables.
    """
    names, alignment = {"gpucnn_dynamic_shared"}, 16
    for file in files:
        for match in _EXTERN_SHARED.finditer(file.read_text(encoding="utf-8")):
            names.add(match["name"])
            alignment = max([alignment, *map(int, _ALIGNMENT.findall(match["type"]))])
    symbols = "\n".join(f".globl {name}\n.hidden {name}\n.type {name}, %object\n{name}:" for name in sorted(names))
    return f"""\
.section .tbss,"awT",%nobits
.balign {alignment}
{symbols}
.zero 16
.section .note.GNU-stack,"",%progbits
"""
