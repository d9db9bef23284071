"""CIFAR-10 in both published versions, whole and hostile."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from gpucnn import data
from gpucnn.data import CIFAR10, DataError, NotFoundError
from gpucnn.data.sources import ArchiveSource, unpack
from tests.data.data_writers import (
    COUNT,
    archive,
    binary_folder,
    hostile_archive,
    modern_pickle,
    python2_pickle,
    python_folder,
)


def _expected(batches: list[tuple[np.ndarray, list[int]]]) -> tuple[np.ndarray, list[int]]:
    """Pixel by pixel from the description: plane c, row y, column x is byte 1024 c + 32 y + x."""
    rows = [row for pixels, _ in batches for row in pixels]
    images = np.empty((len(rows), 32, 32, 3), dtype=np.uint8)
    for n, row in enumerate(rows):
        for c in range(3):
            for y in range(32):
                images[n, y, :, c] = row[1024 * c + 32 * y : 1024 * c + 32 * y + 32]
    return images, [label for _, labels in batches for label in labels]


@pytest.fixture(params=["python", "binary"])
def version(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[tuple[np.ndarray, list[int]]]]:
    """The folder of a version with its batches."""
    if request.param == "python":
        return tmp_path / "cifar-10-batches-py", python_folder(tmp_path)
    return tmp_path / "cifar-10-batches-bin", binary_folder(tmp_path)


@pytest.mark.parametrize("place", ["folder", "parent", "archive", "parts"])
def test_both_versions_give_the_same_pixels_from_every_place(version, place, tmp_path):
    folder, batches = version
    root = {"folder": folder, "parent": folder.parent}.get(place)
    if place == "archive":
        root = archive(folder, tmp_path / "cifar-10-python.tar.gz")
    elif place == "parts":
        root = tmp_path / "elsewhere"
        (root / "cifar-10").mkdir(parents=True)
        for i, file in enumerate(sorted(folder.iterdir())):
            with tarfile.open(root / "cifar-10" / f"part{i}.tar.gz", "w:gz") as tar:
                tar.add(file, arcname=f"{folder.name}/{file.name}")
    for train in (True, False):
        images, labels = _expected(batches[:5] if train else batches[5:])
        dataset = CIFAR10(root, train=train, images_per_batch=COUNT)
        assert dataset.images.dtype == np.uint8 and dataset.images.flags.c_contiguous
        np.testing.assert_array_equal(dataset.images, images)
        assert dataset.labels.dtype == np.int64 and dataset.labels.tolist() == labels
        assert (dataset.name, dataset.train, len(dataset)) == ("cifar10", train, len(images))
        assert dataset.classes[:2] == ("airplane", "automobile") and len(dataset.classes) == 10
        image, label = dataset[3]
        assert np.array_equal(image, images[3]) and label == labels[3]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F"])
def test_pickles_of_every_protocol_are_read(tmp_path, protocol, order):
    batches = python_folder(tmp_path)
    pixels, labels = batches[5]
    file = tmp_path / "cifar-10-batches-py" / "test_batch"
    file.write_bytes(modern_pickle(np.asarray(pixels, order=order), labels, protocol))
    np.testing.assert_array_equal(
        CIFAR10(tmp_path, train=False, images_per_batch=COUNT).images, _expected(batches[5:])[0]
    )


class _Runs:
    """Pickles into a call of ``function``."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def _test_batch(tmp_path: Path, content: bytes) -> Path:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir(exist_ok=True)
    (folder / "test_batch").write_bytes(content)
    return folder / "test_batch"


