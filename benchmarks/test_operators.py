"""Single operators over the shapes of four networks, each direction, PyTorch beside each in both of its layouts."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.conftest import Session
from benchmarks.turns import Call, entry
from gpucnn.bench.cases import CASES, Case


@pytest.mark.parametrize(
    ("case", "direction"),
    [pytest.param(case, direction, id=f"{case.name}-{direction}") for case in CASES for direction in case.directions],
)
def test_operator(benchmark: Any, session: Session, case: Case, direction: str, device: str) -> None:
    """Everybody takes turns, round by round, so that noise hits all alike; pytest-benchmark's clock is for ours."""
    measured = case.tiny() if session.quick else case
    arrays = measured.arrays()
    ours, *peers = [Call(who, measured, direction, arrays) for who in session.by_device[device]]
    rounds = session.rounds.of([ours, *peers])
    theirs: dict[Call, list[float]] = {peer: [] for peer in peers}

    def others_first() -> tuple[tuple[Any], dict[str, Any]]:
        for peer, mine in theirs.items():
            mine.append(peer.timed(session.rounds.warm))
        ours.warm(session.rounds.warm)
        return (ours.prepare(),), {}

    benchmark.group = f"{case.operator} {direction}"
    benchmark.pedantic(ours.run, setup=others_first, rounds=rounds)
    if benchmark.stats is not None:  # None: --benchmark-disable
        one = entry(measured, direction, {ours: list(benchmark.stats.stats.data), **theirs})
        benchmark.extra_info["ratio"] = one.ratio
        session.add(one)
