"""The comparison of training steps: ours by the trainer itself, PyTorch's with a pipeline of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import models, training
from gpucnn.bench import training as bench
from gpucnn.data import Augment
from gpucnn.data.transforms import LectureTrain, Normalize


def test_a_record_of_ours_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "made" / "training.json"
    arguments = ["lecture", "--batch-size", "3", "--steps", "2", "--repeats", "2", "--images", "7", "--device", "cpu"]
    assert bench.main([*arguments, "--no-peers", "--json", str(path)]) == 0
    record = json.loads(path.read_text())
    assert (record["network"], record["batch_size"], record["ratio"]) == ("lecture_cnn", 3, None)
    (name, result), *others = record["results"].items()
    assert name == "gpucnn eager" and not others
    assert len(result["examples_per_second"]) == 2 and np.isfinite(result["loss"])
    assert result["p20"] <= result["median"] <= result["p80"]
    assert capsys.readouterr().out.endswith("gpucnn's best / PyTorch's best: not measured\n")


def test_a_run_takes_as_many_steps_as_it_is_asked_for() -> None:
    config = replace(training.config_for("lecture_cnn"), batch_size=2)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    ours = bench.OurTraining(config, images, np.arange(5), "float32", "cpu", False, rate=0.1)
    for steps, total in ((1, 1), (3, 4)):  # beyond the epoch's two batches
        ours.run(steps)
        assert ours._trainer.step == total
    assert ours._trainer.lr == pytest.approx(0.01)


class _Clockwork:
    """Takes steps in no time, and fails where it is told to."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.steps = fails, 0
        if fails == "making":
            raise RuntimeError("cannot be made")

    def run(self, steps: int) -> None:
        self.steps += steps

    def synchronize(self) -> None:
        pass

    def last_loss(self) -> float:
        if self.fails == "loss":
            raise ValueError("not finite")
        return 1.5


def test_whoever_fails_leaves_the_others_alone() -> None:
    made: dict[str, Any] = {f"PyTorch {name}": lambda name=name: _Clockwork(name) for name in ("", "making", "loss")}
    kept: list[int] = []
    results = bench.measure(made, 4, 5, 3, keep=lambda results: kept.append(len(results)))
    assert results["PyTorch making"] == {"error": "RuntimeError: cannot be made"}
    assert results["PyTorch loss"]["error"] == "ValueError: not finite"
    assert results["PyTorch "]["loss"] == 1.5 and len(results["PyTorch "]["examples_per_second"]) == 3
    assert kept == [1, 3, 3, 3, 3, 3]  # also whenever one is ready, in case that the next takes for ever
    assert results["PyTorch "]["first"] > 0


def test_who_fails_later_keeps_what_was_measured() -> None:
    class Fails(_Clockwork):
        def run(self, steps: int) -> None:
            super().run(steps)
            if self.steps > bench.WARM_UP_STEPS + 5 * 2:
                raise RuntimeError("out of memory")

    results = bench.measure({"gpucnn a": _Clockwork, "PyTorch b": Fails}, 4, 5, 3)
    assert results["PyTorch b"]["error"] == "RuntimeError: out of memory"
    assert len(results["PyTorch b"]["examples_per_second"]) == 1
    assert len(results["gpucnn a"]["examples_per_second"]) == 3


def test_nobody_is_made_when_the_time_for_that_is_gone() -> None:
    made: dict[str, Any] = {"gpucnn a": lambda: _Clockwork(), "PyTorch b": lambda: _Clockwork("making")}
    results = bench.measure(made, 4, 5, 2, making_seconds=-1.0)
    assert [set(result) for result in results.values()] == [{"left_out"}, {"left_out"}]
    assert bench.ratio(results) is None


