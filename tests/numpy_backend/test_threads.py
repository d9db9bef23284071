"""No bit depends on the number of threads; threads survive forks, errors and the interpreter's end."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from gpucnn.backends.numpy import NumpyBackend, threads
from gpucnn.geometry import Conv2dGeometry, Pool2dGeometry
from tests.numpy_backend.geometries import normal
from tests.support import updates

backend = NumpyBackend()


@pytest.fixture(autouse=True)
def _keep_thread_count() -> Iterator[None]:
    count = threads.thread_count()
    yield
    threads.set_thread_count(count)


def _operators() -> dict[str, Callable[[], Any]]:
    """Each primitive that uses threads, at a size that is cut into several blocks."""
    conv = Conv2dGeometry.of((32, 16, 20, 20), (24, 16, 5, 5), padding=2)
    strided = Conv2dGeometry.of((32, 16, 20, 20), (24, 8, 3, 3), stride=2, padding=1, groups=2)
    large = Conv2dGeometry.of((64, 256, 6, 6), (256, 256, 3, 3), padding=1)
    pool = Pool2dGeometry.of((64, 24, 20, 20), 3, 2, "same")
    x, w, dy = (
        normal(1, conv.input_shape, np.float32),
        normal(2, conv.weight_shape, np.float32),
        normal(3, conv.output_shape, np.float32),
    )
    w2, dy2 = normal(4, strided.weight_shape, np.float32), normal(5, strided.output_shape, np.float32)
    x3, w3 = normal(10, large.input_shape, np.float32), normal(11, large.weight_shape, np.float32)
    images, after = normal(6, pool.input_shape, np.float32), normal(7, pool.output_shape, np.float32)
    wide, tall = normal(8, (128, 2304), np.float32), normal(9, (384, 2304), np.float32)
    batch_statistics = backend.batch_norm_statistics(images, None, None, 0.1)
    scale = backend.lrn_forward(images, 9, 1e-3, 0.75, 1.0, True)[1]

    def sgd() -> Any:
        parameter, momentum = images.copy(), images.copy()
        updates.sgd_step(backend, [parameter], [images], [momentum], 0.1, 0.9, 0, 0.004, True, False)
        updates.moving_average_step(backend, [momentum], [parameter], 0.99)
        return parameter, momentum

    def adaptive() -> Any:
        parameter, states = images.copy(), [0.1 * np.abs(images) for _ in range(3)]
        many = [[parameter], [images], *([state] for state in states)]
        updates.adam_step(backend, *many, 1e-3, 0.9, 0.999, 1e-8, [0.1], True, False, 3)
        squares = [np.square(images) + 1]
        updates.rmsprop_step(backend, *many[:2], squares, *many[3:], 1e-3, 0.9, 1e-8, 0.9, [0.1], False)
        updates.adagrad_step(backend, *many[:2], squares, 1e-3, 1e-8, [0.1], False)
        return parameter, *states, *squares, backend.total_norm([parameter, images], 2.0)

    return {
        "fprop": lambda: backend.conv2d_fprop(x, w, w[:, 0, 0, 0].copy(), conv),
        "dgrad": lambda: backend.conv2d_dgrad(dy, w, conv),
        "wgrad": lambda: backend.conv2d_wgrad(x, dy, conv)[0],
        "strided, grouped fprop": lambda: backend.conv2d_fprop(x, w2, None, strided),
        "strided, grouped dgrad": lambda: backend.conv2d_dgrad(dy2, w2, strided),
        "strided, grouped wgrad": lambda: backend.conv2d_wgrad(x, dy2, strided)[0],
        "large filters' fprop": lambda: backend.conv2d_fprop(x3, w3, None, large),
        "large filters' dgrad": lambda: backend.conv2d_dgrad(x3, w3, large),
        "large filters' wgrad": lambda: backend.conv2d_wgrad(x3, x3, large)[0],
        "bias_grad": lambda: backend.bias_grad(dy),
        "max_pool forward": lambda: backend.max_pool2d_forward(images, pool),
        "max_pool backward": lambda: backend.max_pool2d_backward(
            after, backend.max_pool2d_forward(images, pool)[1], pool
        ),
        "avg_pool forward": lambda: backend.avg_pool2d_forward(images, pool, True, None),
        "avg_pool backward": lambda: backend.avg_pool2d_backward(after, pool, True, None),
        "relu": lambda: (backend.relu_forward(images), backend.relu_backward(images, backend.relu_forward(images))),
        "lrn forward": lambda: backend.lrn_forward(images, 9, 1e-3, 0.75, 1.0, True),
        "lrn backward": lambda: backend.lrn_backward(images, images, scale, 9, 1e-3, 0.75, 1.0),
        "batch_norm": lambda: (
            *backend.batch_norm_statistics(images, None, None, 0.1),
            backend.batch_norm_forward(images, batch_statistics, None, None, 1e-5),
            *backend.batch_norm_backward(images, images, batch_statistics, None, 1e-5, True, (True, True, True)),
        ),
        "linear": lambda: backend.linear_forward(wide, tall, tall[:, 0].copy()),
        "matmul": lambda: backend.matmul(wide, wide, transpose_a=True),
        "batched matmul": lambda: backend.matmul(
            wide.reshape(8, 16, 2304), wide.reshape(8, 16, 2304), transpose_b=True
        ),
        "sgd": sgd,
        "sgd's kin": adaptive,
    }


OPERATORS = _operators()


@pytest.mark.parametrize("name", OPERATORS)
def test_no_bit_depends_on_the_number_of_threads(name: str) -> None:
    results = []
    for count in (1, 2, 3, 7, 2):
        threads.set_thread_count(count)
        result = OPERATORS[name]()
        results.append([a.tobytes() for a in (result if isinstance(result, tuple) else (result,))])
    assert all(result == results[0] for result in results[1:])


@pytest.mark.parametrize(
    "name", [name for name in OPERATORS if not name.startswith(("bias", "max", "avg", "relu", "sgd"))]
)
def test_products_have_one_blas_thread(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """BLAS with more splits sums by their number. It is asked for two here, so that one is not what it has anyway."""
    from threadpoolctl import ThreadpoolController

    product, seen = np.matmul, []
    blas = ThreadpoolController().select(user_api="blas")

    def noted(*arguments: Any, **options: Any) -> Any:
        seen.extend(library.num_threads for library in blas.lib_controllers)
        return product(*arguments, **options)

    monkeypatch.setattr(np, "matmul", noted)
    with blas.limit(limits=2):
        OPERATORS[name]()
    assert set(seen) == ({1} if blas.lib_controllers else set())  # Apple's library cannot be asked


def test_blas_gets_its_threads_back() -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    def counts() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    with threadpool_limits(limits=2, user_api="blas"):
        before = counts()
        with threads.single_blas_thread:
            assert set(counts()) <= {1}
            with threads.single_blas_thread:
                pass
            assert set(counts()) <= {1}
        assert counts() == before


def test_blas_is_held_to_one_thread_whichever_thread_calls() -> None:
    """threadpoolctl itself lets only the first thread that sets the count of OpenBLAS set it again."""
    from threadpoolctl import threadpool_info, threadpool_limits

    seen: list[tuple[int, int]] = []

    def call() -> None:
        with threads.single_blas_thread:
            seen.extend((lib["num_threads"], 1) for lib in threadpool_info() if lib["user_api"] == "blas")
        seen.extend((lib["num_threads"], 2) for lib in threadpool_info() if lib["user_api"] == "blas")

    with threadpool_limits(limits=2, user_api="blas"):
        available = max((lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"), default=1)
        caller = threading.Thread(target=call)
        caller.start()
        caller.join()
    assert all(count == min(expected, available) for count, expected in seen)


class _Controller:
    """A library as threadpoolctl shows it, with a count of its own for each thread, 4 at first."""

    def __init__(self, internal_api: str, threading_layer: str) -> None:
        self.internal_api, self.threading_layer = internal_api, threading_layer
        self.counts = threading.local()

    def get_num_threads(self) -> int:
        return getattr(self.counts, "count", 4)

    def set_num_threads(self, count: int) -> None:
        self.counts.count = count


@pytest.mark.parametrize("kind", [("mkl", "intel"), ("openblas", "openmp")])
def test_where_each_thread_has_a_count_of_its_own_each_holds_it(
    kind: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import threadpoolctl

    library = _Controller(*kind)

    class Found:
        lib_controllers = (library,)

        def select(self, **_: Any) -> Any:
            return self

    monkeypatch.setattr(threadpoolctl, "ThreadpoolController", Found)
    blas, pool = threads._Blas(), threads._Pool()
    monkeypatch.setattr(threads, "_blas", blas)
    pool.size = 3
    counts: list[int] = []
    together = threading.Barrier(3)

    def product(item: int) -> None:
        together.wait(timeout=60)
        counts.append(library.get_num_threads())

    pool.run(threads._Job(lambda item: together.wait(60), range(3)), 2)  # starts the threads before any product
    with blas:
        pool.run(threads._Job(product, range(3)), 2)
    assert counts == [1, 1, 1]

    def call() -> None:
        with blas:
            with blas:
                counts.append(library.get_num_threads())
            counts.append(library.get_num_threads())
        counts.append(library.get_num_threads())

    counts.clear()
    caller = threading.Thread(target=call)
    with blas:
        caller.start()
        caller.join()
        counts.append(library.get_num_threads())
    counts.append(library.get_num_threads())
    assert counts == [1, 1, 4, 1, 4]


def test_an_error_in_a_block_reaches_the_caller_and_the_pool_works_on() -> None:
    threads.set_thread_count(3)

    def fail(item: int) -> None:
        if item == 5:
            raise ZeroDivisionError("block 5")

    for _ in range(20):
        with pytest.raises(ZeroDivisionError, match="block 5"):
            threads.for_each(fail, range(50))
    done: list[int] = []
    threads.for_each(done.append, range(50))
    assert sorted(done) == list(range(50))


@pytest.mark.parametrize(("work", "expected"), [(2 * threads.SHARE - 1, 1), (2 * threads.SHARE, 2), (None, 3)])
def test_as_many_threads_as_have_a_share_of_the_work(work: int | None, expected: int) -> None:
    threads.set_thread_count(3)
    together = threading.Barrier(expected)  # passed only if that many call at once
    seen = set()

    def call(item: int) -> None:
        if item < expected:
            together.wait(timeout=60)
        seen.add(threading.current_thread().name)

    threads.for_each(call, range(20), work)
    assert expected == 1 or len(seen) >= 2
    assert len(seen) <= expected


def test_what_a_job_held_is_free_when_it_ends() -> None:
    """Also where a helper is still to find out that nothing was left for it."""
    threads.set_thread_count(3)

    class Memory:
        pass

    def hold() -> weakref.ref[Memory]:
        held = Memory()
        threads.for_each(lambda item: (held, item), range(3))
        return weakref.ref(held)

    assert all(hold()() is None for _ in range(200))


def test_what_a_job_held_is_free_when_it_has_failed() -> None:
    """The error's traceback has the frames of the calls: no cycle may keep them until garbage is collected."""
    threads.set_thread_count(3)

    class Memory:
        pass

    def hold() -> weakref.ref[Memory]:
        held = Memory()

        def fail(item: int) -> None:
            raise ZeroDivisionError(held)

        with pytest.raises(ZeroDivisionError):
            threads.for_each(fail, range(3))
        return weakref.ref(held)

    gc.collect()
    gc.disable()
    try:
        references = [hold() for _ in range(20)]
        assert all(reference() is None for reference in references)
    finally:
        gc.enable()


