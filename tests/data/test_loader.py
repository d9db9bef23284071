"""The loader: every example once an epoch, the same batches whatever happened, and no thread left behind."""

from __future__ import annotations

import gc
import threading
import time

import numpy as np
import pytest

from gpucnn.data import DataLoader, Dataset
from gpucnn.data.transforms import LectureTrain
from gpucnn.random import Purpose, permutation


def _dataset(n=23, h=5, w=4, c=3):
    """Image i is filled with i."""
    images = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, h, w, c)).copy()
    return Dataset(images, np.arange(n) % 7, [f"class {i}" for i in range(7)])


def _which(images) -> list[int]:
    return np.rint(images.numpy()[:, 0, 0, 0] * 255).astype(int).tolist()


def _epoch(loader) -> list[int]:
    return [i for images, _ in loader for i in _which(images)]


def _threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "gpucnn-prefetch"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
    deadline = time.monotonic() + 5
    while _threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _threads() == []


@pytest.mark.parametrize("prefetch", [0, 1, 5])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_shapes_and_layout(prefetch, drop_last):
    loader = DataLoader(_dataset(), 5, drop_last=drop_last, prefetch=prefetch, device="cpu")
    batches = list(loader)
    assert [images.shape for images, _ in batches] == [(5, 3, 5, 4)] * 4 + ([] if drop_last else [(3, 3, 5, 4)])
    assert len(loader) == len(batches) and loader.examples == (20 if drop_last else 23)
    for images, labels in batches:
        assert images.dtype == np.float32 and labels.dtype == np.int64
        assert images.data.transpose(0, 2, 3, 1).flags.c_contiguous
        assert labels.numpy().tolist() == [i % 7 for i in _which(images)]
    assert [i for images, _ in batches for i in _which(images)] == list(range(20 if drop_last else 23))


def test_shuffling_is_the_permutation_of_seed_and_epoch():
    loader = DataLoader(_dataset(), 5, shuffle=True, seed=9, device="cpu")
    epochs = [_epoch(loader) for _ in range(3)]
    for e, order in enumerate(epochs):
        assert sorted(order) == list(range(23))
        assert order == permutation(23, (9, e, Purpose.SHUFFLE)).tolist()
    assert epochs[0] != epochs[1] != epochs[2]
    assert _epoch(DataLoader(_dataset(), 5, shuffle=True, seed=10, device="cpu")) != epochs[0]


def test_augmentation_is_drawn_anew_in_every_epoch():
    images = np.random.default_rng(1).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    dataset = Dataset(images, np.arange(12) % 3, "abc")
    loader = DataLoader(dataset, 5, transform=LectureTrain(), seed=4, device="cpu")
    for step in range(6):
        epoch, batch = divmod(step, 3)
        if batch == 0:
            batches = iter(loader)
        got = next(batches)[0].numpy().transpose(0, 2, 3, 1)
        expected = LectureTrain()(images[5 * batch : 5 * batch + 5], seed=4, step=step)
        np.testing.assert_array_equal(got, expected)
        if batch == 2:
            assert next(batches, None) is None
        assert loader.state["epoch"] == (epoch + 1 if batch == 2 else epoch)


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 4, 5, 7])
def test_resuming_anywhere_gives_the_same_batches_bit_by_bit(prefetch, stop):
    images = np.random.default_rng(1).integers(0, 256, (23, 32, 32, 3), dtype=np.uint8)
    dataset = Dataset(images, np.arange(23) % 3, "abc")

    def loader(prefetch=2):
        return DataLoader(dataset, 5, shuffle=True, transform=LectureTrain(), seed=4, prefetch=prefetch, device="cpu")

    whole = loader()
    expected = [(x.numpy(), y.numpy()) for _ in range(3) for x, y in whole]
    first, seen, state = loader(), 0, None
    while seen < stop:
        for _ in first:
            seen += 1
            state = first.state
            if seen == stop:
                break
    second = loader(prefetch)
    if state is not None:
        second.load_state_dict(state)
    rest = []
    while second.state["epoch"] < 3:
        rest += [(x.numpy(), y.numpy()) for x, y in second]
    assert len(rest) == len(expected) - stop
    for (x, y), (x_expected, y_expected) in zip(rest, expected[stop:], strict=True):
        np.testing.assert_array_equal(x, x_expected)
        np.testing.assert_array_equal(y, y_expected)


def test_the_state_tells_what_was_handed_out_not_what_was_prepared():
    loader = DataLoader(_dataset(), 5, prefetch=3, device="cpu")
    assert loader.state == {"epoch": 0, "batch": 0}
    states = []
    for _ in loader:
        time.sleep(0.01)  # the thread runs ahead
        states.append(loader.state["batch"])
    assert states == [1, 2, 3, 4, 5]
    assert loader.state == {"epoch": 1, "batch": 0}


