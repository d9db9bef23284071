"""Downloads against a server on this machine that breaks off, lies about what it sends, or is not there."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gpucnn.data import (
    CIFAR10,
    CIFAR100,
    MNIST,
    FashionMNIST,
    NotFoundError,
    cifar10,
    cifar100,
    download,
    fashion_mnist,
    mnist,
)
from gpucnn.data.download import Remote, fetch
from tests.data.data_writers import COUNT, archive, cifar100_folder, mnist_folder, python_folder

CONTENT = bytes(range(256)) * 4096  # 1 MiB


class Server:
    """Serves ``files``; ``cut`` is after how many bytes the next answers break off; ``ranges`` are those that were
    asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []
        self.supports_ranges = True
        self.tells_length = True
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/{name}"

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, server: Server, *args) -> None:
        self.state = server
        super().__init__(*args)

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        content = self.state.files.get(self.path.lstrip("/"))
        asked = self.headers.get("Range")
        self.state.ranges.append(asked)
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.state.supports_ranges else 0
        self.send_response(206 if start else 200)
        if self.state.tells_length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut = self.state.cuts.pop(0) if self.state.cuts else len(content)
        self.wfile.write(content[start : start + cut])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    server.files["file.bin"] = CONTENT
    yield server
    server.close()


def _remote(server: Server, content: bytes = CONTENT, name: str = "file.bin") -> Remote:
    return Remote(name, (server.url(name),), f"md5:{hashlib.md5(content).hexdigest()}", len(content))


def test_a_download_appears_whole_and_happens_once(server, tmp_path):
    assert fetch(_remote(server), tmp_path / "new").read_bytes() == CONTENT
    assert fetch(_remote(server), tmp_path / "new").read_bytes() == CONTENT
    assert server.ranges == [None]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["file.bin"]


