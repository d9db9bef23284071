"""Shapes: a generated data set, 32x32 colour images of ten kinds of shapes, for machines with neither data nor network.

Each image is one shape, filled or outlined, of a random colour, size, place and tilt, on a background of another
random colour, under noise. All numbers come from Philox words through integers, additions, multiplications, divisions
and comparisons, which IEEE 754 rounds alike everywhere: the images are the same on every machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpucnn.data.dataset import Dataset
from gpucnn.random import Purpose, bits, integers, uniform

CLASSES = ("circle", "ellipse", "triangle", "square", "bar", "star", "cross", "crescent", "heart", "arrow")
SIDE = 32
OVERSAMPLING = 2  # sample points along a pixel's side, for soft edges
BLOCK = 64  # images drawn together: the sample points of a block stay in a core's cache
TRAIN_IMAGES, TEST_IMAGES = 10_000, 2_000
MIN_CONTRAST = 0.35  # between shape and background, as the largest difference of their colour channels, of 1
SMALLEST, LARGEST = np.float32(0.5), np.float32(0.8)  # radius of the circle around a shape, of half the image's side
REACH = np.float32(0.85)  # how far from the middle it reaches, so that a crop of 24 x 24 hardly ever cuts it
MOST_TILT = np.float32(0.19891237)  # tangent of half of 22.5 degrees
OUTLINED = 0.25  # the part of the images whose shape is an outline
OUTLINE = 0.55  # the hole of an outlined shape, of the shape's size
NOISE = 40  # largest noise, of 255; triangular

Array = NDArray[np.float32]


def inside(kind: int, u: Array, v: Array) -> NDArray[np.bool_]:
    """Whether the points (u, v) lie in the shape of class ``kind``, drawn about the origin in a circle of radius one,
    v upwards."""
    name = CLASSES[kind]
    if name == "circle":
        return u * u + v * v < 0.72
    if name == "ellipse":
        return u * u + 5.0 * v * v < 0.95
    if name == "triangle":
        return (v > -0.55) & (v < 0.95 - 1.75 * abs(u))
    if name == "square":
        return (abs(u) < 0.72) & (abs(v) < 0.72)
    if name == "bar":
        return (abs(u) < 0.95) & (abs(v) < 0.33)
    if name == "star":  # four rays between two diamonds
        return abs(u) + abs(v) + 2.6 * np.sqrt(abs(u * v)) < 1.1
    if name == "cross":
        return ((abs(u) < 0.27) & (abs(v) < 0.95)) | ((abs(v) < 0.27) & (abs(u) < 0.95))
    if name == "crescent":
        return (u * u + v * v < 0.85) & ((u - 0.45) ** 2 + v * v > 0.5)
    if name == "heart":
        bumps = (abs(u) - 0.42) ** 2 + (v - 0.35) ** 2 < 0.2
        return bumps | ((v < 0.45) & (abs(u) < 0.55 * v + 0.58) & (v > -1.0))
    shaft = (abs(u) < 0.2) & (v > -0.95) & (v < 0.2)
    return shaft | ((v > 0.05) & (abs(u) < 0.9 * (0.95 - v)))


class Shapes(Dataset):
    """Generated images of ten shapes: ``count`` images, uint8 (count, 32, 32, 3), the classes in nearly equal numbers.

    Args:
        train: the training part and the test part are drawn from different streams.
        count: number of images; 10,000 for training and 2,000 for testing where it is None. The first images are the
            same whatever the count.
        seed: another seed draws another data set.

    Raises:
        ValueError: a negative count or seed.
    """

    def __init__(self, train: bool = True, count: int | None = None, seed: int = 0) -> None:
        count = (TRAIN_IMAGES if train else TEST_IMAGES) if count is None else count
        if count < 0:
            raise ValueError(f"Shapes: count must not be negative, got {count}")
        part = 0 if train else 1
        labels = integers(0, len(CLASSES), count, (seed, part, Purpose.SHAPES))
        images = np.empty((count, SIDE, SIDE, 3), dtype=np.uint8)
        for start in range(0, count, BLOCK):
            block = labels[start : start + BLOCK]
            stream = 2 + part + 4 * (start // BLOCK)  # parameters of the block; its noise is the stream two further on
            images[start : start + BLOCK] = _draw(block, seed, stream)
        super().__init__(images, labels, CLASSES, name="shapes", train=train, source="generated")


def _draw(labels: NDArray[np.int64], seed: int, stream: int) -> NDArray[np.uint8]:
    """A block of images (n, 32, 32, 3) of the shapes ``labels`` (n,)."""
    n = len(labels)
    draws = uniform((BLOCK, 12), (seed, stream, Purpose.SHAPES))[:n]
    cover = _cover(labels, draws)
    back, fore = _colours(draws[:, 5:8], draws[:, 8:11])
    picture = back[:, None, None, :] + cover[..., None] * (fore - back)[:, None, None, :]
    words = bits(BLOCK * SIDE * SIDE * 3 // 2, (seed, stream + 2, Purpose.SHAPES)).astype("<u4").view(np.uint8)
    words = words.reshape(2, BLOCK, SIDE, SIDE, 3)[:, :n]
    noise = (words[0].astype(np.float32) + words[1] - np.float32(255)) * np.float32(NOISE / 255)  # triangular
    noise *= draws[:, 11, None, None, None]
    return np.clip(picture * np.float32(255) + noise, 0, 255).astype(np.uint8)


def _cover(labels: NDArray[np.int64], draws: Array) -> Array:
    """How much of each pixel the shape covers, (n, 32, 32) in [0, 1]."""
    points = SIDE * OVERSAMPLING
    grid = (np.arange(points, dtype=np.float32) + np.float32(0.5)) / points * 2 - 1  # [-1, 1] over the image
    size = SMALLEST + (LARGEST - SMALLEST) * draws[:, 0]
    room = REACH - size
    centre_x, centre_y = (2 * draws[:, 1] - 1) * room, (2 * draws[:, 2] - 1) * room
    cosine, sine = _rotation(draws[:, 3])
    x = (grid[None, None, :] - centre_x[:, None, None]) / size[:, None, None]
    y = (centre_y[:, None, None] - grid[None, :, None]) / size[:, None, None]  # rows count downwards
    cosine, sine = cosine[:, None, None], sine[:, None, None]
    u, v = cosine * x + sine * y, cosine * y - sine * x
    outlined = draws[:, 4] < OUTLINED
    drawn = np.empty((len(labels), points, points), dtype=bool)
    for kind in np.unique(labels):
        here = labels == kind
        drawn[here] = inside(int(kind), u[here], v[here])
        hollow = here & outlined
        drawn[hollow] &= ~inside(int(kind), u[hollow] / np.float32(OUTLINE), v[hollow] / np.float32(OUTLINE))
    samples = drawn.reshape(-1, SIDE, OVERSAMPLING, SIDE, OVERSAMPLING)
    return samples.sum(axis=(2, 4), dtype=np.uint8) / np.float32(OVERSAMPLING**2)


def _rotation(fraction: Array) -> tuple[Array, Array]:
    """Cosine and sine of a random angle, at most MOST_TILT to either side.

    By t, the tangent of half the angle: a library's cosine may differ in its last bit from machine to machine, a
    division does not.
    """
    t = (2 * fraction - 1) * MOST_TILT
    return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)


def _colours(back: Array, fore: Array) -> tuple[Array, Array]:
    """Colours (n, 3) of background and shape; a shape too close to its background takes the channel that differs most
    further."""
    difference = np.abs(fore - back)
    channel = difference.argmax(axis=1)
    rows = np.flatnonzero(difference.max(axis=1) < MIN_CONTRAST)
    fore = fore.copy()
    value = back[rows, channel[rows]]
    fore[rows, channel[rows]] = np.where(value < 0.5, value + np.float32(0.5), value - np.float32(0.5))
    return back, fore
