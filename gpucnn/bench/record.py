"""The record of a benchmark: what was measured, on what, and every repeat, as JSON.

    {"schema": 2, "date", "machine": gpucnn.machine.describe(),
     "steps":     [{"network", "batch_size", "threads", "steps", "input",
                    "results": [{"framework", "version", "device", "device_name", "layout",
                                 "examples_per_second": [one a repeat], "peak_memory_bytes"}]}],
     "latency":   [{"network", "batch_size", "results": [{"framework", "version", "device", "layout", "seconds": []}]}],
     "operators": [{"operator", "network", "layer", "direction", "device", "shape",
                    "results": [{"framework", "layout", "seconds": [one a round]}]}],
     "memory":    [{"network", "batch_size", "results": [{"framework", "layout", "device", "peak_memory_bytes"}]}],
     "footprint": [{"framework", "version", "import_seconds": [], "installed_bytes"}]}

Every command that measures writes such a record or adds its sections to one; tables and plots are made from them.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from gpucnn.bench.parse import parsed
from gpucnn.bench.sections import Footprint, Latency, Memory, Operator, Steps

SCHEMA = 2

# A. Lazorenko, "TensorFlow performance test: CPU VS GPU" (2017): TensorFlow's CIFAR-10 tutorial, batch 128, input
# included.
LECTURE_ROWS = (
    ("2 x AMD Opteron 6168", 440.0),
    ("i7-7500U", 415.0),
    ("GeForce 940MX", 1190.0),
    ("GeForce 1070", 6500.0),
)
LECTURE_I7 = dict(LECTURE_ROWS)["i7-7500U"]


@dataclass(frozen=True)
class Record:
    """A whole run of the benchmark; the fields are those of the JSON file. What was not measured is empty."""

    date: str
    machine: dict[str, Any]
    steps: tuple[Steps, ...] = ()
    latency: tuple[Latency, ...] = ()
    operators: tuple[Operator, ...] = ()
    memory: tuple[Memory, ...] = ()
    footprint: tuple[Footprint, ...] = ()
    schema: int = SCHEMA

    def training(self, network: str, batch_size: int = 128) -> Steps | None:
        """The training steps of a network with its input pipeline, on the most threads; None where not measured."""
        found = [
            one for one in self.steps
            if (one.network, one.batch_size) == (network, batch_size) and one.input != "synthetic"
        ]  # fmt: skip
        return max(found, key=lambda one: one.threads, default=None)

    def scaling(self, network: str, threads: int) -> list[Steps]:
        """The training steps of a network on ready batches (input "synthetic"), by batch size."""
        found = [
            one for one in self.steps
            if (one.network, one.threads, one.input) == (network, threads, "synthetic")
        ]  # fmt: skip
        return sorted(found, key=lambda one: one.batch_size)

    def operators_of(
        self, device: str = "cpu", network: str | None = None, operator: str | None = None
    ) -> list[Operator]:
        """The operators measured on a device, of all networks and kinds or of one."""
        return [
            one for one in self.operators
            if one.device == device and network in (None, one.network) and operator in (None, one.operator)
        ]  # fmt: skip

    def merged(self, other: Record) -> Record:
        """Both records in one; where both measured the same, ``other`` counts.

        Raises ValueError where they are not of the same machine, versions and commit.
        """
        for name in ("cpu", "cores", "gpus", "commit"):
            mine, theirs = self.machine.get(name), other.machine.get(name)
            if mine != theirs:
                raise ValueError(f"records of different machines cannot be one: {name} is {mine!r} and {theirs!r}")
        known = {name: value for name, value in other.machine.items() if value is not None}
        sections: dict[str, Any] = {name: _joined(getattr(self, name), getattr(other, name)) for name in SECTIONS}
        return replace(other, machine={**self.machine, **known}, **sections)

    def to_json(self) -> str:
        """The file's text."""
        content = asdict(self)
        return json.dumps({"schema": content.pop("schema"), **content}, indent=1) + "\n"

    def write(self, path: str | Path) -> None:
        """Writes the file, all or nothing; makes its folder."""
        from gpucnn.serialization import atomic_write

        Path(path).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(Path(path), self.to_json().encode())


SECTIONS = tuple(field.name for field in fields(Record) if field.default == ())


def empty() -> Record:
    """A record of this machine, of today, without any measurement."""
    from gpucnn import machine

    return Record(datetime.date.today().isoformat(), machine.describe())


def file_name() -> str:
    """A name for this machine's record of today: "nvidia-h200-16-cores-2026-01-31.json"."""
    from gpucnn import machine

    about = machine.describe()
    name = about["gpus"][0]["name"] if about["gpus"] else about["cpu"].partition("@")[0]
    words = re.sub(r"\((?:R|TM)\)", "", name).lower()
    words = re.sub(r"[^a-z0-9]+", "-", words).strip("-")
    return f"{words}-{about['cores']}-cores-{datetime.date.today().isoformat()}.json"


def read(path: str | Path) -> Record:
    """A record from its file. Raises OSError if it cannot be read and ValueError, naming the field, if it is no record
    of this schema."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("schema") != SCHEMA:
            raise ValueError(f"schema is {content.get('schema')!r}, expected {SCHEMA}")
        return parsed(Record, content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a record of `gpucnn bench --json`: {error}") from error


def _joined(old: Sequence[Any], new: Sequence[Any]) -> tuple[Any, ...]:
    """Entries of both, those of ``new`` in the place of those of ``old`` that measured the same."""
    by_key = {_key(entry): entry for entry in old}
    by_key.update({_key(entry): entry for entry in new})
    return tuple(by_key.values())


def _key(entry: Any) -> tuple[Any, ...]:
    """What an entry is a measurement of: all of it but the figures."""
    if isinstance(entry, Footprint):
        return (entry.framework,)
    names = [field.name for field in fields(entry) if field.name not in ("results", "steps")]
    devices = frozenset(getattr(result, "device", None) for result in entry.results)
    return (*(getattr(entry, name) for name in names), devices)