def test_a_download_that_is_cut_off_goes_on_from_there(server, tmp_path):
    server.cuts = [300_000, 400_000]
    kept = [0]
    for _ in range(2):
        with pytest.raises(NotFoundError, match="cannot be downloaded"):
            fetch(_remote(server), tmp_path)
        assert not (tmp_path / "file.bin").exists()
        part = (tmp_path / "file.bin.part").read_bytes()
        assert part == CONTENT[: len(part)] and len(part) > kept[-1] + 250_000
        kept.append(len(part))
    assert fetch(_remote(server), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={kept[1]}-", f"bytes={kept[2]}-"]
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_an_end_that_comes_early_is_noticed_where_the_server_tells_no_length(server, tmp_path):
    server.tells_length, server.cuts = False, [300_000]
    with pytest.raises(NotFoundError, match="cut off after 300000 of 1048576 bytes"):
        fetch(_remote(server), tmp_path)
    assert fetch(_remote(server), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-"]


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.supports_ranges, server.cuts = False, [300_000]
    with pytest.raises(NotFoundError):
        fetch(_remote(server), tmp_path)
    assert fetch(_remote(server), tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing_behind_and_the_next_address_is_tried(server, tmp_path):
    server.files["bad/file.bin"] = CONTENT[:-1] + b"!"
    good = _remote(server)
    bad = Remote("file.bin", (server.url("bad/file.bin"),), good.checksum, good.size)
    with pytest.raises(NotFoundError, match=r"bad/file.bin \(MD5 hash"):
        fetch(bad, tmp_path)
    assert list(tmp_path.iterdir()) == []
    both = Remote("file.bin", (*bad.urls, *good.urls), good.checksum, good.size)
    assert fetch(both, tmp_path).read_bytes() == CONTENT


def test_a_server_that_sends_more_than_was_published_is_stopped(server, tmp_path):
    server.files["file.bin"] = CONTENT + bytes(8 << 20)
    with pytest.raises(NotFoundError, match="expected 1048576 bytes, the server sends more"):
        fetch(_remote(server), tmp_path)
    assert (tmp_path / "file.bin.part").stat().st_size < 2 << 20
    server.files["file.bin"] = CONTENT
    assert fetch(_remote(server), tmp_path).read_bytes() == CONTENT


def test_a_part_of_a_process_that_was_killed_is_taken_over_and_one_of_a_living_is_not(server, tmp_path):
    part = tmp_path / "file.bin.part-999999"
    part.write_bytes(CONTENT[:1000])
    assert fetch(_remote(server), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None] and part.exists()
    (tmp_path / "file.bin").unlink()
    old = time.time() - 2 * download.ABANDONED_SECONDS
    os.utime(part, (old, old))
    assert fetch(_remote(server), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-"] and not part.exists()


def test_what_cannot_be_reached_says_why(server, tmp_path):
    with pytest.raises(NotFoundError, match=r"none.bin: cannot be downloaded: .*none.bin \(HTTP 404\)"):
        fetch(_remote(server, name="none.bin"), tmp_path)
    server_gone = Remote("x", ("http://127.0.0.1:9/x",), "md5:0", 1)
    with pytest.raises(NotFoundError, match=r"127.0.0.1:9/x \(no connection\)"):
        fetch(server_gone, tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotFoundError, match="cannot be downloaded"):
        fetch(_remote(server), tmp_path / "file" / "folder")


def test_cifar10_is_downloaded_unpacked_and_kept(server, tmp_path, clean_environment):
    clean_environment.setenv("GPUCNN_CACHE_DIR", str(tmp_path / "cache"))
    python_folder(tmp_path / "whole")
    packed = archive(tmp_path / "whole" / "cifar-10-batches-py", tmp_path / "a.tar.gz").read_bytes()
    server.files["cifar-10-python.tar.gz"] = packed
    clean_environment.setattr(cifar10, "ARCHIVE", _remote(server, packed, "cifar-10-python.tar.gz"))
    for _ in range(2):
        assert len(CIFAR10(images_per_batch=COUNT)) == 5 * COUNT
    assert len(server.ranges) == 1
    assert [p.name for p in (tmp_path / "cache" / "data").iterdir()] == ["cifar-10-batches-py"]


def test_mnist_is_downloaded_and_kept(server, tmp_path, clean_environment):
    clean_environment.setenv("GPUCNN_CACHE_DIR", str(tmp_path / "cache"))
    mnist_folder(tmp_path / "whole")
    remotes = []
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        server.files[name] = (tmp_path / "whole" / name).read_bytes()
        remotes.append(_remote(server, server.files[name], name))
    clean_environment.setitem(mnist.FILES, True, tuple(remotes))
    for _ in range(2):
        assert len(MNIST(count=COUNT)) == COUNT
    assert len(server.ranges) == 2


def test_cifar100_is_downloaded_unpacked_and_kept(server, tmp_path, clean_environment):
    clean_environment.setenv("GPUCNN_CACHE_DIR", str(tmp_path / "cache"))
    cifar100_folder(tmp_path / "whole")
    packed = archive(tmp_path / "whole" / "cifar-100-python", tmp_path / "a.tar.gz").read_bytes()
    server.files["cifar-100-python.tar.gz"] = packed
    remote = _remote(server, packed, "cifar-100-python.tar.gz")
    clean_environment.setattr(cifar100, "ARCHIVE", replace(remote, checksum="sha256:" + "0" * 64))
    with pytest.raises(NotFoundError, match=r"CIFAR-100 is not in .*cannot be downloaded.*hash"):
        CIFAR100(count=COUNT)
    server.ranges.clear()
    checksum = f"sha256:{hashlib.sha256(packed).hexdigest()}"
    clean_environment.setattr(cifar100, "ARCHIVE", replace(remote, checksum=checksum))
    for train in (True, False):
        assert len(CIFAR100(train=train, count=COUNT)) == COUNT
    assert len(server.ranges) == 1
    assert [p.name for p in (tmp_path / "cache" / "data").iterdir()] == ["cifar-100-python"]


def test_fashion_mnist_is_downloaded_into_a_folder_of_its_own(server, tmp_path, clean_environment):
    clean_environment.setenv("GPUCNN_CACHE_DIR", str(tmp_path / "cache"))
    mnist_folder(tmp_path / "whole")
    remotes = []
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        server.files[name] = (tmp_path / "whole" / name).read_bytes()
        remotes.append(_remote(server, server.files[name], name))
    clean_environment.setitem(fashion_mnist.FILES, False, tuple(remotes))
    for _ in range(2):
        dataset = FashionMNIST(train=False, count=COUNT)
        assert len(dataset) == COUNT and dataset.source == str(tmp_path / "cache" / "data" / "fashion_mnist")
    assert len(server.ranges) == 2


@pytest.mark.data
def test_the_published_checksums_are_those_of_the_real_files(mnist_root: Path):
    for remotes in mnist.FILES.values():
        for remote in remotes:
            content = (mnist_root / "mnist" / remote.name).read_bytes()
            assert (f"md5:{hashlib.md5(content).hexdigest()}", len(content)) == (remote.checksum, remote.size)
