"""Reads CIFAR's batch files, which are Python pickles, without giving them a chance to run anything.

A pickle is a program for a small stack machine; what makes it dangerous is that it may name any Python function and
call it. This unpickler knows dict, list, int and bytes, and for the one NumPy array of a batch it puts harmless
stand-ins under the three names that NumPy's own pickles use. It never hands a byte of the file to NumPy's
``__setstate__``: the stand-ins write down what they are told, and :func:`as_bytes_array` checks it.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.data.dataset import DataError


class _Type:
    """Stands in for numpy.dtype; remembers what was asked for."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment: of no meaning for single bytes, the only type that is accepted."""


class _Array:
    """Stands in for numpy.ndarray; remembers the state (version, shape, dtype, fortran order, bytes)."""

    def __init__(self, *_: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(data: object, code: object, shape: object, order: object = "C") -> _Array:
    """What NumPy's pickles of protocol 5 call."""
    array = _Array()
    array.state = (1, shape, code, order == "F", data)
    return array


def _encode(text: object, encoding: object = "latin1", *_: object) -> bytes:
    """What Python 3 writes for bytes in protocols 0 to 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes written as {type(text).__name__} in {encoding!r}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # NumPy 1
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # NumPy 2
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
}


class _RefusedError(Exception):
    """A name that is not on the list. No UnpicklingError, so that the two are told apart."""


class _Unpickler(pickle._Unpickler):
    """Python's own, in Python: the one in C makes a table as long as the largest number that a pickle files something
    under, which seven bytes may say is four thousand million. For CIFAR's pickles it is as quick."""

    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module, name))
        if found is None:
            raise _RefusedError(f"{module}.{name}")
        return found


def load(data: bytes, where: str) -> dict[bytes, Any]:
    """The dictionary pickled in ``data``, its keys as bytes.

    Raises:
        DataError: the pickle names anything but the parts of a byte array (it would run code), is damaged, or holds no
            dictionary.
    """
    try:
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except _RefusedError as error:
        if not data.endswith(pickle.STOP):  # in the middle of a name
            raise DataError(f"{where}: not a readable pickle (cut off)") from None
        raise DataError(
            f"{where}: refused: this pickle names {error}, which would run code;"
            " a batch needs only lists, bytes and one array"
        ) from None
    except (
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        LookupError,
        ValueError,
        TypeError,
        OverflowError,
        struct.error,
    ) as error:
        raise DataError(f"{where}: not a readable pickle ({type(error).__name__}: {error})") from None
    except (MemoryError, RecursionError, ImportError) as error:
        raise DataError(f"{where}: refused: not a pickle of a batch ({type(error).__name__})") from None
    if not isinstance(content, dict):
        raise DataError(f"{where}: expected a pickled dict, found {type(content).__name__}")
    return {key.encode("latin1") if isinstance(key, str) else key: value for key, value in content.items()}


def as_bytes_array(value: object, where: str) -> NDArray[np.uint8]:
    """The uint8 array that a stand-in describes, its sizes checked against its bytes."""
    state = value.state if isinstance(value, _Array) else None
    if not isinstance(state, tuple) or len(state) not in (4, 5):
        raise DataError(f"{where}: expected an array of uint8, found {type(value).__name__.strip('_').lower()}")
    shape, code, fortran, data = state[-4:]
    code = code.code if isinstance(code, _Type) else code
    if code not in ("u1", b"u1", "uint8", b"uint8"):
        raise DataError(f"{where}: expected an array of uint8, found elements of type {shown(code)}")
    if not isinstance(data, (bytes, bytearray)) or not isinstance(shape, tuple):
        raise DataError(f"{where}: expected an array of uint8, found one without its bytes or its shape")
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise DataError(f"{where}: expected an array of uint8, found the shape {shown(shape)}")
    expected = math.prod(shape)
    if len(data) != expected:
        raise DataError(
            f"{where}: the array has shape {shown(shape)}, expected {shown(expected)} bytes, found {len(data)}"
        )
    return np.frombuffer(data, dtype=np.uint8).reshape(shape, order="F" if fortran else "C")


def shown(value: object) -> str:
    """A value out of a file, for a message. Python does not write out numbers of more than some thousand digits."""
    try:
        return repr(value)
    except ValueError:
        return "a number without end"
