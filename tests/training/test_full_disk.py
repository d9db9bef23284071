"""A disk that is full while a run writes: the old checkpoint stays whole, the run stops with the reason, and goes on
when there is room again."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpucnn import load, serialization, training
from gpucnn.training import loggers
from gpucnn.viz import curves
from tests.training.training_support import Recorder, contents, lines, small, table

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(curves, "draw", lambda *_: True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    summary = training.train(small(val_split=30), out=tmp_path_factory.mktemp("whole") / "run")
    return summary.folder


class _Disk:
    """In the place of ``open`` and ``os`` in gpucnn.serialization: a disk that is full from its n-th file on, when
    the file is opened, half written, synced or renamed."""

    def __init__(self, moment: str, file: str, count: int) -> None:
        self.moment, self.file, self.left = moment, f".{file}.", count
        self.whole = b""  # the file that was there when the disk was full

    def __getattr__(self, name: str):
        return getattr(os, name)

    def open_file(self, path, mode="r"):
        if mode == "xb" and self.file in os.path.basename(path):
            self.left -= 1
            if not self.left:
                target = Path(path).with_name(self.file[1:-1])
                self.whole = target.read_bytes() if target.exists() else b""
                self._full("open")
        opened = open(path, mode)  # noqa: SIM115 - the caller closes it
        if mode == "xb":
            inner = opened.write

            def write(data):
                if self._now("write"):
                    inner(data[: len(data) // 2])
                    opened.flush()
                    self._full("write")
                return inner(data)

            return _File(opened, write)
        return opened

    def fsync(self, descriptor: int) -> None:
        self._full("fsync")
        os.fsync(descriptor)

    def replace(self, source, target) -> None:
        self._full("replace")
        os.replace(source, target)

    def _now(self, moment: str) -> bool:
        return self.left == 0 and moment == self.moment

    def _full(self, moment: str) -> None:
        if self._now(moment):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _File:
    def __init__(self, opened, write) -> None:
        self._opened, self.write = opened, write

    def __getattr__(self, name: str):
        return getattr(self._opened, name)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._opened.close()


@pytest.mark.parametrize(
    ("moment", "file", "count", "step"),
    [
        *((moment, "checkpoint", 7, 10) for moment in ("open", "write", "fsync", "replace")),
        ("write", "best", 1, 8),
        ("replace", "best", 1, 8),
        ("write", "checkpoint", 1, 0),
    ],
)
def test_the_old_checkpoint_stays_whole(whole, tmp_path, monkeypatch, moment, file, count, step):
    """A checkpoint in the second epoch, the best one of the first epoch, and the one that a run begins with."""
    folder, name = tmp_path / "run", f"{file}.safetensors"
    disk = _Disk(moment, name, count)
    monkeypatch.setattr(serialization, "open", disk.open_file, raising=False)
    monkeypatch.setattr(serialization, "os", disk)
    with pytest.raises(training.TrainingError) as raised:
        training.train(small(val_split=30, checkpoint_steps=2), out=folder)
    monkeypatch.undo()
    message = str(raised.value)
    assert f"{folder / name} could not be written after step {step}: No space left on device" in message
    assert raised.value.step == step
    assert [p.name for p in folder.glob(".*")] == []
    if step == 0:
        assert message.endswith("; no checkpoint was written")
        assert not (folder / name).exists()
        training.train(small(val_split=30), out=folder)  # nothing there to resume, nothing to overwrite
    else:
        kept = load(folder / "checkpoint.safetensors", device="cpu")["trainer"]["step"]
        assert kept > 0 and f"; the checkpoint of step {kept} stays: {folder / 'checkpoint.safetensors'}" in message
        assert (folder / name).read_bytes() == disk.whole if disk.whole else not (folder / name).exists()
        training.train(resume=folder)
    assert contents(folder) == contents(whole)
    assert contents(folder, "best.safetensors") == contents(whole, "best.safetensors")
    assert (lines(folder), table(folder)) == (lines(whole), table(whole))


def test_a_row_of_the_metrics_that_does_not_fit_is_taken_back(whole, tmp_path, monkeypatch):
    """The write of the second epoch's line stops in the middle."""
    folder = tmp_path / "run"
    monkeypatch.setattr(loggers, "open", _open_on_a_disk_that_fills, raising=False)
    with pytest.raises(training.TrainingError, match=r"metrics.jsonl cannot be written after step 16: No space left"):
        training.train(small(val_split=30), out=folder)
    monkeypatch.undo()
    assert lines(folder) == lines(whole)[:1] and table(folder) == table(whole)[:1]
    training.train(resume=folder)
    assert contents(folder) == contents(whole)
    assert (lines(folder), table(folder)) == (lines(whole), table(whole))


def _open_on_a_disk_that_fills(path, mode="r", **options):
    """Of the second epoch's line 40 bytes fit."""
    file = open(path, mode, **options)  # noqa: SIM115 - the caller closes it
    full = False

    def write(data) -> int:
        nonlocal full
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        full = b'"epoch": 2' in bytes(data)
        return file.write(data[:40] if full else data)

    return _File(file, write) if str(path).endswith("metrics.jsonl") and mode == "ab" else file


def _own_disks() -> bool:
    """Whether this system lets us have a small disk of our own, in a name space that ends with its process."""
    try:
        command = ["unshare", "-Urm", "mount", "-t", "tmpfs", "-o", "size=4k", "none", "/mnt"]
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


# A run in a folder on a disk of 640 KiB, whose files are copied away before the disk is gone.
SMALL_DISK = """
mount -t tmpfs -o size=640k none "$1" && shift || exit 99
"$@"; code=$?
cp -a "$DISK/run" "$KEPT"; exit $code
"""

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
from gpucnn.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="limits and mounts as POSIX has them")
@pytest.mark.parametrize("way", ["limit", *(["disk"] if _own_disks() else [])])
def test_a_disk_that_is_really_full_is_one_line_and_exit_code_1(tmp_path, way):
    """The first checkpoint fits (no momentum yet); with momentum there is no room for a second one beside the first."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    options = "train --model lenet5 --data shapes --batch-size 16 --train-images 150 --test-images 40 --epochs 2"
    run = [*options.split(), "--checkpoint-steps", "3", "--quiet", "--device", "cpu"]
    if way == "disk":
        folder = disk / "run"
        program = [sys.executable, "-m", "gpucnn", *run, "--out", str(folder)]
        command = ["unshare", "-Urm", "sh", "-c", SMALL_DISK, "sh", str(disk), *program]
    else:
        folder = kept
        command = [sys.executable, "-c", LIMITED, *run, "--out", str(folder)]
    paths = [str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "DISK": str(disk), "KEPT": str(kept)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, (done.stdout, done.stderr)
    reason = "No space left on device" if way == "disk" else "File too large"
    assert done.stderr == (
        f"gpucnn: {folder}/checkpoint.safetensors could not be written after step 3: {reason};"
        f" the checkpoint of step 0 stays: {folder}/checkpoint.safetensors\n"
    )
    assert load(kept / "checkpoint.safetensors", device="cpu")["trainer"]["step"] == 0
    assert [p.name for p in kept.glob(".*")] == []
    summary = training.train(resume=kept, progress=Recorder())
    assert summary.steps == 20
    records = [json.loads(line) for line in (kept / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
