"""Choosing instances by time: the fastest wins, the choice is kept, and without tuning no clock is read."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import backends
from gpucnn import functional as F
from gpucnn.backends.cuda import tuning
from gpucnn.backends.cuda.tuning import Tuner
from tests.support.tolerance import assert_close

SHARED_CACHE = os.environ["GPUCNN_CACHE_DIR"]  # of all tests: conftest.py
SECONDS = {"small": 3.0, "large": 1.0, "direct": 2.0}


class Clock:
    """Calls what is timed and says that it took as long as the instance that it ran takes."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.timed = 0

    def run(self, instance: str) -> None:
        self.ran.append(instance)

    def __call__(self, run) -> float:
        self.timed += 1
        run()
        return SECONDS[self.ran[-1]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("GPUCNN_CACHE_DIR", str(tmp_path))
    return tmp_path


def pick(tuner: Tuner, clock: Clock, problem: str = "N8 C3", candidates=tuple(SECONDS), **options) -> str:
    return tuner.pick("fprop", lambda: problem, "small", lambda: candidates, clock.run, **options)


def test_without_tuning_nothing_is_timed(clock) -> None:
    tuner = Tuner(lambda: "GPU", clock)
    assert pick(tuner, clock) == "small"
    assert clock.ran == [] and tuner.used == {}


def test_the_fastest_is_chosen_once(clock, cache) -> None:
    tuner = Tuner(lambda: "GPU", clock)
    tuner.enable()
    assert pick(tuner, clock) == "large"
    assert clock.timed == tuning.REPEATS * len(SECONDS)
    assert pick(tuner, clock) == "large"
    assert clock.timed == tuning.REPEATS * len(SECONDS)
    assert tuner.used == {"fprop N8 C3": "large"}
    (stored,) = (cache / "tuning").iterdir()
    assert stored.name.startswith("GPU-") and json.loads(stored.read_text())["choices"] == tuner.used


def test_of_equals_the_heuristic_wins(clock, monkeypatch) -> None:
    monkeypatch.setitem(SECONDS, "large", 3.0)
    monkeypatch.setitem(SECONDS, "direct", 3.0)
    tuner = Tuner(lambda: "GPU", clock)
    tuner.enable()
    assert pick(tuner, clock) == "small"


def test_choices_outlive_the_process_and_belong_to_a_gpu(clock) -> None:
    first = Tuner(lambda: "GPU", clock)
    first.enable()
    pick(first, clock)
    timed = clock.timed
    again, other = Tuner(lambda: "GPU", clock), Tuner(lambda: "GPU 2", clock)
    again.enable()
    assert pick(again, clock) == "large" and clock.timed == timed
    other.enable()
    assert pick(other, clock) == "large" and clock.timed > timed


def test_other_kernels_are_timed_anew(clock, monkeypatch) -> None:
    first = Tuner(lambda: "GPU", clock)
    first.enable()
    pick(first, clock)
    timed = clock.timed
    monkeypatch.setattr(tuning, "_version", lambda: "other")
    again = Tuner(lambda: "GPU", clock)
    again.enable()
    pick(again, clock)
    assert clock.timed > timed


def test_the_choices_of_a_run_are_used_without_tuning(clock) -> None:
    tuner = Tuner(lambda: "GPU", None)
    tuner.load({"fprop N8 C3": "direct", "fprop N9 C3": "gone"})
    assert pick(tuner, clock) == "direct"
    assert pick(tuner, clock, "N9 C3") == "small"  # an instance that there is no more
    assert pick(tuner, clock, "N10 C3") == "small"
    assert tuner.used == {"fprop N8 C3": "direct"} and clock.ran == []
    tuner.forget()
    assert pick(tuner, clock) == "small"


def test_nothing_is_timed_in_a_capture(clock) -> None:
    tuner = Tuner(lambda: "GPU", clock)
    tuner.enable()
    assert pick(tuner, clock, may_time=False) == "small"
    assert clock.timed == 0 and tuner.used == {}
    tuner.disable()
    assert pick(tuner, clock) == "small"


@pytest.mark.parametrize(
    "content", ["", "[1]", '{"format": 0, "choices": {"a": "b"}}', '{"format": 1, "choices": {"a": 1}}']
)
def test_a_damaged_file_is_as_good_as_none(content, clock, cache) -> None:
    first = Tuner(lambda: "GPU", clock)
    first.enable()
    pick(first, clock)
    (stored,) = (cache / "tuning").iterdir()
    stored.write_text(content)
    again = Tuner(lambda: "GPU", clock)
    again.enable()
    assert again.choices == {}
    assert pick(again, clock) == "large"


def test_where_nothing_can_be_timed_it_says_so() -> None:
    with pytest.raises(ValueError, match="autotune: kernels can be timed on a GPU only, not on emulated"):
        Tuner(lambda: "emulated", None).enable()


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_convolutions_and_products_ask_for_their_instance(precision, monkeypatch) -> None:
    """Every candidate is tried on the operator itself, and what was fastest runs from then on."""
    monkeypatch.setenv(
        "GPUCNN_CACHE_DIR", SHARED_CACHE
    )  # where the emulator's kernels are built; choices are kept nowhere
    monkeypatch.setattr(Tuner, "_store", lambda self: None)
    monkeypatch.setattr(Tuner, "_stored", lambda self: {})
    backend = backends.get(gpucnn.device("emulated"))
    tried: list[str] = []

    def clock(run) -> float:
        with backend.engine.record() as launches:
            run()
        tried.append(launches[-1].kernel)
        return -float(len(tried))  # the last one tried is the fastest

    monkeypatch.setenv("GPUCNN_EMULATOR", "fast")
    monkeypatch.setattr(tuning, "WARM_UP", 0)
    monkeypatch.setattr(tuning, "REPEATS", 1)
    monkeypatch.setattr(backend, "tuner", Tuner(lambda: "emulated", clock))
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in ((1, 8, 3, 3), (8, 8, 1, 1), (8, 18))]
    x, w, m = (gpucnn.tensor(array, device="emulated") for array in arrays)
    with gpucnn.precision(precision):
        backend.tuner.enable()
        tuned = F.conv2d(x, w).numpy(), F.linear(x.reshape(4, 18), m).numpy()
        assert len(set(tried)) > 2 and len(backend.tuner.used) == 2
        with backend.engine.record() as launches:
            again = F.conv2d(x, w).numpy()
    instance = next(iter(backend.tuner.used.values())).partition(":")[0]
    assert any(launch.kernel.endswith(instance) for launch in launches)
    assert again.tobytes() == tuned[0].tobytes()
    given = [array.astype(precision).astype(np.float64) for array in arrays]  # as the policy rounds them
    (conv, product), scales = (
        (np.einsum("nchw,kc->nkhw", a, b[:, :, 0, 0]), a.reshape(4, 18) @ c.T)
        for a, b, c in (given, map(np.abs, given))
    )
    assert_close(tuned[0], conv, scales[0], what="conv2d")
    assert_close(tuned[1], product, scales[1], what="linear")


def test_the_gpu_is_busy_while_a_timed_call_is_launched() -> None:
    log: list[str] = []

    def event() -> Any:
        log.append("event")
        return SimpleNamespace(record=lambda: log.append("record"), synchronize=lambda: log.append("wait"))

    def empty(size: int, dtype: Any) -> Any:
        assert size >= 2**26 and dtype is np.uint8
        return SimpleNamespace(fill=lambda value: log.append("fill"))

    cuda = SimpleNamespace(Event=event, get_elapsed_time=lambda start, end: 3.0)
    engine = SimpleNamespace(xp=SimpleNamespace(cuda=cuda, empty=empty), device=nullcontext())
    assert tuning.event_timer(engine)(lambda: log.append("run")) == 0.003
    assert log[2:] == ["fill"] * tuning.LEADS + ["record", "run", "record", "wait"]