def test_the_ratio_is_of_the_best_that_did_not_fail() -> None:
    results: dict[str, Any] = {"gpucnn a": {"median": 6.0}, "gpucnn b": {"median": 9.0, "error": "no"}}
    assert bench.ratio(results) is None
    results |= {"PyTorch a": {"median": 2.0}, "PyTorch b": {"median": 3.0}}
    assert bench.ratio(results) == 2.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lecture", "--steps", "0"], "--steps must be at least 1, got 0"),
        (["lecture", "--images", "7", "--batch-size", "9"], "a batch of 9 needs as many images, got 7"),
        (["alexnet"], "alexnet"),
        (["lecture", "--images", "200", "--only", "nobody"], "no contestant's name contains 'nobody'"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main([*arguments, "--no-peers"])
    assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.fixture
def torch() -> Any:
    """PyTorch on one thread."""
    found = pytest.importorskip("torch")
    threads = found.get_num_threads()
    found.set_num_threads(1)
    yield found
    found.set_num_threads(threads)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # PyTorch's own, of its own
@pytest.mark.parametrize(("network", "precision"), [("lenet5", "float32"), ("airbench94", "bfloat16")])
def test_pytorch_takes_steps_in_every_mode(torch: Any, network: str, precision: str) -> None:
    """torch.compile traces the whole function, augmentation included; what it would make of it on a GPU is left out."""
    made = bench.contestants(network, 2, precision, "cpu", 4, True, "aot_eager")
    assert len(made) == (7 if precision == "float32" else 6)  # cuDNN's contiguous forms count in float32
    wanted = ("PyTorch eager", "PyTorch max-autotune, step captured")
    results = bench.measure({name: made[name] for name in wanted}, 2, 1, 1)
    assert [result.get("error") for result in results.values()] == [None, None]
    assert all(np.isfinite(result["loss"]) for result in results.values())


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_what_a_compiled_step_finds_on_the_device_stays_there(torch: Any) -> None:
    """CUDA graphs of torch.compile copy each input whose address may change, in every step: the data set too."""
    ours = bench.contestants("airbench94", 2, "float32", "cpu", 4, True, "aot_eager")["PyTorch reduce-overhead"]()
    tensors = [*ours.pipeline.tensors(), ours.chosen, ours.odd_epoch]
    assert any(tensor is ours.pipeline.images for tensor in tensors) and len(tensors) == 7
    assert all(tensor._dynamo_static_input_type == "unguarded" for tensor in tensors)
    odd = []
    for _ in range(5):
        ours._step = lambda: odd.append(bool(ours.odd_epoch))
        ours.run(1)
    assert odd == [False, False, True, True, False]


@pytest.mark.peers
@pytest.mark.parametrize("network", ["lecture", "lenet5", "resnet9", "airbench94"])
def test_both_do_the_same_steps(torch: Any, network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the same weights on the same batch: networks, losses, optimizers and their options agree."""
    from gpucnn.bench.torch_pipeline import Pipeline

    made = bench.contestants(network, 4, "float32", "cpu", 8, True, None)
    theirs, ours = made["PyTorch eager"](), made["gpucnn eager"]()
    images = np.random.default_rng(1).standard_normal((4, *ours.model.input_shape)).astype(np.float32)
    labels = np.arange(4)
    state = {name: torch.from_numpy(value.numpy().copy()) for name, value in ours.model.state_dict().items()}
    theirs.network.load_state_dict(state)
    batch = torch.from_numpy(images), torch.from_numpy(labels)
    monkeypatch.setattr(Pipeline, "__call__", lambda self, chosen, odd: batch)
    work = ours._trainer.work
    for _ in range(2):
        theirs._step()
        work.run(gpucnn.tensor(images), gpucnn.tensor(labels))
        (result,) = work.pending.read()
        assert result.loss == pytest.approx(theirs.last_loss(), rel=1e-4)
    after = theirs.network.state_dict()
    for name, value in ours.model.state_dict().items():
        moved = np.linalg.norm((after[name].numpy() - state[name].numpy()).astype(np.float64))
        apart = np.linalg.norm((value.numpy() - after[name].numpy()).astype(np.float64))
        assert apart <= 1e-2 * moved, name  # PyTorch's float32 norm of 256 ones among small numbers is off by 6e-5
    assert len(theirs.average) == (len(ours._trainer.average.averages) if network == "lecture" else 0)


@pytest.mark.peers
def test_pytorchs_batches_are_distorted_as_the_lectures(torch: Any) -> None:
    from gpucnn.bench.torch_pipeline import Pipeline

    images = np.random.default_rng(0).integers(0, 256, (6, 9, 11, 3), dtype=np.uint8)
    pipeline = Pipeline(images, np.arange(6), LectureTrain(5, contrast=(0.3, 0.5)), torch.device("cpu"), True)
    chosen = torch.tensor([4, 0, 4, 5])
    batch, labels = pipeline(chosen, torch.tensor(False))
    assert batch.shape == (4, 3, 5, 5) and batch.is_contiguous(memory_format=torch.channels_last)
    assert labels.tolist() == [4, 0, 4, 5]
    np.testing.assert_allclose(batch.mean(dim=(1, 2, 3)), np.zeros(4), atol=1e-5)
    np.testing.assert_allclose(batch.std(dim=(1, 2, 3), correction=0), np.ones(4), rtol=1e-5)
    for image, index in zip(batch.numpy().transpose(0, 2, 3, 1), chosen.tolist(), strict=True):
        windows = [
            images[index, i : i + 5, j : j + 5][:, ::step] for i in range(5) for j in range(7) for step in (1, -1)
        ]
        # within a channel brightness and contrast are one straight line
        line = image[..., 0].reshape(-1)
        (window,) = [each for each in windows if np.corrcoef(line, each[..., 0].reshape(-1))[0, 1] > 0.99999]
        spread = image[..., 0].std() / window[..., 0].std()
        apart = np.diff(image.mean(axis=(0, 1)))[0] / np.diff(window.mean(axis=(0, 1)))[0]
        assert 0.3 <= spread / apart < 0.5  # contrast stretches about each channel's own mean


@pytest.mark.peers
def test_pytorchs_batches_are_crops_flips_and_holes(torch: Any) -> None:
    from gpucnn.bench.torch_pipeline import Pipeline

    normalize = Normalize((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    images = np.random.default_rng(1).integers(0, 256, (5, 8, 7, 3), dtype=np.uint8)
    plain = normalize(images)
    flipping = Pipeline(images, np.arange(5), Augment(normalize, flip="alternating"), torch.device("cpu"), False)
    everybody = torch.arange(5)
    even, odd = (flipping(everybody, torch.tensor(parity))[0].numpy().transpose(0, 2, 3, 1) for parity in (False, True))
    np.testing.assert_allclose(even, odd[:, :, ::-1], rtol=1e-6)
    for image, coin, expected in zip(even, flipping.coins.tolist(), plain, strict=True):
        np.testing.assert_allclose(image, expected[:, ::-1] if coin else expected, rtol=1e-4, atol=1e-5)
    options = Augment(normalize, translate=3, cutout=4, flip="random")
    batch = Pipeline(images, np.arange(5), options, torch.device("cpu"), False)(everybody, torch.tensor(False))[0]
    batch = batch.numpy().transpose(0, 2, 3, 1)
    padded = np.pad(plain, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="reflect")
    for image, border in zip(batch, padded, strict=True):
        hole = (image == 0).all(axis=-1)
        assert hole.sum() == 16
        crops = [border[i : i + 8, j : j + 7][:, ::step] for i in range(7) for j in range(7) for step in (1, -1)]
        assert any(np.abs(np.where(hole[..., None], 0, crop) - image).max() < 1e-5 for crop in crops)
    with pytest.raises(ValueError, match="no PyTorch form of the transform"):
        Pipeline(images, np.arange(5), Augment(normalize, contrast=0.5), torch.device("cpu"), False)


@pytest.mark.peers
def test_the_networks_have_our_parameters(torch: Any) -> None:
    from gpucnn.bench.torch_networks import NETWORKS

    for name, network in NETWORKS.items():
        ours = {key: value.shape for key, value in models.create(name, device="cpu").state_dict().items()}
        assert {key: tuple(value.shape) for key, value in network().state_dict().items()} == ours
