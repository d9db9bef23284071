"""Threads over blocks of work, one BLAS thread inside each: no bit of a result depends on how many there are.

Two things make that so. The bounds of the blocks come from the sizes of the problem alone, never from the
number of threads, and blocks either own their part of the output or leave partial results that are added in a
fixed order. And BLAS, which splits a product by its own thread count and then gives other bits, is held to one
thread while a primitive runs. NumPy and BLAS release the GIL, so plain Python threads do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from gpucnn import settings

Item = TypeVar("Item")


class _Job:
    """One call of :func:`for_each`: threads take the items one after the other."""

    def __init__(self, function: Callable[[Any], None], items: Sequence[Any]) -> None:
        self.function = function
        self.items = items
        self.lock = threading.Lock()
        self.next = 0
        self.running = 0
        self.error: BaseException | None = None
        self.idle = threading.Condition(self.lock)

    def work(self) -> None:
        """Takes items until none is left or one has failed."""
        with self.lock:
            self.running += 1
        try:
            while (index := self._take()) is not None:
                self.function(self.items[index])
        except BaseException as error:  # raised again by the caller of for_each
            with self.lock:
                self.error = self.error or error
                self.next = len(self.items)
        finally:
            with self.lock:
                self.running -= 1
                self.idle.notify_all()

    def _take(self) -> int | None:
        with self.lock:
            if self.next >= len(self.items):
                return None
            self.next += 1
            return self.next - 1

    def wait(self) -> None:
        """Until every thread has left; the caller has worked until no item was left. Raises what an item raised."""
        with self.idle:
            while self.running:
                self.idle.wait()
        if self.error is not None:
            raise self.error


class _Pool:
    """Daemon threads that wait for jobs; started when first needed, and anew in a forked child."""

    def __init__(self) -> None:
        self.size = settings.threads() or settings.available_cores()
        self.forget()

    def forget(self) -> None:
        """Drops threads and locks: none of the parent's threads lives on in a forked child."""
        self.lock = threading.Lock()
        self.queue: SimpleQueue[_Job] = SimpleQueue()
        self.started = 0
        self.local = threading.local()

    def run(self, job: _Job) -> None:
        helpers = min(self.size, len(job.items)) - 1
        if helpers > 0:
            self._start(helpers)
            for _ in range(helpers):
                self.queue.put(job)
        job.work()
        job.wait()

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
            job.work()
            del job  # holds arrays

    def inside(self) -> bool:
        return getattr(self.local, "is_worker", False)


class _Blas:
    """Holds the BLAS libraries to one thread while at least one primitive runs, and gives them their threads back."""

    def __init__(self) -> None:
        self.libraries: list[Any] | None = None
        self.lock = threading.Lock()
        self.users = 0
        self.threads: list[int] = []

    def __enter__(self) -> None:
        with self.lock:
            self.users += 1
            if self.users == 1:
                if self.libraries is None:
                    from threadpoolctl import ThreadpoolController  # finds the libraries in 1 ms: once

                    self.libraries = ThreadpoolController().select(user_api="blas").lib_controllers
                self.threads = [library.num_threads for library in self.libraries]
                for library in self.libraries:
                    _set_blas_threads(library, 1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self._give_back()

    def _give_back(self) -> None:
        for library, threads in zip(self.libraries or (), self.threads, strict=True):
            _set_blas_threads(library, threads)

    def limit_this_thread(self) -> None:
        """Where each thread has a limit of its own, as under OpenMP, a worker sets its own, for good."""
        for library in self.libraries or ():
            if getattr(library, "threading_layer", None) == "openmp":
                library.set_num_threads(1)

    def after_fork(self) -> None:
        self.lock = threading.Lock()
        if self.users:
            self.users = 0
            self._give_back()


def _set_blas_threads(library: Any, count: int) -> None:
    # Newer threadpoolctl lets one thread only set OpenBLAS's count, the first that did, and ignores the others.
    # Primitives are called from any thread, and _Blas has a lock of its own.
    release = getattr(library, "clear_controlling_thread", None)
    if release is not None:
        release(force=True)
    library.set_num_threads(count)
    if release is not None:
        release(force=True)


_blas = _Blas()
_pool = _Pool()

single_blas_thread = _blas
"""``with single_blas_thread:`` around the products of a primitive; costs about 2 microseconds."""


def thread_count() -> int:
    """How many threads a primitive may use, the caller's included."""
    return _pool.size


def set_thread_count(count: int) -> None:
    """Sets :func:`thread_count`; results stay the same bit for bit. Raises ValueError below 1."""
    if count < 1:
        raise ValueError(f"set_thread_count: count must be positive, got {count}")
    _pool.size = count


def for_each(function: Callable[[Item], None], items: Sequence[Item]) -> None:
    """Calls ``function`` on every item, several at once and in no promised order; raises what one of the calls raised.

    A call from inside ``function`` runs in its own thread alone.
    """
    if len(items) < 2 or _pool.size == 1 or _pool.inside():
        for item in items:
            function(item)
    else:
        _pool.run(_Job(function, items))


def _after_fork() -> None:
    _pool.forget()
    _blas.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