@pytest.mark.parametrize("where", ["value", "labels", "key", "data"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, where, protocol):
    trace = tmp_path / "ran"
    harm = _Runs(Path.touch, trace)
    pixels, labels = np.zeros((COUNT, 3072), np.uint8), [1] * COUNT
    content = {
        "value": {b"data": pixels, b"labels": labels, b"more": harm},
        "labels": {b"data": pixels, b"labels": harm},
        "key": {b"data": pixels, b"labels": labels, (harm,): 1},
        "data": {b"data": harm, b"labels": labels},
    }[where]
    file = _test_batch(tmp_path, pickle.dumps(content, protocol))
    with pytest.raises(DataError, match=r"test_batch: refused: this pickle names .*, which would run code"):
        CIFAR10(tmp_path, train=False, images_per_batch=COUNT)
    assert not trace.exists()
    pickle.loads(file.read_bytes())  # the test itself is right: the ordinary unpickler would have run it
    assert trace.exists()


@pytest.mark.parametrize(
    "name", ["os.system", "builtins.eval", "builtins.getattr", "numpy.load", "numpy.fromfile", "copyreg._reconstructor"]
)
def test_the_refusal_names_what_was_asked_for(tmp_path, name):
    module, function = name.rsplit(".", 1)
    _test_batch(tmp_path, b"\x80\x02c" + f"{module}\n{function}\n".encode() + b"U\x01x\x85R.")
    with pytest.raises(DataError, match=f"refused: this pickle names {name}"):
        CIFAR10(tmp_path, train=False)


def _state(shape: bytes, code: bytes, raw: bytes) -> bytes:
    """A batch whose array claims a shape and a type; ``shape`` and ``code`` are opcodes."""
    out = b"\x80\x02}(U\x06labels](K\x01eU\x04data"
    out += b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + shape
    out += b"cnumpy\ndtype\n" + code + b"K\x00K\x01\x87R\x89"
    return out + b"T" + len(raw).to_bytes(4, "little") + raw + b"tbu."


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not a readable pickle"),
        (b"no pickle at all", "not a readable pickle"),
        (pickle.dumps([1, 2]), "expected a pickled dict, found list"),
        (pickle.dumps({b"data": 1}), "found no labels"),
        (pickle.dumps({b"data": 1, b"labels": [1]}), "expected an array of uint8, found int"),
        (_state(b"K\x01M\x00\x0c\x86", b"U\x02u1", bytes(3071)), r"shape \(1, 3072\), expected 3072 bytes, found 3071"),
        (_state(b"K\x01M\x00\x0c\x86", b"U\x02u1", bytes(3073)), r"expected 3072 bytes, found 3073"),
        (_state(b"K\x01M\x00\x0c\x86", b"U\x02O8", bytes(3072)), "found elements of type b'O8'"),
        (_state(b"J\xff\xff\xff\xffM\x00\x0c\x86", b"U\x02u1", bytes(3072)), r"found the shape \(-1, 3072\)"),
        (_state(b"K\x02M\x00\x06\x86", b"U\x02u1", bytes(3072)), r"expected 1 images .* shape \(2, 1536\)"),
        (modern_pickle(np.zeros((1, 3072), np.float32), [1], 2), "found elements of type"),
        (
            python2_pickle(np.zeros((2, 3072), np.uint8), [1, 2]),
            r"expected 1 images of 3072 bytes, found .*\(2, 3072\)",
        ),
        (python2_pickle(np.zeros((1, 3072), np.uint8), [1, 2]), "expected 1 labels, found 2"),
        (python2_pickle(np.zeros((1, 3072), np.uint8), [10]), "label 10 of example 0 is out of range, expected 0 to 9"),
        (modern_pickle(np.zeros((1, 3072), np.uint8), [-1], 2), "label -1 of example 0 is out of range"),
        (modern_pickle(np.zeros((1, 3072), np.uint8), [10**30], 2), "label 1000000000000000000000000000000 of"),
        (modern_pickle(np.zeros((1, 3072), np.uint8), [1 << 40_000], 2), "label a number without end of example 0"),
        (
            _state(b"K\x01\x8b" + (5000).to_bytes(4, "little") + b"\x01" * 5000 + b"\x86", b"U\x02u1", bytes(3072)),
            r"has shape a number without end, expected a number without end bytes, found 3072",
        ),
        (modern_pickle(np.zeros((1, 3072), np.uint8), ["cat"], 2), "expected labels as a list of ints"),
    ],
)
def test_a_damaged_python_batch_names_file_expected_and_found(tmp_path, content, problem):
    file = _test_batch(tmp_path, content)
    with pytest.raises(DataError, match=problem) as raised:
        CIFAR10(tmp_path, train=False, images_per_batch=1)
    assert str(file) in str(raised.value)


