"""MNIST's idx files, plain and gzipped, whole and hostile."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from gpucnn.data import MNIST, DataError, NotFoundError
from tests.data.data_writers import COUNT, idx, mnist_folder


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("inside", ["", "mnist", "MNIST/raw"])
def test_images_and_labels_from_every_place(tmp_path, packed, inside):
    images, labels = mnist_folder(tmp_path / inside, packed=packed)
    for train in (True, False):
        dataset = MNIST(tmp_path, train=train, count=COUNT)
        assert dataset.images.shape == (COUNT, 28, 28, 1) and dataset.images.dtype == np.uint8
        np.testing.assert_array_equal(dataset.images[..., 0], images)
        np.testing.assert_array_equal(dataset.labels, labels)
        assert dataset.classes == tuple("0123456789") and dataset.name == "mnist" and dataset.train is train


IMAGES = idx(np.zeros((COUNT, 28, 28), np.uint8))
LABELS = idx(np.arange(COUNT, dtype=np.uint8))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "train-images-idx3-ubyte",
            b"",
            r"expected an idx file of bytes in 3 dimensions \(magic 00000803\), found an empty",
        ),
        ("train-images-idx3-ubyte", LABELS, "expected an idx file of bytes in 3 dimensions .* found 00000801"),
        ("train-images-idx3-ubyte", b"\0\0\x0d\x03" + IMAGES[4:], "found 00000d03"),
        ("train-images-idx3-ubyte", IMAGES[:-1], "expected 5504 bytes, found 5503"),
        ("train-images-idx3-ubyte", IMAGES + b"x", "expected 5504 bytes, found more than 5504"),
        (
            "train-images-idx3-ubyte",
            idx(np.zeros((COUNT, 28, 27), np.uint8)),
            r"expected the sizes \(7, 28, 28\), found",
        ),
        ("train-labels-idx1-ubyte", idx(np.zeros(COUNT + 1, np.uint8)), r"expected the sizes \(7,\), found \(8,\)"),
        (
            "train-labels-idx1-ubyte",
            LABELS[:-3] + b"\x00\x0a\x01",
            "label 10 of example 5 is out of range, expected 0 to 9",
        ),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_damaged_file_names_itself_expected_and_found(tmp_path, name, content, problem, packed):
    mnist_folder(tmp_path, packed=packed)
    file = tmp_path / (f"{name}.gz" if packed else name)
    file.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=problem) as raised:
        MNIST(tmp_path, count=COUNT)
    assert name in str(raised.value)


def test_a_gzip_file_that_is_cut_off_or_damaged_or_none(tmp_path):
    mnist_folder(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    for content, problem in (
        (whole[: len(whole) // 2], "cut off: expected 5504 bytes when unpacked"),
        (whole[:-4], "cut off"),
        (whole[:-8] + b"\0\0\0\0" + whole[-4:], "not a whole gzip file"),
        (b"not gzip", "not a whole gzip file"),
    ):
        file.write_bytes(content)
        with pytest.raises(DataError, match=problem):
            MNIST(tmp_path, count=COUNT)


def test_a_gzip_bomb_does_not_go_off(tmp_path):
    mnist_folder(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(IMAGES + bytes(200 << 20), compresslevel=1))
    import tracemalloc

    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="found more than 5504"):
            MNIST(tmp_path, count=COUNT)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_data_that_is_nowhere(tmp_path, clean_environment):
    clean_environment.setenv("GPUCNN_CACHE_DIR", str(tmp_path))
    with pytest.raises(NotFoundError, match=r"none: no such folder: expected train-images-idx3-ubyte.gz and"):
        MNIST(tmp_path / "none")
    with pytest.raises(NotFoundError, match=r"MNIST is not in .*data; it was not to be downloaded"):
        MNIST(download=False)
    mnist_folder(tmp_path / "data" / "mnist")
    assert len(MNIST(download=False, count=COUNT)) == COUNT
    (tmp_path / "data" / "mnist" / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(NotFoundError):  # half of a download in the cache is none
        MNIST(download=False, count=COUNT)


@pytest.mark.data
def test_the_real_files(mnist_root: Path):
    """The mean and deviation of the training pixels are the published ones that normalisation uses."""
    train, test = MNIST(mnist_root), MNIST(mnist_root, train=False)
    assert (len(train), len(test)) == (60000, 10000)
    pixels = train.images.astype(np.float64) / 255
    assert abs(pixels.mean() - 0.1307) < 1e-4 and abs(pixels.std() - 0.3081) < 1e-4
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9] and test.labels[:5].tolist() == [7, 2, 1, 0, 4]
