"""What is made of records: tables, pictures, and the blocks of the documents, which are held to the records here."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from gpucnn.bench import documents, pictures, tables
from gpucnn.bench.record import Record
from gpucnn.bench.sections import (
    Footprint,
    Latency,
    LatencyResult,
    Memory,
    MemoryResult,
    Operator,
    OperatorResult,
    Steps,
    StepsResult,
)
from gpucnn.cli import main

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "docs" / "performance.md"]
CPU = "Some CPU, 2 cores"


def steps_result(framework: str, device: str, layout: str, *speeds: float, memory: int | None = None) -> StepsResult:
    return StepsResult(framework, "1.0", device, CPU if device == "cpu" else "Some GPU", layout, speeds, memory)


def operator(kind: str, layer: str, direction: str, ours: float, channels_last: float, contiguous: float) -> Operator:
    results = (
        OperatorResult("gpucnn", "channels_last", (ours,)),
        OperatorResult("PyTorch", "channels_last", (channels_last,)),
        OperatorResult("PyTorch", "contiguous", (contiguous,)),
    )
    return Operator(kind, "lecture", layer, direction, "cpu", "2x3x4x4", results)


@pytest.fixture
def record() -> Record:
    """Two devices, PyTorch on each, its layouts apart; figures that are easy to divide."""
    machine = {
        "cpu": "Some CPU", "commit": "0123456789abcdef", "versions": {"gpucnn": "0.1.0", "numpy": "2.0"},
        "blas": [{"name": "openblas", "version": "1", "threads": 1, "architecture": "X"}], "threads": 2,
        "gpus": [{"name": "Some GPU", "driver": "570", "memory_mib": 1.0, "power_limit_watts": 700.0}],
    }  # fmt: skip
    lecture = (
        steps_result("gpucnn", "cpu", "channels_last", 500.0, 900.0, 830.0, 800.0, 860.0, memory=300 << 20),
        steps_result("PyTorch", "cpu", "channels_last", 415.0, 415.0, 415.0, memory=600 << 20),
        steps_result("PyTorch", "cpu", "contiguous", 410.0, 999.0, 400.0),
        steps_result("gpucnn", "cuda:0", "channels_last", 41_500.0),
        steps_result("PyTorch", "cuda:0", "contiguous", 83_000.0),
    )
    ready = tuple(
        Steps("lecture", size, threads, 3, "synthetic", (
            steps_result("gpucnn", "cpu", "channels_last", 10.0 * size * threads),
            steps_result("PyTorch", "cpu", "contiguous", 5.0 * size),
        ))
        for size in (1, 128) for threads in (1, 2)
    )  # fmt: skip
    return Record(
        "2026-01-02", machine, (Steps("lecture", 128, 2, 20, "cifar10", lecture), *ready),
        (Latency("lecture", 1, (
            LatencyResult("gpucnn", "1.0", "cpu", "channels_last", (0.003,)),
            LatencyResult("PyTorch", "1.0", "cpu", "channels_last", (0.004,)),
            LatencyResult("PyTorch", "1.0", "cpu", "contiguous", (0.002,)),
        )),),
        (
            operator("conv", "conv1", "fprop", 1.0, 4.0, 2.0), operator("conv", "conv2", "fprop", 1.0, 8.0, 9.0),
            operator("relu", "conv1", "forward", 4.0, 1.0, 2.0),
        ),
        (Memory("lecture", 128, (
            MemoryResult("gpucnn", "channels_last", "cpu", 100 << 20),
            MemoryResult("PyTorch", "contiguous", "cpu", 400 << 20),
        )),),
        (Footprint("gpucnn", "0.1.0", (0.1, 0.3, 0.2), 50 << 20), Footprint("PyTorch", "1.0", (1.5,), None)),
    )  # fmt: skip


def test_the_lectures_rows_come_first_then_each_machines(record: Record) -> None:
    rows = tables.lecture([record]).rows
    assert rows[:4] == [
        ("2 x AMD Opteron 6168", "TensorFlow, 2017", "440", "", "1.06", "", ""),
        ("i7-7500U", "TensorFlow, 2017", "415", "", "1.00", "", ""),
        ("GeForce 940MX", "TensorFlow, 2017", "1,190", "", "2.87", "", ""),
        ("GeForce 1070", "TensorFlow, 2017", "6,500", "", "15.7", "", ""),
    ]
    assert rows[4:] == [
        # median of five; 20th and 80th percentile; 830 / 415; itself; 830 / 415 (the better of PyTorch's two medians)
        (CPU, "gpucnn 1.0", "830", "740 to 868", "2.00", "1.00", "2.00"),
        (CPU, "PyTorch 1.0 (channels_last)", "415", "415 to 415", "1.00", "0.50", ""),
        ("Some GPU", "gpucnn 1.0", "41,500", "41,500 to 41,500", "100.0", "50.0", "0.50"),
        ("Some GPU", "PyTorch 1.0 (contiguous)", "83,000", "83,000 to 83,000", "200.0", "100.0", ""),
    ]


def test_the_notes_say_what_the_figures_are_figures_of(record: Record) -> None:
    parts = [
        "batch 128",
        "2 threads of the CPU",
        "median of 5 repeats of 20 steps",
        "input pipeline included (cifar10)",
        "2026-01-02",
    ]
    parts += ["0123456789ab", "numpy 2.0", "openblas with 1 thread; gpucnn with 2 threads of one BLAS thread each"]
    parts += ["driver 570", "power limit 700 W"]
    for text in (tables.lecture([record]).text(), tables.lecture([record]).markdown()):
        assert [part for part in parts if part not in text] == []


def test_the_command_prints_a_record_and_renders_a_document(
    record: Record, document: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--report", str(tmp_path / "results" / "record.json")]) == 0
    assert capfd.readouterr().out == tables.as_markdown(record) + "\n"
    assert main(["bench", "--report", str(document)]) == 0
    assert str(document) in capfd.readouterr().out
    assert "17" not in document.read_text()
    (tmp_path / "results" / "record.json").write_text("{}")
    assert main(["bench", "--report", str(document)]) == 2
    assert "schema is None, expected 2" in capfd.readouterr().err


def test_the_other_sections_by_arithmetic(record: Record) -> None:
    assert tables.steps([record]).rows[0][3:] == (
        "830 (740 to 868)", "415 (415 to 415, channels_last)", "2.00", "300", "600"
    )  # fmt: skip
    assert tables.latency([record]).rows == [("lecture network", "cpu", "1", "3.00", "2.00", "1.50")]
    assert tables.operators([record]).rows == [
        ("conv fprop", "cpu", "2", "4.00", "2.00", "8.00", "0"),  # the root of 2 x 8
        ("relu forward", "cpu", "1", "0.25", "0.25", "0.25", "1"),
        ("all of them", "cpu", "3", "1.59", "0.25", "8.00", "1"),  # the cube root of 2 x 8 / 4
    ]
    assert tables.every_operator([record]).rows[0] == (
        "conv", "fprop", "lecture conv1", "2x3x4x4", "cpu", "1000.000", "2000.000", "contiguous", "2.00"
    )  # fmt: skip
    assert tables.batches([record]).rows == [
        ("lecture network", "1", "20", "5", "4.00", "", ""),
        ("lecture network", "128", "2,560", "640", "4.00", "100", "400"),
    ]
    assert tables.cores([record]).rows == [
        ("lecture network", "gpucnn", "1,280", "2", "2,560", "2.00"),
        ("lecture network", "PyTorch", "640", "2", "640", "1.00"),
    ]
    assert tables.footprint([record]).rows == [("gpucnn", "0.1.0", "0.200", "50"), ("PyTorch", "1.0", "1.500", "")]


def test_the_terminal_sees_every_section_that_was_measured(record: Record) -> None:
    text = tables.as_text(record)
    assert [word for word in ("GeForce 1070", "relu forward", "0.200", "2,560", "3.00") if word not in text] == []
    assert tables.as_text(Record("2026-01-02", {})) == ""


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_every_picture_is_drawn_and_says_what_it_is_of(name: str, record: Record, tmp_path: Path) -> None:
    pictures.PICTURES[name].draw([record], tmp_path / "it.png", {"Source": "record.json:0123"})
    with Image.open(tmp_path / "it.png") as image:
        assert image.info["Source"] == "record.json:0123"
        colours = image.convert("RGB").getcolors(1 << 24)
        assert colours is not None
        assert len(colours) > 10


def test_a_picture_of_nothing_is_refused(tmp_path: Path) -> None:
    for name in ("scaling", "operators"):
        with pytest.raises(ValueError, match="figures must be positive, got none"):
            pictures.PICTURES[name].draw([Record("2026-01-02", {})], tmp_path / "it.png", None)
    assert list(tmp_path.iterdir()) == []


DOCUMENT = """before
<!-- bench: footprint results/record.json -->
typed by hand: 17
<!-- end of bench -->
between
<!-- bench: picture operators images/operators.png results/record.json -->
<!-- end of bench -->
after
"""


@pytest.fixture
def document(record: Record, tmp_path: Path) -> Path:
    record.write(tmp_path / "results" / "record.json")
    (tmp_path / "images").mkdir()
    path = tmp_path / "README.md"
    path.write_text(DOCUMENT)
    return path


def test_blocks_are_made_anew_and_the_rest_stays(document: Path) -> None:
    written = documents.render(document)
    lines = document.read_text().splitlines()
    assert written == [document.parent / "images" / "operators.png", document]
    assert [lines[0], lines[7], lines[-1]] == ["before", "between", "after"]
    assert "17" not in document.read_text()
    assert lines[2:6] == [
        "| framework | version | import, seconds | installed, MiB |",
        "| --- | --- | ---: | ---: |",
        "| gpucnn | 0.1.0 | 0.200 | 50 |",
        "| PyTorch | 1.0 | 1.500 |  |",
    ]
    assert "![Speed of single operators against PyTorch](images/operators.png)" in lines
    assert documents.render(document) == [document.parent / "images" / "operators.png"]  # nothing else to change


def test_a_picture_names_the_digest_of_its_record(document: Path) -> None:
    documents.render(document)
    (block,) = [b for b in documents.blocks(document.read_text(), document.parent) if b.picture is not None]
    with Image.open(document.parent / "images" / "operators.png") as image:
        assert image.info["Source"] == block.source()
    record = document.parent / "results" / "record.json"
    record.write_text(record.read_text() + " ")
    assert block.source() not in image.info["Source"]


@pytest.mark.parametrize(("words", "message"), [
    ("tables record.json", "no section 'tables'; there is lecture, steps"),
    ("steps", "section 'steps' names no record"),
    ("picture operators", "expected picture NAME FILE.png RECORD"),
    ("picture pie it.png record.json", "no section 'pie'; there is devices"),
])  # fmt: skip
def test_a_block_that_makes_no_sense_is_refused(words: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"bench: {message}"):
        documents.rendered(f"<!-- bench: {words} -->\n<!-- end of bench -->\n", tmp_path)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_documents_say_what_the_records_say(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(list(documents.blocks(text, path.parent))) >= 3
    assert documents.rendered(text, path.parent) == text
    assert text.count("<!-- bench:") == text.count("<!-- end of bench -->") == len(list(documents.BLOCK.finditer(text)))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_documents_pictures_are_of_the_records_beside_them(path: Path) -> None:
    for block in documents.blocks(path.read_text(encoding="utf-8"), path.parent):
        if block.picture is not None:
            with Image.open(block.picture) as image:
                assert image.info["Source"] == block.source()
