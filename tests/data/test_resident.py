"""Batches made on the device are the host loader's, bit by bit: every option, every place, after every way of getting
there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn import backends, random
from gpucnn.backends.cuda.step import advance_step
from gpucnn.data import Augment, DataLoader, Dataset, ResidentLoader, TensorDataset, loader_for, resident
from gpucnn.data.adapt import Adapt
from gpucnn.data.transforms import LectureEval, LectureTrain, MNISTNormalize, Normalize
from gpucnn.device import device
from gpucnn.dtypes import as_dtype
from tests.support.tolerance import assert_close

COLOUR = Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
GREY = MNISTNormalize()
EVERYTHING = {"translate": 3, "flip": "alternating", "cutout": 4, "brightness": 0.3, "contrast": 0.4}

TRANSFORMS: dict[str, tuple[int, Any]] = {  # by name: channels of the data set, and the transform
    "default": (3, None),
    "normalize": (3, COLOUR),
    "normalize_by_one": (3, Normalize(0.5, 0.25)),
    "mnist": (1, GREY),
    "lecture_eval": (3, LectureEval(7)),
    "lecture_eval_odd_rest": (1, LectureEval(4)),
    "lecture_train": (3, LectureTrain(7)),
    "lecture_train_whole": (3, LectureTrain(9, brightness=0.0, contrast=(0.5, 0.5))),
    "lecture_train_grey": (1, LectureTrain(5, brightness=200.0)),
    "flip_random": (3, Augment(COLOUR, flip="random")),
    "flip_alternating": (3, Augment(COLOUR, flip="alternating")),
    "translate": (3, Augment(COLOUR, translate=8)),
    "translate_flip": (3, Augment(COLOUR, translate=2, flip="random")),
    "cutout": (3, Augment(COLOUR, cutout=9)),
    "brightness": (3, Augment(COLOUR, brightness=0.5)),
    "contrast": (3, Augment(COLOUR, contrast=1.0)),
    "everything": (3, Augment(COLOUR, **EVERYTHING)),
    "everything_grey": (1, Augment(GREY, **EVERYTHING)),
    "middle": (3, Adapt(COLOUR, 3, 6, 7, crop=True)),
    "border": (1, Adapt(GREY, 1, 12, 15, crop=True)),
    "border_one_way": (3, Adapt(Augment(COLOUR, translate=2, flip="random", contrast=0.5), 3, 12, 4, crop=True)),
    "to_grey": (3, Adapt(Augment(GREY, **EVERYTHING), 1, 8, 9, crop=True)),
    "to_colour": (1, Adapt(LectureTrain(11), 3, 11, 11, crop=False)),
    "lecture_small_images": (3, Adapt(LectureEval(13), 3, 13, 13, crop=False)),
}


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _dataset(n: int = 13, h: int = 9, w: int = 10, c: int = 3) -> Dataset:
    images = np.random.default_rng(n + c).integers(0, 256, (n, h, w, c), dtype=np.uint8)
    images[0], images[1] = 0, 255  # a constant image has no deviation
    return Dataset(images, np.arange(n) % 7, [f"class {i}" for i in range(7)])


def _assert_equal(batch: Any, expected: Any) -> None:
    (images, labels), (host_images, host_labels) = batch, expected
    np.testing.assert_array_equal(labels.numpy(), host_labels)
    assert images.data.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_array_equal(images.numpy(), host_images.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_device_makes_the_bits_of_the_host(place: str, name: str) -> None:
    c, transform = TRANSFORMS[name]
    loader = ResidentLoader(_dataset(c=c), 5, shuffle=True, transform=transform, seed=2**64 - 5, device=place)
    for epoch in range(2):
        batches = list(loader)
        assert len(batches) == 3 and batches[-1][1].shape == (3,)
        for number, batch in enumerate(batches):
            _assert_equal(batch, loader.host_batch(epoch, number))


def _lecture_by_steps(images: Any, draws: Any, size: int, dtype: Any) -> tuple[Any, Any]:
    """The tutorial's distortions one by one, and the same of absolute values."""
    values, scales = [], []
    for image, (top, left, flip, brightness, contrast) in zip(images, draws.astype(np.float64), strict=True):
        i, j = int(top * (image.shape[0] - size + 1)), int(left * (image.shape[1] - size + 1))
        x = image[i : i + size, j : j + size].astype(dtype)
        x = x[:, ::-1] if flip < 0.5 else x
        shift, factor = dtype((2 * brightness - 1) * 63), dtype(0.2 + contrast * 1.6)
        mean = (x + shift).mean(axis=(0, 1))
        z = (x + shift - mean) * factor + mean
        divisor = max(z.std(), dtype(1 / np.sqrt(x.size)))
        values.append((z - z.mean()) / divisor)
        scales.append(((x + abs(shift) + abs(mean)) * factor + abs(mean) + abs(z.mean())) / divisor)
    return np.array(values), np.array(scales)


