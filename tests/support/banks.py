"""Bank conflicts of a warp's accesses to shared memory, counted from the lanes' addresses.

Shared memory has 32 banks of 4 bytes; successive words lie in successive banks. In one wavefront each bank serves one
word, to any number of lanes (CUDA C++ Programming Guide, "Compute Capability 5.x: Shared Memory", which holds for all
later ones). A warp's 32 lanes move 128 bytes in one wavefront if they access 4 bytes each. Accesses of 8 bytes go half
a warp at a time, of 16 bytes a quarter, lanes in order, and conflicts arise only within such a part. ldmatrix reads one
8x8 matrix at a time: the eight rows of 16 bytes whose addresses lanes 8i to 8i + 7 give. cp.async writes as a store of
its size does.

What counts is :func:`extra_wavefronts`, those beyond the number that the bytes need in any case. :func:`lane_values`
asks device code for the addresses: it evaluates C++ expressions for each thread on the emulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gpucnn import settings
from gpucnn.backends.emulator import EmulatorEngine
from gpucnn.backends.launch import Launcher

LANES, BANKS, WORD = 32, 32, 4


def wavefronts(addresses: ArrayLike, width: int, active: ArrayLike | None = None) -> int:
    """Wavefronts of one instruction: ``addresses`` are the lanes' byte offsets, ``width`` the bytes of each (1, 2, 4, 8
    or 16). ``active`` says which lanes take part, by default all. An offset that is no multiple of the width raises
    ValueError."""
    offsets = np.asarray(addresses, np.int64)
    lanes = np.ones(offsets.shape, bool) if active is None else np.asarray(active, bool)
    if offsets.ndim != 1 or offsets.size > LANES or lanes.shape != offsets.shape:
        raise ValueError(f"addresses must be those of at most {LANES} lanes, got shape {offsets.shape}")
    if width not in (1, 2, 4, 8, 16):
        raise ValueError(f"width must be 1, 2, 4, 8 or 16 bytes, got {width}")
    if (offsets[lanes] % width).any() or (offsets[lanes] < 0).any():
        raise ValueError(f"addresses must be multiples of {width} bytes from 0 on, got {offsets[lanes].tolist()}")
    together = LANES * WORD // max(width, WORD)
    return sum(
        _wavefronts_of_part(offsets[first : first + together][lanes[first : first + together]], width)
        for first in range(0, offsets.size, together)
    )


def _wavefronts_of_part(offsets: np.ndarray[Any, Any], width: int) -> int:
    words = np.unique(offsets[:, None] // WORD + np.arange(max(1, width // WORD)))
    return int(np.bincount(words % BANKS, minlength=BANKS).max()) if words.size else 0


def extra_wavefronts(addresses: ArrayLike, width: int, active: ArrayLike | None = None) -> int:
    """The wavefronts that bank conflicts add to one instruction; 0 is what a kernel should have."""
    offsets = np.asarray(addresses, np.int64)
    lanes = np.ones(offsets.shape, bool) if active is None else np.asarray(active, bool)
    together = LANES * WORD // max(width, WORD)
    least = sum(bool(lanes[first : first + together].any()) for first in range(0, offsets.size, together))
    return wavefronts(offsets, width, lanes) - least


def ldmatrix_extra_wavefronts(rows: ArrayLike) -> int:
    """The same of ldmatrix; ``rows`` are the byte offsets of lanes 0 to 8 N - 1 for .xN (those of all 32 lanes may be
    given for .x4 only)."""
    offsets = np.asarray(rows, np.int64)
    if offsets.ndim != 1 or offsets.size not in (8, 16, 32):
        raise ValueError(f"rows must be the addresses of 8, 16 or 32 lanes, got shape {offsets.shape}")
    return extra_wavefronts(offsets, 16)


def lane_values(
    folder: Path, header: str, expressions: Sequence[str], threads: int = LANES, arch: int = 80, before: str = ""
) -> np.ndarray[Any, Any]:
    """Values (expression, thread) of C++ expressions as the device code of ``kernels/<header>`` computes them.

    In an expression, ``thread`` is threadIdx.x of a block of ``threads``. ``before`` is C++ that stands ahead of the
    kernel (constants, type names, functions). The source is written to ``folder`` and run on the emulator::

        lane_values(tmp_path, "tile.cuh", [f"tile_offset(thread / 4, thread % 4, {stage})" for stage in range(3)])
    """
    stores = "\n".join(f"    y[{i} * blockDim.x + thread] = {expression};" for i, expression in enumerate(expressions))
    text = f"""\
#include "{settings.kernels_path() / "common.cuh"}"
#include "{settings.kernels_path() / header}"

{before}
extern "C" __global__ void __launch_bounds__(1024) lane_values(OUT long long* __restrict__ y) {{
    const int thread = threadIdx.x;
{stores}
}}
"""
    (folder / "lane_values.cu").write_text(text, encoding="utf-8")
    values = np.zeros((len(expressions), threads), np.int64)
    Launcher(EmulatorEngine("fast", arch), folder)("lane_values.cu", "lane_values", 1, threads, values)
    return values
