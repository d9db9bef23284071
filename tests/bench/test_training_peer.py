"""The recipes in PyTorch: the same losses as gpucnn's own training, and what is made of the two files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import compare_curves
from gpucnn import training


def test_curves_side_by_side(tmp_path: Path) -> None:
    """Differences, accuracies and a picture from two small files, the second cut off in the middle of a line."""
    run, peer = tmp_path / "metrics.jsonl", tmp_path / "peer.jsonl"
    ours = [{"kind": "steps", "step": k, "epoch": k / 2, "loss": 2.0 + 0.01 * k} for k in range(1, 13)]
    ours.append({"kind": "epoch", "epoch": 1, "test_accuracy": 0.5, "tta_accuracy": 0.75})
    theirs = [{"kind": "run", "config": {"model": "resnet9"}, "machine": {}, "noise": 0.0}]
    theirs += [{"kind": "step", "step": k, "loss": 2.0} for k in range(1, 12)]
    theirs.append({"kind": "epoch", "epoch": 1, "test_accuracy": 0.25, "tta_accuracy": None})
    run.write_text("".join(json.dumps(line) + "\n" for line in ours))
    peer.write_text("".join(json.dumps(line) + "\n" for line in theirs) + '{"kind": "st')
    compare_curves.main([str(run), str(peer), "--control", str(peer), "--out", str(tmp_path / "out")])
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["steps_compared"] == 11
    assert result["loss_difference"] == pytest.approx(
        {"at_step_10": 0.05, "largest_to_step_50": 0.055, "median": 0.03}, abs=1e-12
    )
    assert result["epochs"][0]["test_accuracy"] == {"gpucnn": 0.5, "PyTorch": 0.25}
    assert result["control"]["loss_difference"]["largest_to_step_50"] == 0.0
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    run.write_text(json.dumps({"kind": "steps", "step": 50, "loss": 1.0}) + "\n")
    with pytest.raises(ValueError, match="--log-steps 1"):
        compare_curves.compare(run, peer)


@pytest.mark.peers
@pytest.mark.parametrize("recipe", ["resnet9", "airbench94"])
def test_two_runs_start_alike(recipe: str, tmp_path: Path) -> None:
    """Weights, whitening and the first batch are the same. Updates are compared below, from equal weights: left alone,
    two runs part as fast as Muon and the normalisation of few images make rounding errors grow.
    """
    pytest.importorskip("torch")
    from benchmarks import training_peer

    sizes = {"data": "shapes", "train_images": 48, "test_images": 8, "batch_size": 16, "log_steps": 1, "seed": 5}
    config = training.config_for(recipe=recipe, epochs=1, device="cpu", tta="none", **sizes)
    training.train(config, out=tmp_path / "run")
    training_peer.train(config, tmp_path / "peer.jsonl", quiet=True)
    result = compare_curves.compare(tmp_path / "run" / "metrics.jsonl", tmp_path / "peer.jsonl")
    ours, theirs = result["losses"]["gpucnn"], result["losses"]["PyTorch"]
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6) and len(ours) == len(theirs) == 3
    assert len(result["epochs"]) == 1


@pytest.mark.peers
@pytest.mark.parametrize("recipe", ["resnet9", "airbench94"])
def test_every_step_from_the_same_weights_is_pytorchs(recipe: str) -> None:
    """Six steps over the whole schedule, the whitening bias frozen after three of them."""
    pytest.importorskip("torch")
    from benchmarks import lockstep

    sizes = {"data": "shapes", "train_images": 80, "test_images": 8, "batch_size": 40, "seed": 5}
    changes = {"optimizer.whitening_bias.epochs": 1.5} if recipe == "airbench94" else {}
    config = training.config_for(recipe=recipe, epochs=3, device="cpu", tta="none", **sizes, **changes)
    result = lockstep.run(config, 50)
    assert [step["step"] for step in result["steps"]] == [1, 2, 3, 4, 5, 6]
    assert result["largest_difference"] < 1e-5
    assert 0 < result["largest_weights_difference"] < (3e-3 if recipe == "airbench94" else 1e-4)


@pytest.mark.peers
def test_recipes_without_a_form_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from benchmarks import training_peer

    with pytest.raises(ValueError, match="no PyTorch form of lenet5"):
        training_peer.train(training.config_for(recipe="lenet5"), tmp_path / "peer.jsonl")
    sizes = {"data": "shapes", "train_images": 16, "test_images": 8, "batch_size": 16}
    config = training.config_for(recipe="resnet9", **{"schedule.warmup": 1}, **sizes)
    with pytest.raises(ValueError, match="schedule"):
        training_peer.train(config, tmp_path / "peer.jsonl")
