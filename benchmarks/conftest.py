"""How the operators are measured, and where the figures go: see README.md in this folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.turns import Rounds, line
from gpucnn import settings
from gpucnn.bench import tables
from gpucnn.bench.contestants import Contestant, contestants, set_threads
from gpucnn.bench.record import Record, empty, read
from gpucnn.bench.sections import Operator
from gpucnn.bench.timing import SETTLE_SECONDS

ROUNDS = Rounds(least=9, most=25, seconds=2.0, warm=SETTLE_SECONDS)
QUICK = Rounds(least=2, most=2, seconds=0.0, warm=0.0)


class Session:
    """What the tests of a session share: who is measured, how often, and the record."""

    def __init__(self, config: pytest.Config) -> None:
        self.quick = bool(config.getoption("quick"))
        self.rounds = QUICK if self.quick else ROUNDS
        device, peers = config.getoption("device"), not config.getoption("no_peers")
        measured = contestants(device, peers)
        set_threads(settings.threads() or settings.available_cores(), measured)
        self.by_device: dict[str, list[Contestant]] = {}
        for one in measured:
            self.by_device.setdefault(one.device, []).append(one)
        named = config.getoption("record")
        self.path = Path(named) if named else None
        self.record = empty()
        self.before: Record | None = None
        if self.path is not None and self.path.exists():
            self.before = read(self.path)
            self.before.merged(self.record)  # or an error, before anything is measured

    def add(self, one: Operator) -> None:
        """Another operator; the file has it at once."""
        self.record = replace(self.record, operators=(*self.record.operators, one))
        if self.path is not None:
            (self.record if self.before is None else self.before.merged(self.record)).write(self.path)


SESSION: pytest.StashKey[Session] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("operators", "operators beside PyTorch")
    group.addoption("--quick", action="store_true", help="tiny shapes, two rounds: figures of no worth")
    group.addoption("--record", metavar="FILE", help="the record to which the operators are added")
    group.addoption("--device", help="cpu, cuda:0 or emulated; default: the CPU and, if there is one, the GPU")
    group.addoption("--no-peers", action="store_true", help="leave PyTorch out")


def pytest_configure(config: pytest.Config) -> None:
    try:
        config.stash[SESSION] = Session(config)
    except (ValueError, OSError) as error:
        raise pytest.UsageError(str(error)) from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", metafunc.config.stash[SESSION].by_device)


@pytest.fixture
def session(request: pytest.FixtureRequest) -> Session:
    """The session's."""
    return request.config.stash[SESSION]


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """pytest-benchmark's own file says what the record says of the machine."""
    machine_info["gpucnn"] = config.stash[SESSION].record.machine


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Geometric means by operator and direction, and whatever is slow."""
    session = config.stash[SESSION]
    if not session.record.operators:
        return
    terminalreporter.section("operators beside PyTorch")
    means = tables.operators([session.record])
    if means.rows:
        terminalreporter.write_line(means.text())
    slow = [one for one in session.record.operators if one.ratio is not None and one.ratio < tables.LOW]
    for one in sorted(slow, key=lambda one: one.ratio or 0.0):
        terminalreporter.write_line(line(one))
    if session.path is not None:
        terminalreporter.write_line(f"record: {session.path}")
