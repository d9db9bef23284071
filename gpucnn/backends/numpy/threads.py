"""Threads over blocks of work, one BLAS thread inside each: no bit of a result depends on how many there are.

Two things make that so. The bounds of the blocks come from the sizes of the problem alone, never from the
number of threads, and blocks either own their part of the output or leave partial results that are added in a
fixed order. And BLAS, which splits a product by its own thread count and then gives other bits, is held to one
thread while a primitive runs. NumPy and BLAS release the GIL, so plain Python threads do.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from gpucnn import settings

Item = TypeVar("Item")

SHARE = 1 << 16  # elements: 25 microseconds of work, about what it costs to hand them to another thread
PRODUCTS = 32  # multiplications of a matrix product that take as long as one element of a pass


class _Job:
    """One call of :func:`for_each`: threads take the items one after the other.

    Taking one is a deque's popleft and the end is told through a queue, both one call of C: with a lock and a condition
    around every item a job of 8 trivial ones cost 9 microseconds, so 3.
    """

    def __init__(self, function: Callable[[Any], None], items: Sequence[Any]) -> None:
        self.function = function
        self.waiting = deque(items)
        self.done: SimpleQueue[int] = SimpleQueue()  # from each helper that took any: how many items it has done
        self.error: BaseException | None = None

    def work(self) -> int:
        """Takes items until none is left and says how many; once one has failed, the rest is taken but not called."""
        count = 0
        while True:
            try:
                item = self.waiting.popleft()
            except IndexError:
                return count
            count += 1
            if self.error is None:
                try:
                    self.function(item)
                except BaseException as error:  # raised again by the caller of for_each
                    self.error = error

    def help(self) -> None:
        """A helper's part. One that comes late finds nothing, and nobody waits for it."""
        count = self.work()
        if count:
            self.done.put(count)

    def lead(self, left: int) -> None:
        """The caller's part of ``left`` items, and until all others have done theirs. Raises what an item raised."""
        left -= self.work()
        while left:
            left -= self.done.get()
        del self.function  # a helper yet to come would keep its arrays alive
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback has this frame: a cycle would keep the arrays alive, too


class _Pool:
    """Daemon threads that wait for jobs; started when first needed, and anew in a forked child."""

    def __init__(self) -> None:
        self.size = settings.threads() or settings.available_cores()
        self.forget()

    def forget(self) -> None:
        """Drops threads and locks: none of the parent's threads lives on in a forked child."""
        self.lock = threading.RLock()  # garbage collected within may call a primitive
        self.queue: SimpleQueue[_Job] = SimpleQueue()
        self.started = 0
        self.local = threading.local()

    def run(self, job: _Job, helpers: int) -> None:
        if self.started < helpers:
            self._start(helpers)
        left = len(job.waiting)
        for _ in range(helpers):
            self.queue.put(job)
        job.lead(left)

    def _start(self, helpers: int) -> None:
        with self.lock:
            while self.started < helpers:
                self.started += 1
                name = f"gpucnn-cpu-{self.started}"
                threading.Thread(target=self._serve, args=(self.queue,), name=name, daemon=True).start()

    def _serve(self, queue: SimpleQueue[_Job]) -> None:
        self.local.is_worker = True
        _blas.limit_this_thread()
        np.seterr(all="ignore")  # each thread has a setting of its own; see autograd.running_on
        while True:
            job = queue.get()
            job.help()
            del job  # holds arrays

    def inside(self) -> bool:
        return getattr(self.local, "is_worker", False)


