"""The comparison of single convolutions: its shapes, its arithmetic, and all of its code on small shapes."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpucnn.bench import operators, timing
from gpucnn.bench.shapes import SHAPES, Shape


def test_the_shapes_are_24_of_five_networks_at_batches_of_32_to_1024() -> None:
    assert len(SHAPES) == len({shape.name for shape in SHAPES}) == 24
    assert {shape.network for shape in SHAPES} == {"lecture", "resnet9", "airbench94", "vgg16", "resnet50"}
    assert {shape.N for shape in SHAPES} <= set(range(32, 1025)) and {1024, 32} <= {shape.N for shape in SHAPES}


def test_flops_and_bytes_are_counted_from_the_geometry() -> None:
    """ResNet-50's first layer: 112 x 112 outputs of 64 channels from 7 x 7 x 3 taps each, 118 million products."""
    stem = next(shape for shape in SHAPES if shape.layer == "stem")
    one = replace(stem, N=1)
    assert one.flops == 2 * 112 * 112 * 64 * 7 * 7 * 3 == 2 * 118_013_952
    assert stem.flops == 64 * one.flops
    x, w, y = 3 * 224 * 224, 64 * 49 * 3, 64 * 112 * 112
    assert one.size(4, "fprop") == 4 * (x + w + y)
    assert one.size(2, "dgrad") == 2 * (x + w + y)
    assert one.size(2, "wgrad") == 2 * (x + y) + 4 * w


def test_the_lecture_networks_layers_are_its_layers() -> None:
    """Forward 36.9 MFLOP an example, of which 5.5 and 29.5 in the convolutions."""
    flops = [shape.flops / shape.N / 1e6 for shape in SHAPES[:2]]
    assert flops == [pytest.approx(5.5, abs=0.05), pytest.approx(29.5, abs=0.05)]


@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_a_record_on_small_shapes(device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "made" / "operators.json"
    arguments = ["--device", device, "--tiny", "--repeats", "3", "--no-peers", "--json", str(path)]
    assert operators.main([*arguments, "--only", "resnet50 layer"]) == 0
    record = json.loads(path.read_text())
    assert record["precision"] == "float32" and record["repeats"] == 3 and record["machine"]
    assert len(record["rows"]) == 9 and record["geometric_means"] == {}
    for row in record["rows"]:
        (result,) = row["results"].values()
        assert result["p20"] <= result["median"] <= result["p80"]
        assert result["tflops"] == pytest.approx(row["flops"] / result["median"] / 1e12)
    assert len(capsys.readouterr().out.splitlines()) == 10


def test_a_row_that_fails_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [Shape("a", "bad", 1, 1, 2, 1, 5), Shape("a", "good", 1, 1, 2, 1, 1)]
    kept: list[int] = []
    record = operators.measure(
        "float32", "cpu", shapes=shapes, peers=False, repeats=1, keep=lambda record: kept.append(len(record["rows"]))
    )
    assert ["error" in row for row in record["rows"]] == [True] * 3 + [False] * 3
    assert kept == [1, 2, 3, 4, 5, 6]
    assert operators.line(record["rows"][0]).startswith("a bad 1x1x2x2 1x5x5") and "ValueError" in str(record["rows"])


def test_arrays_of_a_shape_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, make = [], operators.Inputs.random
    monkeypatch.setattr(operators.Inputs, "random", lambda shape: made.append(shape.name) or make(shape))
    shapes = [Shape("a", "b", 1, 1, 2, 1, 1), Shape("a", "c", 1, 1, 3, 1, 1)]
    record = operators.measure("float32", "cpu", shapes=shapes, peers=False, repeats=1)
    assert len(record["rows"]) == 6 and made == [shape.name for shape in shapes]


def test_a_call_is_launched_while_the_gpu_fills(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a millisecond at least, at the most that any GPU's memory gives: launching takes the host less."""
    did: list[str] = []

    class Event:
        def record(self) -> None:
            did.append("event")

        def synchronize(self) -> None:
            did.append("wait")

    place = lambda *_: contextlib.nullcontext()  # noqa: E731
    place.null = contextlib.nullcontext()  # type: ignore[attr-defined]
    cuda = SimpleNamespace(Device=place, Stream=place, Event=Event, get_elapsed_time=lambda start, end: 3.0)
    flush = SimpleNamespace(fill=lambda value: did.append("fill"))
    fake = SimpleNamespace(cuda=cuda, uint8="uint8", empty=lambda size, dtype: flush)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    timer = timing.timer("cuda:0")
    taken = timer(lambda: did.append("call"))
    fills = did.count("fill")
    assert did == ["fill"] * fills + ["event", "call", "event"]
    assert fills * timing.FLUSH_BYTES / 5e12 > 5e-4
    assert timer.seconds(taken) == 3e-3 and did[-1] == "wait"


def test_geometric_means_are_of_the_rows_that_have_a_peer() -> None:
    rows = [{"direction": "fprop", "ratio": 2.0}, {"direction": "wgrad", "ratio": 0.5}, {"direction": "dgrad"}]
    assert operators.geometric_means(rows) == {"all": 1.0, "fprop": 2.0, "wgrad": 0.5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "--repeats must be at least 1, got 0"),
        (["--only", "alexnet"], "no shape's name contains 'alexnet'"),
        (["--precision", "float8"], "invalid choice: 'float8'"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        operators.main(arguments)
    assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.peers
@pytest.mark.parametrize(
    ("device", "precision", "columns"), [("cpu", "float32", 3), ("emulated", "float16", 2), ("emulated", "tf32", 2)]
)
def test_ours_is_compared_with_pytorchs_result(
    device: str, precision: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    shapes = [shape.tiny() for shape in SHAPES if shape.layer in ("stem", "layer3.0.conv2", "whiten")]
    record = operators.measure(precision, device, shapes=shapes, repeats=1)
    assert [row.get("error") for row in record["rows"]] == [None] * 9
    assert all(row["agrees"] and len(row["results"]) == columns for row in record["rows"])
    assert set(record["geometric_means"]) == {"all", "fprop", "dgrad", "wgrad"}
    ours = operators.our_call

    def wrong(*arguments: object) -> object:
        call, result = ours(*arguments)  # type: ignore[arg-type]
        return call, lambda: result() * 1.3

    monkeypatch.setattr(operators, "our_call", wrong)
    record = operators.measure(precision, device, shapes=shapes[:1], repeats=1)
    assert not any(row["agrees"] for row in record["rows"])
    assert operators.line(record["rows"][0]).endswith("RESULTS DIFFER")
