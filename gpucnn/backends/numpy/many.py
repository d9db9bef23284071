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
    run: Callable[..., Any], lists: Sequence[Sequence[Array]], weight_decays: Sequence[float] | None = None
) -> None:
    """``run(*pieces, weight_decay)`` on matching pieces of the arrays at one place of the lists."""
    items: list[tuple[Any, ...]] = []
    for place, arrays in enumerate(zip(*lists, strict=True)):
        flat = [memory_view(array).reshape(-1) for array in arrays]
        decay = () if weight_decays is None else (weight_decays[place],)
        items += [(*(array[at] for array in flat), *decay) for at in pieces(flat[0].size)]
    for_each(lambda item: run(*item), items)
