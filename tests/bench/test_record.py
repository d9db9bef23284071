"""The benchmark's record: what survives its file, what is refused, and the ratios that are taken from it."""

from __future__ import annotations

import json
import math
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpucnn import machine
from gpucnn.bench import record
from gpucnn.bench.record import Record
from gpucnn.bench.sections import (
    Footprint,
    Latency,
    LatencyResult,
    Memory,
    MemoryResult,
    Operator,
    OperatorResult,
    Steps,
    StepsResult,
    geometric_mean,
    percentile,
)

MACHINE = {"cpu": "Some CPU", "cores": 2, "gpus": [], "commit": "0123", "torch_threads": None}


def speed(framework: str, layout: str, *speeds: float, device: str = "cpu") -> StepsResult:
    return StepsResult(framework, "1.0", device, "Some CPU, 2 cores", layout, speeds)


def operator(ours: float, *theirs: float, name: str = "relu") -> Operator:
    results = [OperatorResult("gpucnn", "channels_last", (ours, ours, 10 * ours))]
    layouts = ("channels_last", "contiguous")
    results += [OperatorResult("PyTorch", layout, (s,)) for layout, s in zip(layouts, theirs, strict=False)]
    return Operator(name, "lenet5", "conv1", "forward", "cpu", "128x6x28x28", tuple(results))


@pytest.fixture
def full() -> Record:
    """One entry in each section, three in "steps"."""
    speeds = (
        speed("gpucnn", "channels_last", 90.0, 100.0, 120.0),
        speed("PyTorch", "channels_last", 80.0),
        speed("PyTorch", "contiguous", 50.0, 40.0),
    )
    waits = (
        LatencyResult("gpucnn", "1.0", "cpu", "channels_last", (0.003, 0.002)),
        LatencyResult("PyTorch", "2.0", "cpu", "channels_last", (0.004,)),
        LatencyResult("PyTorch", "2.0", "cpu", "contiguous", (0.002,)),
    )
    peaks = (
        MemoryResult("gpucnn", "channels_last", "cpu", 100),
        MemoryResult("PyTorch", "channels_last", "cpu", 500),
        MemoryResult("PyTorch", "contiguous", "cpu", 400),
    )
    return Record(
        "2026-01-02",
        MACHINE,
        (
            Steps("lecture", 128, 2, 20, "cifar10", speeds),
            Steps("lecture", 64, 1, 3, "synthetic", speeds),
            Steps("lecture", 1, 1, 3, "synthetic", speeds),
        ),
        (Latency("lecture", 1, waits),),
        (operator(2.0, 1.0, 4.0),),
        (Memory("lecture", 128, peaks),),
        (Footprint("gpucnn", "1.0", (0.5, 0.25), 1000), Footprint("PyTorch", "2.0", (1.0,), None)),
    )


def test_a_record_survives_its_file(full: Record, tmp_path: Path) -> None:
    file = tmp_path / "made" / "record.json"
    full.write(file)
    assert record.read(file) == full
    assert list(json.loads(file.read_text())) == [
        "schema", "date", "machine", "steps", "latency", "operators", "memory", "footprint",
    ]  # fmt: skip


def test_sections_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"schema": 2, "date": "2026-01-02", "machine": {}}')
    assert record.read(tmp_path / "record.json") == Record("2026-01-02", {})


def changed(content: Any, path: str, value: Any) -> None:
    """Sets the value at a path such as "steps.0.network"; "del" takes it away."""
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in way:
        content = content[part]
    if value == "del":
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("schema", 1, "schema is 1, expected 2"),
        ("schema", "del", "schema is None, expected 2"),
        ("date", "del", "date is missing"),
        ("date", 3, "date is 3, expected text"),
        ("machine", [], "machine is a list, expected an object"),
        ("steps", {}, "steps is an object, expected a list"),
        ("steps.1", 7, r"steps\[1\] is 7, expected an object"),
        ("steps.0.batch_size", True, r"steps\[0\].batch_size is True, expected a whole number"),
        ("steps.0.batch_size", 1.5, r"steps\[0\].batch_size is 1.5, expected a whole number"),
        ("steps.0.extra", 1, r"steps\[0\].extra is no field; known are network, "),
        ("steps.0.results.2.examples_per_second", [], r"steps\[0\].results\[2\].examples_per_second is empty"),
        (
            "steps.0.results.2.examples_per_second.1",
            -1,
            r"examples_per_second\[1\] is -1.0, expected a positive number",
        ),
        ("steps.0.results.2.examples_per_second.0", math.nan, r"_per_second\[0\] is nan, expected a positive number"),
        ("steps.0.results.2.examples_per_second.0", math.inf, r"_per_second\[0\] is inf, expected a positive number"),
        ("steps.0.results.2.examples_per_second.0", 10**400, r"_per_second\[0\] is 1000.*\.\.\., expected a number"),
        ("steps.0.results.0.peak_memory_bytes", "x", r"peak_memory_bytes is 'x', expected a whole number or null"),
        ("latency.0.results.0.seconds.1", None, r"latency\[0\].results\[0\].seconds\[1\] is None, expected a number"),
        ("operators.0.results.0.seconds", 5, r"operators\[0\].results\[0\].seconds is 5, expected a list"),
        ("operators.0.operator", "x" * 99, None),
        ("memory.0.results.0.peak_memory_bytes", 0, r"memory\[0\].results\[0\].peak_memory_bytes\[0\] is 0"),
        ("footprint.0.framework", "del", r"footprint\[0\].framework is missing"),
        ("results", [], "results is no field"),
    ],
)
def test_a_field_that_does_not_fit_is_named(
    full: Record, path: str, value: Any, says: str | None, tmp_path: Path
) -> None:
    content = json.loads(full.to_json())
    changed(content, path, value)
    file = tmp_path / "record.json"
    file.write_text(json.dumps(content))
    if says is None:
        record.read(file)
        return
    with pytest.raises(ValueError, match=rf"record\.json: not a record of `gpucnn bench --json`: .*{says}"):
        record.read(file)


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"{}", b"\xff", b"[" * 100_000, b'{"schema": 2}'])
def test_what_is_no_record_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"record\.json: not a record"):
        record.read(tmp_path / "record.json")


