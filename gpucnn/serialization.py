"""``gpucnn.save`` and ``gpucnn.load``: nested values in one safetensors file, nothing in it that could run.

The format, version 1. Arrays are stored as safetensors stores them, in C order of their shape (N, C, H, W), under the
path that leads to them: keys and positions joined by ``/``, in which ``~`` is written ``~0`` and ``/`` ``~1`` (JSON
pointers, RFC 6901). So a saved ``state_dict`` has the parameters' own names, and any safetensors reader takes it. All
else is JSON in the metadata entry ``gpucnn``: ``{"version": 1, "crc32": c, "tree": t}``, c the CRC-32 of t as compact
ASCII JSON. In t, None, booleans, integers, strings and finite floats stand for themselves, the rest is an object with
one of these keys:

    dict    [[key, value], ...]; keys are strings or integers       float   "nan", "inf" or "-inf"
    list    [value, ...]                                            tensor  name of a gpucnn tensor, with its "crc32"
    tuple   [value, ...]                                            array   name of a NumPy array, with its "crc32"

The CRC-32 of an array is over ``"<dtype> <shape>"`` (such as ``<f4 (2, 3)``) and then its bytes.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from contextlib import suppress
from typing import Any

import numpy as np

from gpucnn import backends, dtypes
from gpucnn.creation import tensor
from gpucnn.device import Device
from gpucnn.device import device as _device
from gpucnn.tensor import DeviceLike, Tensor

FORMAT_VERSION = 1
_KEY = "gpucnn"
_DTYPES = frozenset(
    [
        "bool",
        *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
        "float16",
        "bfloat16",
        "float32",
        "float64",
    ]
)

PathLike = str | os.PathLike[str]
Array = np.ndarray[Any, Any]


def save(obj: Any, path: PathLike) -> None:
    """Writes ``obj`` to ``path``: dicts (string or integer keys), lists and tuples of tensors, arrays, numbers,
    strings, bools, None.

    NumPy scalars become Python numbers. The file is written beside its place, synced and renamed, so that a failure
    leaves what was there before. Raises TypeError, naming the place in ``obj``, for anything else; OSError where the
    file cannot be written.
    """
    from safetensors.numpy import save as serialize

    arrays: dict[str, Array] = {}
    tree = _encode(obj, (), arrays)
    header = {"version": FORMAT_VERSION, "crc32": zlib.crc32(_compact(tree)), "tree": tree}
    atomic_write(path, serialize(arrays, metadata={_KEY: _compact(header).decode()}))


def load(path: PathLike, device: DeviceLike = None) -> Any:
    """What :func:`save` wrote to ``path``, its tensors on ``device`` (default: the default device).

    A safetensors file of another program gives a dict of its tensors. Raises ValueError, naming the file and what is
    wrong, for a file that is damaged, cut off, of a newer format or no safetensors file; OSError where it cannot be
    read.
    """
    from safetensors import SafetensorError, safe_open

    path = os.fspath(path)
    place = backends.default_device() if device is None else _device(device)
    backends.get(place)  # a device that cannot be used says so here, not as a fault of the file
    with suppress(ImportError):  # gives NumPy the name bfloat16
        dtypes.bfloat16()
    with open(path, "rb"):  # a folder, a missing or an unreadable file: the system's own error
        pass
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (TypeError, AttributeError) as error:  # what NumPy says to bfloat16 and its like
        raise ValueError(f"{path}: holds an array of a type that NumPy does not have: {error}") from error
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: damaged, or not a safetensors file: {error}") from error
    try:
        if _KEY in metadata:
            return _unpack(metadata[_KEY], arrays, place)
        if metadata and "format" not in metadata:
            raise _Damaged(f"it has metadata ({', '.join(map(repr, metadata))}) but none of gpucnn's")
        for name, array in arrays.items():
            if array.dtype.name not in _DTYPES:
                raise _Damaged(f"{name!r} has dtype {array.dtype}, which no tensor can have")
        return {name: tensor(array, device=place) for name, array in arrays.items()}
    except _Damaged as error:
        raise ValueError(f"{path}: {error}") from error


def atomic_write(path: PathLike, data: bytes) -> None:
    """Writes ``data`` to ``path`` so that at every moment the old or the new file is there, whole, also after a power
    cut.

    Links are followed. Devices and pipes (``/dev/stdout``) are written to and stay what they are. Raises OSError with
    nothing changed where it cannot be done.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        with open(path, "wb") as device:
            device.write(data)
        return
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name[:100]}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        # Not tempfile: its files are readable by their owner alone, and renaming keeps that.
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # some file systems cannot sync a folder; the file itself is safe
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _Damaged(Exception):
    """What is wrong with a file, without its name."""


