"""CIFAR-10 (A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009): 60,000 colour images of 10
classes.

Both published versions are read, which hold the same images: the python version (``cifar-10-batches-py``, pickled
batches) and the binary version (``cifar-10-batches-bin``, records of one label byte and 3072 pixel bytes). Pixels are
stored by plane, (C, H, W).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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
FILE_LIMIT = 64 << 20  # a batch has 30 MiB; whatever is larger than this is no batch

ARCHIVE = Remote(
    "cifar-10-python.tar.gz",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
    "md5:c58f30108f718f92721af3b95e74349a",
    170_498_071,
)


@dataclass(frozen=True)
class Layout:
    """How a CIFAR is published: the folders of its two versions, and the names of its archives."""

    title: str
    python_folder: str
    binary_folder: str
    archives: tuple[str, ...]  # how the names of whole archives begin
    folders: tuple[str, ...] = ()  # where else archives may be
    parts: bool = False  # whether archives called part* may hold the files between them
    limit: int = FILE_LIMIT  # bytes; no file is larger


LAYOUT = Layout(
    "CIFAR-10",
    "cifar-10-batches-py",
    "cifar-10-batches-bin",
    ("cifar-10-python.", "cifar-10-binary."),
    ("cifar-10", "cifar10"),
    parts=True,
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
        names, binary = python_names(train), binary_names(train)
        source = find_source(LAYOUT, ARCHIVE, names + binary, root, download)
        pickled = source.has(names[0]) or not any(map(source.has, binary))
        names = names if pickled else binary
        images = np.empty((len(names) * images_per_batch, SIDE, SIDE, CHANNELS), dtype=np.uint8)
        labels = np.empty(len(images), dtype=np.int64)
        for k, name in enumerate(names):  # one at a time: a second copy of all would double the peak of memory
            here = slice(k * images_per_batch, (k + 1) * images_per_batch)
            pixels, labels[here] = (read_python if pickled else read_binary)(source, name, images_per_batch)
            images[here] = pixels.reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1)
        super().__init__(images, labels, CLASSES, name="cifar10", train=train, source=str(source))


def python_names(train: bool) -> list[str]:
    """The files of the python version."""
    return [f"data_batch_{i + 1}" for i in range(BATCHES)] if train else ["test_batch"]


def binary_names(train: bool) -> list[str]:
    """The files of the binary version."""
    return [f"{name}.bin" for name in python_names(train)]


def find_source(layout: Layout, archive: Remote, wanted: list[str], root: str | Path | None, download: bool) -> Source:
    """Where the files ``wanted`` are, of one version or of both; downloads ``archive`` where they are nowhere and it
    may."""
    from gpucnn import settings

    if root is not None:
        place = Path(root).expanduser()
        source = _look(layout, place, wanted)
        if source is None:
            problem = f"no {layout.title} there" if place.exists() else "no such file or folder"
            raise NotFoundError(
                f"{place}: {problem}: expected {layout.python_folder}, {layout.binary_folder}"
                f" or an archive of one ({archive.name})"
            )
        return source
    cache = settings.cache_dir() / "data"
    places = [place for place in (settings.data_dir(), cache) if place is not None]
    for place in places:
        source = _look(layout, place, wanted)
        if source is not None:
            return source
    looked = f"{layout.title} is not in {' or '.join(map(str, places))}"
    if not download:
        raise NotFoundError(f"{looked}, and it was not to be downloaded")
    try:
        fetched = fetch(archive, cache)
    except NotFoundError as error:
        raise NotFoundError(f"{looked}; {error}") from error
    try:
        return FolderSource(unpack(fetched, cache, layout.python_folder))
    except OSError as error:
        raise DataError(f"{fetched}: cannot be unpacked into {cache} ({error.strerror or error})") from error
    finally:
        fetched.unlink(missing_ok=True)


def _look(layout: Layout, place: Path, wanted: list[str]) -> Source | None:
    """What ``place`` offers: the files, one of the published folders, an archive, or archives that hold the files in
    parts."""
    if place.is_file():
        if not place.name.endswith(ARCHIVE_SUFFIXES):
            raise DataError(f"{place}: expected a folder or an archive ({', '.join(ARCHIVE_SUFFIXES)})")
        return _with_batches([ArchiveSource([place], wanted, layout.limit)], wanted)
    folders = (place, place / layout.python_folder, place / layout.binary_folder)
    found = _with_batches(map(FolderSource, folders), wanted)
    if found is not None:
        return found
    for folder in (place, *(place / name for name in layout.folders)):
        archives = archives_in(folder)
        published = [path for path in archives if path.name.startswith(layout.archives)]
        parts = [path for path in archives if path.name.startswith("part")] if layout.parts else []
        if published or parts:
            return ArchiveSource(published[-1:] or parts, wanted, layout.limit)
    return None


def _with_batches(sources: Iterable[Source], wanted: list[str]) -> Source | None:
    return next((source for source in sources if any(source.has(name) for name in wanted)), None)


def read_python(
    source: Source, name: str, count: int, key: bytes = b"labels", classes: int = len(CLASSES), limit: int = FILE_LIMIT
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One pickled batch: {b"data": uint8 (count, 3072), key: list of count ints}."""
    where = source.where(name)
    content = pickles.load(source.read(name, limit), where)
    missing = [wanted.decode() for wanted in (b"data", key) if wanted not in content]
    if missing:
        raise DataError(f"{where}: expected a batch with data and {key.decode()}, found no {' and no '.join(missing)}")
    pixels, labels = pickles.as_bytes_array(content[b"data"], where), content[key]
    if pixels.shape != (count, PIXELS):
        raise DataError(f"{where}: expected {count} images of {PIXELS} bytes, found data of shape {pixels.shape}")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataError(f"{where}: expected labels as a list of ints, found {type(labels).__name__}")
    if len(labels) != count:
        raise DataError(f"{where}: expected {count} labels, found {len(labels)}")
    bad = next((i for i, label in enumerate(labels) if not 0 <= label < classes), None)
    if bad is not None:  # before NumPy sees it: the number may not fit an int64
        label = pickles.shown(labels[bad])
        raise DataError(f"{where}: label {label} of example {bad} is out of range, expected 0 to {classes - 1}")
    return pixels, np.array(labels, dtype=np.int64)


def read_binary(
    source: Source,
    name: str,
    count: int,
    labels_each: int = 1,
    which: int = 0,
    classes: int = len(CLASSES),
    limit: int = FILE_LIMIT,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One binary batch: ``count`` records of ``labels_each`` label bytes, of which byte ``which`` is wanted, and 3072
    pixel bytes."""
    where, record = source.where(name), labels_each + PIXELS
    data = source.read(name, limit)
    if len(data) != count * record:
        raise DataError(
            f"{where}: expected {count} records of {record} bytes = {count * record}, found {len(data)} bytes"
        )
    records = np.frombuffer(data, dtype=np.uint8).reshape(count, record)
    labels = records[:, which].astype(np.int64)
    check_labels(labels, classes, where)
    return records[:, labels_each:], labels