def test_percentiles_interpolate() -> None:
    assert percentile((3.0, 1.0, 2.0), 50) == 2.0
    assert percentile((0.0, 10.0), 20) == 2.0
    assert percentile((7.0,), 80) == 7.0


def test_ratios_are_of_medians_beside_pytorchs_better_layout(full: Record) -> None:
    assert full.steps[0].ratio() == 100.0 / 80.0
    assert full.latency[0].ratio() == pytest.approx(0.0025 / 0.002)
    assert full.operators[0].ratio == 0.5
    assert full.memory[0].ratio() == 0.25
    assert [result.layout for result in full.steps[0].best()] == ["channels_last", "channels_last"]
    assert [result.layout for result in full.latency[0].best()] == ["channels_last", "contiguous"]
    assert full.footprint[0].median == 0.375
    assert full.steps[0].results[0].spread == (94.0, 112.0)
    assert full.steps[0].ratio("cuda:0") is None
    alone = replace(full.steps[0], results=full.steps[0].results[:1])
    assert (alone.ratio(), alone.speed()) == (None, 100.0)


def test_geometric_means_are_of_those_who_have_a_peer() -> None:
    assert geometric_mean([operator(1.0, 4.0), operator(2.0, 0.5), operator(1.0)]) == pytest.approx(1.0)
    assert geometric_mean([operator(1.0)]) is None


def test_entries_are_found(full: Record) -> None:
    assert full.training("lecture") is full.steps[0]
    assert full.training("lecture", 64) is None
    assert [one.batch_size for one in full.scaling("lecture", 1)] == [1, 64]
    assert full.scaling("lecture", 2) == []
    assert full.operators_of(network="lenet5", operator="relu") == list(full.operators)
    assert full.operators_of(device="cuda:0") == full.operators_of(network="vgg16") == []


def test_two_records_become_one(full: Record) -> None:
    """Each section gets what the other has besides; what both measured is the other's."""
    again = operator(1.0, 5.0)
    machine = {**MACHINE, "torch_threads": 2}
    new = Steps("lecture", 128, 1, 20, "cifar10", full.steps[0].results)
    gpu = Steps("lecture", 128, 2, 20, "cifar10", (speed("gpucnn", "channels_last", 1.0, device="cuda:0"),))
    more = replace(again, layer="conv2")
    other = Record("2026-01-03", machine, (new, gpu), operators=(again, more))
    merged = full.merged(other)
    assert merged.steps == (*full.steps, new, gpu)
    assert merged.operators == (again, more)
    assert (merged.date, merged.machine["torch_threads"]) == ("2026-01-03", 2)
    assert (merged.memory, merged.footprint) == (full.memory, full.footprint)
    assert replace(other, machine=machine).merged(full).machine["torch_threads"] == 2  # None says nothing
    with pytest.raises(ValueError, match="commit is '0123' and '4567'"):
        full.merged(replace(other, machine={**MACHINE, "commit": "4567"}))


def test_a_record_that_is_being_written_is_no_change_of_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    files = [tmp_path / name for name in ("benchmarks/results/record.json", "kernels/a.cu", "gpucnn/machine.py")]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text("before")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], check=True, stdin=subprocess.DEVNULL)
    monkeypatch.setattr(machine, "__file__", str(files[2]))
    commit = machine.commit()
    assert len(commit) == 40
    files[0].write_text("after")
    assert machine.commit() == commit
    files[1].write_text("after")
    assert machine.commit() == commit + "+changes"
