"""JSON lines, CSV and TensorBoard: what is written, what a resume takes back, and the line of memory."""

from __future__ import annotations

import csv
import json
import struct
import sys
from pathlib import Path

import pytest

from gpucnn import data, models, training
from gpucnn.data import DataLoader
from gpucnn.optim import SGD
from gpucnn.training.inputs import transforms
from gpucnn.training.loggers import CSVLog, JSONLines, TensorBoard
from gpucnn.training.loop import Trainer
from gpucnn.training.memory import rss_mib
from gpucnn.viz import curves
from tests.training.training_support import contents, lines, small, table


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(curves, "draw", lambda *_: True)


def trainer(*callbacks: training.Callback, log_steps: int = 2) -> Trainer:
    """Four steps an epoch of lenet5, without a folder."""
    train, test = data.Shapes(count=64), data.Shapes(train=False, count=16)
    model = models.create("lenet5", num_classes=len(train.classes), device="cpu")
    for_training, for_evaluation = transforms(model, "shapes")
    return Trainer(
        model,
        DataLoader(train, 16, shuffle=True, transform=for_training, seed=0, device="cpu"),
        DataLoader(test, 16, transform=for_evaluation, device="cpu"),
        SGD(model.parameters(), lr=0.01),
        callbacks=callbacks,
        log_steps=log_steps,
    )


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_json_lines_and_csv_say_the_same(tmp_path):
    both = JSONLines(tmp_path / "m.jsonl"), CSVLog(tmp_path / "m.csv", steps=True)
    records = trainer(*both).run(2)
    read = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert [(r["kind"], r["step"], r["epoch"]) for r in read] == [
        ("steps", 2, 0.5),
        ("steps", 4, 1.0),
        ("epoch", 4, 1),
        ("steps", 6, 1.5),
        ("steps", 8, 2.0),
        ("epoch", 8, 2),
    ]
    assert [r["loss"] for r in read[:2]] != [read[2]["train_loss"]] * 2
    assert sum(r["loss"] for r in read[:2]) / 2 == pytest.approx(read[2]["train_loss"], rel=1e-12)
    for record, line in zip(records, (read[2], read[5]), strict=True):
        assert line == {"kind": "epoch", **record.to_dict(), "rss_mib": line["rss_mib"]}
    parsed = rows(tmp_path / "m.csv")
    assert tuple(parsed[0]) == CSVLog.COLUMNS
    for row, record in zip(parsed, read, strict=True):
        if record["kind"] == "steps":
            record = {**record, "train_loss": record["loss"], "train_accuracy": record["accuracy"]}
        for column, text in row.items():
            if column == "rss_mib":
                assert float(text) > 10
            elif record.get(column) is None:
                assert text == ""
            else:
                assert text == str(record[column]), column


def test_csv_of_epochs_alone_has_a_row_an_epoch(tmp_path):
    trainer(CSVLog(tmp_path / "m.csv")).run(3)
    assert [(row["kind"], row["epoch"], row["val_loss"]) for row in rows(tmp_path / "m.csv")] == [
        ("epoch", "1", ""),
        ("epoch", "2", ""),
        ("epoch", "3", ""),
    ]


def test_a_run_from_the_start_empties_the_file_and_a_longer_run_appends(tmp_path):
    (tmp_path / "m.csv").write_text("something older\n")
    run = trainer(CSVLog(tmp_path / "m.csv"))
    run.run(1)
    run.run(2)
    assert [row["epoch"] for row in rows(tmp_path / "m.csv")] == ["1", "2"]


def test_a_file_goes_on_with_the_columns_that_it_has(tmp_path):
    """A run that another version began."""
    (tmp_path / "m.csv").write_text("epoch,lost_column,train_loss\n1,x,0.5\n")
    log = CSVLog(tmp_path / "m.csv")
    log.load_state_dict(log.state_dict())
    trainer(log).run(1)
    text = (tmp_path / "m.csv").read_text().splitlines()
    assert text[:2] == ["epoch,lost_column,train_loss", "1,x,0.5"] and len(text) == 3
    assert text[2].startswith("1,,") and float(text[2][3:]) > 0


def test_states_have_their_own_names_and_bad_ones_are_refused(tmp_path):
    logs = [JSONLines(tmp_path / "a" / "m.jsonl"), JSONLines(tmp_path / "b" / "m.jsonl"), CSVLog(tmp_path / "m.csv")]
    state = trainer(*logs).state_dict()["callbacks"]
    assert state == {f"{name}": {"bytes": 0} for name in ("JSONLines m.jsonl", "JSONLines m.jsonl#2", "CSVLog m.csv")}
    for length in (-1, 1.5, True, "1"):
        with pytest.raises(ValueError, match=r"the length of m\.csv cannot be"):
            logs[2].load_state_dict({"bytes": length})


