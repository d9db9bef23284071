"""`gpucnn show`: a network's first filters, and the maps that its convolutions make of an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpucnn.cli.images import open_image, set_name, wanted_image
from gpucnn.cli.options import BestOption, DataDir, DeviceOption, Quiet, WeightsOption, usable_device
from gpucnn.cli.output import Output
from gpucnn.cli.runs import chosen_checkpoint, picture_folder, told

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gpucnn.training import LoadedRun


def show(
    run: Annotated[Path, typer.Argument(help="A run's folder or checkpoint.")],
    image: Annotated[
        str | None, typer.Argument(help="An image file, or the number of a test image: its maps are drawn too.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The folder for the pictures; default: pictures/ in the run's.")
    ] = None,
    maps: Annotated[int, typer.Option("--maps", help="Of a convolution, draw at most so many.")] = 32,
    data: Annotated[str | None, typer.Option("--data", help="Default: the data set that the run trained on.")] = None,
    data_dir: DataDir = None,
    device: DeviceOption = None,
    weights: WeightsOption = False,
    best: BestOption = False,
    quiet: Quiet = False,
) -> None:
    """Draw the filters of a network's first convolution and, for an image, what every convolution makes of it."""
    import numpy as np

    from gpucnn import training
    from gpucnn.data import Dataset
    from gpucnn.viz import filters as drawing
    from gpucnn.viz.figure import shortened

    output = Output(quiet)
    if maps < 1:
        raise ValueError(f"--maps must be at least 1, got {maps}")
    place = usable_device(device)
    checkpoint = chosen_checkpoint(run, best)
    loaded = training.load_run(checkpoint, place, average=not weights)
    layers = drawing.convolutions(loaded.model)
    if not layers:
        raise ValueError(f"{run}: {loaded.config.model} has no convolution to show")
    name = set_name(data or loaded.config.data or "cifar10")
    pixels, label = _pixels(loaded, image, name, data_dir, output) if image is not None else (None, None)
    folder = picture_folder(checkpoint, out)
    layer, first = layers[0]
    shown = drawing.draw_filters(first.filters().numpy(), folder / "filters.png", f"{told(loaded)}: {layer}")
    output.result(f"{layer}: {shown}: {folder / 'filters.png'}")
    if pixels is None:
        return
    dataset = Dataset(pixels[None], np.zeros(1, dtype=np.int64), loaded.classes, name=name, train=False)
    batch, _ = next(iter(loaded.test_loader(dataset, 1)))
    found, logits = drawing.activation_maps(loaded.model, batch)
    of = f"test image {image} of {name}, {label}" if label is not None else str(image)
    output.result(f"{of}: {_likeliest(logits, loaded.classes)}")
    shown_of = shortened(of if label is not None else Path(str(image)).name, 50)  # in the pictures: no folders
    width = len(str(len(found)))
    for number, (layer, values) in enumerate(found, start=1):
        target = folder / f"maps-{number:0{width}}-{layer.replace(' ', '')}.png"
        shown = drawing.draw_maps(values, target, pixels, f"{told(loaded)}: {layer} of {shown_of}", maps)
        output.result(f"{layer}: {shown}: {target}")


def _pixels(
    loaded: LoadedRun, image: str, name: str, data_dir: Path | None, output: Output
) -> tuple[NDArray[np.uint8], str | None]:
    """The image uint8 (H, W, C), and the name of its class where it is one of a data set."""
    if not image.isdecimal() or Path(image).exists():
        return open_image(Path(image), *wanted_image(name, loaded.model), output), None
    from gpucnn import data as sets

    root = data_dir if data_dir is not None else loaded.config.data_dir
    images = sets.create(name, train=False, root=root)
    if int(image) >= len(images):
        raise ValueError(f"{name} has {len(images)} test images, from 0 on: there is no number {image}")
    pixels, label = images[int(image)]
    return pixels, images.classes[label]


def _likeliest(logits: NDArray[np.float32], classes: tuple[str, ...], top: int = 3) -> str:
    """The likeliest classes and their probabilities."""
    import numpy as np

    from gpucnn.training.predictions import probabilities

    shares = probabilities(logits)
    return ", ".join(f"{classes[i]} {shares[i]:.1%}" for i in np.argsort(-shares, kind="stable")[:top])
