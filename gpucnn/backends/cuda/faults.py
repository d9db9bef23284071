"""What kernels find wrong in their data on ``cuda``: recorded on the device, raised at the next host read.

The record is what kernels/cross_entropy.cu describes: FAULT_WORDS words of 64 bits, all ones while nothing is wrong,
lowered by atomicMin. Bits 44 to 63 of each are the launch since the last check, bits 8 to 43 the row, and the lowest
byte of word j is byte j of the label; so the first launch's first row is what is left, whatever order blocks ran in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from gpucnn.backends.base import Array
from gpucnn.backends.labels import label_error

FAULT_WORDS = 8
NO_FAULT = 2**64 - 1
MOST_LAUNCHES = 2**20 - 2  # told apart between two checks; later ones share the last number, and captured ones


@dataclass(slots=True)
class _Record:
    words: Array
    checked: int = 0  # launches up to the last check
    launches: int = 0
    classes: list[tuple[int, int]] = field(default_factory=list)  # (first launch, number of classes), where it changed


_records: WeakKeyDictionary[Any, _Record] = WeakKeyDictionary()


def next_launch(backend: Any, classes: int) -> tuple[Array, int]:
    """The record for a launch over ``classes`` classes, and the launch's number since the last check."""
    record = _records.get(backend)
    if record is None:
        clear = np.full(FAULT_WORDS, NO_FAULT, np.uint64)
        record = _records.setdefault(backend, _Record(backend.constant(clear)))
    number = MOST_LAUNCHES if backend.engine.capturing else min(record.launches - record.checked, MOST_LAUNCHES)
    if not record.classes or record.classes[-1][1] != classes:
        record.classes.append((number, classes))
    if backend.engine.capturing:  # it runs at each replay, and not now
        backend.engine.capture.before_replay(lambda: _count(record))
    else:
        _count(record)
    return record.words, number


def _count(record: _Record) -> None:
    record.launches += 1


def check(backend: Any) -> None:
    """Waits for the launches since the last check and raises ValueError for the first label that was out of range."""
    record = _records.get(backend)
    if record is None or record.launches == record.checked:
        return
    words = np.asarray(record.words if backend.xp is np else record.words.get()).tolist()
    before, classes = record.checked, record.classes
    record.checked = record.launches
    record.classes = [(0, classes[-1][1])]
    if words[0] == NO_FAULT:
        return
    record.words[...] = backend.xp.array(np.full(FAULT_WORDS, NO_FAULT, np.uint64))
    launch, row = words[0] >> 44, (words[0] >> 8) & (2**36 - 1)
    label = int.from_bytes(bytes(word & 0xFF for word in words), "little", signed=True)
    limit = [count for first, count in classes if first <= launch][-1]
    raise label_error(label, row, limit, None if launch == MOST_LAUNCHES else before + launch + 1)