def test_a_loop_left_in_the_middle_is_followed_by_a_new_epoch():
    loader = DataLoader(_dataset(), 5, shuffle=True, seed=1, device="cpu")
    next(iter(loader))
    assert _epoch(loader) == permutation(23, (1, 1, Purpose.SHUFFLE)).tolist()


@pytest.mark.parametrize("state", [{}, {"epoch": -1, "batch": 0}, {"epoch": 0, "batch": 6}, {"epoch": 0.0, "batch": 0}])
def test_a_state_that_cannot_be_is_refused(state):
    with pytest.raises(ValueError, match="expected an epoch and a batch from 0 to 5"):
        DataLoader(_dataset(), 5, device="cpu").load_state_dict(state)


class _FailsAt:
    def __init__(self, step):
        self.step = step

    def __call__(self, images, seed=0, step=0, epoch=0, indices=None):
        if step == self.step:
            raise RuntimeError(f"transform failed at {step}")
        return images.astype(np.float32)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_an_exception_of_the_thread_comes_at_its_batch(prefetch):
    loader = DataLoader(_dataset(), 5, transform=_FailsAt(3), prefetch=prefetch, device="cpu")
    seen = 0
    with pytest.raises(RuntimeError, match="transform failed at 3"):
        for _ in loader:
            seen += 1
    assert seen == 3 and _threads() == []


class _Counts:
    def __init__(self):
        self.made = 0

    def __call__(self, images, seed=0, step=0, epoch=0, indices=None):
        self.made += 1
        return images.astype(np.float32)


def test_it_prepares_ahead_but_no_further_than_told():
    transform = _Counts()
    batches = iter(DataLoader(_dataset(60), 5, transform=transform, prefetch=3, device="cpu"))
    next(batches)
    deadline = time.monotonic() + 5
    while transform.made < 4 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert transform.made == 4  # one handed out, three waiting
    batches.close()
    assert _threads() == []


def test_leaving_the_loop_ends_the_thread():
    loader = DataLoader(_dataset(100), 1, prefetch=2, device="cpu")
    for _ in loader:
        break
    gc.collect()
    batches = iter(loader)
    next(batches)
    assert len(_threads()) == 1
    del batches


def test_the_transform_runs_beside_the_consumer():
    """While batch k is in use, batch k + 1 is being made: the two meet, which they could not one after the other."""
    meet = threading.Barrier(2, timeout=30)

    class Meets:
        def __call__(self, images, seed=0, step=0, epoch=0, indices=None):
            if step:
                meet.wait()
            return images.astype(np.float32)

    loader = DataLoader(_dataset(25), 5, transform=Meets(), prefetch=1, device="cpu")
    for k, _ in enumerate(loader):
        if k < 4:
            meet.wait()
    assert k == 4 and not meet.broken


def test_evaluation_takes_one_short_batch():
    loader = DataLoader(_dataset(), 24, device="cpu")
    assert (len(loader), loader.examples) == (1, 23)
    assert [images.shape[0] for images, _ in loader] == [23]


def test_bad_arguments():
    for name, least, value in (("batch_size", 1, 0), ("batch_size", 1, 2.5), ("prefetch", 0, -1), ("prefetch", 0, 0.5)):
        with pytest.raises(ValueError, match=f"{name} must be at least {least}, and whole, got {value}"):
            DataLoader(_dataset(), **{name: value})
    for training in ({"drop_last": True}, {"shuffle": True}, {"shuffle": True, "drop_last": True}):
        with pytest.raises(ValueError, match=r"batch_size 24 is more than the 23 images of the data set .* at most 23"):
            DataLoader(_dataset(), 24, **training)
        assert len(DataLoader(_dataset(), 23, **training)) == 1
    with pytest.raises(ValueError, match="0 images make no batch of 4"):
        DataLoader(_dataset(0), 4)


@pytest.mark.parametrize(
    ("images", "labels", "error", "problem"),
    [
        (np.zeros((2, 4, 4, 3)), [0, 1], TypeError, "images must be uint8, got float64"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0.0, 1.0], TypeError, "labels must be integers, got float64"),
        (
            np.zeros((2, 4, 4), np.uint8),
            [0, 1],
            ValueError,
            r"must be \(N, H, W, C\) and labels \(N,\), got \(2, 4, 4\)",
        ),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 1, 1], ValueError, r"and \(3,\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 2], ValueError, "label 2 of example 1 is out of range, expected 0 to 1"),
    ],
)
def test_a_data_set_checks_what_it_is_made_of(images, labels, error, problem):
    with pytest.raises(error, match=problem):
        Dataset(images, np.array(labels), "ab")


def test_a_subset_keeps_order_and_names():
    part = _dataset().subset([4, 2])
    assert part.labels.tolist() == [4, 2] and part.images[0, 0, 0, 0] == 4 and part.classes == _dataset().classes
