"""The names of devices: ``cpu``, ``cuda``, ``cuda:1``, ``emulated``.

Whether one can be used is for gpucnn/backends/ to say.
"""

from __future__ import annotations

from typing import Any, ClassVar

DEVICE_TYPES = ("cpu", "cuda", "emulated")


class Device:
    """A device by type and index. Only ``cuda`` has an index other than 0.

    There is one object for each: equal ones are the same, so that the many comparisons of a call cost nothing.
    """

    __slots__ = ("index", "type")

    type: str
    index: int
    _known: ClassVar[dict[tuple[str, int], Device]] = {}

    def __new__(cls, type: str, index: int = 0) -> Device:
        known = cls._known.get((type, index))
        if known is None:
            made = super().__new__(cls)
            object.__setattr__(made, "type", type)
            object.__setattr__(made, "index", index)
            known = cls._known.setdefault((type, index), made)  # threads that ask at the same time get the same one
        return known

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a device does not change: {name} = {value!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return Device, (self.type, self.index)  # a copy, also one from a file, is the same object

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
