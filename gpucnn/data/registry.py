"""Data sets by name, and which one to train on where none was asked for."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpucnn.data.cifar10 import CIFAR10
from gpucnn.data.dataset import Dataset
from gpucnn.data.download import NotFoundError
from gpucnn.data.mnist import MNIST
from gpucnn.data.shapes import Shapes

log = logging.getLogger(__name__)

_SETS: dict[str, Callable[..., Dataset]] = {"cifar10": CIFAR10, "mnist": MNIST, "shapes": Shapes}
DEFAULT, FALLBACK = "cifar10", "shapes"


def names() -> list[str]:
    """The names that :func:`create` knows."""
    return sorted(_SETS)


def create(name: str, train: bool = True, root: str | Path | None = None, **options: Any) -> Dataset:
    """The data set called ``name`` ("cifar10", "mnist", "shapes"; case and "-" do not matter).

    Args:
        name: which one.
        train: its training part or its test part.
        root: where its files are; see the class of the set. Generated sets have none and take no notice.
        options: further arguments of the set's class.

    Raises:
        ValueError: an unknown name (the message lists the known ones).
        DataError: the data cannot be had or is damaged.
    """
    key = name.lower().replace("-", "").replace("_", "")
    if key not in _SETS:
        raise ValueError(f"unknown data set {name!r}, known are {', '.join(names())}")
    make = _SETS[key]
    if "root" in inspect.signature(make).parameters:
        options["root"] = root
    return make(train=train, **options)


def find(
    name: str | None = None,
    root: str | Path | None = None,
    say: Callable[[str], None] = log.warning,
    default: str = DEFAULT,
    **options: Any,
) -> tuple[Dataset, Dataset]:
    """The training and the test part of the data set to train on.

    With a ``name``, that one or an error. Without, the ``default`` where it can be had, and otherwise Shapes, which
    ``say`` is told in one line. Damaged files are an error either way: only what is nowhere is replaced.

    Raises:
        ValueError, DataError: as :func:`create`.
    """
    try:
        wanted = name or default
        return create(wanted, True, root, **options), create(wanted, False, root, **options)
    except NotFoundError as error:
        if name is not None:
            raise
        say(f"{default} cannot be had ({error}): training on the generated set {FALLBACK} instead.")
        return create(FALLBACK, True), create(FALLBACK, False)
