"""Image files of any kind, as the images of a data set: how `gpucnn predict` and `gpucnn show` open them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gpucnn.cli.output import Output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gpucnn.nn import Module

SIDES = {"cifar10": 32, "cifar100": 32, "shapes": 32, "mnist": 28, "fashion_mnist": 28}  # of each data set's images
GREY = ("mnist", "fashion_mnist")


def set_name(data: str) -> str:
    """A data set's own name, however its name is written: "CIFAR-10" is "cifar10"."""
    plain = data.lower().replace("-", "").replace("_", "")
    return next((name for name in SIDES if name.replace("_", "") == plain), data)


def wanted_image(data: str, model: Module) -> tuple[int, bool]:
    """The side of the images that a network trained on `data` wants, and whether they are grey; for a data set that is
    not known here, as the network takes them."""
    from gpucnn.data.image_folder import SIZE

    if data.partition(":")[0].lower() == "folder":
        return SIZE, False
    shape = model.input_shape
    return SIDES.get(data, min(shape[1:])), data in GREY or (data not in SIDES and shape[0] == 1)


def open_image(path: Path, side: int, grey: bool, output: Output) -> NDArray[np.uint8]:
    """A picture as uint8 (side, side, C), C 1 or 3, by :func:`gpucnn.data.pictures.read_picture`. What had to be done
    is said in one line.

    Raises ValueError for a file that is no picture, or one that is cut off or absurdly large, and OSError for a
    missing one.
    """
    from gpucnn.data.pictures import read_picture

    pixels, done = read_picture(path, side, side, grey)
    if done:
        output.say(f"{path}: {_listed(done)}")
    return pixels


def _listed(done: list[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join([", ".join(done[:-1]), done[-1]] if len(done) > 1 else done)
