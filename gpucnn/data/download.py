"""Downloads by pooch, with a published checksum: resumed where a connection broke, moved into place only when whole
and right."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpucnn.data.dataset import DataError

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10
READ_SECONDS = 30
ABANDONED_SECONDS = 2 * READ_SECONDS  # a part that nobody has written to for so long belongs to a process that is gone
PIECE = 1 << 14  # what a broken connection loses at most


class NotFoundError(DataError):
    """The data set is on none of the places where it was looked for, and could not be downloaded."""


@dataclass(frozen=True)
class Remote:
    """A published file: the addresses that have it, its checksum as pooch writes it ("md5:..."), its size in bytes."""

    name: str
    urls: tuple[str, ...]
    checksum: str
    size: int


def fetch(remote: Remote, folder: Path) -> Path:
    """The file, downloaded into ``folder`` if it is not there; the addresses are tried in turn.

    Under its name the file only ever appears whole and with the right checksum. A connection that breaks leaves a
    part, which the next attempt goes on from; a part that turns out wrong is thrown away.

    Raises:
        NotFoundError: no address could be reached, or none had the file with its checksum; the message lists each with
            its reason.
    """
    target = folder / remote.name
    if target.is_file():
        return target
    try:
        import pooch
    except ImportError as error:
        raise NotFoundError(
            f"{remote.name}: downloading needs pooch, which is not installed (pip install pooch)"
        ) from error
    pooch.get_logger().setLevel(logging.WARNING)
    failures = []
    for url in remote.urls:
        log.info("downloading %s", url)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            pooch.retrieve(
                url, known_hash=remote.checksum, fname=remote.name, path=folder, downloader=_Resuming(folder, remote)
            )
            return target
        except (OSError, ValueError) as error:  # requests' exceptions are OSErrors; a wrong checksum is a ValueError
            failures.append(f"{url} ({_reason(error)})")
    raise NotFoundError(f"{remote.name}: cannot be downloaded: {'; '.join(failures)}")


def _reason(error: Exception) -> str:
    """The innermost cause in a few words; requests wraps it several times over."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        text = str(error).lower()
        if "resolve" in text or "name or service" in text or "getaddrinfo" in text:
            return "the host's name cannot be resolved: is there a network?"
        return "no connection" if "cut off" not in text else str(error)
    return str(error).splitlines()[0]


class _Resuming:
    """A pooch downloader that keeps what came of a file in ``<name>.part`` and asks the server only for the rest."""

    def __init__(self, folder: Path, remote: Remote) -> None:
        self.part = folder / f"{remote.name}.part"
        self.mine = folder / f"{remote.name}.part-{os.getpid()}"
        self.remote = remote

    def __call__(self, url: str, output_file: str | Path | Any, _pooch: object) -> None:
        self._claim()
        try:
            self._download(url)
        except BaseException:
            with contextlib.suppress(OSError):
                os.replace(self.mine, self.part)
            raise
        os.replace(self.mine, output_file)  # pooch's own temporary file: it checks the sum before the name appears

    def _claim(self) -> None:
        """Takes over what an earlier attempt left. Renaming is atomic, so that of two processes only one goes on from
        a part."""
        for left in (self.part, *self.part.parent.glob(f"{self.part.name}-*")):
            with contextlib.suppress(OSError):
                if left == self.part or time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                    os.replace(left, self.mine)
                    return

    def _download(self, url: str) -> None:
        import requests

        done = self.mine.stat().st_size if self.mine.exists() else 0
        if done >= self.remote.size:
            done = 0  # whole, yet not accepted before
        headers = {"Range": f"bytes={done}-"} if done else {}
        headers["Accept-Encoding"] = "identity"
        with requests.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as response:
            response.raise_for_status()
            if response.status_code != 206:
                done = 0  # the server starts at the beginning
            with self.mine.open("ab" if done else "wb") as file, _bar(self.remote, done) as advance:
                for piece in response.iter_content(PIECE):
                    file.write(piece)
                    done += len(piece)
                    if done > self.remote.size:
                        raise OSError(f"expected {self.remote.size} bytes, the server sends more")
                    advance(len(piece))
                file.flush()
                os.fsync(file.fileno())
        if done != self.remote.size:
            raise requests.ConnectionError(f"cut off after {done} of {self.remote.size} bytes")


@contextlib.contextmanager
def _bar(remote: Remote, done: int) -> Iterator[Any]:
    """A progress bar on standard error where that is a terminal; yields a function that takes the bytes that came."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns: Sequence[Any] = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(remote.name, total=remote.size, completed=done)
        yield lambda count: progress.advance(task, count)
