"""Host arrays to the device under test and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def unaligned(backend: Any, array: Array) -> Any:
    """A copy on the device that starts four bytes past a multiple of 16, as a slice of a larger array may."""
    flat = backend.xp.empty(array.size + 1, array.dtype)[1:]
    flat[...] = backend.from_host(array.reshape(-1))
    return flat.reshape(array.shape)


def host(backend: Any, array: Any) -> Array:
    """The array on the host, checked to be C-contiguous there where it was made."""
    assert array.flags.c_contiguous
    return np.asarray(backend.to_host(array))


@contextlib.contextmanager
def launches(backend: Any) -> Iterator[list[str]]:
    """Collects the names of the kernels launched within it."""
    names: list[str] = []
    launch = backend.launch

    def noted(source: str, name: str, *args: Any, **options: Any) -> None:
        names.append(name)
        launch(source, name, *args, **options)

    backend.launch = noted
    try:
        yield names
    finally:
        backend.launch = launch


@contextlib.contextmanager
def exact_ends(backend: Any) -> Iterator[None]:
    """On the emulator, the first byte past every array is out of bounds within it."""
    guard = getattr(backend.engine, "exact_ends", contextlib.nullcontext)
    with guard():
        yield
