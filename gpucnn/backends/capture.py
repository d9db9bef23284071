"""What a capture is, on either engine: a sequence of launches that is recorded once and then replayed.

A capture belongs to the thread that began it. While it is open the engine records what that thread launches and runs
nothing, so nobody may ask for a value: :func:`refuse_read` says who did.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from gpucnn.backends.launch import Launch
from gpucnn.random import Purpose

STREAMS = len(Purpose) + 8  # purposes of random streams that one step may use
PACKAGE = Path(__file__).resolve().parent.parent
_ANSWERS = ("backends", "autograd.py", "graphs.py")  # parts of the package that only pass a call on
_CALLERS = ("training", "models", "data", "bench", "cli")  # parts that call operators as a user's code does


class NotCapturable(RuntimeError):
    """A step that cannot be captured, and why."""


class Capture:
    """The part that both engines share: whose it is, its launches, and the host's work before each replay."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.thread = threading.get_ident()
        self.launches: list[Launch] = []
        self.before: list[Callable[[], Any]] = []
        self.offsets: Any = None  # int64, by purpose: how far the random streams are beyond those of the capture
        self.purposes: list[int] = []
        self.derived: set[int] = set()  # the ids of copies in half precision that each replay makes anew

    def before_replay(self, work: Callable[[], Any]) -> None:
        """``work()`` is called before each replay, on the host, in the order of the first calls of this; once for equal
        functions. It may copy to the device."""
        if work not in self.before:
            self.before.append(work)

    def offset(self, purpose: int) -> Any:
        """An int64 array (1,) on the device: what a replay adds to the step of a random stream of this purpose."""
        if int(purpose) not in self.purposes:
            if len(self.purposes) == len(self.offsets):
                raise NotCapturable(f"a captured step may use {len(self.offsets)} purposes of random streams, not more")
            self.purposes.append(int(purpose))
        place = self.purposes.index(int(purpose))
        return self.offsets[place : place + 1]

    def check_result(self, array: Any) -> None:
        """Raises NotCapturable if an array that the step gives was computed in a way that no replay repeats."""

    def launched(self, kernel: str, grid: Any, block: Any, shared_mem: int) -> None:
        """Notes a launch that is being recorded."""
        self.launches.append(Launch(kernel, grid, block, shared_mem))


def refuse_read(engine: Any) -> None:
    """Raises NotCapturable, naming the operator, if the thread is capturing on ``engine``: a value is asked for that
    is computed only at the replays."""
    if engine.capturing:
        raise NotCapturable(
            f"{_reader(sys._getframe(1))} reads a value on the host, and while a step is captured there is none"
        )


def _reader(frame: FrameType | None) -> str:
    """Who reads: ``Tensor.item``, or ``Tensor.item in clip_grad_norm_``, and the place that called it."""
    names: list[tuple[str, str]] = []  # functions of operators, from the reader outwards, and their parts
    passing = True
    while frame is not None:
        inside, name = _inside(frame.f_code.co_filename), frame.f_code.co_qualname
        part = inside.parts[0] if inside is not None else ""
        if inside is None or part in _CALLERS:
            place = f" ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})"
            break
        if part not in _ANSWERS and passing:
            if name == "Module.__call__":
                passing = False
            else:
                names.append((name, part))
        frame = frame.f_back
    else:
        place = ""
    inner = [name for name, part in names if part == "tensor.py"][-1:] or [name for name, _ in names[:1]]
    outer = [name for name, _ in names[-1:]]
    found = list(dict.fromkeys(inner + outer)) or ["an operator"]
    return " in ".join(found) + place


def _inside(filename: str) -> Path | None:
    """A file's path within the package, None for one that is not of it."""
    try:
        return Path(filename).resolve().relative_to(PACKAGE)
    except ValueError:
        return None


def operator_of(traceback: TracebackType | None) -> str:
    """The function of the package, outside its backends, in which an exception came up: ``Linear.forward``."""
    name = "the step"
    while traceback is not None:
        inside = _inside(traceback.tb_frame.f_code.co_filename)
        if inside is not None and inside.parts[0] not in _ANSWERS:
            name = traceback.tb_frame.f_code.co_qualname
        traceback = traceback.tb_next
    return name