class _Blas:
    """Holds the BLAS libraries to one thread while at least one primitive runs, and gives them their threads back.

    Most have one count for the process. Where each thread has a count of its own (MKL, OpenBLAS under OpenMP), every
    thread that calls holds its own, and those of the pool hold theirs for good.
    """

    def __init__(self) -> None:
        self.shared: list[_Library] | None = None
        self.by_thread: list[_Library] = []
        self.lock = threading.RLock()  # garbage collected within may call a primitive
        self.users = 0
        self.held: list[tuple[_Library, int]] = []  # those that have more than one thread, and how many
        self.local = threading.local()

    def __enter__(self) -> None:
        with self.lock:
            self.users += 1
            if self.users == 1:
                self.held = _limited(self._find() if self.shared is None else self.shared)
        if self.by_thread:
            self._held_here().append(_limited(self.by_thread))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.by_thread:
            _give_back(self._held_here().pop())
        with self.lock:
            self.users -= 1
            if self.held and not self.users:
                _give_back(self.held)

    def _find(self) -> list[_Library]:
        """The libraries with one count for all, once those by thread are known too."""
        if self.shared is None:
            from threadpoolctl import ThreadpoolController  # finds the libraries in 1 ms: once

            found = [_Library(library) for library in ThreadpoolController().select(user_api="blas").lib_controllers]
            self.by_thread = [library for library in found if library.by_thread]
            self.shared = [library for library in found if not library.by_thread]
        return self.shared

    def _held_here(self) -> list[list[tuple[_Library, int]]]:
        """What each of this thread's entries holds, the outermost first."""
        if not hasattr(self.local, "held"):
            self.local.held = []
        return self.local.held

    def limit_this_thread(self) -> None:
        """For good."""
        with self.lock:
            self._find()
        for library in self.by_thread:
            library.set(1)

    def after_fork(self) -> None:
        self.lock = threading.RLock()
        if self.users:
            self.users = 0
            _give_back(self.held)


def _limited(libraries: Sequence[_Library]) -> list[tuple[_Library, int]]:
    """Sets those that have more to one thread, and says how many they had."""
    held = []
    for library in libraries:
        count = library.get()
        if count != 1:
            library.set(1)
            held.append((library, count))
    return held


def _give_back(held: list[tuple[_Library, int]]) -> None:
    while held:
        library, count = held.pop()
        library.set(count)


class _Library:
    """One BLAS library: ``get()`` and ``set(count)`` ask for and say how many threads it uses.

    OpenBLAS with threads of its own is called directly. threadpoolctl's way takes ten times as long, and lets only the
    first thread that has set the count set it again: primitives are called from any thread, and _Blas has a lock.
    """

    def __init__(self, controller: Any) -> None:
        self.get: Callable[[], int] = controller.get_num_threads
        self.set: Callable[[int], Any] = controller.set_num_threads
        under_openmp = getattr(controller, "threading_layer", None) == "openmp"
        openblas = controller.internal_api == "openblas"
        self.by_thread = (openblas and under_openmp) or controller.internal_api == "mkl"
        if openblas and not under_openmp:
            for prefix, suffix in itertools.product(("", "scipy_"), ("", "64_", "_64")):
                setter = getattr(controller.dynlib, f"{prefix}openblas_set_num_threads{suffix}", None)
                if setter is not None:
                    self.set = setter
                    self.get = getattr(controller.dynlib, f"{prefix}openblas_get_num_threads{suffix}")


_blas = _Blas()
_pool = _Pool()

single_blas_thread = _blas
"""``with single_blas_thread:`` around the products of a primitive; costs about a microsecond."""


def thread_count() -> int:
    """How many threads a primitive may use, the caller's included."""
    return _pool.size


def set_thread_count(count: int) -> None:
    """Sets :func:`thread_count`; results stay the same bit for bit. Raises ValueError below 1."""
    if count < 1:
        raise ValueError(f"set_thread_count: count must be positive, got {count}")
    _pool.size = count


def for_each(function: Callable[[Item], None], items: Sequence[Item], work: int | None = None) -> None:
    """Calls ``function`` on every item, several at once and in no promised order; raises what one of the calls raised.

    ``work``: about how many elements all the calls together pass over, :data:`PRODUCTS` multiplications of a matrix
    product being one; None: many. Each thread gets :data:`SHARE` of them at least, so that a small job runs in the
    caller alone, as does a call from inside ``function``.
    """
    helpers = min(_pool.size, len(items)) - 1
    if work is not None:
        helpers = min(helpers, work // SHARE - 1)
    if helpers < 1 or _pool.inside():
        for item in items:
            function(item)
    else:
        _pool.run(_Job(function, items), helpers)


def _after_fork() -> None:
    _pool.forget()
    _blas.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
