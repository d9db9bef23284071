"""CIFAR-100 in both published versions, fine and coarse labels, whole and hostile."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from gpucnn import data
from gpucnn.data import CIFAR100, DataError, NotFoundError, cifar100
from tests.data.data_writers import COUNT, archive, cifar100_folder, cifar100_part


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("place", ["folder", "parent", "archive"])
def test_both_versions_give_pixels_and_both_kinds_of_labels_from_every_place(tmp_path, binary, place):
    parts = cifar100_folder(tmp_path, binary)
    folder = tmp_path / ("cifar-100-binary" if binary else "cifar-100-python")
    root = {"folder": folder, "parent": tmp_path}.get(place)
    if root is None:
        root = archive(folder, tmp_path / f"{folder.name}.tar.gz")
    for name, (pixels, fine, coarse) in parts.items():
        for labels, kind in ((fine, False), (coarse, True)):
            dataset = CIFAR100(root, train=name == "train", coarse=kind, count=COUNT)
            assert dataset.images.shape == (COUNT, 32, 32, 3) and dataset.labels.tolist() == labels
            assert (len(dataset.classes), dataset.name, dataset.train) == (
                20 if kind else 100,
                "cifar100",
                name == "train",
            )
        for c in range(3):  # plane c, row y, column x is byte 1024 c + 32 y + x
            np.testing.assert_array_equal(dataset.images[:, 5, 7, c], pixels[:, 1024 * c + 32 * 5 + 7])
    assert folder.name in dataset.source


def test_the_classes_are_those_of_the_published_names_in_their_order():
    assert list(cifar100.FINE) == sorted(set(cifar100.FINE)) and len(cifar100.FINE) == 100
    assert list(cifar100.COARSE) == sorted(set(cifar100.COARSE)) and len(cifar100.COARSE) == 20
    assert (cifar100.FINE[0], cifar100.FINE[42], cifar100.FINE[99]) == ("apple", "leopard", "worm")
    assert (cifar100.COARSE[0], cifar100.COARSE[14], cifar100.COARSE[19]) == ("aquatic_mammals", "people", "vehicles_2")


def test_by_name_and_nowhere(tmp_path, clean_environment):
    clean_environment.setenv("GPUCNN_CACHE_DIR", str(tmp_path))
    with pytest.raises(NotFoundError, match=r"CIFAR-100 is not in .*data, and it was not to be downloaded"):
        CIFAR100(download=False)
    with pytest.raises(NotFoundError, match=r"none: no such file or folder: expected cifar-100-python, "):
        data.create("cifar100", root=tmp_path / "none")
    cifar100_folder(tmp_path / "data")
    dataset = data.create("CIFAR-100", train=False, limit=3, count=COUNT, coarse=True)
    assert len(dataset) == 3 and dataset.classes == cifar100.COARSE


class _Runs:
    def __reduce__(self):
        return print, ("never",)


def _content(**changes):
    pixels, fine, coarse = cifar100_part(0)
    content = {b"data": pixels, b"fine_labels": fine, b"coarse_labels": coarse}
    return {**content, **{key.encode(): value for key, value in changes.items()}}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (_content(fine_labels=[0] * (COUNT - 1) + [100]), "label 100 of example 6 is out of range, expected 0 to 99"),
        (_content(fine_labels=[0, -1] * 3 + [1]), "label -1 of example 1 is out of range"),
        (_content(fine_labels=[2**70] * COUNT), "is out of range"),
        (_content(fine_labels=[1.0] * COUNT), "expected labels as a list of ints"),
        (_content(fine_labels=[1] * (COUNT + 1)), "expected 7 labels, found 8"),
        (_content(data=np.zeros((COUNT, 3071), np.uint8)), "expected 7 images of 3072 bytes"),
        (_content(data=np.zeros((COUNT, 3072), np.int32)), "expected an array of uint8"),
        ({b"data": _content()[b"data"]}, "expected a batch with data and fine_labels, found no fine_labels"),
        ({b"data": _Runs()}, "refused: this pickle names .*print, which would run code"),
        ([1, 2], "expected a pickled dict, found list"),
    ],
)
def test_a_batch_that_is_none_is_named(tmp_path, content, problem, capsys):
    cifar100_folder(tmp_path)
    (tmp_path / "cifar-100-python" / "train").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(DataError, match=problem) as raised:
        CIFAR100(tmp_path, count=COUNT)
    assert "cifar-100-python" in str(raised.value) and "train" in str(raised.value)
    assert "never" not in capsys.readouterr().out


def test_damaged_and_missing_files(tmp_path, monkeypatch):
    cifar100_folder(tmp_path)
    folder = tmp_path / "cifar-100-python"
    whole = (folder / "train").read_bytes()
    (folder / "train").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"train: not a readable pickle"):
        CIFAR100(tmp_path, count=COUNT)
    with pytest.raises(DataError, match="expected 50000 images of 3072 bytes, found data of shape"):
        (folder / "train").write_bytes(whole)
        CIFAR100(tmp_path)
    monkeypatch.setattr(cifar100, "FILE_LIMIT", 1000)
    with pytest.raises(DataError, match="expected at most 1000 bytes"):
        CIFAR100(tmp_path, count=COUNT)
    with pytest.raises(NotFoundError, match="no CIFAR-100 there"):
        (folder / "test").unlink()
        CIFAR100(tmp_path, train=False, count=COUNT)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (bytes(COUNT * 3074 - 1), "expected 7 records of 3074 bytes = 21518, found 21517 bytes"),
        (bytes(COUNT * 3074 + 1), "found 21519 bytes"),
        (bytes([0, 100]) + bytes(COUNT * 3074 - 2), "label 100 of example 0 is out of range, expected 0 to 99"),
    ],
)
def test_a_binary_batch_that_is_none_is_named(tmp_path, content, problem):
    cifar100_folder(tmp_path, binary=True)
    (tmp_path / "cifar-100-binary" / "test.bin").write_bytes(content)
    with pytest.raises(DataError, match=problem) as raised:
        CIFAR100(tmp_path, train=False, count=COUNT)
    assert "test.bin" in str(raised.value)
