"""Work on many arrays at once, in pieces that stay in cache and that threads take in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from gpucnn.backends.numpy.elementwise import pieces
from gpucnn.backends.numpy.threads import for_each
from gpucnn.layout import memory_view

Array = NDArray[Any]


def over_pieces(
    run: Callable[..., Any], lists: Sequence[Sequence[Array | None]], each: Sequence[Any] | None = None
) -> None:
    """``run(*pieces)`` on matching pieces of the arrays at one place of the lists, the first of which is complete; None
    stays None. With ``each`` the value at that place comes last.
    """
    items: list[tuple[Any, ...]] = []
    for place, arrays in enumerate(zip(*lists, strict=True)):
        flat = [None if array is None else memory_view(array).reshape(-1) for array in arrays]
        own = () if each is None else (each[place],)
        assert flat[0] is not None
        items += [(*(a if a is None else a[at] for a in flat), *own) for at in pieces(flat[0].size)]
    for_each(lambda item: run(*item), items, sum(array.size for array in lists[0] if array is not None))
