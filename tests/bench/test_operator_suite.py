"""benchmarks/: the operators' table, everybody's calls, and a whole session on tiny shapes."""

from __future__ import annotations

import os
import subprocess
import sys
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.turns import Call
from gpucnn import models
from gpucnn.bench import record
from gpucnn.bench.cases import CASES, Case
from gpucnn.bench.contestants import Contestant

ROOT = Path(__file__).resolve().parents[2]
OURS = Contestant("gpucnn", "cpu", "channels_last")


def test_the_table_has_every_operator_of_the_four_networks() -> None:
    assert len({(case.name, case.operator) for case in CASES}) == len(CASES)
    assert {case.network for case in CASES} == {"lecture", "lenet5", "resnet9", "vgg16"}
    kinds = ["conv", "max_pool", "relu", "lrn", "batch_norm", "linear", "cross_entropy"]
    assert list(dict.fromkeys(case.operator for case in CASES)) == kinds
    assert {case.sizes[0][0] for case in CASES} == {128, 8}
    shapes = {case.name: case.shape for case in CASES}
    assert shapes["conv-lecture-conv2-128x64x12x12-64x5x5"] == "128x64x12x12 64x5x5"
    assert "max_pool-lecture-pool1-128x64x24x24-3s2" in shapes
    assert shapes["linear-vgg16-fc6-8x25088-4096"] == "8x25088 4096"


@pytest.mark.parametrize("network", ["lecture", "lenet5", "resnet9"])
def test_the_layers_are_the_networks(network: str) -> None:
    """Filters and weights have the sizes that the network's own have."""
    model = models.create(network, device="cpu")
    ways = {"conv": ".conv", "batch_norm": ".norm"} if network == "resnet9" else {}
    checked = [case for case in CASES if case.network == network and case.operator in ("conv", "linear", "batch_norm")]
    for case in checked:
        way = case.layer + (".unit1" if case.layer.startswith("residual") else "") + ways.get(case.operator, "")
        layer: Any = attrgetter(way)(model)
        assert tuple(layer.weight.shape) == case.sizes[1], case.name
        assert (layer.bias is not None) == (len(case.sizes) == 3), case.name
    assert len(checked) >= 5


def test_gradients_are_those_that_training_needs() -> None:
    first, second = (case for case in CASES if case.network == "lecture" and case.operator == "conv")
    assert (first.directions, second.directions) == (("fprop", "wgrad"), ("fprop", "dgrad", "wgrad"))
    assert second.wants("fprop") == (True, True, True)
    assert second.wants("dgrad") == (True, False, False)
    assert second.wants("wgrad") == (False, True, False)
    assert CASES[-1].wants("backward") == (True, False)
    for wanted, direction in (((True, False, False), "dgrad"), ((False, True, False), "wgrad")):
        call = Call(OURS, second.tiny(), direction, second.tiny().arrays())
        call.run(call.prepare())
        assert tuple(tensor.grad is not None for tensor in call._tensors) == wanted


def session(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "benchmarks", "-q", "--benchmark-quiet", "-p", "no:cacheprovider"]
    # pytest-benchmark measures nothing in a worker of pytest-xdist, which this process may be and that one is not.
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run([*command, "--device=cpu", *arguments], cwd=ROOT, capture_output=True, text=True, env=own)


def test_a_session_adds_all_operators_to_the_record(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    done = session("--quick", "--no-peers", f"--record={file}")
    assert done.returncode == 0, done.stdout + done.stderr
    written = record.read(file)
    assert len(written.operators) == sum(len(case.directions) for case in CASES)
    assert all(len(one.results[0].seconds) == 2 for one in written.operators)
    again = session("--quick", "--no-peers", f"--record={file}", "-k", "cross_entropy-lecture")
    assert again.returncode == 0 and record.read(file).operators[:-4] == written.operators[:-4]
    file.write_text(file.read_text().replace(f'"cores": {written.machine["cores"]}', '"cores": 77'))
    done = session("--quick", "--no-peers", f"--record={file}")
    assert done.returncode == 4 and "cores is 77" in done.stderr
    assert record.read(file).machine["cores"] == 77


def test_records_are_named_after_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpucnn import machine

    about: dict[str, Any] = {"cpu": "Intel(R) Core(TM) i7-7500U CPU @ 2.70GHz", "cores": 4, "gpus": []}
    monkeypatch.setattr(machine, "describe", lambda: about)
    assert record.file_name().startswith("intel-core-i7-7500u-cpu-4-cores-2")
    about["gpus"] = [{"name": "NVIDIA H200"}]
    assert record.file_name().startswith("nvidia-h200-4-cores-2") and record.file_name().endswith(".json")


@pytest.mark.peers
def test_a_session_beside_pytorch(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    done = session("--quick", f"--record={file}", "-k", "lenet5")
    assert done.returncode == 0, done.stdout + done.stderr
    operators = record.read(file).operators
    assert all(one.ratio and len(one.results) == 3 for one in operators)
    assert "geometric mean" in done.stdout and "all of them" in done.stdout


@pytest.mark.peers
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_everybody_computes_the_same(case: Case) -> None:
    tiny = case.tiny()
    for direction in tiny.directions:
        for layout in ("channels_last", "contiguous"):
            calls = [Call(who, tiny, direction, tiny.arrays()) for who in (OURS, Contestant("PyTorch", "cpu", layout))]
            for call in calls:
                call.run(call.prepare())
            if direction in ("fprop", "forward"):
                mine, theirs = ([call._kept.detach().numpy()] for call in calls)
            else:
                mine, theirs = ([t.grad.numpy() for t in call._tensors if t.grad is not None] for call in calls)
            assert len(mine) == len(theirs) > 0
            for a, b in zip(mine, theirs, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
