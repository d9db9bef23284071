"""Which instance of a kernel runs for which problem: the heuristic's choice, or the one that was fastest here.

Without tuning nothing depends on a clock: the heuristic of each family decides from sizes, dtype and architecture. With
it, a problem's candidates are timed when it first comes up, and the choice is kept: in this process, on disk by GPU,
kernel sources and version, and with the run that used it, so that a run that goes on elsewhere or later has the bits
that it had. A choice that is known is used whether or not tuning is on.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from gpucnn import settings
from gpucnn.backends.declarations import included_files, kernel_sources

FORMAT = 1
WARM_UP, REPEATS = 2, 7
LEAD_BYTES, LEADS = 64 * 2**20, 16  # filled before a timed call: 0.2 ms on the fastest GPU, 10 ms on a small one
Timer = Callable[[Callable[[], Any]], float]
Choices = dict[str, str]  # "conv2d_fprop N128 H12 ... float16" to the name of an instance


class Tuner:
    """The choices of one device. ``timer(run) -> seconds`` times one call there; None where there is no clock."""

    def __init__(self, device_name: Callable[[], str], timer: Timer | None) -> None:
        self._device_name, self._timer = device_name, timer
        self.enabled = False
        self.choices: Choices = {}
        self.used: Choices = {}  # those of the problems that came up, to be saved with the run

    def enable(self) -> None:
        """Time what has not been timed on this kind of GPU; choices on disk are read first.

        Raises ValueError where nothing can be timed.
        """
        if self._timer is None:
            raise ValueError(f"autotune: kernels can be timed on a GPU only, not on {self._device_name()}")
        self.choices = {**self._stored(), **self.choices}
        self.enabled = True

    def disable(self) -> None:
        """Time nothing any more; what was chosen stays."""
        self.enabled = False

    def load(self, choices: Mapping[str, str]) -> None:
        """Use ``choices``, as :attr:`used` of the run that made them had them, in the place of any other."""
        self.choices.update(choices)

    def forget(self) -> None:
        """Go back to the heuristics, with tuning off."""
        self.enabled, self.choices, self.used = False, {}, {}

    def pick(
        self,
        operator: str,
        problem: Callable[[], str],
        default: str,
        candidates: Callable[[], Sequence[str]],
        run: Callable[[str], Any],
        may_time: bool = True,
    ) -> str:
        """The instance for ``problem()`` of ``operator``: the known choice, the fastest of ``candidates()``, or
        ``default``.

        ``run(instance)`` computes the operator once, leaving its inputs as they are. A known choice that is no
        candidate (any more) is not used. ``may_time`` is false while a graph is captured.
        """
        if not self.choices and not self.enabled:
            return default
        key = f"{operator} {problem()}"
        chosen = self.choices.get(key)
        if chosen is None or chosen not in candidates():
            if not (self.enabled and may_time):
                return default
            chosen = self._fastest(candidates(), default, run)
            self.choices[key] = chosen
            self._store()
        self.used[key] = chosen
        return chosen

    def _fastest(self, candidates: Sequence[str], default: str, run: Callable[[str], Any]) -> str:
        """The candidate of the least median time; of equals, the first, ``default`` before all others."""
        assert self._timer is not None
        best, best_seconds = default, math.inf
        for name in dict.fromkeys([default, *candidates]):
            once = partial(run, name)
            for _ in range(WARM_UP):
                once()
            seconds = statistics.median(self._timer(once) for _ in range(REPEATS))
            if seconds < best_seconds:
                best, best_seconds = name, seconds
        return best

    # ---- on disk ----

    def _path(self) -> Any:
        gpu = re.sub(r"[^A-Za-z0-9]+", "-", self._device_name()).strip("-")
        return settings.cache_dir() / "tuning" / f"{gpu}-{_version()}.json"

    def _stored(self) -> Choices:
        """The choices on disk; none where the file is missing, damaged or of another format."""
        try:
            content = json.loads(self._path().read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        found = content.get("choices") if isinstance(content, dict) and content.get("format") == FORMAT else None
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
            return {}
        return found

    def _store(self) -> None:
        """Write all choices, those that another process wrote meanwhile among them."""
        from gpucnn.backends.cuda.cache import write_atomically

        path = self._path()
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, "gpu": self._device_name(), "choices": {**self._stored(), **self.choices}}
        write_atomically(path, json.dumps(content, indent=1, sort_keys=True).encode())


def event_timer(engine: Any) -> Timer:
    """Times a call on ``engine``'s GPU between two events on the current stream.

    The GPU is kept busy while the host launches: else a kernel of a few microseconds would be timed by how long Python
    takes to start it, and all candidates would be the same.
    """

    def seconds(run: Callable[[], Any]) -> float:
        cuda = engine.xp.cuda
        with engine.device:
            lead = engine.xp.empty(LEAD_BYTES, np.uint8)
            start, end = cuda.Event(), cuda.Event()
            for _ in range(LEADS):
                lead.fill(0)
            start.record()
            run()
            end.record()
            end.synchronize()
            return float(cuda.get_elapsed_time(start, end)) / 1000.0

    return seconds


def _version() -> str:
    """Changes with gpucnn's version and with every kernel source."""
    import gpucnn

    digest = hashlib.sha256(gpucnn.__version__.encode())
    for source in kernel_sources():
        for file in included_files(source):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
