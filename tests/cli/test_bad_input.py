"""Bad input: one line on standard error and exit code 2; a run that fails: one line and exit code 1. No tracebacks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import SHORT, Done

Command = Callable[..., Done]


def complaint(done: Done, code: int = 2) -> str:
    """The one line of a command that ended with `code`."""
    assert done.code == code, done
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("gpucnn: ")
    return done.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nosuch"], ["nosuch"]),
        (["train", "--nosuch"], ["--nosuch"]),
        (["train", "--epochs", "many"], ["--epochs", "integer"]),
        (["train", "--model", "nosuch"], ["nosuch", "lecture_cnn", "lenet5"]),
        (["train", "--data", "nosuch"], ["nosuch", "cifar10", "mnist", "shapes"]),
        (["train", "--device", "gpu"], ["gpu", "cuda", "emulated"]),
        (["train", *SHORT, "--batch-size", "0"], ["batch_size", "0"]),
        (["train", *SHORT, "--lr", "-1"], ["lr", "-1"]),
        (["train", *SHORT, "--epochs", "-1"], ["epochs", "-1"]),
        (["train", *SHORT, "--lr", "nan"], ["lr", "nan"]),
        (["train", *SHORT, "--precision", "int8"], ["precision", "int8", "bfloat16"]),
        (["train", *SHORT, "--graph"], ["graph=True", "cpu", "emulated"]),
        (["train", "--data", "cifar10", "--data-dir", "nowhere"], ["nowhere"]),
        (["train", "--resume", "nowhere"], ["nowhere"]),
        (["train", "--resume", "nowhere", "--out", "there"], ["--resume", "--out"]),
        (["train", "--set", "model=nosuch"], ["nosuch", "lecture_cnn", "lenet5"]),
        (["train", "--set", "model=3"], ["unknown model", "lecture_cnn", "lenet5"]),
        (["train", "--set", "recipe=nosuch.toml"], ["nosuch.toml"]),
        (["eval", "nowhere"], ["nowhere"]),
        (["eval"], ["runs/"]),
        (["predict"], ["images"]),
        (["eval", "--tta", "seven"], ["seven", "none", "mirror", "six"]),
        (["plot"], ["RUN"]),
        (["plot", "nowhere"], ["nowhere"]),
        (["show"], ["run"]),
        (["show", "nowhere"], ["nowhere"]),
        (["show", "nowhere", "--maps", "0"], ["--maps", "0"]),
        (["summary"], ["model"]),
        (["summary", "nosuch"], ["nosuch", "lecture_cnn", "resnet20"]),
        (["summary", "lenet5", "--batch-size", "0"], ["--batch-size", "0"]),
        (["summary", "lenet5", "--classes", "0"], ["--classes", "0"]),
        (["summary", "lenet5", "--input-shape", "28,28"], ["--input-shape", "28,28"]),
        (["summary", "lenet5", "--input-shape", "1,2,2"], ["conv2d"]),
        (["summary", "lenet5", "--input-shape", "3,28,28"], ["3 channels"]),
        (["predict", "nowhere.png"], ["runs/"]),
        (["bench", "--repeats", "0"], ["repeats", "0"]),
        (["bench", "--device", "tpu"], ["tpu"]),
        (["bench", "--report", "nowhere.json"], ["nowhere.json"]),
        (["bench", "--json", "no/such/folder/record.json"], ["record.json"]),
    ],
)
def test_one_line_names_what_is_wrong(gpucnn: Command, arguments: list[object], says: list[str]) -> None:
    line = complaint(gpucnn(*arguments))
    assert [word for word in says if word not in line] == []


@pytest.mark.parametrize("command", [["train"], ["bench"], ["eval", "run"]])
def test_cuda_without_a_gpu_gives_the_reason(
    gpucnn: Command, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpucnn import backends
    from gpucnn.backends.cuda import driver

    reason = driver.unavailable_reason()
    if reason is None:  # there is a GPU here: this is how a machine without a driver would answer
        reason = "no NVIDIA driver"
        monkeypatch.setattr(driver, "unavailable_reason", lambda: reason)
        backends.get.cache_clear()
    assert reason in complaint(gpucnn(*command, "--device", "cuda"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing in the cache, and nobody answers."""
    from gpucnn.data import NotFoundError, cifar10

    def unreachable(*arguments: object, **options: object) -> None:
        raise NotFoundError("cannot be downloaded: no network")

    monkeypatch.setenv("GPUCNN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar10, "fetch", unreachable)


@pytest.mark.usefixtures("no_network")
def test_data_that_was_asked_for_and_cannot_be_had_is_an_error(gpucnn: Command) -> None:
    assert "no network" in complaint(gpucnn("train", "--data", "cifar10"))


@pytest.mark.usefixtures("no_network")
def test_without_data_and_network_training_says_so_in_a_line_and_takes_shapes(gpucnn: Command) -> None:
    done = gpucnn("train", "--batch-size", 32, "--epochs", 1, "--train-images", 32, "--test-images", 32)
    assert (done.code, done.err) == (0, "")
    first, *_, last, _, _ = done.out.splitlines()
    assert "no network" in first
    assert "shapes" in first
    assert last.startswith("trained lecture_cnn on shapes (generated)")


def test_an_output_folder_that_is_a_file(gpucnn: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in complaint(gpucnn("train", *SHORT, "--out", tmp_path / "file" / "run"))


def test_an_output_folder_with_a_run_in_it(gpucnn: Command, run_folder: Path) -> None:
    assert str(run_folder) in complaint(gpucnn("train", *SHORT, "--out", run_folder))
    assert gpucnn("train", *SHORT, "--out", run_folder, "--overwrite").code == 0


def test_a_resumed_run_keeps_its_recipe(gpucnn: Command, run_folder: Path) -> None:
    assert "lr" in complaint(gpucnn("train", "--resume", run_folder, "--lr", 0.5))
    assert "model" in complaint(gpucnn("train", "--resume", run_folder, "--model", "lecture"))


@pytest.mark.parametrize("command", [["eval"], ["train", "--resume"]])
def test_a_damaged_checkpoint(gpucnn: Command, run_folder: Path, command: list[str]) -> None:
    checkpoint = run_folder / "checkpoint.safetensors"
    content = bytearray(checkpoint.read_bytes())
    content[-5] ^= 1
    checkpoint.write_bytes(content)
    assert "checkpoint.safetensors" in complaint(gpucnn(*command, run_folder))
    checkpoint.write_bytes(content[: len(content) // 2])
    assert "checkpoint.safetensors" in complaint(gpucnn(*command, run_folder))


def test_resuming_a_cuda_run_where_there_is_no_such_gpu(gpucnn: Command, run_folder: Path) -> None:
    import gpucnn as package

    checkpoint = run_folder / "checkpoint.safetensors"
    content = package.load(checkpoint, device="cpu")
    content["config"]["device"] = "cuda:99"
    package.save(content, checkpoint)
    line = complaint(gpucnn("train", "--resume", run_folder))
    assert str(checkpoint) in line
    assert "--device" in line
    assert gpucnn("train", "--resume", run_folder, "--device", "cpu").code == 0


def test_eval_with_an_empty_batch(gpucnn: Command, run_folder: Path) -> None:
    assert "batch_size must be at least 1" in complaint(gpucnn("eval", run_folder, "--batch-size", 0))


def test_eval_on_data_with_other_classes(gpucnn: Command, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpucnn import data

    pixels = np.zeros((4, 32, 32, 3), dtype=np.uint8)
    two = data.Dataset(pixels, np.zeros(4, dtype=np.int64), ("a", "b"), name="two")
    monkeypatch.setattr(data, "create", lambda *arguments, **options: two)
    line = complaint(gpucnn("eval", run_folder, "--data", "two"))
    assert "2 classes" in line
    assert "10" in line


def test_predict_names_what_is_no_image_and_goes_on_with_the_others(
    gpucnn: Command, run_folder: Path, tmp_path: Path
) -> None:
    good, text, cut = tmp_path / "good.png", tmp_path / "text.png", tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(good)
    text.write_text("no image")
    cut.write_bytes(good.read_bytes()[:900])
    deep = tmp_path / "deep.tiff"
    Image.fromarray(np.full((40, 40), 0.5, np.float32)).save(deep)
    for bad in (text, cut, deep, tmp_path / "missing.png", tmp_path):
        done = gpucnn("predict", bad, good, "--run", run_folder, "--quiet")
        assert str(bad) in complaint(done)
        assert done.out.startswith(f"{good}: ")
        assert done.out.count("\n") == 1


def test_predict_refuses_an_absurdly_large_image(
    gpucnn: Command, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("RGB", (40, 40)).save(tmp_path / "large.png")
    assert "large.png" in complaint(gpucnn("predict", tmp_path / "large.png", "--run", run_folder))
    assert "top" in complaint(gpucnn("predict", tmp_path / "large.png", "--run", run_folder, "--top", 0))


def test_a_loss_that_becomes_nan_ends_the_run_with_code_1_and_names_the_step(gpucnn: Command, tmp_path: Path) -> None:
    done = gpucnn("train", *SHORT, "--lr", 1e30, "--out", tmp_path / "run", "--quiet")
    line = complaint(done, code=1)
    assert "step" in line
    assert gpucnn("eval", tmp_path / "run").code == 0  # the last good checkpoint stays


def test_a_full_disk_ends_the_run_with_code_1(gpucnn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from gpucnn.training.checkpoint import Checkpoints

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "checkpoint.safetensors")

    monkeypatch.setattr(Checkpoints, "save", full)
    line = complaint(gpucnn("train", *SHORT, "--out", tmp_path / "run", "--quiet"), code=1)
    assert "No space left" in line


def test_a_broken_variable_names_itself(gpucnn: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpucnn import backends

    monkeypatch.setenv("GPUCNN_DEVICE", "abacus")
    backends.default_device.cache_clear()
    try:
        assert "GPUCNN_DEVICE" in complaint(gpucnn("train", *SHORT))
    finally:
        backends.default_device.cache_clear()


@pytest.mark.parametrize("name", ["GPUCNN_COMPILE", "GPUCNN_THREADS", "GPUCNN_DEVICE"])
def test_no_broken_variable_keeps_the_command_line_from_answering(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, name: "nonsense"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gpucnn", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    assert run("--version").returncode == 0
    done = run("train", "--data", "shapes", "--epochs", "0", "--out", str(tmp_path / "run"))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"gpucnn: {name} must be ")
    doctor = run("doctor")
    assert (doctor.returncode, doctor.stderr) == (1, "")
    assert f"  {name} must be " in doctor.stdout
    assert f"mend it with: unset {name}\n" in doctor.stdout


def test_an_error_of_several_lines_is_told_in_one(gpucnn: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpucnn import training

    def fail(*arguments: object, **options: object) -> None:
        raise ValueError("not a state:\n  missing: conv1\n\n  unexpected: conv9")

    monkeypatch.setattr(training, "train", fail)
    assert complaint(gpucnn("train", *SHORT)) == "gpucnn: not a state: missing: conv1 unexpected: conv9\n"


def test_traceback_shows_where_an_error_came_from(gpucnn: Command) -> None:
    try:
        with pytest.raises(ValueError, match="nosuch"):
            gpucnn("--traceback", "train", "--model", "nosuch")
    finally:
        gpucnn("--version")
