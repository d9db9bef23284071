"""Capture on the device ``emulated``: launches are recorded with their arguments, and run by a replay.

A GPU's driver would record whatever a stream is given. Here the engine records the launches, and the arrays of the
step's tensors record what NumPy is asked to do with them (:mod:`gpucnn.backends.emulator.array`), where on a GPU
CuPy's kernels run. What is computed on the host in another way would be computed once, at the capture, and be wrong at
each replay. So a launch may read only memory that was there before the capture, or that something recorded before it
has written; else it is an error that names the launch and the line of the host's computation. That line is known from
tracemalloc, which tells the objects made since the capture began from older ones, and where they were made.
"""

from __future__ import annotations

import ast
import functools
import linecache
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn import layout
from gpucnn.backends.capture import PACKAGE, STREAMS, Capture, NotCapturable
from gpucnn.backends.declarations import Declaration
from gpucnn.backends.emulator.array import RecordedArray, _arrays, _recording

FRAMES = 24  # of a traceback that is kept for each object made during a capture


class Recording(Capture):
    """A sequence of launches on the emulator."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self.offsets = np.zeros(STREAMS, np.int64)
        self._work: list[Callable[[], Any]] = []
        self._made: dict[int, Any] = {}  # memory that the capture itself made, by the id of its owner
        self._written: set[int] = set()  # of those, what has been written so far
        self._constants: dict[int, Any] = {}
        self._tracing = False

    @contextmanager
    def open(self) -> Iterator[None]:
        """Within it this thread's launches are recorded and not run."""
        self._tracing = not tracemalloc.is_tracing()
        if self._tracing:
            tracemalloc.start(FRAMES)
        _recording.append(self)
        try:
            yield
        finally:
            _recording.remove(self)
            if self._tracing:
                tracemalloc.stop()
                self._tracing = False

    def replay(self) -> None:
        """Does all that was recorded, in order."""
        for work in self._work:
            work()

    # ---- arrays ----

    def watched(self, array: Any) -> Any:
        """``array`` seen so that what NumPy does with it is recorded."""
        return array if isinstance(array, RecordedArray) else array.view(RecordedArray)

    @staticmethod
    def released(array: Any) -> Any:
        """``array`` as an ordinary array of NumPy's."""
        return array.view(np.ndarray) if isinstance(array, RecordedArray) else array

    def empty(self, shape: int | Sequence[int], dtype: Any) -> Any:
        """New memory, to be written by what is recorded."""
        array = np.empty(shape, dtype)
        array.reshape(-1).view(np.uint8).fill(0xFF)
        self._made[id(array)] = array
        return array.view(RecordedArray)

    def constant(self, values: Any) -> Any:
        """A copy of a NumPy array, which the launches may read: it is the same at each replay."""
        array = np.array(values)
        self._constants[id(array)] = array
        return array

    # ---- work ----

    def launch(
        self, declaration: Declaration, run: Callable[..., Any], grid: Any, block: Any, args: Any, shared_mem: int
    ) -> None:
        """Records a launch; ``run(grid, block, args, shared_mem)`` is what a replay calls."""
        for parameter, argument in zip(declaration.parameters, args, strict=True):
            if parameter.kind in ("array", "table") and parameter.direction != "out":
                for array in _arrays(argument):  # INOUT may be scratch memory, which the launch writes first
                    what = f"the launch {declaration.name} reads {parameter.name}"
                    self._check(array, what, scratch=parameter.direction == "inout")
        for parameter, argument in zip(declaration.parameters, args, strict=True):
            if parameter.kind in ("array", "table") and parameter.direction != "in":
                self._mark(_arrays(argument))
        kept = tuple(_kept(argument) for argument in args)
        self.launched(declaration.name, grid, block, shared_mem)
        self._work.append(lambda: run(grid, block, kept, shared_mem))

    def note(self, work: Callable[[], Any], read: Any, written: Iterable[Any], made: bool = False) -> None:
        """Records work of NumPy's, which reads and writes these arrays; ``made``: it made those that it writes."""
        for array in _arrays(read):
            owner = layout.owner(array)
            if id(owner) in self._made and id(owner) not in self._written and not any(array is w for w in written):
                raise NotCapturable(f"{_place(_lines())} reads an array that nothing has written yet")
        for array in written:
            owner = layout.owner(array)
            if made:
                self._made[id(owner)] = owner
            self._mark([array])
        self._work.append(functools.partial(_quietly, work))

    def check_result(self, array: Any) -> None:
        self._check(array, "the step returns a tensor")

    def _mark(self, arrays: Iterable[Any]) -> None:
        self._written.update(id(owner) for array in arrays if id(owner := layout.owner(array)) in self._made)

    def _check(self, array: Any, what: str, scratch: bool = False) -> None:
        owner = layout.owner(array)
        if id(owner) in self._made:
            if id(owner) not in self._written and array.size and not scratch:
                raise NotCapturable(f"{what}, which nothing that was recorded has written")
            return
        trace = tracemalloc.get_object_traceback(owner) if self._tracing and id(owner) not in self._constants else None
        if trace is not None and array.size:
            raise NotCapturable(
                f"{what}, and {_place([(frame.filename, frame.lineno) for frame in trace])} computed that on the host:"
                " a replay would see the values of the capture"
            )


def _quietly(work: Callable[[], Any]) -> None:
    with np.errstate(all="ignore"):
        work()


def _kept(argument: Any) -> Any:
    if isinstance(argument, RecordedArray):
        return argument.view(np.ndarray)
    return [_kept(array) for array in argument] if isinstance(argument, (list, tuple)) else argument


def _lines() -> list[tuple[str, int]]:
    import sys

    found, frame = [], sys._getframe(1)
    while frame is not None:
        found.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back  # type: ignore[assignment]
    return found[::-1]


def _place(lines: list[tuple[str, int]]) -> str:
    """The operator that made an object, of the lines that led to it, oldest first: the innermost that is neither
    NumPy's nor of the code that only looks after memory."""
    skipped = (PACKAGE / "layout.py", *(PACKAGE / "backends" / "emulator").glob("*.py"))
    for filename, line in reversed(lines):
        path = Path(filename)
        if "numpy" in path.parts or path in skipped:
            continue
        name = _function_at(filename, line)
        return f"{name} ({path.name}:{line}: {linecache.getline(filename, line).strip()})"
    return "something"


def _function_at(filename: str, line: int) -> str:
    """The qualified name of the function around a line."""
    try:
        node: Any = ast.parse(Path(filename).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return "the step"
    names: list[str] = []
    while True:
        children: list[Any] = list(ast.iter_child_nodes(node))
        inner = [child for child in children if hasattr(child, "lineno") and child.lineno <= line <= child.end_lineno]
        if not inner:
            return ".".join(names) or "the step"
        node = inner[0]
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
