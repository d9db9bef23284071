"""Networks by name, for the command line and for checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from gpucnn.nn import Module

Build = TypeVar("Build", bound=Callable[..., Module])

_builders: dict[str, Callable[..., Module]] = {}
_own_names: dict[str, str] = {}  # any name of a network to its own


def register(*names: str) -> Callable[[Build], Build]:
    """Decorates the function or class that builds a network: ``create`` knows it by each of ``names``, the first being
    its own.
    """

    def add(build: Build) -> Build:
        for name in names:
            if name in _builders:
                raise ValueError(f"models: the name {name!r} is taken")
            _builders[name], _own_names[name] = build, names[0]
        return build

    return add


def names() -> list[str]:
    """All names that :func:`create` takes, sorted."""
    return sorted(_builders)


def canonical_name(name: str) -> str:
    """The network's own name for any of its names. Raises ValueError for an unknown one, listing the known."""
    if name not in _builders:
        raise ValueError(f"unknown model {name!r}; known are {', '.join(names())}")
    return _own_names[name]


def create(name: str, **options: Any) -> Module:
    """A new network with fresh weights; ``options`` go to its class. Raises ValueError for an unknown name, listing the
    known.
    """
    return _builders[canonical_name(name)](**options)
