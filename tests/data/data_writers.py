"""Writes small data sets in the published formats, by their published descriptions."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np

COUNT = 7  # images in a small batch


def pixels_and_labels(seed: int, count: int = COUNT) -> tuple[np.ndarray, list[int]]:
    """uint8 (count, 3072) as CIFAR stores them, by colour plane; labels that hit 0 and 9."""
    generator = np.random.default_rng(seed)
    labels = [0, 9, *generator.integers(0, 10, count - 2).tolist()]
    return generator.integers(0, 256, (count, 3072), dtype=np.uint8), labels


def python2_pickle(pixels: np.ndarray, labels: list[int]) -> bytes:
    """A batch opcode by opcode as Python 2 and NumPy 1 wrote the published files: protocol 2, byte strings,
    numpy.core."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value  # SHORT_BINSTRING

    out = b"\x80\x02}("
    out += text(b"batch_label") + text(b"training batch 1 of 5")
    out += text(b"labels") + b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    out += (
        text(b"data")
        + b"cnumpy.core.multiarray\n_reconstruct\n"
        + b"cnumpy\nndarray\n"
        + b"K\x00\x85"
        + text(b"b")
        + b"\x87R"
    )
    out += b"(K\x01" + b"".join(b"M" + struct.pack("<H", size) for size in pixels.shape) + b"\x86"
    out += b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNN"
    out += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"  # dtype's state; NEWFALSE: not in Fortran order
    out += b"T" + struct.pack("<i", pixels.size) + pixels.tobytes() + b"tb"
    return out + b"u."


def python_folder(folder: Path, count: int = COUNT) -> list[tuple[np.ndarray, list[int]]]:
    """cifar-10-batches-py below ``folder``: five training batches, then the test batch."""
    place = folder / "cifar-10-batches-py"
    place.mkdir(parents=True)
    batches = [pixels_and_labels(i, count) for i in range(6)]
    for i, (pixels, labels) in enumerate(batches):
        name = "test_batch" if i == 5 else f"data_batch_{i + 1}"
        (place / name).write_bytes(python2_pickle(pixels, labels))
    return batches


def binary_folder(folder: Path, count: int = COUNT) -> list[tuple[np.ndarray, list[int]]]:
    """The same images as cifar-10-batches-bin."""
    place = folder / "cifar-10-batches-bin"
    place.mkdir(parents=True)
    batches = [pixels_and_labels(i, count) for i in range(6)]
    for i, (pixels, labels) in enumerate(batches):
        name = "test_batch.bin" if i == 5 else f"data_batch_{i + 1}.bin"
        (place / name).write_bytes(
            b"".join(bytes([label]) + row.tobytes() for row, label in zip(pixels, labels, strict=True))
        )
    return batches


def archive(folder: Path, path: Path) -> Path:
    """``folder`` as a .tar.gz."""
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    return path


def hostile_archive(path: Path, member: tarfile.TarInfo, content: bytes = b"x") -> Path:
    """An archive of one member that wants to be somewhere else."""
    with tarfile.open(path, "w:gz") as tar:
        member.size = len(content) if member.isreg() else 0
        tar.addfile(member, io.BytesIO(content))
    return path


def idx(array: np.ndarray) -> bytes:
    """An idx file of unsigned bytes."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", size) for size in array.shape) + array.tobytes()


def cifar100_part(seed: int, count: int = COUNT) -> tuple[np.ndarray, list[int], list[int]]:
    """Pixels as :func:`pixels_and_labels` makes them, fine labels that hit 0 and 99, coarse ones that hit 0 and 19."""
    generator = np.random.default_rng(seed)
    fine, coarse = ([0, top, *generator.integers(0, top + 1, count - 2).tolist()] for top in (99, 19))
    return generator.integers(0, 256, (count, 3072), dtype=np.uint8), fine, coarse


def cifar100_folder(folder: Path, binary: bool = False) -> dict[str, tuple[np.ndarray, list[int], list[int]]]:
    """cifar-100-python or cifar-100-binary below ``folder``; its two parts."""
    place = folder / ("cifar-100-binary" if binary else "cifar-100-python")
    place.mkdir(parents=True)
    parts = {"train": cifar100_part(0), "test": cifar100_part(1)}
    for name, (pixels, fine, coarse) in parts.items():
        if binary:
            records = (bytes([c, f]) + row.tobytes() for row, f, c in zip(pixels, fine, coarse, strict=True))
            (place / f"{name}.bin").write_bytes(b"".join(records))
        else:
            content = {
                b"filenames": [b"a.png"] * len(fine),
                b"batch_label": b"training batch 1 of 1",
                b"fine_labels": fine,
                b"coarse_labels": coarse,
                b"data": pixels,
            }
            (place / name).write_bytes(pickle.dumps(content, protocol=2))
    return parts


def mnist_folder(folder: Path, count: int = COUNT, packed: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """MNIST's four files in ``folder``; the images and labels of the training part (the test part has the same)."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(5)
    images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = generator.integers(0, 10, count, dtype=np.uint8)
    for part in ("train", "t10k"):
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            name, data = f"{part}-{kind}-ubyte", idx(array)
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(data, mtime=0))
            else:
                (folder / name).write_bytes(data)
    return images, labels


def modern_pickle(pixels: np.ndarray, labels: list[int], protocol: int) -> bytes:
    """A batch as today's Python and NumPy would write it."""
    return pickle.dumps({b"data": pixels, b"labels": labels}, protocol=protocol)
