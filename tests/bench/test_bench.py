"""`gpucnn bench`: what it measures and what it writes down, beside PyTorch's form of the same networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucnn import bench, tensor
from gpucnn.backends.numpy import threads
from gpucnn.bench import footprint, latency, memory, suite
from gpucnn.bench.contestants import Contestant, synthetic_batches
from gpucnn.bench.workload import Workload
from gpucnn.cli import main

CPU = Contestant("gpucnn", "cpu", "channels_last")


@pytest.mark.parametrize("synthetic", [True, False])
def test_a_measurement_from_the_command_line(
    synthetic: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small one, of gpucnn alone; on generated images where the pipeline is included."""
    from gpucnn import data

    monkeypatch.setattr(data, "find", lambda *_, **__: (data.Shapes(count=24), data.Shapes(train=False, count=8)))
    file = tmp_path / "record.json"
    arguments = ["bench", "--device", "cpu", "--no-peers", "--batch-size", "4", "--steps", "7", "--repeats", "3"]
    assert main([*arguments, "--json", str(file), *(["--synthetic"] if synthetic else [])]) == 0
    told = capfd.readouterr().out
    assert "GeForce 1070" in told
    written = json.loads(file.read_text())
    assert written["schema"] == 2
    (steps,) = written["steps"]
    assert steps["input"] == ("synthetic" if synthetic else "shapes")
    assert (steps["network"], steps["batch_size"], steps["steps"]) == ("lecture", 4, 7)
    (only,) = steps["results"]
    assert (only["framework"], only["device"], only["layout"]) == ("gpucnn", "cpu", "channels_last")
    assert len(only["examples_per_second"]) == 3
    assert min(only["examples_per_second"]) > 0
    machine = written["machine"]
    assert machine["cores"] >= 1
    assert machine["versions"]["numpy"]
    assert machine["python"]
    assert machine["commit"]


