"""Augment against the same recipe applied image by image and pixel by pixel, in float64."""

from __future__ import annotations

import hashlib
import time

import numpy as np
import pytest

from gpucnn.data import CIFAR10_MEAN, CIFAR10_STD, Augment, DataLoader, Dataset
from gpucnn.data.augment import coins
from gpucnn.data.transforms import Normalize
from gpucnn.random import Purpose, bits

CIFAR = Normalize(CIFAR10_MEAN, CIFAR10_STD)
BITS = "b8cb4e8200a5e5dc249f15f86bb90eee0fb709e6a99e137bfed884384acfff41"  # of a plain loop over Python's numbers
COINS = ".FFF.FFFFF.F.F...FF...F.F.F.FF..F......."  # where F, image i starts as it is stored; seed 0
EVERYTHING = {"translate": 4, "flip": "random", "cutout": 8, "brightness": 0.2, "contrast": 0.3}


def _images(n=9, h=32, w=32, c=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, h, w, c), dtype=np.uint8)


def _coin(seed: int, index: int) -> bool:
    """The top bit of the first word of Philox 4x32-10, counter (0, FLIP << 16, index), written out in Python's ints."""
    c = [0, int(Purpose.FLIP) << 16, index & 0xFFFFFFFF, index >> 32]
    k = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(q >> 32) ^ c[1] ^ k[0], q & 0xFFFFFFFF, (p >> 32) ^ c[3] ^ k[1], p & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c[0] >> 31 == 0


def _reflected(place: int, size: int) -> int:
    """Of a border that does not repeat the edge: -1 is 1, size is size - 2."""
    place = -place if place < 0 else place
    return 2 * (size - 1) - place if place >= size else place


def _reference(images, mean, std, options, seed, step, epoch=0, indices=None):
    """Float64 (N, H, W, C), and the images before normalisation, where they were neither jittered nor cut."""
    n, h, w, c = images.shape
    border, hole = options.get("translate", 0), options.get("cutout", 0)
    words = bits(8 * n, (seed, step, Purpose.AUGMENT)).astype(object).reshape(n, 8)
    out, moved = np.empty((n, h, w, c)), np.empty((n, h, w, c), np.uint8)
    for i in range(n):
        draws = [(int(word) >> 8) / 2**24 for word in words[i]]
        index = i if indices is None else int(indices[i])
        mirror = {
            "none": False,
            "random": draws[0] < 0.5,
            "alternating": _coin(seed, index) != (epoch % 2 == 1),
        }[options.get("flip", "none")]
        flipped = np.array([[row[w - 1 - q] if mirror else row[q] for q in range(w)] for row in images[i]])
        top, left = int(draws[1] * (2 * border + 1)), int(draws[2] * (2 * border + 1))
        for p in range(h):
            for q in range(w):
                moved[i, p, q] = flipped[_reflected(p + top - border, h), _reflected(q + left - border, w)]
        x = moved[i].astype(np.float64) / 255
        x = x + (2 * draws[3] - 1) * options.get("brightness", 0.0)
        factor = 1 + (2 * draws[4] - 1) * options.get("contrast", 0.0)
        x = (x - x.mean()) * factor + x.mean()
        out[i] = (x - np.array(mean)) / np.array(std)
        if hole:
            row, column = int(draws[5] * (h - hole + 1)), int(draws[6] * (w - hole + 1))
            for p in range(row, row + hole):
                for q in range(column, column + hole):
                    out[i, p, q] = 0
    return out, moved


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((9, 32, 32, 3), {}),
        ((40, 32, 32, 3), {"translate": 4}),
        ((9, 32, 32, 3), {"flip": "random"}),
        ((9, 32, 32, 3), {"flip": "alternating"}),
        ((9, 32, 32, 3), {"cutout": 8}),
        ((9, 32, 32, 3), {"brightness": 0.25}),
        ((9, 32, 32, 3), {"contrast": 1.0}),
        ((7, 17, 13, 3), EVERYTHING),
        ((30, 7, 5, 3), {"translate": 4, "flip": "alternating", "cutout": 5}),  # the border is all there is to reflect
        ((20, 5, 9, 1), {"translate": 4, "flip": "random", "contrast": 0.5}),
        ((6, 4, 3, 4), {"translate": 2, "flip": "random", "cutout": 3, "brightness": 3.0}),
        ((5, 1, 6, 3), {"flip": "random", "cutout": 1}),
        ((1, 32, 32, 3), EVERYTHING),
    ],
)
def test_it_is_the_recipe(shape, options):
    mean, std = tuple(np.linspace(0.3, 0.6, shape[3])), tuple(np.linspace(0.2, 0.3, shape[3]))
    images = _images(*shape)
    kept = images.copy()
    out = Augment(Normalize(mean, std), **options)(images, seed=7, step=5, epoch=3, indices=np.arange(shape[0]) * 3)
    assert out.dtype == np.float32 and out.shape == shape and out.flags.c_contiguous
    np.testing.assert_array_equal(images, kept)
    expected, moved = _reference(images, mean, std, options, 7, 5, 3, np.arange(shape[0]) * 3)
    # y = a x + b in float32: half a unit in the last place each of a, of b, of the product and of the sum
    size = np.abs(expected).max() + 2 * (1 + options.get("brightness", 0)) / 0.2
    np.testing.assert_allclose(out, expected, rtol=0, atol=2 * size * 2.0**-23)
    if not options.keys() & {"brightness", "contrast"}:  # pixels moved and normalised as ever, to the bit
        plain = Normalize(mean, std)(moved)
        if "cutout" in options:
            assert (expected == 0).all(axis=3).sum() == shape[0] * options["cutout"] ** 2
            plain[(expected == 0).all(axis=3)] = 0
        np.testing.assert_array_equal(out, plain)


