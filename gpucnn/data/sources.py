"""Where files come from: a folder, or one or several tar archives, behind one interface; and how an archive is
unpacked.

Files from outside are hostile. Nothing here writes outside the folder that it was told, and nothing is read whole
before its size is known to be what its reader can expect.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol

from gpucnn.data.dataset import DataError

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar")


class Source(Protocol):
    """Files by their plain names."""

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of file ``name``. Raises DataError if it is missing, unreadable or larger than ``limit`` bytes."""

    def where(self, name: str) -> str:
        """The file's place, for error messages."""


class FolderSource:
    """The files of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def where(self, name: str) -> str:
        return str(self.folder / name)

    def read(self, name: str, limit: int) -> bytes:
        path = self.folder / name
        try:
            size = path.stat().st_size
            if size > limit:
                raise DataError(f"{path}: expected at most {limit} bytes, found {size}")
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


class ArchiveSource:
    """The files of tar archives, read into memory one by one: nothing is unpacked, so nothing can leave a folder.

    Only plain files named in ``wanted`` are read, whatever folder of the archive they are in; links and devices are
    not followed.
    """

    def __init__(self, archives: Sequence[Path], wanted: Collection[str], limit: int) -> None:
        self.archives = tuple(archives)
        self._files: dict[str, bytes] = {}
        self._places: dict[str, str] = {}
        for archive in self.archives:
            self._load(archive, frozenset(wanted), limit)

    def __str__(self) -> str:
        return ", ".join(str(archive) for archive in self.archives)

    def _load(self, archive: Path, wanted: frozenset[str], limit: int) -> None:
        with open_tar(archive) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if not member.isfile() or path.name not in wanted:
                    continue
                if member.size > limit:
                    raise DataError(f"{archive}: {member.name}: expected at most {limit} bytes, found {member.size}")
                file = tar.extractfile(member)
                content = file.read() if file is not None else b""
                if len(content) != member.size:
                    raise DataError(f"{archive}: cut off: {member.name} has {len(content)} of its {member.size} bytes")
                self._files[path.name] = content
                self._places[path.name] = f"{archive}: {member.name}"

    def has(self, name: str) -> bool:
        return name in self._files

    def where(self, name: str) -> str:
        return self._places.get(name, f"{self}: {name}")

    def read(self, name: str, limit: int) -> bytes:
        content = self._files.get(name)
        if content is None:
            raise DataError(f"{self}: has no file {name}")
        if len(content) > limit:
            raise DataError(f"{self.where(name)}: expected at most {limit} bytes, found {len(content)}")
        return content


@contextmanager
def open_tar(archive: Path) -> Iterator[tarfile.TarFile]:
    """The archive, opened for reading; whatever is wrong with it becomes a DataError that names it."""
    try:
        with tarfile.open(archive, "r:*") as tar:
            yield tar
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{archive}: not a whole tar archive, cut off or damaged ({error})") from error
    except OSError as error:
        raise DataError(f"{archive}: cannot be read ({error.strerror or error})") from error


def unpack(archive: Path, folder: Path, inside: str) -> Path:
    """Unpacks ``archive`` and moves its folder ``inside`` to ``folder / inside`` in one step; returns that path.

    Raises DataError for a member that is neither file nor folder, or that would leave the folder.
    """
    target = folder / inside
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{inside}-", dir=folder, ignore_cleanup_errors=True) as temporary:
        with open_tar(archive) as tar:
            for member in tar:
                _extract(tar, member, Path(temporary), archive)
        unpacked = Path(temporary) / inside
        if not unpacked.is_dir():
            raise DataError(f"{archive}: expected a folder {inside} inside, found none")
        if not target.is_dir():
            try:
                os.replace(unpacked, target)
            except OSError:
                if not target.is_dir():  # another process was first otherwise, with the same files
                    raise
    return target


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, archive: Path) -> None:
    """Writes one member below ``folder``. Not tarfile's filters: Python before 3.11.4 has none."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or any(part == ".." or set(part) & set("\\:") for part in path.parts):
        raise DataError(f"{archive}: refused: {member.name} leads outside the folder that it is unpacked to")
    if member.isdir():
        return  # made with the files in it
    file = tar.extractfile(member) if member.isfile() else None
    if file is None:
        raise DataError(f"{archive}: refused: {member.name} is neither a file nor a folder")
    target = folder.joinpath(*path.parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        shutil.copyfileobj(file, out)


def archives_in(folder: Path) -> list[Path]:
    """The tar archives of a folder, by name."""
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(ARCHIVE_SUFFIXES) and path.is_file())
    except OSError:
        return []
