"""Gradients whose arrays are made only when somebody asks for them.

Where max pooling follows local response normalisation, or the other way round, one launch can do the backward passes of
both, and the gradient between them needs no memory. But which node receives a gradient is known to the tape, not to
the operators. So the backward of the one returns a :class:`Deferred` gradient: it has a shape and a dtype, and
*parts*, what its launch would read. The backward of the other takes the parts; whoever asks for ``data`` instead (a
sum of several gradients, the ``grad`` of a leaf) gets the array by the ordinary launch.

A gradient is deferred only if the call that it goes to says in its context that it takes such ones
(``takes_deferred``), which no function outside of this package does; so none outlives the walk back with its launch
still to come.

Reshape's backward alike leaves out its transpose where the images that it gives go to such a max pooling, whose launch
can read them in C order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from gpucnn.autograd import Version, running_on
from gpucnn.tensor import Tensor

IN_C_ORDER = "in C order"  # of reshape: the array (N, C, H, W) that is not yet in the memory order of images
POOLED = "pooled"  # of max pooling: the gradient of its output in either order, the index, the geometry
NORMALISED = "normalised"  # of local response normalisation: what lrn_backward takes, without what is kept


class _Recipe:
    """What a gradient is made of, and the array once it is made."""

    def __init__(self, kind: str, parts: tuple[Any, ...], launch: Callable[[], Any], device: Any) -> None:
        self.kind, self.parts, self._launch, self._device = kind, parts, launch, device

    @property
    def made(self) -> bool:
        return "array" in self.__dict__

    @cached_property
    def array(self) -> Any:
        with running_on(self._device):
            array = self._launch()
        del self.parts, self._launch  # and the memory that they hold
        return array


class Deferred(Tensor):
    """A gradient that ``launch`` makes out of ``parts``, on the device and in the dtype of ``like``."""

    def __init__(
        self,
        kind: str,
        parts: tuple[Any, ...],
        launch: Callable[[], Any],
        like: Tensor,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        self._start(_Recipe(kind, parts, launch, like.device), like, like.shape if shape is None else shape)

    def _start(self, recipe: _Recipe, like: Tensor, shape: tuple[int, ...]) -> None:
        self._recipe, self._shape, self._dtype = recipe, shape, like.dtype
        self.device, self.grad, self.node, self.output_index = like.device, None, None, 0
        self.version, self.requires_grad = Version(), False

    def __getattr__(self, name: str) -> Any:
        if name != "data":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.data = self._recipe.array
        return self.data

    @property
    def pending(self) -> bool:  # type: ignore[override]
        """Whether the array is yet to be made."""
        return not self._recipe.made

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the elements."""
        return self._dtype

    def detach(self) -> Tensor:
        """The same gradient without marks."""
        if not self.pending:
            return super().detach()
        same = Deferred.__new__(Deferred)
        same._start(self._recipe, self, self._shape)
        same.version = self.version
        return same


def taken(x: Tensor, kind: str) -> bool:
    """Whether the call that made ``x`` takes its gradient deferred, as one of ``kind``."""
    return x.backend.recomputes and x.node is not None and kind in x.node.ctx.takes_deferred


def parts(grad: Tensor, kind: str) -> tuple[Any, ...] | None:
    """What a deferred gradient of ``kind`` is to be made of; None for others, and where its array was made already."""
    if isinstance(grad, Deferred) and grad.pending and grad._recipe.kind == kind:
        return grad._recipe.parts
    return None