def test_a_pickle_that_files_something_under_a_large_number_costs_no_memory(tmp_path):
    """A table of that length is what the unpickler in C makes: seven bytes, thirty gigabytes."""
    pixels = np.zeros((COUNT, 3072), np.uint8)
    content = python2_pickle(pixels, [3] * COUNT)
    assert content[2:3] == b"}"
    tracemalloc.start()
    try:
        for number in (1 << 22, (1 << 32) - 1):  # the first of them is no more than 64 MiB
            _test_batch(tmp_path, content[:3] + b"r" + number.to_bytes(4, "little") + content[3:])
            np.testing.assert_array_equal(CIFAR10(tmp_path, train=False, images_per_batch=COUNT).labels, 3)
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("keep", [1, 100, 3000, -1])
def test_a_pickle_cut_off_anywhere_is_an_error(tmp_path, keep):
    pixels, labels = np.zeros((COUNT, 3072), np.uint8), [3] * COUNT
    _test_batch(tmp_path, python2_pickle(pixels, labels)[:keep])
    with pytest.raises(DataError, match="not a readable pickle"):
        CIFAR10(tmp_path, train=False, images_per_batch=COUNT)


@pytest.mark.parametrize("change", [-1, 1, -3073, 3073])
def test_a_binary_batch_of_the_wrong_length_says_both_lengths(tmp_path, change):
    binary_folder(tmp_path)
    file = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    content = file.read_bytes()
    file.write_bytes(content[:change] if change < 0 else content + bytes(change))
    message = (
        f"data_batch_3.bin: expected {COUNT} records of 3073 bytes = {COUNT * 3073}, found {COUNT * 3073 + change}"
    )
    with pytest.raises(DataError, match=message):
        CIFAR10(tmp_path, images_per_batch=COUNT)


def test_a_binary_label_out_of_range_is_an_error(tmp_path):
    binary_folder(tmp_path)
    file = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    content = bytearray(file.read_bytes())
    content[2 * 3073] = 10
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"test_batch.bin: label 10 of example 2 is out of range, expected 0 to 9"):
        CIFAR10(tmp_path, train=False, images_per_batch=COUNT)


def test_a_file_that_is_no_batch_by_its_size_is_not_read(tmp_path):
    file = _test_batch(tmp_path, b"")
    with file.open("wb") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(DataError, match=r"test_batch: expected at most 67108864 bytes, found 1099511627776"):
        CIFAR10(tmp_path, train=False)


def test_a_missing_batch_names_itself(tmp_path):
    python_folder(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(DataError, match=r"data_batch_4: cannot be read \(No such file"):
        CIFAR10(tmp_path, images_per_batch=COUNT)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_a_truncated_archive_is_an_error(tmp_path, part):
    python_folder(tmp_path / "whole")
    path = archive(tmp_path / "whole" / "cifar-10-batches-py", tmp_path / "cifar-10-python.tar.gz")
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    for root in (path, tmp_path):
        with pytest.raises(DataError, match=r"cifar-10-python.tar.gz: not a whole tar archive"):
            CIFAR10(root, images_per_batch=COUNT)
    with pytest.raises(DataError, match="not a whole tar archive"):
        unpack(path, tmp_path / "cache", "cifar-10-batches-py")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_member_larger_than_any_batch_is_not_read(tmp_path):
    python_folder(tmp_path / "whole", count=2)
    path = archive(tmp_path / "whole" / "cifar-10-batches-py", tmp_path / "a.tar.gz")
    size = (tmp_path / "whole" / "cifar-10-batches-py" / "test_batch").stat().st_size
    assert ArchiveSource([path], ["test_batch"], size).has("test_batch")
    with pytest.raises(DataError, match=rf"a.tar.gz: .*test_batch: expected at most {size - 1} bytes, found {size}"):
        ArchiveSource([path], ["test_batch"], size - 1)


def test_an_archive_of_something_else_says_what_is_missing(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_bytes(b"x")
    path = archive(tmp_path / "other", tmp_path / "a.tar.gz")
    with pytest.raises(NotFoundError, match="no CIFAR-10 there"):
        CIFAR10(path)
    (tmp_path / "plain.txt").write_bytes(b"x")
    with pytest.raises(DataError, match="expected a folder or an archive"):
        CIFAR10(tmp_path / "plain.txt")


def _link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../escaped"),
        tarfile.TarInfo("cifar-10-batches-py/../../escaped"),
        tarfile.TarInfo("/escaped"),
        tarfile.TarInfo("..\\escaped"),
        tarfile.TarInfo("C:escaped"),
        _link("cifar-10-batches-py/test_batch", "/etc/passwd", tarfile.SYMTYPE),
        _link("cifar-10-batches-py/test_batch", "../../secret", tarfile.SYMTYPE),
        _link("cifar-10-batches-py/test_batch", "../../secret", tarfile.LNKTYPE),
        _link("cifar-10-batches-py/test_batch", "", tarfile.CHRTYPE),
    ],
    ids=[
        "parent",
        "hidden parent",
        "absolute",
        "backslash",
        "drive",
        "absolute link",
        "relative link",
        "hard link",
        "device",
    ],
)
def test_nothing_leaves_the_folder_that_an_archive_is_unpacked_to(tmp_path, member):
    (tmp_path / "secret").write_bytes(b"secret")
    path = hostile_archive(tmp_path / "evil.tar.gz", member)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(DataError, match=r"evil.tar.gz: refused: "):
        unpack(path, tmp_path / "deep" / "cache", "cifar-10-batches-py")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "deep") == before
    assert [p for p in (tmp_path / "deep").rglob("*") if p.name != "cache"] == []
    with pytest.raises(NotFoundError):  # read in memory, links and devices are simply not there
        CIFAR10(path, train=False)