def test_pixels_keep_to_the_formula_in_float64(place: str) -> None:
    dataset = _dataset()
    loader = ResidentLoader(dataset, 13, transform=LectureTrain(7), seed=21, device=place)
    images, _ = loader.make(2, 0)
    draws = random.uniform((13, 5), (21, 2, random.Purpose.AUGMENT))
    expected, scale = _lecture_by_steps(dataset.images, draws, 7, np.float64)
    plain, _ = _lecture_by_steps(dataset.images, draws, 7, np.float32)
    assert_close(images.numpy().transpose(0, 2, 3, 1), expected, scale, plain)


def test_square_images_of_the_usual_size_in_a_late_epoch(place: str) -> None:
    dataset = _dataset(150, 32, 32)
    loader = ResidentLoader(dataset, 70, shuffle=True, transform=LectureTrain(), seed=3, device=place)
    for epoch, number in ((2**31 + 7, 1), (40, 2)):
        _assert_equal(loader.make(epoch, number), loader.host_batch(epoch, number))


def test_images_too_large_for_shared_memory_are_read_where_they_lie(place: str) -> None:
    transform = Augment(COLOUR, **{**EVERYTHING, "translate": 40, "cutout": 60})
    loader = ResidentLoader(_dataset(3, 99, 111), 2, shuffle=True, transform=transform, seed=4, device=place)
    assert 99 * 111 * 3 > 32 * 1024
    _assert_equal(loader.make(1, 0), loader.host_batch(1, 0))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
def test_the_order_and_the_last_batch(place: str, shuffle: bool, drop_last: bool) -> None:
    arguments: dict[str, Any] = {"shuffle": shuffle, "drop_last": drop_last, "seed": 11}
    loader = ResidentLoader(_dataset(67), 16, device=place, **arguments)
    host = DataLoader(_dataset(67), 16, device="cpu", **arguments)
    assert len(loader) == len(host) == 4 + (not drop_last) and loader.examples == host.examples
    for _ in range(2):
        labels = [labels.numpy().tolist() for _, labels in loader]
        assert labels == [labels.numpy().tolist() for _, labels in host]
        assert loader.state == host.state


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_round_once(place: str, dtype: str) -> None:
    transform = Augment(COLOUR, **EVERYTHING)
    loader = ResidentLoader(_dataset(), 5, shuffle=True, transform=transform, seed=1, device=place, dtype=dtype)
    images, labels = loader.make(1, 2)
    host_images, host_labels = loader.host_batch(1, 2)
    assert images.dtype == as_dtype(dtype)
    _assert_equal((images, labels), (host_images.astype(as_dtype(dtype)), host_labels))


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_a_resumed_loader_goes_on_in_mid_epoch(place: str, batch: int) -> None:
    def new() -> ResidentLoader:
        transform = Augment(COLOUR, flip="alternating", translate=1)
        return ResidentLoader(_dataset(), 5, shuffle=True, transform=transform, seed=8, device=place)

    loader, state = new(), {"epoch": 1, "batch": batch}
    loader.load_state_dict(state)
    assert loader.state_dict() == state
    for number, made in enumerate(loader, start=batch):
        assert loader.state == {"epoch": 1, "batch": number + 1}
        _assert_equal(made, loader.host_batch(1, number))
    assert loader.state == {"epoch": 2, "batch": 0}
    left = new()
    for _ in left:
        break  # in the middle: the next loop is the next epoch
    _assert_equal(next(iter(left)), left.host_batch(1, 0))


def test_one_launch_a_batch_and_positions_make_none(place: str) -> None:
    loader = ResidentLoader(_dataset(), 5, shuffle=True, transform=LectureTrain(7), device=place)
    engine: Any = backends.get(device(place)).engine
    with engine.record() as launches:
        list(loader)
    assert [(launch.kernel, launch.grid) for launch in launches] == [("make_batch", (n, 1, 1)) for n in (5, 5, 3)]
    with engine.record() as launches:
        assert list(loader.positions()) == [(1, 0), (1, 1), (1, 2)]
    assert launches == [] and loader.state == {"epoch": 2, "batch": 0} and loader.whole_batches == 2


def test_the_device_counts_batches_and_epochs_itself(place: str) -> None:
    loader = ResidentLoader(
        _dataset(15), 5, shuffle=True, transform=Augment(COLOUR, **EVERYTHING), seed=6, device=place
    )
    backend: Any = backends.get(device(place))
    images, labels = loader.buffers()
    loader.write_state(1, 1, 4)
    losses, corrects = backend.from_host(np.full(3, -1.0, np.float32)), backend.from_host(np.full(3, -1, np.int32))
    expected = np.full((2, 3), -1.0)
    for step, (epoch, number) in enumerate([(1, 1), (1, 2), (2, 0), (2, 1)], start=4):
        loader.load_into(images, labels)
        _assert_equal((images, labels), loader.host_batch(epoch, number))
        loss, correct = np.float32([step + 0.5]), np.int32([step])
        advance_step(
            backend, backend.from_host(loss), backend.from_host(correct), losses, corrects, loader.device_state, 3
        )
        expected[:, step % 3] = step + 0.5, step
        np.testing.assert_array_equal([backend.to_host(losses), backend.to_host(corrects)], expected)
    assert backend.to_host(loader.device_state).tolist() == [2, 2, 8, 0]


