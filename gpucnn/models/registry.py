"""Networks by name, for the command line and for checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from gpucnn.nn import Module

Build = TypeVar("Build", bound=Callable[..., Module])

_builders: dict[str, Callable[..., Module]] = {}


def register(*names: str) -> Callable[[Build], Build]:
    """Decorates the function or class that builds a network: ``create`` knows it by each of ``names``, the first being
    its own.
    """

    def add(build: Build) -> Build:
        for name in names:
            if name in _builders:
                raise ValueError(f"models: the name {name!r} is taken")
            _builders[name] = build
        return build

    return add


def names() -> list[str]:
    """All names that :func:`create` takes, sorted."""
    return sorted(_builders)


def create(name: str, **options: Any) -> Module:
    """A new network with fresh weights; ``options`` go to its class. Raises ValueError for an unknown name, listing the
    known.
    """
    if name not in _builders:
        raise ValueError(f"unknown model {name!r}; known are {', '.join(names())}")
    return _builders[name](**options)