def test_one_mean_and_deviation_serve_all_channels():
    images = _images(6, 9, 8)
    options = {"brightness": 0.1, "contrast": 0.2, "translate": 1}
    out = Augment(Normalize(0.4, 0.3), **options)(images, seed=2, step=0)
    np.testing.assert_array_equal(out, Augment(Normalize((0.4,) * 3, (0.3,) * 3), **options)(images, seed=2, step=0))


def test_its_bits_are_fixed():
    """These come from IEEE arithmetic on Philox words alone, so they are the same on every machine; a saved run that is
    resumed counts on them."""
    images = np.arange(6 * 11 * 9 * 3, dtype=np.int64).reshape(6, 11, 9, 3)
    images = (images * 2654435761 >> 7).astype(np.uint8)
    out = Augment(CIFAR, **EVERYTHING)(images, seed=2**40 + 7, step=12345)
    assert hashlib.sha256(out.astype("<f4").tobytes()).hexdigest() == BITS
    table = "".join("F."[int(coin)] for coin in coins(0, np.arange(40)))
    assert table == "".join("F."[_coin(0, i)] for i in range(40)) == COINS
    far = np.array([0, 1, 2**32 - 1, 2**32, 2**40 + 3])
    for seed in (0, 9, 2**32, 2**64 - 1):
        assert coins(seed, far).tolist() == [_coin(seed, int(i)) for i in far]


def test_every_crop_is_as_probable_and_reaches_the_whole_border():
    images = np.zeros((4000, 9, 9, 1), np.uint8)
    images[:, 4, 4] = 255
    out = Augment(Normalize(), translate=2)(images, seed=3, step=0)
    places = [tuple(np.argwhere(image[..., 0] == 1)[0]) for image in out]
    counts = np.zeros((9, 9), int)
    for place in places:
        counts[place] += 1
    assert (counts[2:7, 2:7] > 0).all() and counts.sum() == counts[2:7, 2:7].sum() == 4000
    expected = 4000 / 25
    assert ((counts[2:7, 2:7] - expected) ** 2 / expected).sum() < 51.2  # chi squared of 24 degrees: once in a thousand


def test_holes_lie_wholly_inside_everywhere_alike():
    out = Augment(Normalize(), cutout=3)(np.full((3000, 7, 5, 2), 255, np.uint8), seed=3, step=0)
    counts = np.zeros((5, 3), int)
    for image in out:
        rows, columns = np.nonzero(image[..., 0] == 0)
        assert len(rows) == 9 and rows.max() - rows.min() == columns.max() - columns.min() == 2
        np.testing.assert_array_equal(image[..., 0], image[..., 1])
        counts[rows.min(), columns.min()] += 1
    assert ((counts - 200) ** 2 / 200).sum() < 36.1  # 14 degrees of freedom: once in a thousand


def _mirrored(out) -> np.ndarray:
    """Which images of those of :func:`_gradient` are seen from behind."""
    return out[:, 0, 0, 0] > out[:, 0, -1, 0]


def _gradient(n):
    return np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None], (n, 8, 8, 1)).copy()


def test_random_flips_are_half_and_drawn_anew():
    transform, images = Augment(Normalize(), flip="random"), _gradient(4000)
    first, second = (_mirrored(transform(images, seed=1, step=step)) for step in (0, 1))
    for flips in (first, second, first ^ second):
        assert abs(flips.mean() - 0.5) < 3.3 * 0.5 / np.sqrt(4000)


