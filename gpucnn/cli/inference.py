"""`gpucnn eval` and `gpucnn predict`: what a trained network is worth, and what it sees in a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpucnn.cli.errors import BAD_INPUT, complain, one_line
from gpucnn.cli.images import open_image, set_name, wanted_image
from gpucnn.cli.options import BestOption, DataDir, DeviceOption, Quiet, WeightsOption, usable_device
from gpucnn.cli.output import Output
from gpucnn.cli.runs import chosen_checkpoint, newest_run, picture_folder, told
from gpucnn.cli.tables import print_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gpucnn.data import Dataset
    from gpucnn.training.predictions import Predictions

BATCH = 128
VIEWS = {"none": "", "mirror": ", each image and its mirror image", "six": ", six views of each image"}


def evaluate(
    run: Annotated[
        Path | None, typer.Argument(help="A run's folder or checkpoint; default: the newest in runs/.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="Default: the data set that the run trained on.")] = None,
    data_dir: DataDir = None,
    device: DeviceOption = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Examples a step.")] = BATCH,
    weights: WeightsOption = False,
    best: BestOption = False,
    tta: Annotated[
        str | None, typer.Option("--tta", help="Views of each image: none, mirror or six; default: the recipe's.")
    ] = None,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="Draw the three pictures.")] = True,
    out: Annotated[
        Path | None, typer.Option("--out", help="The folder for the pictures; default: pictures/ in the run's.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Loss and accuracy of a trained network on the test images, class by class, and pictures of its mistakes."""
    from gpucnn import data as sets
    from gpucnn import training
    from gpucnn.cli.progress import display
    from gpucnn.training.predictions import predict as predictions
    from gpucnn.viz.matrix import confusion_matrix

    output = Output(quiet)
    if tta is not None and tta not in VIEWS:
        raise ValueError(f"--tta must be one of {', '.join(VIEWS)}, got {tta!r}")
    place = usable_device(device)
    checkpoint = chosen_checkpoint(run or newest_run(), best)
    loaded = training.load_run(checkpoint, place, average=not weights)
    folder = picture_folder(checkpoint, out) if pictures and out is not None else None
    name = data or loaded.config.data or "cifar10"
    images = sets.create(name, train=False, root=data_dir if data_dir is not None else loaded.config.data_dir)
    if len(images.classes) != len(loaded.classes):
        raise ValueError(f"{name} has {len(images.classes)} classes, the run's network {len(loaded.classes)}")
    views = tta if tta is not None else loaded.config.tta
    with display(output) as progress:
        found = predictions(loaded.model, loaded.test_loader(images, batch_size), views, progress.evaluating)
    of = f"{told(loaded)}{VIEWS[views]}"
    output.say(f"{of}, on the {len(images)} test images of {images.name}")
    output.result(f"loss {found.loss:.4f}, accuracy {found.accuracy:.2%}")
    matrix = confusion_matrix(found.labels, found.predicted, len(images.classes))
    _print_classes(output, matrix, images.classes)
    if pictures:
        try:
            folder = folder if folder is not None else picture_folder(checkpoint, None)
        except OSError as error:  # a run that may only be read is no reason to fail: nobody asked for a folder
            output.say(f"no pictures: {one_line(error)}")
            return
        _draw(
            folder,
            matrix,
            images,
            found,
            f"{of}\n{found.accuracy:.2%} of the {len(images)} test images of {images.name}",
        )
        output.say(f"pictures: {folder}")


def _print_classes(output: Output, matrix: NDArray[np.int64], classes: tuple[str, ...]) -> None:
    """Each class with its images, how many were right, and what its images were most often taken for instead."""
    import numpy as np

    rows = []
    for i, name in enumerate(classes):
        total, right = int(matrix[i].sum()), int(matrix[i, i])
        others = matrix[i].copy()
        others[i] = 0
        most = int(np.argmax(others))
        taken = f"{classes[most]} ({others[most]})" if others[most] else ""
        rows.append((name, str(total), str(right), f"{right / total:.2%}" if total else "-", taken))
    total, right = int(matrix.sum()), int(matrix.trace())
    print_table(
        output,
        ("class", "images", "right", "accuracy", "most often taken for"),
        rows,
        right=(1, 2, 3),
        last=("all", str(total), str(right), f"{right / total:.2%}", ""),
    )


def _draw(folder: Path, matrix: NDArray[np.int64], images: Dataset, found: Predictions, title: str) -> None:
    from gpucnn.viz import matrix as drawing
    from gpucnn.viz import sheet

    drawing.draw_confusion(matrix, images.classes, folder / "confusion.png", title)
    drawing.draw_accuracy(matrix, images.classes, folder / "accuracy.png", title)
    sheet.draw_mistakes(
        images.images, found.probabilities, found.labels, images.classes, folder / "mistakes.png", title
    )


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, of any size.")],
    run: Annotated[
        Path | None, typer.Option("--run", help="A run's folder or checkpoint; default: the newest in runs/.")
    ] = None,
    top: Annotated[int, typer.Option("--top", help="How many classes to name for each image.")] = 3,
    device: DeviceOption = None,
    weights: WeightsOption = False,
    best: BestOption = False,
    quiet: Quiet = False,
) -> None:
    """Say what is in pictures: the likeliest classes and their probabilities.

    A file that is no picture gets a line on standard error; the others are predicted all the same, and the exit code
    is 2.
    """
    import numpy as np

    from gpucnn import training
    from gpucnn.data import Dataset
    from gpucnn.training.predictions import predict as predictions

    output = Output(quiet)
    if top < 1:
        raise ValueError(f"--top must be at least 1, got {top}")
    place = usable_device(device)
    checkpoint = chosen_checkpoint(run or newest_run(), best)
    loaded = training.load_run(checkpoint, place, average=not weights)
    name = set_name(loaded.config.data or "")
    side, grey = wanted_image(name, loaded.model)
    all_read = True
    for start in range(0, len(images), BATCH):
        pictures: dict[int, NDArray[np.uint8]] = {}
        for number, path in enumerate(images[start : start + BATCH], start):
            try:
                pictures[number] = open_image(path, side, grey, output)
            except (ValueError, OSError) as error:
                complain(one_line(error))
                all_read = False
        if not pictures:
            continue
        batch = np.stack(list(pictures.values()))
        unknown = np.zeros(len(batch), dtype=np.int64)
        dataset = Dataset(batch, unknown, loaded.classes, name=name, train=False)
        probabilities = predictions(loaded.model, loaded.test_loader(dataset, BATCH)).probabilities
        for number, row in zip(pictures, probabilities, strict=True):
            likeliest = np.argsort(-row, kind="stable")[:top]
            output.result(f"{images[number]}: " + ", ".join(f"{loaded.classes[i]} {row[i]:.1%}" for i in likeliest))
    if not all_read:
        raise typer.Exit(BAD_INPUT)
