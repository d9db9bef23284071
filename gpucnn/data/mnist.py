"""MNIST (LeCun, Cortes, Burges, 1998): 70,000 grey images of handwritten digits, in idx files, plain or gzipped.

An idx file: two zero bytes, a type byte (8: unsigned byte), the number of dimensions, each size as a big-endian 32-bit
integer, then the elements.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gpucnn.data.dataset import DataError, Dataset, check_labels
from gpucnn.data.download import NotFoundError, Remote, fetch
from gpucnn.data.sources import FolderSource

CLASSES = tuple("0123456789")
SIDE = 28
IMAGES = {True: 60_000, False: 10_000}
FILE_LIMIT = 64 << 20
UNSIGNED_BYTE = 8
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")


def _remote(name: str, md5: str, size: int) -> Remote:
    return Remote(f"{name}.gz", tuple(f"{mirror}{name}.gz" for mirror in MIRRORS), f"md5:{md5}", size)


Files = dict[bool, tuple[Remote, Remote]]

FILES: Files = {  # train: (images, labels)
    True: (
        _remote("train-images-idx3-ubyte", "f68b3c2dcbeaaa9fbdd348bbdeb94873", 9_912_422),
        _remote("train-labels-idx1-ubyte", "d53e105ee54ea40749a09fcbcd1e9432", 28_881),
    ),
    False: (
        _remote("t10k-images-idx3-ubyte", "9fb629c4189551a2d022fa330f9573f3", 1_648_877),
        _remote("t10k-labels-idx1-ubyte", "ec29112dd5afa0611ce80d1b7f02629c", 4_542),
    ),
}


class MNIST(Dataset):
    """MNIST's training part (60,000 images) or test part (10,000), 28x28x1.

    Args:
        root: the folder of the idx files, or its parent (the files in ``mnist``, ``MNIST`` or ``MNIST/raw``). None
            looks in GPUCNN_DATA, then in the user's cache.
        train: the files named ``train-*``, or those named ``t10k-*``.
        download: whether the files may be downloaded (12 MB, into the user's cache) where ``root`` is None and nothing
            was found.
        count: the number of images that the files must have; the published number where it is None.

    Raises:
        NotFoundError: the data is nowhere; says where it was looked for.
        DataError: a file is cut off, damaged, of the wrong kind or length, or has labels out of range; names the file.
    """

    TITLE: ClassVar[str] = "MNIST"
    NAME: ClassVar[str] = "mnist"  # as a data set, and of its folder in the cache
    FOLDERS: ClassVar[tuple[str, ...]] = ("", "mnist", "MNIST", "MNIST/raw")
    FILES: ClassVar[Files] = FILES
    CLASSES: ClassVar[tuple[str, ...]] = CLASSES

    def __init__(
        self, root: str | Path | None = None, train: bool = True, download: bool = True, count: int | None = None
    ) -> None:
        source = self._find(root, train, download)
        images_name, labels_name = self._names(train)
        count = IMAGES[train] if count is None else count
        images = _read(source, images_name, (count, SIDE, SIDE))
        labels = _read(source, labels_name, (count,))
        check_labels(labels, len(self.CLASSES), source.where(_has(source, labels_name) or labels_name))
        super().__init__(images[..., None], labels, self.CLASSES, name=self.NAME, train=train, source=str(source))

    @classmethod
    def _names(cls, train: bool) -> list[str]:
        return [remote.name.removesuffix(".gz") for remote in cls.FILES[train]]

    @classmethod
    def _look(cls, place: Path, train: bool, folders: tuple[str, ...]) -> FolderSource | None:
        for folder in folders:
            source = FolderSource(place / folder)
            if any(_has(source, name) for name in cls._names(train)):
                return source
        return None

    @classmethod
    def _find(cls, root: str | Path | None, train: bool, download: bool) -> FolderSource:
        from gpucnn import settings

        names, remotes = cls._names(train), cls.FILES[train]
        if root is not None:
            place = Path(root).expanduser()
            source = cls._look(place, train, (*cls.FOLDERS, ""))
            if source is None:
                problem = f"no {cls.TITLE} there" if place.exists() else "no such folder"
                raise NotFoundError(f"{place}: {problem}: expected {' and '.join(remote.name for remote in remotes)}")
            return source
        cache = settings.cache_dir() / "data"
        places = [place for place in (settings.data_dir(), cache) if place is not None]
        for place in places:
            source = cls._look(place, train, cls.FOLDERS)
            if source is not None and (place != cache or all(_has(source, name) for name in names)):
                return source  # a cache with one file of the two is an interrupted download
        try:
            if not download:
                raise NotFoundError("it was not to be downloaded")
            for remote in remotes:
                fetch(remote, cache / cls.NAME)
        except NotFoundError as error:
            raise NotFoundError(f"{cls.TITLE} is not in {' or '.join(map(str, places))}; {error}") from error
        return FolderSource(cache / cls.NAME)


def _has(source: FolderSource, name: str) -> str | None:
    return next((found for found in (name, f"{name}.gz") if source.has(found)), None)


def _read(source: FolderSource, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The array of an idx file; ``shape`` is what it must have."""
    found = _has(source, name)
    if found is None:
        raise DataError(f"{source}: expected {name} or {name}.gz, found neither")
    where = source.where(found)
    size = 4 + 4 * len(shape) + math.prod(shape)
    data = source.read(found, FILE_LIMIT)
    if found.endswith(".gz"):
        data = _gunzip(data, size, where)
    header = 4 + 4 * len(shape)
    magic = bytes((0, 0, UNSIGNED_BYTE, len(shape)))
    if data[:4] != magic:
        raise DataError(
            f"{where}: expected an idx file of bytes in {len(shape)} dimensions (magic {magic.hex()}),"
            f" found {data[:4].hex() or 'an empty file'}"
        )
    sizes = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(len(shape)))
    if sizes != shape:
        raise DataError(f"{where}: expected the sizes {shape}, found {sizes}")
    if len(data) != size:
        raise DataError(
            f"{where}: expected {size} bytes, found {len(data) if len(data) < size else f'more than {size}'}"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)


def _gunzip(data: bytes, expected: int, where: str) -> bytes:
    """Unpacks at most one byte more than ``expected``: a gzip bomb does not go off, and a file that is too long
    shows."""
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        content = unpacker.decompress(data, expected + 1)
        if len(content) <= expected and not unpacker.eof:
            raise DataError(f"{where}: cut off: expected {expected} bytes when unpacked, found {len(content)}")
    except zlib.error as error:
        raise DataError(f"{where}: not a whole gzip file ({error})") from error
    return content