# ---- writing ---------------------------------------------------------------------------------------------------------


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def _crc(array: Array) -> int:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    start = zlib.crc32(f"{little.dtype.str} {little.shape}".encode())
    return zlib.crc32(little.tobytes() if little.size == 0 else little.reshape(-1).view(np.uint8).data, start)


def _encode(value: Any, path: tuple[str, ...], arrays: dict[str, Array]) -> Any:
    """``value`` as the tree of the format; its arrays go into ``arrays``."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": str(float(value))}
    if isinstance(value, Tensor):
        return _store("tensor", value.numpy(), path, arrays)
    if isinstance(value, np.ndarray):
        return _store("array", value, path, arrays)
    if isinstance(value, dict):
        for key in value:
            if isinstance(key, bool) or not isinstance(key, (str, int)):
                raise TypeError(
                    f"save: {_place(path)} has the key {key!r}; only strings and integers can be saved as keys"
                )
        pairs = [[_encode(key, path, arrays), _encode(item, (*path, str(key)), arrays)] for key, item in value.items()]
        return {"dict": pairs}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_encode(item, (*path, str(index)), arrays) for index, item in enumerate(value)]}
    raise TypeError(
        f"save: {_place(path)} is of type {type(value).__name__}; tensors, arrays, numbers, strings, bools, None and"
        " dicts, lists and tuples of them can be saved"
    )


def _store(kind: str, array: Array, path: tuple[str, ...], arrays: dict[str, Array]) -> dict[str, Any]:
    if array.dtype.name not in _DTYPES:
        raise TypeError(f"save: {_place(path)} has dtype {array.dtype}, which cannot be saved")
    # safetensors writes the bytes of a strided view in the wrong order.
    array = np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
    name = "/".join(part.replace("~", "~0").replace("/", "~1") for part in path)
    while name in arrays or name in ("", "__metadata__"):  # 1 beside "1", or a name that safetensors keeps for itself
        name += "~"
    arrays[name] = array
    return {kind: name, "crc32": _crc(array)}


def _place(path: tuple[str, ...]) -> str:
    return "the value at " + " / ".join(map(repr, path)) if path else "the value"


# ---- reading ---------------------------------------------------------------------------------------------------------


def _unpack(text: str, arrays: dict[str, Array], place: Device) -> Any:
    try:
        header = json.loads(text)
        version = header["version"]
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise _Damaged(
                f"written in format {version} by a newer gpucnn; this one reads up to format {FORMAT_VERSION}:"
                " upgrade gpucnn"
            )
        if version != FORMAT_VERSION or isinstance(version, bool):
            raise _Damaged(f"damaged: format version {version!r}")
        tree, checksum = header["tree"], header["crc32"]
        if zlib.crc32(_compact(tree)) != checksum:
            raise _Damaged("damaged: the checksum of its structure does not match")
        used: set[str] = set()
        value = _decode(tree, arrays, place, used)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _Damaged(f"damaged: its structure cannot be read: {error!r}") from error
    if used != set(arrays):
        raise _Damaged(f"damaged: holds arrays that its structure does not name: {sorted(set(arrays) - used)}")
    return value


def _decode(node: Any, arrays: dict[str, Array], place: Device, used: set[str]) -> Any:
    if not isinstance(node, dict):
        return node
    kind = next(iter(node), None)
    content: Any = node.get(kind)
    if kind == "dict":
        return {key: _decode(item, arrays, place, used) for key, item in content}
    if kind in ("list", "tuple"):
        items = [_decode(item, arrays, place, used) for item in content]
        return items if kind == "list" else tuple(items)
    if kind == "float":
        return float(content)
    if kind not in ("tensor", "array"):
        raise ValueError(f"unknown kind {kind!r}")
    if content not in arrays:
        raise _Damaged(f"damaged: array {content!r} is missing")
    used.add(content)
    array = arrays[content]
    if _crc(array) != node["crc32"]:
        raise _Damaged(f"damaged: the checksum of {content!r} does not match")
    return tensor(array, device=place) if kind == "tensor" else array.copy()
