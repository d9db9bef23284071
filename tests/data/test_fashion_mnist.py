"""Fashion-MNIST: MNIST's files, so what matters is that the two are not taken for each other."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from gpucnn import data
from gpucnn.data import MNIST, DataError, FashionMNIST, NotFoundError
from tests.data.data_writers import COUNT, mnist_folder


@pytest.mark.parametrize("inside", ["", "fashion_mnist", "fashion-mnist", "FashionMNIST/raw"])
def test_images_and_labels_from_every_place(tmp_path, inside):
    images, labels = mnist_folder(tmp_path / inside)
    for train in (True, False):
        dataset = FashionMNIST(tmp_path, train=train, count=COUNT)
        np.testing.assert_array_equal(dataset.images[..., 0], images)
        np.testing.assert_array_equal(dataset.labels, labels)
        assert dataset.classes[0] == "T-shirt/top" and dataset.classes[9] == "Ankle boot" and len(dataset.classes) == 10
        assert dataset.name == "fashion_mnist" and dataset.train is train


def test_mnist_is_not_taken_for_it_nor_it_for_mnist(tmp_path, clean_environment):
    clean_environment.setenv("GPUCNN_CACHE_DIR", str(tmp_path / "cache"))
    clean_environment.setenv("GPUCNN_DATA", str(tmp_path))
    mnist_folder(tmp_path)
    mnist_folder(tmp_path / "mnist")
    with pytest.raises(NotFoundError, match=r"Fashion-MNIST is not in .*; it was not to be downloaded"):
        FashionMNIST(download=False)
    mnist_folder(tmp_path / "fashion_mnist")
    assert data.create("Fashion-MNIST", count=COUNT).source == str(tmp_path / "fashion_mnist")
    assert data.create("fashion_mnist", root=tmp_path, count=COUNT).source == str(tmp_path / "fashion_mnist")
    assert MNIST(tmp_path / "mnist", count=COUNT).source == str(tmp_path / "mnist")
    with pytest.raises(NotFoundError, match=r"no Fashion-MNIST there: expected train-images-idx3-ubyte.gz and"):
        FashionMNIST(tmp_path / "cache")
    with pytest.raises(NotFoundError, match="no Fashion-MNIST there"):
        (tmp_path / "empty").mkdir()
        FashionMNIST(tmp_path / "empty")


def test_a_damaged_file_is_named(tmp_path):
    mnist_folder(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x07" + bytes([10] * 7)))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte.gz: label 10 of example 0 is out of range"):
        FashionMNIST(tmp_path, count=COUNT)
