"""What convolutions have learned and what they see: a layer's filters, and each layer's maps of an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucnn.autograd import no_grad
from gpucnn.nn import Conv2d, Module
from gpucnn.tensor import Tensor
from gpucnn.viz.figure import picture
from gpucnn.viz.sheet import shown, tiled

MAPS = 32  # of a layer, in one picture
FILTERS = 256
CHANNELS = 8  # of a filter that is no picture of its own


class Maps(NamedTuple):
    """What a convolution, by its name in the model, made of an image: float32 (K, P, Q)."""

    layer: str
    values: NDArray[np.float32]


def convolutions(model: Module) -> list[tuple[str, Conv2d]]:
    """The convolutions of ``model`` with their dotted names, in the order in which they were made."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, Conv2d)]


def activation_maps(model: Module, images: Tensor) -> tuple[list[Maps], NDArray[np.float32]]:
    """The output of every convolution, its activation and pooling included, for the first of ``images`` (N, C, H, W),
    in the order of computation, and the logits (classes,). A convolution that is used again is there again, with a
    number after its name.
    """
    found: list[Maps] = []
    with ExitStack() as watches, no_grad():
        for name, layer in convolutions(model):
            watches.enter_context(_watched(name, layer, found))
        logits = model(images).numpy()[0]
    return found, logits


