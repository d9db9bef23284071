"""Arrays and tensors as a data set, through the loader, and data sets taken apart at random."""

from __future__ import annotations

import numpy as np
import pytest

import gpucnn
from gpucnn.data import DataError, DataLoader, Dataset, TensorDataset, random_split
from gpucnn.data.augment import Augment
from gpucnn.data.transforms import AsIs, Normalize
from gpucnn.random import Generator, Purpose, permutation

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (11, 4, 5, 3), dtype=np.uint8)
FLOATS = RNG.standard_normal((11, 3, 4, 5)).astype(np.float32)
LABELS = np.arange(11) % 4


@pytest.mark.parametrize("device", [None, "cpu", "emulated"])
def test_float_images_reach_the_network_as_they_are(device):
    images, labels = (FLOATS, LABELS) if device is None else (gpucnn.tensor(a, device=device) for a in (FLOATS, LABELS))
    dataset = TensorDataset(images, labels)
    assert dataset.images.shape == (11, 4, 5, 3) and dataset.images.flags.c_contiguous
    assert dataset.classes == ("0", "1", "2", "3") and len(dataset) == 11
    batches = list(DataLoader(dataset, 4, device="cpu"))
    np.testing.assert_array_equal(np.concatenate([x.numpy() for x, _ in batches]), FLOATS)
    np.testing.assert_array_equal(np.concatenate([y.numpy() for _, y in batches]), LABELS)
    shuffled = DataLoader(dataset, 4, shuffle=True, seed=3, device="cpu")
    order = permutation(11, (3, 0, Purpose.SHUFFLE))
    np.testing.assert_array_equal(np.concatenate([x.numpy() for x, _ in shuffled]), FLOATS[order])


def test_pixels_are_scaled_and_transformed_as_any_data_sets():
    dataset = TensorDataset(PIXELS, LABELS, "abcd", name="mine", train=False)
    assert (dataset.name, dataset.train, dataset.classes) == ("mine", False, ("a", "b", "c", "d"))
    (x, _), *_ = DataLoader(dataset, 11, device="cpu")
    np.testing.assert_allclose(x.numpy(), PIXELS.transpose(0, 3, 1, 2) / 255, atol=1e-7)
    transform = Augment(Normalize(0.5, 0.25), translate=1, flip="random")
    (x, _), *_ = DataLoader(dataset, 11, transform=transform, seed=5, device="cpu")
    np.testing.assert_array_equal(x.numpy(), transform(PIXELS, seed=5).transpose(0, 3, 1, 2))


def test_a_transform_of_pixels_refuses_floats_and_the_other_way_round():
    for transform in (Normalize(), Augment(Normalize(), flip="random")):
        loader = DataLoader(TensorDataset(FLOATS, LABELS), 4, transform=transform, prefetch=0, device="cpu")
        with pytest.raises(ValueError, match=r"expected images uint8 \(N, H, W, C\), got float32 \(4, 4, 5, 3\)"):
            next(iter(loader))
    with pytest.raises(ValueError, match=r"AsIs: expected images float32 \(N, H, W, C\), got uint8"):
        AsIs()(PIXELS)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64])
def test_labels_may_be_any_integers(dtype):
    dataset = TensorDataset(PIXELS, LABELS.astype(dtype))
    assert dataset.labels.dtype == np.int64 and dataset.labels.tolist() == LABELS.tolist()
    assert dataset.classes == ("0", "1", "2", "3")
    assert TensorDataset(PIXELS[:0], LABELS[:0].astype(dtype)).classes == ()


def test_a_data_set_keeps_its_own_memory_and_a_subset_its_kind():
    images = PIXELS.copy()
    loader = DataLoader(TensorDataset(FLOATS, LABELS), 4, device="cpu")
    for x, _ in loader:
        x.data[...] = 0  # a batch is nobody else's
    assert (loader.dataset.images != 0).any()
    part = TensorDataset(FLOATS, LABELS).subset([7, 2])
    assert isinstance(part, TensorDataset) and part.labels.tolist() == [3, 2]
    np.testing.assert_array_equal(part.images.transpose(0, 3, 1, 2), FLOATS[[7, 2]])
    whole = Dataset(images, LABELS, "abcd")
    part = whole.subset(slice(2))
    part.images[:] = 0
    np.testing.assert_array_equal(whole.images, PIXELS)
    assert len(whole.subset([])) == 0


