"""Sets a run of `gpucnn train --log-steps 1` beside the same recipe in PyTorch (training_peer.py).

    python -m benchmarks.compare_curves runs/NAME/metrics.jsonl peer.jsonl --out benchmarks/results/NAME

writes NAME.json and the picture NAME.png and prints what matters: how far the losses differ, step by step, and the
accuracies by epoch. `--control FILE` is a second run in PyTorch whose initial weights differ by 1e-7
(`training_peer --noise 1e-7`): it shows how far rounding alone takes two runs apart.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FIRST_STEPS = 50
AT_STEP = 10

Records = list[dict[str, Any]]
ACCURACIES = ("test_accuracy", "tta_accuracy")


def read(path: Path) -> dict[str, Records]:
    """The lines of a JSON lines file by their kind; a last line that was cut off is left out.

    Raises ValueError for another line that is no JSON object with a kind, OSError for no file.
    """
    kinds: dict[str, Records] = {}
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            kinds.setdefault(record["kind"], []).append(record)
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: not a line of metrics ({error})") from error
    return kinds


def losses(records: dict[str, Records], path: Path) -> dict[int, float]:
    """The loss of each step. Raises ValueError where a line stands for more steps than one."""
    steps = {int(record["step"]): float(record["loss"]) for record in records.get("step", records.get("steps", []))}
    if sorted(steps) != list(range(1, len(steps) + 1)):
        raise ValueError(f"{path}: a line for each step is needed: train with --log-steps 1")
    return steps


def differences(one: dict[int, float], other: dict[int, float]) -> dict[int, float]:
    """|one - other| / |other| at each step that both have."""
    return {step: abs(one[step] - other[step]) / abs(other[step]) for step in sorted(one.keys() & other.keys())}


def compare(run: Path, peer: Path, control: Path | None = None) -> dict[str, Any]:
    """All figures, fit for JSON. Raises ValueError for files that have no step in common."""
    ours, theirs = read(run), read(peer)
    ours_losses, their_losses = losses(ours, run), losses(theirs, peer)
    apart = differences(ours_losses, their_losses)
    if not apart:
        raise ValueError(f"{run} and {peer} have no step in common")
    about = theirs.get("run", [{}])[0]
    result: dict[str, Any] = {
        "config": about.get("config"),
        "machine": about.get("machine"),
        "steps_compared": len(apart),
        "loss_difference": _summary(apart),
        "epochs": [
            {"epoch": mine["epoch"]} | {key: {"gpucnn": mine.get(key), "PyTorch": its.get(key)} for key in ACCURACIES}
            for mine, its in zip(ours.get("epoch", []), theirs.get("epoch", []), strict=False)
        ],
        "losses": {"gpucnn": list(ours_losses.values()), "PyTorch": list(their_losses.values())},
    }
    if control is not None:
        noisy = read(control)
        its = losses(noisy, control)
        result["control"] = {
            "noise": noisy.get("run", [{}])[0].get("noise"),
            "loss_difference": _summary(differences(its, their_losses)),
            "losses": list(its.values()),
        }
    return result


def _summary(apart: dict[int, float]) -> dict[str, float | None]:
    first = [value for step, value in apart.items() if step <= FIRST_STEPS]
    return {
        f"at_step_{AT_STEP}": apart.get(AT_STEP),
        f"largest_to_step_{FIRST_STEPS}": max(first, default=None),
        "median": sorted(apart.values())[len(apart) // 2] if apart else None,
    }


def told(result: dict[str, Any]) -> str:
    """The figures in a few lines."""
    lines = [_line("gpucnn and PyTorch", result["loss_difference"])]
    if "control" in result:
        lines.append(_line(f"PyTorch and itself, weights off by {result['control']['noise']:g}",
                           result["control"]["loss_difference"]))  # fmt: skip
    for epoch in result["epochs"]:
        pairs = [(key.split("_")[0], epoch[key]["gpucnn"], epoch[key]["PyTorch"]) for key in ACCURACIES]
        figures = [f"{key} {100 * a:.2f}% and {100 * b:.2f}%" for key, a, b in pairs if a is not None and b is not None]
        lines.append(f"epoch {epoch['epoch']}, gpucnn and PyTorch: {', '.join(figures)}")
    return "\n".join(lines)


def _line(who: str, apart: dict[str, float | None]) -> str:
    figures = [f"{key.replace('_', ' ')} {value:.1e}" for key, value in apart.items() if value is not None]
    return f"{who}: relative difference of the loss: {', '.join(figures)}"


def draw(result: dict[str, Any], target: Path) -> None:
    """The losses above each other, their difference, and the accuracies by epoch, as a PNG."""
    from gpucnn.viz.figure import BLUE, GREY, VERMILLION, picture

    config = result["config"] or {}
    epochs = result["epochs"] if len(result["epochs"]) > 1 else []  # one point is no curve
    with picture(target, 7.5, 9.0 if epochs else 6.0) as figure:
        panels = figure.subplots(3 if epochs else 2, 1)
        ours, theirs = result["losses"]["gpucnn"], result["losses"]["PyTorch"]
        panels[0].plot(range(1, len(theirs) + 1), theirs, color=VERMILLION, linewidth=2.5, alpha=0.6, label="PyTorch")
        panels[0].plot(range(1, len(ours) + 1), ours, color=BLUE, linewidth=0.8, label="gpucnn")
        panels[0].set_ylabel("training loss of a step")
        panels[0].set_title(f"{config.get('model', '')}: the same weights and batches in gpucnn and PyTorch")
        control = result.get("control")
        if control:
            apart = differences(_numbered(control["losses"]), _numbered(theirs))
            label = f"PyTorch and itself, weights off by {control['noise']:g}"
            panels[1].semilogy(list(apart), _positive(apart), color=GREY, linewidth=1.0, label=label)
        apart = differences(_numbered(ours), _numbered(theirs))
        panels[1].semilogy(list(apart), _positive(apart), color=BLUE, linewidth=0.8, label="gpucnn and PyTorch")
        panels[1].set_ylabel("relative difference")
        panels[1].set_xlabel("step")
        if epochs:
            at = [epoch["epoch"] for epoch in epochs]
            for who, colour, marker in (("PyTorch", VERMILLION, "s"), ("gpucnn", BLUE, "o")):
                values = [100 * epoch["test_accuracy"][who] for epoch in epochs]
                panels[2].plot(at, values, color=colour, marker=marker, label=f"{who}, test")
                views = epochs[-1]["tta_accuracy"][who]
                if views is not None:
                    panels[2].plot(at[-1:], [100 * views], color=colour, marker="*", markersize=11, linestyle="none",
                                   label=f"{who}, with views")  # fmt: skip
            panels[2].set_ylabel("accuracy, %")
            panels[2].set_xlabel("epoch")
        for panel in panels:
            panel.grid(color="#e5e5e5")
            panel.legend(frameon=False)


def _numbered(values: list[float]) -> dict[int, float]:
    return dict(enumerate(values, start=1))


def _positive(apart: dict[int, float]) -> list[float]:
    """For a logarithmic axis: equal losses count as half a unit in the last place."""
    return [max(value, 2.0**-25) for value in apart.values()]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare_curves", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("run", type=Path, help="metrics.jsonl of gpucnn train --log-steps 1")
    parser.add_argument("peer", type=Path, help="the file of training_peer")
    parser.add_argument("--control", type=Path, help="the file of training_peer --noise")
    parser.add_argument("--out", type=Path, required=True, help="writes OUT.json and OUT.png")
    options = parser.parse_args(arguments)
    result = compare(options.run, options.peer, options.control)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_name(options.out.name + ".json").write_text(json.dumps(result) + "\n", encoding="utf-8")
    draw(result, options.out.with_name(options.out.name + ".png"))
    print(told(result))


if __name__ == "__main__":
    main()
