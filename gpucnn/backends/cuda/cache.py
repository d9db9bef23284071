"""Compiled kernels on disk: an image (cubin or PTX) and a record beside it, for each key.

The record is JSON and carries the image's length and SHA-256. Both are written to temporary files and renamed into
place, the image first: a reader finds a complete pair or none, however many processes write at once. A pair that does
not match is as good as none.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpucnn import settings


@dataclass(frozen=True, slots=True)
class Entry:
    """A compiled image: where it lies, and what is known of it (registers, warnings, ...)."""

    path: Path
    record: dict[str, Any]


class KernelCache:
    """The compiled kernels in ``folder``, by default ``kernels`` in the package's cache folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where the files lie. Raises OSError where the cache folder cannot be had."""
        return settings.cache_dir() / "kernels" if self._folder is None else self._folder

    def lookup(self, name: str) -> Entry | None:
        """The entry ``name`` (such as ``relu-sm_80-0123abcd.cubin``), or None where it is missing or damaged."""
        path = self.folder / name
        try:
            record = json.loads(_record_path(path).read_bytes())
            image = path.read_bytes()
        except (OSError, ValueError):
            return None
        if not isinstance(record, dict) or record.get("size") != len(image):
            return None
        return Entry(path, record) if record.get("sha256") == hashlib.sha256(image).hexdigest() else None

    def store(self, name: str, image: bytes, record: dict[str, Any]) -> Entry:
        """Write an entry. Raises OSError, naming the folder, where that cannot be done."""
        record = {**record, "size": len(image), "sha256": hashlib.sha256(image).hexdigest()}
        try:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, image)
            write_atomically(_record_path(path), json.dumps(record, indent=1).encode())
        except OSError as error:
            there = self.lookup(name)  # Windows replaces no file that another process is reading
            if there is not None:
                return there
            raise OSError(
                f"compiled kernels cannot be written to the cache folder ({error}); GPUCNN_CACHE_DIR can name another"
            ) from error
        return Entry(path, record)


def _record_path(image: Path) -> Path:
    return image.with_name(image.name + ".json")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that others see whole or not at all.

    It is not synced: what a power cut damages fails its checksum and is compiled again.
    """
    import tempfile  # slow to import, and seldom needed

    handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:40]}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