@pytest.mark.parametrize(
    ("images", "labels", "classes", "error", "problem"),
    [
        (FLOATS.astype(np.float64), LABELS, None, TypeError, "images must be uint8 or float32, got float64"),
        (PIXELS, LABELS.astype(np.float32), None, TypeError, "labels must be integers, got float32"),
        (FLOATS[0], LABELS, None, ValueError, r"must be \(N, H, W, C\) and labels \(N,\), got \(3, 4, 5\)"),
        (FLOATS, LABELS[:5], None, ValueError, r"and \(5,\)"),
        (PIXELS, LABELS, "abc", DataError, "label 3 of example 3 is out of range, expected 0 to 2"),
        (PIXELS, LABELS - 1, None, DataError, "label -1 of example 0 is out of range"),
    ],
)
def test_what_does_not_fit_is_refused(images, labels, classes, error, problem):
    with pytest.raises(error, match=problem):
        TensorDataset(images, labels, classes)


def _numbered(n):
    return TensorDataset(np.arange(n, dtype=np.float32)[:, None, None, None], np.zeros(n, int))


def _numbers(part) -> list[int]:
    return part.images.ravel().astype(int).tolist()


@pytest.mark.parametrize(
    ("n", "lengths", "sizes"),
    [
        (10, [7, 3], [7, 3]),
        (10, [10], [10]),
        (10, [0.7, 0.3], [7, 3]),
        (11, [0.5, 0.25, 0.25], [6, 3, 2]),  # 5, 2, 2 and one each to the first two
        (10, [1 / 3, 1 / 3, 1 / 3], [4, 3, 3]),
        (10, [1], [10]),
        (3, [0.9, 0.1], [3, 0]),
        (1, [0, 1], [0, 1]),
    ],
)
@pytest.mark.filterwarnings("ignore:random_split")
def test_a_split_is_a_permutation_cut_into_pieces(n, lengths, sizes):
    parts = random_split(_numbered(n), lengths, seed=4)
    assert [len(part) for part in parts] == sizes
    assert [i for part in parts for i in _numbers(part)] == permutation(n, (4, 0, Purpose.SPLIT)).tolist()


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("lengths", [[0.5, 0.25, 0.25], [0.31, 0.33, 0.36], [0.01, 0.99], [7, 30], [1.0], [0.6, 0.6]])
def test_sizes_are_pytorchs(lengths):
    from torch.utils.data import random_split as theirs

    try:
        expected = [len(part) for part in theirs(range(37), lengths)]
    except ValueError:
        with pytest.raises(ValueError, match="random_split"):
            random_split(_numbered(37), lengths, seed=0)
    else:
        assert [len(part) for part in random_split(_numbered(37), lengths, seed=0)] == expected


def test_a_split_is_drawn_from_a_seed_or_a_generator():
    dataset = _numbered(50)
    first, again = (_numbers(random_split(dataset, [40, 10], seed=1)[1]) for _ in range(2))
    assert first == again != _numbers(random_split(dataset, [40, 10], seed=2)[1])
    generator = Generator(7)
    drawn = [_numbers(random_split(dataset, [40, 10], generator)[1]) for _ in range(2)]
    assert drawn[0] != drawn[1] and drawn[0] == permutation(50, (7, 0, Purpose.SPLIT))[40:].tolist()
    with pytest.raises(ValueError, match="a generator or a seed, got both"):
        random_split(dataset, [40, 10], generator, seed=1)


def test_lengths_that_do_not_add_up():
    for lengths in ([7, 4], [7.5, 2.5], [-1, 11], [0.5, 0.6], []):
        with pytest.raises(ValueError, match="lengths must be whole and add up to 10, or be fractions"):
            random_split(_numbered(10), lengths, seed=0)
    with pytest.raises(ValueError, match="fractions must be from 0 to 1"):
        random_split(_numbered(10), [1.5, -0.5], seed=0)
    with pytest.warns(UserWarning, match=r"part 1 of \[10, 0\] is empty"):
        random_split(_numbered(10), [10, 0], seed=0)
