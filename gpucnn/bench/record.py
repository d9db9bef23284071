"""The record of a benchmark: what was measured, on what, and every repeat, as JSON.

    {"schema": 1, "date", "network", "batch_size", "steps", "repeats", "input",
     "machine": gpucnn.machine.describe(),
     "results": [{"framework", "version", "device", "device_name", "layout", "examples_per_second": [one per repeat],
                  "peak_memory_bytes"}]}

The same dictionary is what `--json` writes and what the tables are made from.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 1

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
class Result:
    """One framework on one device: training speed of each repeat, in examples/sec, input pipeline as the record says.

    Args:
        framework: "gpucnn" or "PyTorch".
        version: of the framework.
        device: "cpu", "cuda:0", ...
        device_name: the processor's or GPU's name, with the cores used where it is a CPU.
        layout: memory layout of activations: "channels_last" or "contiguous".
        examples_per_second: one figure a repeat, in the order of measurement.
        peak_memory_bytes: peak resident size of a process that trains only this, or None where not measured.
    """

    framework: str
    version: str
    device: str
    device_name: str
    layout: str
    examples_per_second: tuple[float, ...]
    peak_memory_bytes: int | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.examples_per_second)

    @property
    def spread(self) -> tuple[float, float]:
        """The 20th and 80th percentile over the repeats (linear interpolation)."""
        return percentile(self.examples_per_second, 20), percentile(self.examples_per_second, 80)


@dataclass(frozen=True)
class Record:
    """A whole run of the benchmark; the fields are those of the JSON file."""

    date: str
    network: str
    batch_size: int
    steps: int
    repeats: int
    input: str
    machine: dict[str, Any]
    results: list[Result] = field(default_factory=list)
    schema: int = SCHEMA

    def best(self) -> list[Result]:
        """Each framework on each device once, in the faster of its layouts, in the order of measurement."""
        fastest: dict[tuple[str, str], Result] = {}
        for result in self.results:
            key = (result.framework, result.device)
            if key not in fastest or result.median > fastest[key].median:
                fastest[key] = result
        return list(fastest.values())

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"


def percentile(values: tuple[float, ...], percent: float) -> float:
    """The percentile of a non-empty sample, by linear interpolation between order statistics."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def read(path: str | Path) -> Record:
    """A record from its file. Raises OSError if it cannot be read and ValueError if it is no record of this schema."""
    text = Path(path).read_text(encoding="utf-8")
    try:
        content = json.loads(text)
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']!r}, expected {SCHEMA}")
        results = [
            Result(**{**result, "examples_per_second": tuple(map(float, result["examples_per_second"]))})
            for result in content.pop("results")
        ]
        if not isinstance(content["machine"], dict):
            raise ValueError(f"machine is {content['machine']!r}, expected an object")
        if any(not result.examples_per_second for result in results):
            raise ValueError("a result without repeats")
        return Record(results=results, **content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a record of `gpucnn bench --json` ({type(error).__name__}: {error})") from error