def test_an_overflow_is_no_warning_in_any_thread() -> None:
    """Warnings are errors in these tests. Inside a Function the caller has them off; the pool's threads always do."""
    threads.set_thread_count(3)
    together = threading.Barrier(3)  # so that each thread has one item
    large = np.full(4, 3e38, np.float32)

    def overflow(item: int) -> None:
        together.wait(timeout=60)
        assert np.isinf(large * large).all()

    with np.errstate(all="ignore"):
        threads.for_each(overflow, range(3))


def test_callers_in_several_threads() -> None:
    """Each gets its own results: buffers are a thread's own."""
    threads.set_thread_count(3)
    g = Conv2dGeometry.of((16, 5, 12, 12), (7, 5, 3, 3), padding=1)
    inputs = [normal(i, g.input_shape, np.float32) for i in range(4)]
    w = normal(9, g.weight_shape, np.float32)
    expected = [backend.conv2d_fprop(x, w, None, g) for x in inputs]
    wrong: list[int] = []

    def call(i: int) -> None:
        for _ in range(10):
            if not np.array_equal(backend.conv2d_fprop(inputs[i], w, None, g), expected[i]):
                wrong.append(i)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_a_finalizer_may_call_primitives_wherever_garbage_is_collected() -> None:
    pool, done = threads._Pool(), []

    def collect() -> None:
        with threads._blas.lock, pool.lock, threads.single_blas_thread:
            pool._start(1)
            done.append(pool.started)

    caller = threading.Thread(target=collect, daemon=True)
    caller.start()
    caller.join(timeout=30)
    assert done == [1]


