"""The names of devices: ``cpu``, ``cuda``, ``cuda:1``, ``emulated``.

Whether one can be used is for gpucnn/backends/ to say.
"""

from __future__ import annotations

from dataclasses import dataclass

DEVICE_TYPES = ("cpu", "cuda", "emulated")


@dataclass(frozen=True, slots=True)
class Device:
    """A device by type and index; equal ones compare equal. Only ``cuda`` has an index other than 0."""

    type: str
    index: int = 0

    def __str__(self) -> str:
        return f"cuda:{self.index}" if self.type == "cuda" else self.type

    def __repr__(self) -> str:
        return f"device('{self}')"


def device(name: str | Device) -> Device:
    """``"cpu"``, ``"cuda"`` (the first GPU), ``"cuda:1"`` or ``"emulated"`` as a :class:`Device`.

    Raises ValueError for another name. It does not ask whether the device is there: its first use does.
    """
    if isinstance(name, Device):
        return name
    if not isinstance(name, str):
        raise TypeError(f"device: expected a name such as 'cpu' or 'cuda:0', got {name!r}")
    kind, colon, index = name.partition(":")
    if kind not in DEVICE_TYPES or (colon and (kind != "cuda" or not index.isdecimal())):
        raise ValueError(f"device: {name!r} is unknown; known are 'cpu', 'cuda', 'cuda:<index>' and 'emulated'")
    return Device(kind, int(index) if colon else 0)
