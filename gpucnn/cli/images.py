"""Image files of any kind, as the images of a data set: how `gpucnn predict` and `gpucnn show` open them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gpucnn.cli.errors import one_line
from gpucnn.cli.output import Output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from gpucnn.nn import Module

SIDES = {"cifar10": 32, "cifar100": 32, "shapes": 32, "mnist": 28, "fashion_mnist": 28}  # of each data set's images
GREY = ("mnist", "fashion_mnist")

ORIENTATION = 0x0112  # EXIF's entry for how a camera was held; by its value, the transposition that undoes it
TURNS = {
    2: ("FLIP_LEFT_RIGHT", "mirrored"),
    3: ("ROTATE_180", "half a turn"),
    4: ("FLIP_TOP_BOTTOM", "upside down and mirrored"),
    5: ("TRANSPOSE", "a quarter turn and mirrored"),
    6: ("ROTATE_270", "a quarter turn"),
    7: ("TRANSVERSE", "a quarter turn and mirrored"),
    8: ("ROTATE_90", "a quarter turn"),
}


def set_name(data: str) -> str:
    """A data set's own name, however its name is written: "CIFAR-10" is "cifar10"."""
    plain = data.lower().replace("-", "").replace("_", "")
    return next((name for name in SIDES if name.replace("_", "") == plain), data)


def wanted_image(data: str, model: Module) -> tuple[int, bool]:
    """The side of the images that a network trained on `data` wants, and whether they are grey; for a data set that is
    not known here, as the network takes them."""
    shape = model.input_shape
    return SIDES.get(data, min(shape[1:])), data in GREY or (data not in SIDES and shape[0] == 1)


def open_image(path: Path, side: int, grey: bool, output: Output) -> NDArray[np.uint8]:
    """A picture as uint8 (side, side, C), C 1 or 3: turned upright, shorter side scaled to `side`, middle cut out,
    transparent parts white. What had to be done is said in one line.

    Raises ValueError for a file that is no picture, or one that is cut off or absurdly large, and OSError for a
    missing one.
    """
    import warnings

    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError
    from PIL.Image import Transpose

    mode = "L" if grey else "RGB"
    done = []
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file) as opened:
                was = opened.mode
                if getattr(opened, "is_animated", False):
                    opened.seek(0)
                    done.append("the first of its frames taken")
                size = opened.size
                turn, told = TURNS.get(opened.getexif().get(ORIENTATION, 1), (None, ""))
                upright = _opaque(_with_bytes(opened)).convert(mode)
                if turn is not None:
                    upright = upright.transpose(Transpose[turn])
                    done.append(f"turned upright ({told}, says its EXIF)")
                picture = ImageOps.fit(upright, (side, side), Image.Resampling.BICUBIC)
        except UnidentifiedImageError:
            raise ValueError(f"{path}: not an image that can be read") from None
        except Exception as error:  # Pillow's readers raise whatever a damaged file leads them to
            raise ValueError(f"{path}: not an image that can be read ({one_line(error)})") from None
    if size != (side, side):
        done.append(f"resized and centre-cropped from {size[0]}x{size[1]} to {side}x{side}")
    if was != mode:
        done.append(f"converted from {was} to {mode}")
    if done:
        output.say(f"{path}: {_listed(done)}")
    pixels = np.asarray(picture)
    return pixels[:, :, None] if grey else pixels


def _listed(done: list[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join([", ".join(done[:-1]), done[-1]] if len(done) > 1 else done)


def _opaque(picture: Image.Image) -> Image.Image:
    """Transparent parts laid on white, which is what most viewers show."""
    from PIL import Image

    if not picture.has_transparency_data:
        return picture
    colours = picture.convert("RGBA")
    opaque = Image.new("RGB", picture.size, "white")
    opaque.paste(colours, mask=colours.getchannel("A"))
    return opaque


def _with_bytes(picture: Image.Image) -> Image.Image:
    """Pixels of 16 bits brought to 8, which Pillow's own conversion would cut off at 255. Raises ValueError for pixels
    of 32 bits: where their white lies, nobody knows.
    """
    import numpy as np
    from PIL import Image

    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG"):
        return Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits; 8 or 16 are expected")
    return picture
