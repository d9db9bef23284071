"""Single convolutions, each direction, ours and PyTorch's in turn: time, TFLOP/s, share of the roofline.

    python -m gpucnn.bench.operators --precision float16 --json FILE
    python -m gpucnn.bench.operators --tiny --device cpu               the same code in seconds, figures of no worth

Both get the same random arrays, channels-last (PyTorch in float32 also contiguous, and the faster counts), and PyTorch
has cudnn.benchmark on; in float32 it may not use TF32. On a GPU events stand around each call, and before each call
its L2 cache is overwritten, by a fill that also gives the host time to launch ahead.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.bench import ceilings, timing
from gpucnn.bench.sections import percentile
from gpucnn.bench.shapes import SHAPES, Shape
from gpucnn.precision import HALF, PRECISIONS

DIRECTIONS = ("fprop", "dgrad", "wgrad")
REPEATS, WARM_UP = 30, 3
COMPARED = 8  # images or filters of a result that are compared
CLOSE = {"float32": 1e-3, "tf32": 2e-2, "float16": 2e-2, "bfloat16": 1e-1}  # |ours - theirs| / |theirs| over all

Call = Callable[[], Any]


@dataclass(frozen=True)
class Inputs:
    """The arrays of one shape on the host, float32: x (N, H, W, C), w (K, R, S, C), dy (N, P, Q, K)."""

    x: Any
    w: Any
    dy: Any

    @classmethod
    def random(cls, shape: Shape) -> Inputs:
        """Normal variates, never zeros, which some hardware computes faster."""
        g = shape.geometry
        generator = np.random.default_rng(0)
        sizes = ((g.N, g.H, g.W, g.C), (g.K, g.R, g.S, g.C), (g.N, g.P, g.Q, g.K))
        x, w, dy = (generator.standard_normal(size, dtype=np.float32) for size in sizes)
        return cls(x, w / np.float32(math.sqrt(g.C * g.R * g.S)), dy)


def our_call(inputs: Inputs, shape: Shape, direction: str, precision: str, device: str) -> tuple[Call, Call]:
    """The call that is timed, and one that gives the first images or filters of its result on the host, float32."""
    from gpucnn import backends, dtypes
    from gpucnn import device as place

    backend: Any = backends.get(place(device))
    half = precision in HALF and backend.name != "cpu"  # there the policy computes in float32
    dtype = dtypes.as_dtype(precision if half else "float32")
    g, tf32 = shape.geometry, precision == "tf32"
    x, w, dy = (backend.from_host(array.astype(dtype)) for array in (inputs.x, inputs.w, inputs.dy))
    calls: dict[str, Call] = {
        "fprop": lambda: backend.conv2d_fprop(x, w, None, g, tf32=tf32),
        "dgrad": lambda: backend.conv2d_dgrad(dy, w, g, tf32=tf32),
        "wgrad": lambda: backend.conv2d_wgrad(x, dy, g, tf32=tf32)[0],
    }
    call = calls[direction]

    def placed() -> Any:
        with backend.context():
            return call()

    return placed, lambda: np.asarray(backend.to_host(placed()[:COMPARED])).astype(np.float32)


def peer_call(
    inputs: Inputs, shape: Shape, direction: str, precision: str, device: str, channels_last: bool
) -> tuple[Call, Call]:
    """The same of PyTorch, which is cuDNN on a GPU. Results are on the host in our order of axes."""
    import torch

    from gpucnn.bench.torch_settings import settled

    settled(precision)
    dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(precision, torch.float32)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x, w, dy = (
        torch.from_numpy(array).permute(0, 3, 1, 2).to(device=device, dtype=dtype).contiguous(memory_format=layout)
        for array in (inputs.x, inputs.w, inputs.dy)
    )
    stride, pad = [shape.stride] * 2, [shape.pad] * 2

    def backward(needs: list[bool]) -> Any:
        return torch.ops.aten.convolution_backward(dy, x, w, None, stride, pad, [1, 1], False, [0, 0], 1, needs)

    calls: dict[str, Call] = {
        "fprop": lambda: torch.nn.functional.conv2d(x, w, None, stride, pad),
        "dgrad": lambda: backward([True, False, False])[0],
        "wgrad": lambda: backward([False, True, False])[1],
    }
    call = calls[direction]
    return call, lambda: call()[:COMPARED].float().permute(0, 2, 3, 1).contiguous().cpu().numpy()


def compare(
    inputs: Inputs, shape: Shape, direction: str, precision: str, device: str, peers: bool, repeats: int = REPEATS
) -> dict[str, Any]:
    """One row: all who can do this, in turn, repeat by repeat."""
    theirs = device if device.startswith("cuda") else "cpu"
    calls = {"gpucnn": our_call(inputs, shape, direction, precision, device)}
    if peers:
        calls["PyTorch channels-last"] = peer_call(inputs, shape, direction, precision, theirs, True)
        if precision == "float32":
            calls["PyTorch contiguous"] = peer_call(inputs, shape, direction, precision, theirs, False)
    timer = timing.timer(device)
    results = {name: result() for name, (_, result) in calls.items()}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call, _ in calls.values():
        for _ in range(WARM_UP):
            call()
    for _ in range(repeats):
        for name, (call, _) in calls.items():
            found[name].append(timer(call))
    times = {name: tuple(timer.seconds(each) for each in mine) for name, mine in found.items()}
    row: dict[str, Any] = {
        "shape": shape.name, "direction": direction, "precision": precision, "flops": shape.flops,
        "bytes": shape.size(2 if precision in HALF else 4, direction),
        "results": {name: _summary(shape, mine) for name, mine in times.items()},
    }  # fmt: skip
    if peers:
        best = min(statistics.median(mine) for name, mine in times.items() if name != "gpucnn")
        row["ratio"] = best / statistics.median(times["gpucnn"])
        row["difference"] = _difference(results["gpucnn"], results["PyTorch channels-last"])
        row["agrees"] = row["difference"] <= CLOSE[precision]
    return row


def _summary(shape: Shape, seconds: tuple[float, ...]) -> dict[str, Any]:
    median = statistics.median(seconds)
    low, high = percentile(seconds, 20), percentile(seconds, 80)
    return {"median": median, "p20": low, "p80": high, "tflops": shape.flops / median / 1e12}


def _difference(ours: Any, theirs: Any) -> float:
    """|ours - theirs| / |theirs|, in the Euclidean norm."""
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    return float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), 1e-30)


def measure(
    precision: str, device: str, *, shapes: Sequence[Shape] = SHAPES, peers: bool = True, repeats: int = REPEATS,
    keep: Callable[[dict[str, Any]], None] = lambda record: None, say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:  # fmt: skip
    """All shapes in all directions. ``keep`` gets the record after each row, so that what is done is not lost.

    A row that fails has "error", and the next one begins.
    """
    from gpucnn import machine
    from gpucnn.bench.throughput import device_name

    name = device_name(device)
    try:
        roof = ceilings.of(name)
    except ValueError:
        roof = None
    rows: list[dict[str, Any]] = []
    record: dict[str, Any] = {
        "precision": precision, "device": name, "peers": peers, "repeats": repeats, "machine": machine.describe(),
        "geometric_means": {}, "rows": rows,
    }  # fmt: skip
    for shape in shapes:
        inputs: Inputs | None = None  # made once: a billion variates take the host longer than the GPU all the rest
        for direction in DIRECTIONS:
            try:
                inputs = inputs or Inputs.random(shape)
                row = compare(inputs, shape, direction, precision, device, peers, repeats)
            except Exception as error:  # its row says so, and the others go on
                row = {"shape": shape.name, "direction": direction, "error": f"{type(error).__name__}: {error}"}
            if roof is not None and "results" in row:
                floor = roof.floor(row["flops"], row["bytes"], precision_of(precision))
                for one in row["results"].values():
                    one["roofline_share"] = floor / one["median"]
            rows.append(row)
            record["geometric_means"] = geometric_means(rows)
            keep(record)
            say(line(row))
    return record


def precision_of(precision: str) -> str:
    """The kind of arithmetic whose ceiling counts."""
    return ceilings.TENSOR_CORES.get(precision, precision)


def geometric_means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of the peer's best time by ours: over everything, and by direction."""
    groups = {"all": DIRECTIONS, **{direction: (direction,) for direction in DIRECTIONS}}
    found = {}
    for name, directions in groups.items():
        ratios = [row["ratio"] for row in rows if "ratio" in row and row["direction"] in directions]
        if ratios:
            found[name] = statistics.geometric_mean(ratios)
    return found


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    head = f"{row['shape']:44} {row['direction']}"
    if "error" in row:
        return f"{head}: {row['error']}"
    parts = [
        f"{name} {one['median'] * 1e6:,.1f} us ({one['tflops']:.2f} TFLOP/s)" for name, one in row["results"].items()
    ]
    ratio = f", ratio {row['ratio']:.2f}" if "ratio" in row else ""
    return f"{head}: {', '.join(parts)}{ratio}" + ("" if row.get("agrees", True) else "  RESULTS DIFFER")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 where a row failed or results differ."""
    parser = argparse.ArgumentParser(
        prog="python -m gpucnn.bench.operators", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--no-peers", action="store_true", help="leave PyTorch out")
    parser.add_argument("--tiny", action="store_true", help="shapes of the same kinds that a CPU gets through")
    parser.add_argument("--only", default="", help="shapes whose names contain this")
    parser.add_argument("--json", type=Path, help="the file to write, anew after each row")
    given = parser.parse_args(arguments)
    if given.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {given.repeats}")
    chosen = [shape.tiny() if given.tiny else shape for shape in SHAPES if given.only in shape.name]
    if not chosen:
        parser.error(f"no shape's name contains {given.only!r}")
    record = measure(
        given.precision, given.device, shapes=chosen, peers=not given.no_peers, repeats=given.repeats,
        keep=lambda record: timing.keep(given.json, record), say=lambda text: print(text, flush=True),
    )  # fmt: skip
    print(f"peer's time / ours, geometric means: {json.dumps(record['geometric_means'])}")
    return 0 if all("error" not in row and row.get("agrees", True) for row in record["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main())
