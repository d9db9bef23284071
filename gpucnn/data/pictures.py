"""Image files of any kind as pixels of one size: for folders of them, and for `gpucnn predict` and `gpucnn show`.

A network that was trained on a folder of pictures must see others as it saw those, so there is one way to open them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpucnn.data.dataset import DataError

if TYPE_CHECKING:
    from PIL import Image

FILE_LIMIT = 256 << 20  # bytes of a file; its pixels have Pillow's limit
REFUSED = frozenset({"EPS"})  # a program, which Pillow has Ghostscript run

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


def read_picture(path: Path, height: int, width: int, grey: bool = False) -> tuple[NDArray[np.uint8], list[str]]:
    """The picture as uint8 (height, width, C), C 3, or 1 where ``grey``, and what had to be done to it, in words.

    The first frame of an animation, turned upright (EXIF), 16 bits brought to 8, transparent parts laid on white,
    scaled until it covers the size (bicubic), its middle.

    Raises:
        DataError: no picture, one that is cut off or absurdly large, or something that is no plain file; names it.
        OSError: a file that is missing or must not be read.
    """
    import warnings

    from PIL import Image, ImageOps, UnidentifiedImageError
    from PIL.Image import Transpose

    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode) and not stat.S_ISDIR(about.st_mode):  # a pipe would be waited for
        raise DataError(f"{path}: not an image that can be read (it is no plain file)")
    if about.st_size > FILE_LIMIT:
        raise DataError(
            f"{path}: not an image that can be read (expected at most {FILE_LIMIT} bytes, found {about.st_size})"
        )
    mode = "L" if grey else "RGB"
    done = []
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file, formats=_formats()) as opened:
                was, size = opened.mode, opened.size
                if getattr(opened, "is_animated", False):
                    opened.seek(0)
                    done.append("the first of its frames taken")
                turn, told = TURNS.get(opened.getexif().get(ORIENTATION, 1), (None, ""))
                upright = _opaque(_with_bytes(opened)).convert(mode)
                if turn is not None:
                    upright = upright.transpose(Transpose[turn])
                    done.append(f"turned upright ({told}, says its EXIF)")
                pixels = np.asarray(ImageOps.fit(upright, (width, height), Image.Resampling.BICUBIC))
        except UnidentifiedImageError:
            raise DataError(f"{path}: not an image that can be read") from None
        except Exception as error:  # of a damaged file, each of Pillow's readers raises what it pleases
            why = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{path}: not an image that can be read ({why})") from None
    if size != (width, height):
        done.append(f"resized and centre-cropped from {size[0]}x{size[1]} to {width}x{height}")
    if was != mode:
        done.append(f"converted from {was} to {mode}")
    return pixels.reshape(height, width, -1), done


def _formats() -> list[str]:
    """What is tried on a file, whatever its name says."""
    from PIL import Image

    Image.init()
    return [name for name in Image.OPEN if name not in REFUSED]


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
    from PIL import Image

    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG"):
        return Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits; 8 or 16 are expected")
    return picture
