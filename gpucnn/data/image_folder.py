"""Image files in folders, one folder a class: one's own pictures as a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpucnn.data.dataset import DataError, Dataset
from gpucnn.data.download import NotFoundError
from gpucnn.data.pictures import read_picture

SIZE = 32
PARTS = {True: ("train", "training"), False: ("test", "val", "valid", "validation")}
IGNORED = frozenset({"thumbs.db", "desktop.ini", "__macosx"})  # what file managers leave behind


class ImageFolder(Dataset):
    """The pictures of a folder: ``root/CLASS/...``, a class for each sub-folder, in the order of their names.

    Every file below a class's folder is one example, sorted by path; files whose name begins with a point and those
    that file managers leave behind are skipped, as are files beside the classes' folders. A picture becomes RGB of
    ``size`` as :func:`gpucnn.data.pictures.read_picture` has it. All of them are held in memory, H W 3 bytes each.

    Args:
        root: the folder of the classes' folders.
        size: H = W, or (H, W), in pixels.
        classes: the names of the classes in the order of their labels, where the folders shall not say it; a folder of
            another name is then an error, and a class without a folder is none.
        train: what the data set says of itself; every picture is taken either way.

    Raises:
        NotFoundError: no such folder.
        DataError: no classes, a class without pictures, or a file that is no whole picture; names it.
        ValueError: a size below 1.
    """

    def __init__(
        self,
        root: str | Path,
        size: int | tuple[int, int] = SIZE,
        classes: Sequence[str] | None = None,
        train: bool = True,
    ) -> None:
        place = Path(root).expanduser()
        height, width = (size, size) if isinstance(size, int) else size
        if min(height, width) < 1:
            raise ValueError(f"ImageFolder: size must be at least 1, got {size}")
        found = class_folders(place)
        names = tuple(found) if classes is None else tuple(classes)
        strangers = [name for name in found if name not in names]
        if strangers:
            raise DataError(f"{place / strangers[0]}: no class is called so, expected {_some(names)}")
        files = [(file, names.index(name)) for name in found for file in _pictures(place / name)]
        images = np.empty((len(files), height, width, 3), dtype=np.uint8)
        for image, (file, _) in zip(images, files, strict=True):
            try:
                image[...], _ = read_picture(file, height, width)
            except OSError as error:
                raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error
        labels = np.array([label for _, label in files], dtype=np.int64)
        super().__init__(images, labels, names, name=f"folder:{root}", train=train, source=str(place))


def image_folder(root: str | Path | None = None, train: bool = True, size: int | tuple[int, int] = SIZE) -> ImageFolder:
    """A part of a folder that holds both: ``root/train/CLASS/...`` and ``root/test/CLASS/...`` (or val, validation).

    The training part's folders say which classes there are.

    Raises:
        NotFoundError, DataError: as :class:`ImageFolder`; a missing part.
    """
    if root is None:
        raise NotFoundError("a data set of image files needs their folder: folder:PATH, with train and test inside")
    place = Path(root).expanduser()
    folders = {part: _part(place, part) for part in (True, False)}
    part = ImageFolder(folders[train], size, tuple(class_folders(folders[True])), train)
    part.name = f"folder:{root}"
    return part


def _part(place: Path, train: bool) -> Path:
    found = next((place / name for name in PARTS[train] if (place / name).is_dir()), None)
    if found is None:
        wanted = " and ".join(PARTS[which][0] for which in (True, False))
        raise NotFoundError(
            f"{place}: expected folders {wanted} with the classes' folders inside, found no"
            f" {' or '.join(PARTS[train])}" + ("" if place.is_dir() else ": no such folder")
        )
    return found


def class_folders(place: Path) -> list[str]:
    """The names of the sub-folders that are classes, sorted."""
    try:
        names = sorted(entry.name for entry in place.iterdir() if entry.is_dir() and _counts(entry.name))
    except OSError as error:
        raise NotFoundError(f"{place}: cannot be read ({error.strerror or error})") from error
    if not names:
        raise DataError(f"{place}: expected a folder of pictures for each class, found no folders")
    return names


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in IGNORED


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


def _pictures(folder: Path) -> list[Path]:
    """The files below ``folder``, sorted by path. Links to folders are not followed: they may go round in circles."""

    def unreadable(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror or error})") from error

    files = []
    for here, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = filter(_counts, folders)
        files += [Path(here, name) for name in filter(_counts, names)]
    if not files:
        raise DataError(f"{folder}: expected pictures of this class, found none")
    return sorted(files, key=lambda file: file.relative_to(folder).parts)
