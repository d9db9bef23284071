"""How much memory this process holds, so that a long run's lines show that it stays the same."""

from __future__ import annotations

import os
from pathlib import Path

_STATM = Path("/proc/self/statm")


def rss_mib() -> float | None:
    """The resident set of this process in MiB, now; None where the system has no /proc that says it."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), 2)