def test_thread_count_must_be_positive() -> None:
    with pytest.raises(ValueError, match="count must be positive, got 0"):
        threads.set_thread_count(0)


def run_python(code: str) -> str:
    """Output of a fresh interpreter, which must end by itself."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", textwrap.dedent(code)],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


PREAMBLE = """
import os, sys, threading
import numpy as np
from gpucnn.backends.numpy import NumpyBackend, threads
from gpucnn.geometry import Conv2dGeometry
threads.set_thread_count(4)
g = Conv2dGeometry.of((32, 8, 16, 16), (8, 8, 3, 3), padding=1)
x, w = np.ones(g.input_shape, np.float32), np.ones(g.weight_shape, np.float32)
backend = NumpyBackend()
y = backend.conv2d_fprop(x, w, None, g)
threads.for_each(abs, range(8))  # starts all threads, however many blocks the convolution has
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_starts_its_own_threads() -> None:
    code = PREAMBLE + textwrap.dedent("""
        child = os.fork()
        if not child:
            same = np.array_equal(backend.conv2d_fprop(x, w, None, g), y)
            threads.for_each(abs, range(8))
            busy = sum(t.name.startswith("gpucnn-cpu") for t in threading.enumerate())
            os._exit(0 if same and busy == 3 else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    assert run_python(code).strip() == "0"


def test_the_number_of_threads_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from gpucnn import settings; from gpucnn.backends.numpy import threads;"
        " print(threads.thread_count(), settings.available_cores())"
    )
    monkeypatch.setenv("GPUCNN_THREADS", "5")
    count, cores = map(int, run_python(code).split())
    assert count == 5
    monkeypatch.delenv("GPUCNN_THREADS")
    assert run_python(code).split() == [str(cores)] * 2


def test_the_interpreter_ends_while_threads_wait() -> None:
    assert run_python(PREAMBLE + 'print("end")').strip() == "end"


def test_threads_start_at_the_first_primitive_not_at_import() -> None:
    code = """
        import sys, threading
        import gpucnn.backends.numpy
        print(threading.active_count(), "threadpoolctl" in sys.modules)
    """
    assert run_python(code).split() == ["1", "False"]
