"""Weights rounded to a half type: kept as long as the weights stay, and all rounded again in one launch.

A step changes all weights of a network at once. The first of them that is asked for afterwards has every other one
rounded with it that was in use since the last time, into the same memory as before: a captured step finds its copies
where they were.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from typing import Any

from gpucnn import dtypes, layout
from gpucnn.backends.launch import address
from gpucnn.precision import half_dtype
from gpucnn.tensor import Tensor, float32

Array = Any


class _Copy:
    """One weight's rounded copy, of its shape and memory order, for as long as the weight has the array that it has."""

    __slots__ = ("array", "backend", "count", "place", "source", "used", "version", "weight")

    def __init__(self, weight: Tensor, dtype: Any, forget: Any) -> None:
        self.weight, self.version = weakref.ref(weight, forget), weight.version
        self.source, self.place = weakref.ref(layout.owner(weight.data), forget), _place(weight)
        self.backend = weight.backend
        view = layout.memory_view(weight.data)
        self.array = layout.from_memory(self.backend.empty(view.shape, dtype), weight.data)  # type: ignore[attr-defined]
        self.count: int | None = None  # of the version, when the weight was rounded
        self.used = 0  # in which round

    def fits(self, weight: Tensor | None) -> bool:
        """Whether this is the copy of ``weight``, where it is now."""
        if weight is None or self.weight() is not weight:
            return False
        # Not the array itself: while a step is captured on the emulator, tensors have views of theirs.
        same = self.source() is layout.owner(weight.data) and self.place == _place(weight)
        return same and self.version is weight.version


def _place(weight: Tensor) -> tuple[Any, ...]:
    return address(weight.data), weight.data.shape, weight.data.strides


class _Refresh:
    """Before each replay of a step that reads ``copy`` and does not round it itself: rounds a weight that changed."""

    def __init__(self, copy: _Copy) -> None:
        self.copy = copy

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Refresh) and self.copy is other.copy

    def __hash__(self) -> int:
        return id(self.copy)

    def __call__(self) -> None:
        weight = self.copy.weight()
        if weight is None:
            return
        if not self.copy.fits(weight):
            raise RuntimeError("cuda.graph: a weight that the step reads lies elsewhere now: capture the step again")
        refresh([weight])


class _Copies:
    """All copies, by the identity of the weight and the dtype. A round begins when weights are rounded again: those of
    a step belong to one, however many networks there are.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.known: dict[tuple[int, str], _Copy] = {}
        self.round = 0

    def get(self, weight: Tensor, dtype: Any) -> Array:
        with self.lock:
            copy = self._copy(weight, dtype)
            capture = _capture(copy)
            if copy.count != weight.version.count:
                self._round_again(copy, dtype)
            elif capture is not None and id(copy) not in capture.derived:
                capture.before_replay(_Refresh(copy))
            copy.used = self.round
            return copy.array

    def _copy(self, weight: Tensor, dtype: Any) -> _Copy:
        key = id(weight), dtype.name
        copy = self.known.get(key)
        if copy is None or not copy.fits(weight):

            def forget(reference: Any) -> None:
                with self.lock:
                    copy = self.known.get(key)
                    if copy is not None and (copy.weight is reference or copy.source is reference):
                        del self.known[key]

            copy = self.known[key] = _Copy(weight, dtype, forget)
        return copy

    def _round_again(self, wanted: _Copy, dtype: Any) -> None:
        """Rounds ``wanted`` and what else is out of date and was in use when ``wanted`` was last; a new one alone."""
        own = wanted.weight()
        assert own is not None  # the caller holds it
        group = [(wanted, own)]
        if wanted.count is not None:
            for copy in list(self.known.values()):
                weight = copy.weight()
                if copy is wanted or weight is None or not copy.fits(weight) or copy.count == weight.version.count:
                    continue
                if copy.used == wanted.used and copy.backend is wanted.backend and copy.array.dtype == dtype:
                    group.append((copy, weight))
            self.round += 1
        _cast(group)
        capture = _capture(wanted)
        if capture is not None:
            capture.derived.update(id(copy) for copy, _ in group)
        for copy, _ in group:
            copy.used = self.round


def _cast(group: list[tuple[_Copy, Tensor]]) -> None:
    """The launch for copies of one backend and dtype."""
    group[0][0].backend.cast_all(
        [layout.memory_view(weight.data) for _, weight in group],
        [layout.memory_view(copy.array) for copy, _ in group],
    )
    for copy, weight in group:
        copy.count = weight.version.count


def _capture(copy: _Copy) -> Any:
    """The capture that this thread is in, if any."""
    engine = getattr(copy.backend, "engine", None)
    return engine.capture if engine is not None and engine.capturing else None


_copies = _Copies()


def refresh(weights: Iterable[Tensor]) -> None:
    """Rounds again those of ``weights`` of which there is a copy that is out of date: one launch for each half type."""
    if not _copies.known:
        return
    with _copies.lock:
        wanted = {id(weight): weight for weight in weights}
        stale: dict[Any, list[tuple[_Copy, Tensor]]] = {}
        for (identity, dtype), copy in list(_copies.known.items()):  # collecting garbage takes copies away
            weight = wanted.get(identity)
            if weight is not None and copy.fits(weight) and copy.count not in (None, weight.version.count):
                stale.setdefault((id(copy.backend), dtype), []).append((copy, weight))
        for group in stale.values():
            _cast(group)


def rounded(weight: Tensor, dtype: Any) -> Array:
    """The array of ``weight`` in the half ``dtype``, of its shape and memory order; itself where it is of that dtype.

    A leaf's float32 weights are rounded once for each change of theirs, results of operators each time.
    """
    if weight.dtype == dtype:
        return weight.data
    if weight.is_leaf and weight.dtype == float32 and weight.numel() and layout.is_dense(weight.data):
        return _copies.get(weight, dtype)
    return weight.detach().to(dtype=float32).to(dtype=dtype).data


def operand(operator: str, x: Tensor) -> tuple[Tensor, Any]:
    """``x`` as a product takes it, and the half dtype that it computes in, None for that of ``x``.

    Under a half precision ``x`` is rounded to it; else the dtype of ``x`` decides.
    """
    half = half_dtype(x.device, operator)
    if half is None:
        half = x.dtype if dtypes.is_half(x.dtype) else None
    elif x.dtype != half:
        x = x.to(dtype=float32).to(dtype=half)
    return x, half


def parameter(bias: Tensor | None) -> Array | None:
    """The array of a bias, which is float32 beside arrays of half types."""
    if bias is None:
        return None
    return bias.to(dtype=float32).data if dtypes.is_half(bias.dtype) else bias.data
