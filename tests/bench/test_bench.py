"""The benchmark: what it measures, what it writes down, and the table that it makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpucnn import bench
from gpucnn.cli import main


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


def test_peak_memory_comes_from_a_process_of_its_own(tmp_path: Path) -> None:
    from gpucnn.bench.contestants import Contestant
    from gpucnn.bench.memory import peak_memory

    small, large = (peak_memory(Contestant("gpucnn", "cpu", "channels_last"), size) for size in (1, 64))
    # The activations of the lecture network: conv1's output alone has 24 * 24 * 64 floats an example.
    assert large - small > 63 * 24 * 24 * 64 * 4
    with pytest.raises(RuntimeError, match="memory measurement"):
        peak_memory(Contestant("gpucnn", "nowhere", "channels_last"), 1)


@pytest.mark.peers
def test_pytorchs_network_is_the_same_network() -> None:
    """From the same weights: the same losses over three steps, so both sides of the benchmark do the same work."""
    import numpy as np
    import torch

    from gpucnn import tensor
    from gpucnn.bench.contestants import GpucnnTrainer, synthetic_batches
    from gpucnn.bench.torch_lecture import LectureTrainer

    for layout in ("contiguous", "channels_last"):
        peer = LectureTrainer("cpu", layout)
        ours = GpucnnTrainer("cpu")
        state = {name: value.numpy() for name, value in ours.model.state_dict().items()}
        assert state.keys() == peer.network.state_dict().keys()
        peer.network.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
        for average, parameter in zip(peer.average, peer.parameters, strict=True):
            average.copy_(parameter.detach())
        assert sum(value.size for value in state.values()) == 1_068_298
        for images, labels in synthetic_batches(16)[:3]:
            mine = ours.step(tensor(images, device="cpu"), tensor(labels, device="cpu")).item()
            assert mine == pytest.approx(peer.step(images, labels).item(), rel=1e-5)
        for name, average in zip(state, peer.average, strict=True):
            mine = dict(zip(state, ours.average.averages, strict=True))[name].numpy()
            np.testing.assert_allclose(mine, average.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.peers
def test_pytorchs_float32_is_float32() -> None:
    """Left to itself cuDNN rounds the inputs of float32 convolutions to TF32."""
    import torch

    from gpucnn.bench.torch_lecture import LectureTrainer

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    try:
        cudnn.allow_tf32 = matmul.allow_tf32 = True
        LectureTrainer("cpu", "contiguous")
        assert not cudnn.allow_tf32 and not matmul.allow_tf32
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


@pytest.mark.peers
def test_pytorch_is_measured_in_both_layouts() -> None:
    measured = bench.measure(bench.Options(batch_size=2, steps=1, repeats=1, device="cpu", synthetic=True))
    assert [(one.framework, one.layout) for one in measured.steps[0].results] == [
        ("gpucnn", "channels_last"), ("PyTorch", "channels_last"), ("PyTorch", "contiguous"),
    ]  # fmt: skip


@pytest.mark.peers
def test_a_step_needs_no_more_memory_than_pytorchs() -> None:
    """The lecture network at batch 128, each in a process of its own, PyTorch in the layout that takes less."""
    from gpucnn.bench.contestants import Contestant
    from gpucnn.bench.memory import peak_memory

    ours, *theirs = (
        peak_memory(Contestant(framework, "cpu", order), 128)
        for framework, order in (
            ("gpucnn", "channels_last"), ("PyTorch", "channels_last"), ("PyTorch", "contiguous"),
        )
    )  # fmt: skip
    assert ours <= min(theirs)
