"""What each command does when it is given what it needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gpucnn as package
from gpucnn.cli.output import Output
from tests.cli.conftest import SHORT, Done

Command = Callable[..., Done]


def test_version_and_help(gpucnn: Command) -> None:
    assert gpucnn("--version") == (0, f"gpucnn {package.__version__}\n", "")
    for arguments in ((), ("--help",)):
        told = gpucnn(*arguments)
        assert told.code == 0
        assert all(
            command in told.out
            for command in ("train", "eval", "predict", "plot", "show", "summary", "bench", "doctor")
        )


def test_python_dash_m_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "gpucnn", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"gpucnn {package.__version__}\n"


def test_version_and_help_import_nothing_that_computes() -> None:
    """The command line answers at once: what a command needs is imported when the command runs."""
    code = "import sys; from gpucnn.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"matplotlib", "safetensors", "PIL", "pooch", "cupy", "torch"} & set(done.stderr.split())


def test_train_writes_a_run_and_says_what_it_trained_on(gpucnn: Command, tmp_path: Path) -> None:
    told = gpucnn("train", *SHORT, "--out", tmp_path / "run", "--seed", 3)
    assert (told.code, told.err) == (0, "")
    first, *lines = told.out.splitlines()
    assert first == f"training lenet5 on shapes (generated), device cpu, run {tmp_path / 'run'}"
    assert [line for line in lines if re.match(r"epoch [12]/2: loss \d+\.\d+, .*examples/sec$", line)] == lines[:2]
    assert "trained lenet5 on shapes (generated), device cpu: 2 epochs, 12 steps" in told.out
    assert f"run: {tmp_path / 'run'}" in told.out
    names = {file.name for file in (tmp_path / "run").iterdir()}
    assert names == {"config.json", "metrics.jsonl", "curves.png", "metrics.csv", "checkpoint.safetensors"}
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["model"], config["data"], config["batch_size"], config["epochs"], config["seed"]) == (
        "lenet5", "shapes", 16, 2, 3,
    )  # fmt: skip


def test_options_reach_the_run(gpucnn: Command, tmp_path: Path) -> None:
    options = {
        "lr": 0.03,
        "momentum": 0.5,
        "weight-decay": 0.001,
        "train-images": 32,
        "test-images": 16,
        "checkpoint-steps": 1,
    }
    arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
    assert gpucnn("train", *SHORT, *arguments, "--out", tmp_path / "run").code == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    given = {**config, **config["optimizer"]}
    assert {key: given[key.replace("-", "_")] for key in options} == options


def test_a_run_gets_a_folder_of_its_own_in_runs(gpucnn: Command, tmp_path: Path) -> None:
    assert gpucnn("train", *SHORT, "--quiet").code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("lenet5-shapes-")


def test_quiet_prints_the_summary_only(gpucnn: Command, tmp_path: Path) -> None:
    told = gpucnn("train", *SHORT, "--out", tmp_path / "run", "--quiet")
    assert told.err == ""
    assert told.out.startswith("trained lenet5 on shapes")


def test_resume_goes_on_to_the_same_weights(gpucnn: Command, tmp_path: Path) -> None:
    whole = gpucnn("train", *SHORT, "--out", tmp_path / "whole", "--quiet")
    half = gpucnn("train", *SHORT[:-1], 1, "--out", tmp_path / "half", "--quiet")
    assert (whole.code, half.code) == (0, 0)
    resumed = gpucnn("train", "--resume", tmp_path / "half", "--epochs", 2)
    assert resumed.code == 0, resumed.err
    assert resumed.out.startswith("going on after step 6 with lenet5 on shapes (generated), device cpu, run ")
    states = [
        package.load(tmp_path / name / "checkpoint.safetensors")["trainer"]["model"] for name in ("whole", "half")
    ]
    assert states[0].keys() == states[1].keys()
    assert all((states[0][name].numpy() == states[1][name].numpy()).all() for name in states[0])


def test_a_run_with_nothing_left_to_do_says_so(gpucnn: Command, run_folder: Path) -> None:
    told = gpucnn("train", "--resume", run_folder)
    assert told.code == 0
    assert told.out.startswith("nothing is left to do: 2 of 2 epochs are done, --epochs asks for more\n")


def test_eval_agrees_with_the_runs_last_line(gpucnn: Command, run_folder: Path) -> None:
    told = gpucnn("eval", run_folder)
    assert told.code == 0, told.err
    last = json.loads((run_folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert f"accuracy {last['test_accuracy']:.2%}" in told.out
    assert "on the 48 test images of shapes" in told.out


def test_eval_takes_the_weights_themselves_when_told_to(gpucnn: Command, tmp_path: Path) -> None:
    """The lecture network is the one whose recipe has a moving average."""
    done = gpucnn(
        "train", "--data", "shapes", "--batch-size", 16, "--epochs", 1, "--train-images", 64, "--out", tmp_path / "run"
    )
    assert done.code == 0, done.err
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["test_loss"] != last["average_loss"]
    for options, kind, loss in (
        ((), "the moving average of the weights", last["average_loss"]),
        (("--weights",), "the weights", last["test_loss"]),
    ):
        told = gpucnn("eval", tmp_path / "run", *options)
        assert f"after 1 epoch, {kind}, on the 48 test images" in told.out
        assert f"loss {loss:.4f}, accuracy" in told.out


def test_predict_turns_a_photograph_upright(gpucnn: Command, run_folder: Path, tmp_path: Path) -> None:
    """A camera stores its picture as the sensor lies, and how to turn it in EXIF's orientation: 6 is a quarter turn."""
    upright = Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.save(tmp_path / "upright.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "camera.png", exif=exif)
    told = gpucnn("predict", *sorted(tmp_path.glob("*.png")), "--run", run_folder, "--quiet", "--top", 10)
    camera, plain = (line.partition(": ")[2] for line in told.out.splitlines())
    assert camera == plain


def test_eval_and_predict_take_the_newest_run(gpucnn: Command, tmp_path: Path) -> None:
    for name in ("old", "new"):
        assert gpucnn("train", *SHORT, "--out", tmp_path / "runs" / name, "--quiet").code == 0
    os.utime(tmp_path / "runs" / "old" / "checkpoint.safetensors", (1, 1))
    (tmp_path / "runs" / "old" / "checkpoint.safetensors").write_bytes(b"this one would be an error")
    os.utime(tmp_path / "runs" / "old" / "checkpoint.safetensors", (1, 1))
    assert gpucnn("eval").code == 0


def test_the_newest_run_may_be_one_of_several_seeds(gpucnn: Command, tmp_path: Path) -> None:
    done = gpucnn("train", *SHORT, "--runs", 2, "--out", tmp_path / "runs" / "two", "--quiet")
    assert (done.code, done.out.count("standard deviation")) == (0, 2)
    assert gpucnn("eval", "--no-pictures").out.startswith("lenet5 after 2 epochs")


@pytest.mark.parametrize(
    ("size", "mode", "says"),
    [
        ((32, 32), "RGB", None),
        ((64, 48), "RGB", "resized and centre-cropped from 64x48 to 32x32"),
        ((32, 32), "L", "converted from L to RGB"),
        ((5, 90), "RGBA", "resized and centre-cropped from 5x90 to 32x32 and converted from RGBA to RGB"),
    ],
)
def test_predict_names_classes_and_probabilities(
    gpucnn: Command, run_folder: Path, tmp_path: Path, size: tuple[int, int], mode: str, says: str | None
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(tmp_path / "picture.png")
    told = gpucnn("predict", tmp_path / "picture.png", "--run", run_folder, "--top", 10)
    assert told.code == 0, told.err
    lines = told.out.splitlines()
    assert lines[:-1] == ([f"{tmp_path / 'picture.png'}: {says}"] if says else [])
    found = re.findall(r"(\w+) (\d+\.\d)%", lines[-1].partition(": ")[2])
    assert {name for name, _ in found} == set(package.data.Shapes(count=0).classes)
    shares = [float(share) for _, share in found]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.6)


def test_predict_takes_16_bits_for_what_8_would_show(gpucnn: Command, run_folder: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (40, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "8.png")
    Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "16.png")
    told = gpucnn("predict", tmp_path / "8.png", tmp_path / "16.png", "--run", run_folder, "--quiet", "--top", 10)
    eight, sixteen = (line.partition(": ")[2] for line in told.out.splitlines())
    assert sixteen == eight


def test_a_name_that_the_output_cannot_show_is_written_with_escapes(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "gpucnn", "train", *map(str, SHORT), "--train-images", "16", "--test-images", "16"]
    folder = tmp_path / "\u00e9t\u00e9"
    done = subprocess.run([*command, "--out", str(folder)], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\\xe9t\\xe9\n")


def test_predict_sees_what_the_network_sees(
    gpucnn: Command, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test image, saved as a file, gets the class that the network gives it from memory; the third in a batch of its
    own."""
    from gpucnn import training
    from gpucnn.cli import inference

    monkeypatch.setattr(inference, "BATCH", 2)
    images = package.data.Shapes(train=False, count=3)
    loaded = training.load_run(run_folder, "cpu")
    batch, _ = next(iter(loaded.test_loader(images, 3)))
    with package.no_grad():
        expected = loaded.model(batch).numpy().argmax(axis=1)
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for i, file in enumerate(files):
        Image.fromarray(images[i][0]).save(file)
    told = gpucnn("predict", *files, "--run", run_folder, "--top", 1, "--quiet")
    assert [line.rsplit(maxsplit=1)[0] for line in told.out.splitlines()] == [
        f"{file}: {images.classes[k]}" for file, k in zip(files, expected, strict=True)
    ]


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX's")
def test_on_a_terminal_there_is_a_bar(tmp_path: Path) -> None:
    import pty

    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "GPUCNN_DEVICE": "cpu"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "gpucnn", "train", *map(str, SHORT), "--train-images", "64", "--test-images", "16"]
    with subprocess.Popen([*command, "--out", str(tmp_path / "run")], stdout=slave, env=environment) as process:
        os.close(slave)
        shown = b""
        while part := _read(master):
            shown += part
    os.close(master)
    assert process.returncode == 0
    assert b"\x1b[" in shown
    assert b"epoch 2/2" in shown
    assert b"trained lenet5 on shapes" in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other end is closed
        return b""


@pytest.mark.parametrize(
    ("terminal", "variables", "quiet", "rich"),
    [
        (True, {"TERM": "xterm"}, False, True),
        (False, {"TERM": "xterm"}, False, False),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False, False),
        (True, {"TERM": "dumb"}, False, False),
        (True, {"TERM": "xterm"}, True, False),
    ],
)
def test_there_is_drawing_on_terminals_that_want_it(
    terminal: bool, variables: dict[str, str], quiet: bool, rich: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    assert Output(quiet).rich is rich