def test_alternating_flips_are_half_and_change_sides_in_every_epoch_whatever_the_batch():
    transform, images = Augment(Normalize(), flip="alternating"), _gradient(4000)
    first = _mirrored(transform(images, seed=1, step=0))
    assert abs(first.mean() - 0.5) < 3.3 * 0.5 / np.sqrt(4000)
    assert abs((first[:-1] ^ first[1:]).mean() - 0.5) < 3.3 * 0.5 / np.sqrt(4000)
    for epoch in range(5):
        flips = _mirrored(transform(images, seed=1, step=77 + epoch, epoch=epoch))
        np.testing.assert_array_equal(flips, first ^ bool(epoch % 2))
    order = np.random.default_rng(0).permutation(4000)[:50]
    np.testing.assert_array_equal(_mirrored(transform(images[:50], seed=1, step=9, indices=order)), first[order])
    assert (_mirrored(transform(images, seed=2, step=0)) != first).any()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_alternating_flips_through_a_loader_that_shuffles_and_is_resumed(prefetch):
    """Each image by its number in a corner: two epochs in a row show both sides, a resumed run goes on alike."""
    images = np.zeros((23, 6, 6, 1), np.uint8)
    images[:, 0] = 1 + np.arange(23)[:, None, None]  # which image
    images[:, 1, 0] = 255  # which side
    dataset = Dataset(images, np.zeros(23, int), "a")

    def loader(batch_size=5):
        transform = Augment(Normalize(), flip="alternating")
        return DataLoader(dataset, batch_size, True, transform, seed=11, prefetch=prefetch, device="cpu")

    def sides(batches):
        found = {}
        for x, _ in batches:
            values = x.numpy()
            for image in values:
                found[round(float(image[0, 0, 0]) * 255) - 1] = bool(image[0, 1, 0] == 0)
        return found

    whole = loader()
    epochs = [sides(whole) for _ in range(4)]
    coin = {i: _coin(11, i) for i in range(23)}
    for epoch, found in enumerate(epochs):
        assert found == {i: side ^ bool(epoch % 2) for i, side in coin.items()}
    assert sides(loader(7)) == coin
    resumed = loader()
    resumed.load_state_dict({"epoch": 1, "batch": 3})
    rest = sides(resumed)
    assert len(rest) == 8 and rest.items() <= epochs[1].items()
    assert sides(resumed) == epochs[2]


def test_jitter_stays_in_its_range_and_fills_it():
    images = np.full((3000, 4, 4, 1), 128, np.uint8)
    shift = Augment(Normalize(), brightness=0.25)(images, seed=1, step=0)[:, 0, 0, 0] - 128 / 255
    assert -0.2501 < shift.min() < -0.249 and 0.249 < shift.max() < 0.2501 and abs(shift.mean()) < 0.01
    images[:, ::2] = 64
    out = Augment(Normalize(), contrast=0.5)(images, seed=1, step=0)
    np.testing.assert_allclose(out.mean(axis=(1, 2, 3)), 96 / 255, atol=1e-6)
    factor = (out[:, 1, 0, 0] - out[:, 0, 0, 0]) / (64 / 255)
    assert 0.499 < factor.min() < 0.501 and 1.499 < factor.max() < 1.501 and abs(factor.mean() - 1) < 0.02


def test_an_option_does_not_change_what_the_others_draw():
    images = _images(20)
    alone = Augment(CIFAR, translate=4)(images, seed=5, step=2)
    holed = Augment(CIFAR, translate=4, cutout=8)(images, seed=5, step=2)
    differs = (alone != holed).any(axis=3)
    assert (holed[differs] == 0).all() and 0 < differs.sum() <= 20 * 64
    np.testing.assert_array_equal(Augment(CIFAR, **EVERYTHING)(images[:7], seed=5, step=2).shape, (7, 32, 32, 3))
    every = Augment(CIFAR, **EVERYTHING)(images, seed=5, step=2)
    np.testing.assert_array_equal(Augment(CIFAR, **EVERYTHING)(images[:7], seed=5, step=2), every[:7])


def test_no_images_and_bad_input():
    assert Augment(CIFAR, **EVERYTHING)(_images(0)).shape == (0, 32, 32, 3)
    for options, problem in (
        ({"flip": "both"}, "flip must be one of none, random, alternating, got 'both'"),
        ({"translate": -1}, "translate and cutout must be whole and >= 0, got -1 and 0"),
        ({"cutout": 2.5}, "got 0 and 2.5"),
        ({"brightness": -0.1}, "brightness must be >= 0 and contrast from 0 to 1, got -0.1"),
        ({"contrast": 1.5}, "got 0.0 and 1.5"),
        ({"brightness": float("nan")}, "got nan"),
    ):
        with pytest.raises(ValueError, match=problem):
            Augment(CIFAR, **options)
    with pytest.raises(ValueError, match="images of 5x4 have no reflected border of 4 pixels"):
        Augment(CIFAR, translate=4)(_images(1, 5, 4))
    with pytest.raises(ValueError, match="a cutout of 8 pixels does not fit into images of 9x7"):
        Augment(CIFAR, cutout=8)(_images(1, 9, 7))
    with pytest.raises(ValueError, match="mean and std have 3 channels, the images 1"):
        Augment(CIFAR, brightness=0.1)(_images(1, 8, 8, 1))
    with pytest.raises(ValueError, match=r"expected images uint8 \(N, H, W, C\), got float32"):
        Augment(CIFAR)(_images(1).astype(np.float32))


def test_a_batch_of_2000_costs_little():
    """In time of this thread's own: others may be at work on the machine."""
    images = _images(2000)
    transform = Augment(CIFAR, **EVERYTHING)
    seconds = []
    for step in range(5):
        started = time.thread_time()
        transform(images, step=step)
        seconds.append(time.thread_time() - started)
    assert min(seconds) < 0.15
