"""Data sets by name, and which one to train on where none was asked for."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpucnn.data.cifar10 import CIFAR10
from gpucnn.data.cifar100 import CIFAR100
from gpucnn.data.dataset import Dataset
from gpucnn.data.download import NotFoundError
from gpucnn.data.fashion_mnist import FashionMNIST
from gpucnn.data.image_folder import image_folder
from gpucnn.data.mnist import MNIST
from gpucnn.data.shapes import TEST_IMAGES, TRAIN_IMAGES, Shapes

log = logging.getLogger(__name__)

_SETS: dict[str, Callable[..., Dataset]] = {
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "fashion_mnist": FashionMNIST,
    "folder": image_folder,
    "mnist": MNIST,
    "shapes": Shapes,
}
_KEYS = {name.replace("_", ""): make for name, make in _SETS.items()}
DEFAULT, FALLBACK = "cifar10", "shapes"


def names() -> list[str]:
    """The names that :func:`create` knows."""
    return sorted(_SETS)


def create(
    name: str, train: bool = True, root: str | Path | None = None, limit: int | None = None, **options: Any
) -> Dataset:
    """The data set called ``name``: "cifar10", "cifar100", "fashion_mnist", "mnist", "shapes", or "folder:PATH" for
    image files (``PATH/train/CLASS/...`` and ``PATH/test/CLASS/...``). Case, "-" and "_" do not matter.

    Args:
        name: which one.
        train: its training part or its test part.
        root: where its files are; see the class of the set. Generated sets have none and take no notice; a PATH in the
            name comes first.
        limit: only the first so many images; all where it is None.
        options: further arguments of the set's class.

    Raises:
        ValueError: an unknown name (the message lists the known ones).
        DataError: the data cannot be had or is damaged.
    """
    kind, _, path = name.partition(":")
    make = _KEYS.get(kind.lower().replace("-", "").replace("_", ""))
    if make is None or (path and make is not image_folder):
        raise ValueError(f"unknown data set {name!r}, known are {', '.join(names())} (of image files: folder:PATH)")
    root = path or root
    if "root" in inspect.signature(make).parameters:
        options["root"] = root
    if limit is not None and make is Shapes:  # what is generated need not be generated to be left out
        options.setdefault("count", min(limit, TRAIN_IMAGES if train else TEST_IMAGES))
    dataset = make(train=train, **options)
    return dataset if limit is None or limit >= len(dataset) else dataset.subset(slice(limit))


def find(
    name: str | None = None,
    root: str | Path | None = None,
    say: Callable[[str], None] = log.warning,
    default: str = DEFAULT,
    limits: tuple[int | None, int | None] = (None, None),
    **options: Any,
) -> tuple[Dataset, Dataset]:
    """The training and the test part of the data set to train on.

    With a ``name``, that one or an error. Without, the ``default`` where it can be had, and otherwise Shapes, which
    ``say`` is told in one line. Damaged files are an error either way: only what is nowhere is replaced. ``limits`` are
    those of the two parts, see :func:`create`.

    Raises:
        ValueError, DataError: as :func:`create`.
    """
    wanted, (train, test) = name or default, limits
    try:
        return create(wanted, True, root, train, **options), create(wanted, False, root, test, **options)
    except NotFoundError as error:
        if name is not None:
            raise
        say(f"{default} cannot be had ({error}): training on the generated set {FALLBACK} instead.")
        return create(FALLBACK, True, limit=train), create(FALLBACK, False, limit=test)
