"""A report's JSON files as Markdown: what docs/performance.md has of a machine with a GPU."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SANITIZERS = ("memcheck", "racecheck", "initcheck")
Records = dict[str, dict[str, Any]]  # by step
NOTHING = "not measured"


def read(folder: Path) -> Records:
    """The records of the steps that have one. Raises ValueError where there is none, or one is no record."""
    records: Records = {}
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            records[record["step"]] = record
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not a record of gpu_report ({type(error).__name__}: {error})") from error
    if not records:
        raise ValueError(f"{folder}: no record of gpu_report here")
    return records


def as_markdown(records: Records) -> str:
    """All tables for which there is something; what a step left unmeasured is called so."""
    parts = (_machine, _checks, _operators, _shapes, _training, _profiles, _recipe)
    return "\n\n".join(text for part in parts if (text := "\n".join(part(records)))) + "\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table whose first column is text and whose others are numbers."""
    if rows:
        yield f"| {' | '.join(heads)} |"
        yield f"|---|{'---:|' * (len(heads) - 1)}"
        yield from (f"| {' | '.join(row)} |" for row in rows)


def _number(value: Any, form: str = ",.2f") -> str:
    return NOTHING if value is None else format(value, form)


def _machine(records: Records) -> Iterator[str]:
    dates = sorted({str(record.get("date")) for record in records.values()})
    machine: dict[str, Any] = next((record["machine"] for record in records.values() if "machine" in record), {})
    gpus = sorted({gpu["name"] for gpu in machine.get("gpus", [])})
    told = [f"{name} {version}" for name, version in machine.get("versions", {}).items()]
    yield f"{', '.join(gpus) or 'no GPU'}; {', '.join(dates)}; {', '.join([*told, str(machine.get('commit') or '')])}"


def _checks(records: Records) -> Iterator[str]:
    rows = []
    for one in records.get("machine", {}).get("import_seconds", []):
        rows.append([f"import gpucnn, {one['cache']} kernel cache", f"{_number(one['gpucnn'])} s"])
    for part in records.get("tests", {}).get("parts", []):
        counts = f"{part['passed']:,} passed, {part['failed'] + part['error']} failed, {part['skipped']} skipped"
        rows.append([f"tests, {part['part']}", counts])
    for tool in SANITIZERS:
        for part in records.get(tool, {}).get("parts", []):
            found = part["findings"]
            said = "did not end" if found is None else "no finding" if not found else f"{found} findings"
            rows.append([f"{tool}, {part['precision']}", said])
        if "why" in records.get(tool, {}):
            rows.append([tool, f"{NOTHING}: {records[tool]['why'].strip().splitlines()[-1]}"])
    for part in records.get("identical", {}).get("parts", []):
        said = "bit-identical" if part["identical"] else "DIFFERENT"
        rows.append([f"two runs and one captured, {part['precision']}", said])
    yield from _table(("check", "result"), rows)


def _of(records: Records, prefix: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and results of the steps that begin so and have a result."""
    found = ((name, record.get("result")) for name, record in records.items() if name.startswith(prefix))
    return [(name, result) for name, result in found if result]


def _operators(records: Records) -> Iterator[str]:
    rows = []
    for _, result in _of(records, "operators-"):
        means, measured = result["geometric_means"], result["rows"]
        good = sum("ratio" in row for row in measured)
        wrong = sum("error" in row or not row.get("agrees", True) for row in measured)
        figures = [_number(means.get(name)) for name in ("all", "fprop", "dgrad", "wgrad")]
        rows.append([result["precision"], *figures, f"{good} of {len(measured)}", str(wrong)])
    heads = ("cuDNN's time / ours, geometric mean", "all", "fprop", "dgrad", "wgrad", "measured", "failed or different")
    yield from _table(heads, rows)


def _shapes(records: Records) -> Iterator[str]:
    """Of each precision, every shape: the ratio in each direction, and our share of the roofline."""
    for number, (_, result) in enumerate(_of(records, "operators-")):
        shapes: dict[str, dict[str, str]] = {}
        for row in result["rows"]:
            ours = row.get("results", {}).get("gpucnn", {})
            share = ours.get("roofline_share")
            told = _number(row.get("ratio")) + ("" if share is None else f" ({100 * share:.0f}%)")
            shapes.setdefault(row["shape"], {})[row["direction"]] = "failed" if "error" in row else told
        rows = [
            [shape, *(by.get(direction, NOTHING) for direction in ("fprop", "dgrad", "wgrad"))]
            for shape, by in shapes.items()
        ]
        if rows and number:
            yield ""
        yield from _table((f"{result['precision']}: ratio (of the roofline)", "fprop", "dgrad", "wgrad"), rows)


def _training(records: Records) -> Iterator[str]:
    rows = []
    for _, result in _of(records, "training-"):
        name = f"{result['network']}, batch {result['batch_size']:,}, {result['precision']}"
        rows.append(
            [name, *(_best(result["results"], side) for side in ("gpucnn", "PyTorch")), _number(result["ratio"])]
        )
    yield from _table(("training, examples/sec", "gpucnn", "PyTorch's best", "ratio"), rows)


def _best(results: dict[str, Any], side: str) -> str:
    """The largest median of a side and whose it is."""
    good = {
        name.removeprefix(side).strip(): each["median"]
        for name, each in results.items()
        if name.startswith(side) and "error" not in each and "median" in each
    }
    if not good:
        return NOTHING
    best = max(good, key=lambda name: good[name])
    return f"{good[best]:,.0f} ({best})"


def _profiles(records: Records) -> Iterator[str]:
    rows = []
    for name, result in _of(records, "profile-"):
        times = [call["seconds"] for call in result["calls"]]
        micros = None if None in times else 1e6 * sum(times)
        floor = 1e6 * sum(call["floor_seconds"] or 0.0 for call in result["calls"])
        figures = [
            f"{result['launches']}",
            _number(result["flops"] / 1e9, ",.1f"),
            _number(result["bytes"] / 1e6, ",.1f"),
        ]
        rows.append([name.removeprefix("profile-"), *figures, _number(micros, ",.0f"), _number(floor or None, ",.0f")])
    yield from _table(("step", "launches", "GFLOP", "MB", "sum of the launches, us", "sum of their floors, us"), rows)


def _recipe(records: Records) -> Iterator[str]:
    record = records.get("recipe", {})
    result = record.get("result")
    if result:
        accuracy, seconds = result["accuracy"], result["seconds"]
        spread = "" if accuracy["std"] is None else f" (standard deviation {100 * accuracy['std']:.2f})"
        yield (
            f"airbench94 in float16, {result['count']} runs: {100 * accuracy['mean']:.2f}%{spread}"
            f" in {seconds['mean']:.2f} s a run"
        )
    elif "left_out" in record:
        yield f"airbench94's accuracy: {NOTHING} ({record['left_out']})"