def test_a_record_is_extended(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A second command's sections come besides; without --extend the file is written anew."""
    file = str(tmp_path / "record.json")
    small = ["bench", "--device", "cpu", "--no-peers", "--synthetic", "--steps", "1", "--repeats", "1", "-q"]
    assert main([*small, "--json", file, "--batch-size", "2"]) == 0
    assert main([*small, "--json", file, "--network", "lenet5", "--batch-size", "3", "--latency", "--extend"]) == 0
    both = bench.read(file)
    assert [(one.network, one.batch_size) for one in both.steps] == [("lecture", 2), ("lenet5", 3)]
    assert [(one.network, one.batch_size) for one in both.latency] == [("lenet5", 1)]
    assert main([*small, "--json", file, "--batch-size", "3"]) == 0
    assert [one.batch_size for one in bench.read(file).steps] == [3]
    capfd.readouterr()
    assert main([*small, "--extend"]) == 2
    assert "--json" in capfd.readouterr().err


def test_all_that_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every section, at sizes that take no time; the record grows part by part."""
    monkeypatch.setattr(suite, "SIZES", {"lenet5": (1, 3)})
    monkeypatch.setattr(suite, "MEMORY_SIZES", {"lenet5": (1,)})
    monkeypatch.setattr(suite, "SCALING_SECONDS", 0.0)
    monkeypatch.setattr(suite, "LATENCY_TURNS", 1)
    monkeypatch.setattr(suite, "IMPORTS", 1)
    monkeypatch.setattr(memory, "peak_memory", lambda workload, contestant, size: 1000 + size)
    before = threads.thread_count()
    grown: list[int] = []
    options = bench.Options(
        ("lenet5",), 2, 1, 2, "cpu", synthetic=True, peers=False, threads=2, memory=True, latency=True, scaling=True,
        footprint=True,
    )  # fmt: skip

    def keep(record: bench.Record) -> None:
        grown.append(len(record.to_json()))
        assert threads.thread_count() == record.steps[-1].threads

    record = bench.measure(options, keep=keep)
    assert grown == sorted(grown) and len(set(grown)) >= 8
    kinds = [(one.network, one.batch_size, one.threads, one.input) for one in record.steps]
    assert kinds == [("lenet5", 2, 2, "synthetic"), *(("lenet5", n, k, "synthetic") for n in (1, 3) for k in (1, 2))]
    assert [one.results[0].peak_memory_bytes for one in record.steps[:2]] == [1002, None]
    assert [(one.batch_size, one.least()) for one in record.memory] == [(2, 1002), (1, 1001)]
    assert len(record.latency[0].results[0].seconds) == latency.PASSES
    (ours,) = record.footprint
    assert (ours.framework, len(ours.import_seconds)) == ("gpucnn", 1) and 0 < ours.median < 60
    assert threads.thread_count() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": ("alexnet",)}, "unknown network 'alexnet'; known are lecture, lenet5, resnet9 and all"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
    ],
)
def test_bad_options(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bench.Options(**changes)


def test_an_installation_is_its_files_and_those_of_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """a needs b and, elsewhere, c; b needs a; their extras and bytecode do not count."""

    def install(name: str, needs: list[str], files: dict[str, int]) -> None:
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: 1", *(f"Requires-Dist: {need}" for need in needs)]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        for file, size in files.items():
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_bytes(b"x" * size)
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))

    elsewhere = 'some_c; sys_platform == "nowhere"'
    install("some_a", ["Some.B>=1", elsewhere, 'some_d; extra == "x"'], {"some_a/__init__.py": 1000, "some_a/a.pyc": 9})
    install("some_b", ["some-a"], {"some_b.py": 200, "b.txt": 30})
    install("some_d", [], {"some_d.py": 1})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert footprint.needed("some-a") == {"some-a", "some-b"}
    assert footprint.installed_bytes("some-a") == 1230
    assert footprint.installed_bytes("some-z") is None


def test_an_import_that_fails_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"import nowhere failed: .*No module named"):
        footprint.import_seconds("nowhere")


def test_peak_memory_comes_from_a_process_of_its_own() -> None:
    small, large = (memory.peak_memory(Workload.of("lecture"), CPU, size) for size in (1, 64))
    # The activations of the lecture network: conv1's output alone has 24 * 24 * 64 floats an example.
    assert large - small > 63 * 24 * 24 * 64 * 4
    with pytest.raises(RuntimeError, match="memory measurement"):
        memory.peak_memory(Workload.of("lecture"), Contestant("gpucnn", "nowhere", "channels_last"), 1)


@pytest.mark.peers
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(
    ("network", "parameters"), [("lecture", 1_068_298), ("lenet5", 61_706), ("resnet9", 6_573_120)]
)
def test_pytorchs_network_is_the_same_network(network: str, parameters: int, layout: str) -> None:
    """From the same weights: the same losses over three steps, so both sides of the benchmark do the same work."""
    import torch

    workload = Workload.of(network)
    peer: Any = Contestant("PyTorch", "cpu", layout).trainer(workload)
    ours: Any = CPU.trainer(workload)
    state = {name: value.numpy().copy() for name, value in ours.model.state_dict().items()}
    assert state.keys() == peer.network.state_dict().keys()
    peer.network.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    for average, parameter in zip(peer.average, peer.parameters, strict=bool(peer.average)):
        average.copy_(parameter.detach())
    assert sum(p.numel() for p in ours.model.parameters()) == parameters
    assert (ours.average is None) == (not peer.average) == (network != "lecture")
    for images, labels in synthetic_batches(workload, 6)[:3]:
        mine = ours.step(tensor(images, device="cpu"), tensor(labels, device="cpu")).item()
        assert mine == pytest.approx(peer.step(images, labels).item(), rel=1e-4)
    after = {name: value.detach().numpy() for name, value in peer.network.named_parameters()}
    for name, parameter in ours.model.named_parameters():
        moved = np.linalg.norm(after[name] - state[name])
        assert np.linalg.norm(parameter.numpy() - after[name]) <= 1e-2 * moved, name
    averages = dict(zip(after, ours.average.averages, strict=True)) if ours.average else {}
    for (name, mine), average in zip(averages.items(), peer.average, strict=True):
        np.testing.assert_allclose(mine.numpy(), average.numpy(), rtol=1e-4, atol=1e-6, err_msg=name)
    images = synthetic_batches(workload, 2)[0][0]
    theirs = peer.inference(images)().numpy()
    np.testing.assert_allclose(ours.inference(images)().numpy(), theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.peers
def test_pytorchs_float32_is_float32() -> None:
    """Left to itself cuDNN rounds the inputs of float32 convolutions to TF32."""
    import torch

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    try:
        cudnn.allow_tf32 = matmul.allow_tf32 = True
        Contestant("PyTorch", "cpu", "contiguous").trainer(Workload.of("lenet5"))
        assert not cudnn.allow_tf32 and not matmul.allow_tf32
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


@pytest.mark.peers
def test_pytorch_is_measured_in_both_layouts_on_as_many_threads() -> None:
    import torch

    before = torch.get_num_threads()
    seen: list[int] = []
    options = bench.Options(("lenet5",), 2, 1, 1, "cpu", synthetic=True, threads=1, latency=True)
    measured = bench.measure(options, keep=lambda record: seen.append(torch.get_num_threads()))
    wanted = [("gpucnn", "channels_last"), ("PyTorch", "channels_last"), ("PyTorch", "contiguous")]
    assert [(one.framework, one.layout) for one in measured.steps[0].results] == wanted
    assert [(one.framework, one.layout) for one in measured.latency[0].results] == wanted
    assert measured.steps[0].ratio() and measured.latency[0].ratio()
    assert seen == [1, 1]
    torch.set_num_threads(before)


@pytest.mark.peers
@pytest.mark.parametrize("network", ["lecture", "lenet5", "resnet9"])
def test_a_step_needs_no_more_memory_than_pytorchs(network: str) -> None:
    """At batch 128, each in a process of its own, PyTorch in the layout that takes less."""
    measured = [CPU, *(Contestant("PyTorch", "cpu", layout) for layout in ("channels_last", "contiguous"))]
    ratio = memory.measure(Workload.of(network), measured, 128).ratio()
    assert ratio is not None and ratio <= 1.0