def test_unpacking_is_all_or_nothing_and_lets_another_process_be_first(tmp_path):
    python_folder(tmp_path / "whole")
    path = archive(tmp_path / "whole" / "cifar-10-batches-py", tmp_path / "a.tar.gz")
    for _ in range(2):
        target = unpack(path, tmp_path / "cache", "cifar-10-batches-py")
        assert [p.name for p in (tmp_path / "cache").iterdir()] == ["cifar-10-batches-py"]
        assert len(CIFAR10(target, images_per_batch=COUNT)) == 5 * COUNT


def test_data_is_looked_for_in_gpucnn_data_then_in_the_cache(tmp_path, clean_environment):
    clean_environment.setenv("GPUCNN_CACHE_DIR", str(tmp_path / "cache"))
    clean_environment.setenv("GPUCNN_DATA", str(tmp_path / "named"))
    with pytest.raises(NotFoundError, match=r"CIFAR-10 is not in .*named or .*cache.data, and it was not to be"):
        CIFAR10(download=False)
    python_folder(tmp_path / "cache" / "data")
    assert "cache" in CIFAR10(download=False, images_per_batch=COUNT).source
    python_folder(tmp_path / "named")
    assert "named" in CIFAR10(download=False, images_per_batch=COUNT).source


def test_by_name(tmp_path):
    python_folder(tmp_path)
    assert len(data.create("CIFAR-10", train=False, root=tmp_path, images_per_batch=COUNT)) == COUNT
    with pytest.raises(
        ValueError,
        match=r"unknown data set 'cifar11', known are cifar10, cifar100, fashion_mnist, folder, mnist, shapes",
    ):
        data.create("cifar11")


def test_find_takes_shapes_only_where_nothing_was_asked_for_and_nothing_is_there(tmp_path):
    said: list[str] = []
    train, test = data.find(root=tmp_path, say=said.append)
    assert (train.name, train.train, test.name, test.train) == ("shapes", True, "shapes", False)
    assert len(said) == 1 and "\n" not in said[0] and "cifar10 cannot be had" in said[0] and "shapes" in said[0]
    with pytest.raises(NotFoundError, match="no CIFAR-10 there"):
        data.find("cifar10", root=tmp_path)
    _test_batch(tmp_path, b"damaged")
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"damaged")
    with pytest.raises(DataError, match="not a readable pickle"):
        data.find(root=tmp_path, say=said.append)
    assert len(said) == 1


@pytest.mark.data
def test_the_real_files(cifar10_root):
    """Sums over all bytes of the published files; the mean of the training images is the one everybody normalises
    with."""
    train, test = CIFAR10(cifar10_root), CIFAR10(cifar10_root, train=False)
    assert train.images.shape == (50000, 32, 32, 3) and test.images.shape == (10000, 32, 32, 3)
    assert np.bincount(train.labels).tolist() == [5000] * 10 and np.bincount(test.labels).tolist() == [1000] * 10
    mean = train.images.mean(axis=(0, 1, 2), dtype=np.float64) / 255
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=5e-5)
    raw = (Path(cifar10_root) / "cifar-10-batches-py" / "test_batch").read_bytes()
    assert hashlib.md5(raw).hexdigest() == "40351d587109b95175f43aff81a1287e"
    assert test.images[0].transpose(2, 0, 1).tobytes() in raw