@contextmanager
def _watched(name: str, layer: Conv2d, found: list[Maps]) -> Iterator[None]:
    """Within it every call of ``layer`` leaves its output in ``found``."""
    forward: Callable[[Tensor], Tensor] = layer.forward
    calls = 0

    def watched(input: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        output = forward(input)
        first = output.numpy()[0].astype(np.float32)
        values = first if layer.data_format == "NCHW" else first.transpose(2, 0, 1)
        found.append(Maps(name if calls == 1 else f"{name} ({calls})", values))
        return output

    layer.forward = watched  # type: ignore[method-assign]
    try:
        yield
    finally:
        del layer.forward


def strongest(maps: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The channels of the ``count`` maps (K, P, Q) whose values vary most over the image, in the order of channels."""
    spread = maps.astype(np.float64).std(axis=(1, 2))
    return np.sort(np.argsort(-spread, kind="stable")[:count]).astype(np.int64)


def draw_filters(filters: NDArray[Any], path: Path, title: str = "") -> str:
    """Draws the filters (K, C, R, S) of a layer as a sheet, numbered, and returns a line that says what is shown.

    Filters of 3 channels are in colour, those of 1 in grey; of others each channel is a grey tile, a filter a row. Each
    filter has its own scale: middle grey is 0, and its largest value of either sign is full brightness or black.

    Raises:
        ValueError: filters of another number of axes, or none.
        ImportError, OSError: as :func:`gpucnn.viz.figure.picture`.
    """
    filters = np.asarray(filters, dtype=np.float32)
    if filters.ndim != 4 or 0 in filters.shape:
        raise ValueError(f"draw_filters: expected filters (K, C, R, S), got {filters.shape}")
    k, c, r, s = filters.shape
    scale = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    grey = 0.5 + np.divide(filters, 2 * scale, out=np.zeros_like(filters), where=scale > 0)
    own = c in (1, 3)  # whether a filter is a picture
    number = min(k, FILTERS if own else FILTERS // CHANNELS)
    channels = min(c, CHANNELS)
    if own:
        tiles = grey[:number].transpose(0, 2, 3, 1)
        columns = min(number, 8 if number <= 64 else 16)
    else:
        tiles = grey[:number, :channels].reshape(number * channels, r, s, 1)
        columns = channels
    told = f"{number} of {k} filters" if number < k else f"{k} filters"
    told += f" of {r}x{s}, {'colour' if c == 3 else 'grey'}" if own else f" of {r}x{s}, {channels} of {c} channels"
    labels = list(range(number)) if own else [i if j == 0 else None for i in range(number) for j in range(channels)]
    rows = -(-len(tiles) // columns)
    inches = 0.62 if columns <= 8 else 0.45
    with picture(path, max(4.5, inches * columns + 0.4), max(1.5, inches * rows * r / s + 0.8)) as figure:
        axes = figure.add_subplot()
        _show_tiles(axes, tiles, columns, labels, label_size=6.0, cmap="gray", limits=(0.0, 1.0))
        axes.set_title(f"{title}\n{told}" if title else told, fontsize=9)
    return told


def draw_maps(
    maps: NDArray[np.float32], path: Path, image: NDArray[np.uint8] | None = None, title: str = "", limit: int = MAPS
) -> str:
    """Draws up to ``limit`` of the maps (K, P, Q) of a layer, numbered by their channels, and returns a line that says
    what is shown. All have one scale, with 0 in its middle.

    Args:
        maps: the output of a convolution for one image.
        image: what it is of, uint8 (H, W, C), shown beside them.
        limit: where there are more maps, those that vary most over the image are shown.

    Raises:
        ValueError: maps of another number of axes, or none; a limit below 1.
        ImportError, OSError: as :func:`gpucnn.viz.figure.picture`.
    """
    maps = np.asarray(maps, dtype=np.float32)
    if maps.ndim != 3 or 0 in maps.shape or limit < 1:
        raise ValueError(f"draw_maps: expected maps (K, P, Q) and a limit above 0, got {maps.shape} and {limit}")
    k, p, q = maps.shape
    chosen = strongest(maps, limit)
    told = f"{k} maps of {p}x{q}"
    if len(chosen) < k:
        told = f"{len(chosen)} of {k} maps of {p}x{q}, those that vary most"
    bound = float(np.percentile(np.abs(maps[chosen]), 99.5)) or 1.0
    columns = min(len(chosen), max(8, math.ceil(math.sqrt(len(chosen)))))
    rows = -(-len(chosen) // columns)
    width = 0.95 * columns + 2.9
    with picture(path, width, max(2.4, 0.95 * rows * p / q + 0.8)) as figure:
        grid = figure.add_gridspec(1, 2, width_ratios=(1.5, 0.95 * columns + 0.6))
        if image is not None:
            beside = figure.add_subplot(grid[0, 0], anchor="N")
            beside.imshow(shown(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            beside.set_axis_off()
            beside.set_title("the image", fontsize=8)
        axes = figure.add_subplot(grid[0, 1], anchor="N")
        tiles = maps[chosen][:, :, :, None]
        drawn = _show_tiles(axes, tiles, columns, chosen.tolist(), 6.5, cmap="PuOr_r", limits=(-bound, bound))
        bar = figure.colorbar(drawn, ax=axes, shrink=0.8, aspect=20, pad=0.01, extend="both")
        bar.ax.tick_params(labelsize=7)
        axes.set_title(f"{title}\n{told}" if title else told, fontsize=9)
    return told


def _show_tiles(
    axes: Any,
    tiles: NDArray[np.float32],
    columns: int,
    labels: list[int | None] | list[int],
    label_size: float,
    cmap: str,
    limits: tuple[float, float],
) -> Any:
    """Tiles (n, h, w, c) in rows of ``columns``, each with its number at its top left corner, outside it."""
    from matplotlib.patches import Rectangle

    _, h, w, c = tiles.shape
    zoom = max(1, math.ceil(24 / min(h, w)))  # so that the gaps are thin beside small tiles
    big = tiles.repeat(zoom, axis=1).repeat(zoom, axis=2)
    gap = max(4, big.shape[1] // 4)
    sheet = tiled(big, columns, gap, np.nan)
    drawn = axes.imshow(
        np.ma.masked_invalid(sheet[:, :, 0]) if c == 1 else np.nan_to_num(sheet, nan=1.0),
        cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest",
    )  # fmt: skip
    for place, label in enumerate(labels):
        top = (place // columns) * (big.shape[1] + gap) + gap - 0.5
        left = (place % columns) * (big.shape[2] + gap) + gap - 0.5
        axes.add_patch(
            Rectangle((left, top), big.shape[2], big.shape[1], fill=False, edgecolor="#aaaaaa", linewidth=0.5)
        )
        if label is not None:
            axes.text(left, top - 1.0, str(label), fontsize=label_size, color="#555555", va="bottom")
    axes.set_axis_off()
    return drawn
