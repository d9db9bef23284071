"""Kernels that came compiled inside the wheel, which need no NVRTC: ``make wheel`` has :mod:`.prebuilt` put them there.

They are a :class:`~gpucnn.backends.cuda.cache.KernelCache` in the folder ``built`` beside the sources, under names that
change with the sources, the options and the architecture but not with NVRTC's version: what is shipped serves whatever
the user has. A source that was changed has another name, and is compiled as ever.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from gpucnn import settings
from gpucnn.backends.cuda.cache import Entry, KernelCache

FOLDER = "built"


def folder() -> Path:
    """Where shipped kernels lie, whether or not there are any."""
    return settings.kernels_path() / FOLDER


def lookup(name: str, architecture: str) -> Entry | None:
    """The shipped image called ``name``, None where there is none or it is damaged."""
    return KernelCache(folder()).lookup(name) if architecture in architectures() else None


@cache
def architectures() -> frozenset[str]:
    """The architectures that some source was shipped for ("80", "90a"); looked for once a process."""
    try:
        names = [path.name for path in folder().iterdir() if path.suffix == ".cubin"]
    except OSError:
        return frozenset()
    return frozenset(name.rsplit("-", 2)[1].removeprefix("sm_") for name in names)