def test_a_step_in_parts_moves_on_with_the_last(place: str) -> None:
    backend: Any = backends.get(device(place))
    state = backend.from_host(np.array([0, 0, 3, 0], np.int64))
    losses, corrects = backend.from_host(np.zeros(5, np.float32)), backend.from_host(np.zeros(5, np.int32))
    for part in range(2):
        loss, correct = backend.from_host(np.float32([part + 1])), backend.from_host(np.int32([part + 7]))
        advance_step(backend, loss, correct, losses, corrects, state, 1, part, 2)
        assert backend.to_host(state).tolist() == ([0, 0, 3, 0], [1, 0, 4, 0])[part]
    assert backend.to_host(losses).tolist() == [0, 1, 2, 0, 0]
    assert backend.to_host(corrects).tolist() == [0, 7, 8, 0, 0]
    with pytest.raises(ValueError, match=r"a part below 2, got \(5,\), \(5,\) and part 2"):
        advance_step(backend, losses[:1], corrects[:1], losses, corrects, state, 1, 2, 2)


@pytest.mark.parametrize("shuffle", [False, True])
def test_counters_beyond_the_data_read_no_memory_that_is_not_theirs(place: str, shuffle: bool) -> None:
    loader = ResidentLoader(_dataset(), 5, shuffle=shuffle, device=place, seed=0)
    images, labels = loader.buffers()
    loader.write_state(0, 99, 0)
    loader.load_into(images, labels)
    last = int(random.permutation(13, (0, 0, random.Purpose.SHUFFLE))[12]) if shuffle else 12
    assert labels.numpy().tolist() == [last % 7] * 5


class _OwnTransform(LectureTrain):
    def __call__(self, images: Any, *args: Any, **place: Any) -> Any:
        return super().__call__(images, *args, **place) + 1


def test_what_the_device_cannot_do_is_left_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = _dataset()

    def kind(data: Dataset = dataset, transform: Any = None, place: str = "emulated") -> type[DataLoader]:
        found = loader_for(data, 5, transform=transform, seed=0, device=place)
        assert found.seed == 0 and found.dataset is data and len(found) == 3
        return type(found)

    assert kind() is kind(transform=Adapt(LectureTrain(5), 1, 5, 5, crop=False)) is ResidentLoader
    assert kind(place="cpu") is DataLoader
    assert kind(TensorDataset(np.zeros((13, 3, 4, 4), np.float32), np.zeros(13, int))) is DataLoader
    assert kind(_dataset(c=2)) is DataLoader
    for transform in (
        _OwnTransform(5),
        Adapt(_OwnTransform(5), 3, 5, 5, crop=False),
        Adapt(COLOUR, 4, 5, 5, crop=False),
        Augment(GREY.__class__(), translate=9),
        Augment(GREY, cutout=10),
        Normalize((0.5, 0.5), (1.0, 1.0)),
        LectureTrain(10),
        LectureEval(10),
    ):
        assert kind(transform=transform) is DataLoader
    monkeypatch.setattr(resident, "_memory", lambda backend: 4 * (13 * 270 + 13 * 8))
    assert kind() is ResidentLoader
    monkeypatch.setattr(resident, "_memory", lambda backend: 4 * (13 * 270 + 13 * 8) - 1)
    assert kind() is DataLoader


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="the device cpu has no kernels; DataLoader makes such batches on the host"):
        ResidentLoader(_dataset(), 5, device="cpu")
    with pytest.raises(ValueError, match=r"no form of _OwnTransform for images \(9, 10, 3\)"):
        ResidentLoader(_dataset(), 5, transform=_OwnTransform(5), device="emulated")
    with pytest.raises(ValueError, match="images are float32, float16 or bfloat16, got float64"):
        ResidentLoader(_dataset(), 5, device="emulated", dtype="float64")
    with pytest.raises(ValueError, match="batch_size 14 is more than the 13 images"):
        ResidentLoader(_dataset(), 14, shuffle=True, device="emulated")
    loader = ResidentLoader(_dataset(), 5, device="emulated")
    images, labels = loader.make(0, 0)
    with pytest.raises(ValueError, match=r"at most 5 images \(9, 10, 3\) and as many labels, got .* and \(4,\)"):
        loader.load_into(images, labels[:4])
