"""`gpucnn eval` and `gpucnn predict`: what a trained network is worth, and what it sees in a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpucnn.cli.options import DataDir, DeviceOption, Quiet, usable_device
from gpucnn.cli.output import Output, count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

SIDES = {"cifar10": 32, "shapes": 32, "mnist": 28}  # of the images that each data set trains on
GREY = ("mnist",)
BATCH = 128


def evaluate(
    run: Annotated[
        Path | None, typer.Argument(help="A run's folder or checkpoint; default: the newest in runs/.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="Default: the data set that the run trained on.")] = None,
    data_dir: DataDir = None,
    device: DeviceOption = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Examples a step.")] = BATCH,
    weights: Annotated[
        bool, typer.Option("--weights", help="The weights themselves, not their moving average.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Loss and accuracy of a trained network on the test images."""
    from gpucnn import data as sets
    from gpucnn import training

    output = Output(quiet)
    loaded = training.load_run(run or newest_run(), usable_device(device), average=not weights)
    name = data or loaded.config.data or "cifar10"
    images = sets.create(name, train=False, root=data_dir if data_dir is not None else loaded.config.data_dir)
    if len(images.classes) != len(loaded.classes):
        raise ValueError(f"{name} has {len(images.classes)} classes, the run's network {len(loaded.classes)}")
    metrics = training.evaluate(loaded.model, loaded.test_loader(images, batch_size))
    kind = "the moving average of the weights" if loaded.averaged else "the weights"
    output.say(
        f"{loaded.config.model} after {count(loaded.epoch, 'epoch')}, {kind},"
        f" on the {len(images)} test images of {images.name}"
    )
    output.result(f"loss {metrics.loss:.4f}, accuracy {metrics.accuracy:.2%}")


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, of any size.")],
    run: Annotated[
        Path | None, typer.Option("--run", help="A run's folder or checkpoint; default: the newest in runs/.")
    ] = None,
    top: Annotated[int, typer.Option("--top", help="How many classes to name for each image.")] = 3,
    device: DeviceOption = None,
    quiet: Quiet = False,
) -> None:
    """Say what is in pictures: the likeliest classes and their probabilities."""
    import numpy as np

    from gpucnn import functional as F
    from gpucnn import no_grad, tensor, training

    output = Output(quiet)
    if top < 1:
        raise ValueError(f"--top must be at least 1, got {top}")
    place = usable_device(device)
    loaded = training.load_run(run or newest_run(), place)
    name = loaded.config.data or ""
    side = SIDES.get(name, loaded.model.input_shape[1])
    pictures = np.stack([open_image(path, side, name in GREY, output) for path in images])
    _, transform = training.transforms(loaded.model, name)
    for start in range(0, len(images), BATCH):
        batch = transform(pictures[start : start + BATCH])
        with no_grad():
            logits = loaded.model(tensor(batch.transpose(0, 3, 1, 2), device=place))
            probabilities = F.softmax(logits, dim=1).numpy()
        for path, row in zip(images[start : start + BATCH], probabilities, strict=True):
            likeliest = np.argsort(-row, kind="stable")[:top]
            output.result(f"{path}: " + ", ".join(f"{loaded.classes[i]} {row[i]:.1%}" for i in likeliest))


def open_image(path: Path, side: int, grey: bool, output: Output) -> NDArray[np.uint8]:
    """A picture as uint8 (side, side, C), C 1 or 3: turned upright, shorter side scaled to `side`, middle cut out.

    Raises ValueError for a file that is no picture, or one that is cut off or absurdly large, and OSError for a
    missing one.
    """
    import warnings

    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    mode = "L" if grey else "RGB"
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file) as opened:
                size, was = opened.size, opened.mode
                upright = ImageOps.exif_transpose(_with_bytes(opened)).convert(mode)
                picture = ImageOps.fit(upright, (side, side), Image.Resampling.BICUBIC)
        except UnidentifiedImageError:
            raise ValueError(f"{path}: not an image that can be read") from None
        except (
            OSError,
            SyntaxError,
            ValueError,
            Image.DecompressionBombWarning,
            Image.DecompressionBombError,
        ) as error:
            raise ValueError(f"{path}: not an image that can be read ({error})") from None
    changes = []
    if size != (side, side):
        changes.append(f"resized and centre-cropped from {size[0]}x{size[1]} to {side}x{side}")
    if was != mode:
        changes.append(f"converted from {was} to {mode}")
    if changes:
        output.say(f"{path}: {' and '.join(changes)}")
    pixels = np.asarray(picture)
    return pixels[:, :, None] if grey else pixels


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


def newest_run() -> Path:
    """The run in runs/ that was written to last. Raises ValueError where there is none."""
    from gpucnn.training.run_folder import CHECKPOINT, RUNS

    checkpoints = sorted(RUNS.glob(f"*/{CHECKPOINT}"), key=lambda file: file.stat().st_mtime)
    if not checkpoints:
        raise ValueError("there is no run in runs/ yet: train one with `gpucnn train`, or name one")
    return checkpoints[-1].parent