@pytest.mark.parametrize("log_steps", [3, 7])
def test_a_resumed_run_has_the_lines_of_one_that_was_not_interrupted(tmp_path, log_steps):
    """Lines of steps and epochs that came after the checkpoint are taken back, in both files."""

    class Dies(training.Silent):
        steps = 0

        def step(self, *_) -> None:
            self.steps += 1
            if self.steps == 19:
                raise RuntimeError("power cut")

    config = small(log_steps=log_steps)
    whole = training.train(config, out=tmp_path / "whole").folder
    folder = tmp_path / "run"
    with pytest.raises(RuntimeError, match="power cut"):
        training.train(config, out=folder, progress=Dies())
    assert [r["step"] for r in lines(folder) if r["kind"] == "steps"] == [*range(log_steps, 20, log_steps)]
    training.train(resume=folder)  # from step 10
    assert contents(folder) == contents(whole)
    assert (lines(folder), table(folder)) == (lines(whole), table(whole))


# ---- TensorBoard -----------------------------------------------------------------------------------------------------


def events(folder: Path) -> list[tuple[str, int, float]]:
    """(tag, step, value) of every event file, in the order of writing; ("start", step, 0) where one begins."""
    from tensorboardX.proto import event_pb2

    found = []
    for path in sorted(folder.glob("events.out.tfevents.*"), key=lambda file: file.stat().st_mtime_ns):
        stream = path.read_bytes()
        while stream:  # TFRecord: length, its checksum, data, its checksum
            (length,) = struct.unpack("<Q", stream[:8])
            event = event_pb2.Event.FromString(stream[12 : 12 + length])
            stream = stream[16 + length :]
            if event.HasField("session_log"):
                found.append(("start", event.step, 0.0))
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return found


def test_tensorboard_has_every_figure_by_its_step(tmp_path):
    board = TensorBoard(tmp_path / "board")
    run = trainer(JSONLines(tmp_path / "m.jsonl"), board)
    (record,) = run.run(1)
    found = {(tag, step): value for tag, step, value in events(tmp_path / "board")}
    first = json.loads((tmp_path / "m.jsonl").read_text().splitlines()[0])
    for tag, step, value in (
        ("steps/loss", 2, first["loss"]),
        ("steps/accuracy", 2, first["accuracy"]),
        ("steps/lr", 2, 0.01),
        ("loss/train", 4, record.train_loss),
        ("loss/test", 4, record.test_loss),
        ("accuracy/test", 4, record.test_accuracy),
        ("epochs/lr", 4, record.lr),
        ("epochs/train_seconds", 4, record.train_seconds),
    ):
        assert found[tag, step] == pytest.approx(value, rel=1e-6)
    assert ("epochs/rss_mib", 4) in found
    assert not any(tag.split("/")[1] in ("average", "val", "tta") for tag, _ in found)
    assert board._writer is None  # closed at the end


def test_tensorboard_forgets_what_came_after_a_checkpoint(tmp_path):
    class Dies(training.Silent):
        steps = 0

        def step(self, *_) -> None:
            self.steps += 1
            if self.steps == 15:
                raise RuntimeError("power cut")

    folder = tmp_path / "run"
    with pytest.raises(RuntimeError, match="power cut"):
        training.train(small(log_steps=2, tensorboard=True), out=folder, progress=Dies())
    before = events(folder / "tensorboard")
    assert [step for tag, step, _ in before if tag == "steps/loss"] == [2, 4, 6, 8, 10, 12, 14]
    training.train(resume=folder)
    after = events(folder / "tensorboard")
    assert after[: len(before)] == before and after[len(before)] == ("start", 11, 0.0)
    assert [step for tag, step, _ in after[len(before) :] if tag == "steps/loss"] == [12, 14, 16, 18, 20]
    (folder / "tensorboard" / "mine.txt").write_text("kept")
    training.train(small(epochs=0), out=folder, overwrite=True)
    assert [path.name for path in (folder / "tensorboard").iterdir()] == ["mine.txt"]


def test_without_tensorboardx_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"need tensorboardX, .*: pip install 'gpucnn\[tensorboard\]'"):
        TensorBoard(tmp_path)
    with pytest.raises(ImportError, match="need tensorboardX"):
        training.train(small(tensorboard=True), out=tmp_path / "run")


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_the_memory_of_the_process_is_seen():
    before = rss_mib()
    assert before is not None and 10 < before < 100_000
    held = bytearray(64 << 20)
    held[::4096] = b"x" * len(held[::4096])
    assert 48 < rss_mib() - before < 80
    del held


def test_a_run_of_forty_epochs_keeps_a_flat_memory_line(tmp_path):
    config = small(epochs=40, train_images=48, test_images=16, val_split=16, log_steps=1, checkpoint_steps=1)
    training.train(config, out=tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    line = [record["rss_mib"] for record in records if record["kind"] == "epoch"]
    assert len(line) == 40
    assert max(line[-5:]) - min(line[5:10]) < 4, line
