"""CIFAR-10 (A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009): 60,000 colour images of 10
classes.

Both published versions are read, which hold the same images: the python version (``cifar-10-batches-py``, pickled
batches) and the binary version (``cifar-10-batches-bin``, records of one label byte and 3072 pixel bytes). Pixels are
stored by plane, (C, H, W).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpucnn.data import pickles
from gpucnn.data.dataset import DataError, Dataset, check_labels
from gpucnn.data.download import NotFoundError, Remote, fetch
from gpucnn.data.sources import ARCHIVE_SUFFIXES, ArchiveSource, FolderSource, Source, archives_in, unpack

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE, CHANNELS = 32, 3
PIXELS = CHANNELS * SIDE * SIDE
IMAGES_PER_BATCH = 10_000
BATCHES = 5
PYTHON_FOLDER, BINARY_FOLDER = "cifar-10-batches-py", "cifar-10-batches-bin"
FILE_LIMIT = 64 << 20  # a batch has 30 MiB; whatever is larger than this is no batch

ARCHIVE = Remote(
    "cifar-10-python.tar.gz",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
    "md5:c58f30108f718f92721af3b95e74349a",
    170_498_071,
)


class CIFAR10(Dataset):
    """CIFAR-10's training part (50,000 images) or test part (10,000), 32x32x3.

    Args:
        root: a folder that holds one of the published folders or archives, such a folder or archive itself, or a
            folder of archives that hold the batch files between them. None looks in GPUCNN_DATA, then in the user's
            cache.
        train: the five training batches, or the test batch.
        download: whether the data may be downloaded (170 MB, into the user's cache) where ``root`` is None and nothing
            was found.
        images_per_batch: what a whole batch file holds.

    Raises:
        NotFoundError: the data is nowhere; says where it was looked for.
        DataError: a file is cut off, damaged, of the wrong length, hostile, or has labels out of range; names the file.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        train: bool = True,
        download: bool = True,
        images_per_batch: int = IMAGES_PER_BATCH,
    ) -> None:
        source = _find(root, train, download)
        read, names = _read_python, python_names(train)
        if not source.has(names[0]) and any(map(source.has, binary_names(train))):
            read, names = _read_binary, binary_names(train)
        images = np.empty((len(names) * images_per_batch, SIDE, SIDE, CHANNELS), dtype=np.uint8)
        labels = np.empty(len(images), dtype=np.int64)
        for k, name in enumerate(names):  # one at a time: a second copy of all would double the peak of memory
            here = slice(k * images_per_batch, (k + 1) * images_per_batch)
            pixels, labels[here] = read(source, name, images_per_batch)
            images[here] = pixels.reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1)
        super().__init__(images, labels, CLASSES, name="cifar10", train=train, source=str(source))


def python_names(train: bool) -> list[str]:
    """The files of the python version."""
    return [f"data_batch_{i + 1}" for i in range(BATCHES)] if train else ["test_batch"]


def binary_names(train: bool) -> list[str]:
    """The files of the binary version."""
    return [f"{name}.bin" for name in python_names(train)]


def _find(root: str | Path | None, train: bool, download: bool) -> Source:
    from gpucnn import settings

    if root is not None:
        place = Path(root).expanduser()
        source = _look(place, train)
        if source is None:
            problem = "no CIFAR-10 there" if place.exists() else "no such file or folder"
            raise NotFoundError(
                f"{place}: {problem}: expected {PYTHON_FOLDER}, {BINARY_FOLDER} or an archive of one ({ARCHIVE.name})"
            )
        return source
    cache = settings.cache_dir() / "data"
    places = [place for place in (settings.data_dir(), cache) if place is not None]
    for place in places:
        source = _look(place, train)
        if source is not None:
            return source
    looked = f"CIFAR-10 is not in {' or '.join(map(str, places))}"
    if not download:
        raise NotFoundError(f"{looked}, and it was not to be downloaded")
    try:
        archive = fetch(ARCHIVE, cache)
    except NotFoundError as error:
        raise NotFoundError(f"{looked}; {error}") from error
    try:
        return FolderSource(unpack(archive, cache, PYTHON_FOLDER))
    except OSError as error:
        raise DataError(f"{archive}: cannot be unpacked into {cache} ({error.strerror or error})") from error
    finally:
        archive.unlink(missing_ok=True)


def _look(place: Path, train: bool) -> Source | None:
    """What ``place`` offers: batch files, one of the published folders, an archive, or archives that hold the batches
    in parts."""
    wanted = [*python_names(train), *binary_names(train)]
    if place.is_file():
        if not place.name.endswith(ARCHIVE_SUFFIXES):
            raise DataError(f"{place}: expected a folder or an archive ({', '.join(ARCHIVE_SUFFIXES)})")
        return _with_batches([ArchiveSource([place], wanted, FILE_LIMIT)], wanted)
    folders = (place, place / PYTHON_FOLDER, place / BINARY_FOLDER)
    found = _with_batches(map(FolderSource, folders), wanted)
    if found is not None:
        return found
    for folder in (place, place / "cifar-10", place / "cifar10"):
        archives = archives_in(folder)
        published = [path for path in archives if path.name.startswith(("cifar-10-python.", "cifar-10-binary."))]
        archives = published[-1:] or [path for path in archives if path.name.startswith("part")]
        if archives:
            return ArchiveSource(archives, wanted, FILE_LIMIT)
    return None


def _with_batches(sources: Iterable[Source], wanted: list[str]) -> Source | None:
    return next((source for source in sources if any(source.has(name) for name in wanted)), None)


def _read_python(source: Source, name: str, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One pickled batch: {b"data": uint8 (count, 3072), b"labels": list of count ints}."""
    where = source.where(name)
    content = pickles.load(source.read(name, FILE_LIMIT), where)
    missing = [key.decode() for key in (b"data", b"labels") if key not in content]
    if missing:
        raise DataError(f"{where}: expected a batch with data and labels, found no {' and no '.join(missing)}")
    pixels, labels = pickles.as_bytes_array(content[b"data"], where), content[b"labels"]
    if pixels.shape != (count, PIXELS):
        raise DataError(f"{where}: expected {count} images of {PIXELS} bytes, found data of shape {pixels.shape}")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataError(f"{where}: expected labels as a list of ints, found {type(labels).__name__}")
    if len(labels) != count:
        raise DataError(f"{where}: expected {count} labels, found {len(labels)}")
    bad = next((i for i, label in enumerate(labels) if not 0 <= label < len(CLASSES)), None)
    if bad is not None:  # before NumPy sees it: the number may not fit an int64
        raise DataError(
            f"{where}: label {labels[bad]} of example {bad} is out of range, expected 0 to {len(CLASSES) - 1}"
        )
    return pixels, np.array(labels, dtype=np.int64)


def _read_binary(source: Source, name: str, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One binary batch: ``count`` records of a label byte and 3072 pixel bytes."""
    where, record = source.where(name), 1 + PIXELS
    data = source.read(name, FILE_LIMIT)
    if len(data) != count * record:
        raise DataError(
            f"{where}: expected {count} records of {record} bytes = {count * record}, found {len(data)} bytes"
        )
    records = np.frombuffer(data, dtype=np.uint8).reshape(count, record)
    labels = records[:, 0].astype(np.int64)
    check_labels(labels, len(CLASSES), where)
    return records[:, 1:], labels
