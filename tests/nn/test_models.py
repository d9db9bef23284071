"""The networks: sizes to the last parameter, initial values, and what comes out of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpucnn
from gpucnn import functional as F
from gpucnn import layout, models
from gpucnn.nn import Module

LECTURE_SHAPES = {
    "conv1.weight": (64, 3, 5, 5),
    "conv1.bias": (64,),
    "conv2.weight": (64, 64, 5, 5),
    "conv2.bias": (64,),
    "local3.weight": (384, 2304),
    "local3.bias": (384,),
    "local4.weight": (192, 384),
    "local4.bias": (192,),
    "softmax_linear.weight": (10, 192),
    "softmax_linear.bias": (10,),
}


@pytest.fixture(scope="module")
def lecture() -> models.LectureCNN:
    gpucnn.manual_seed(0)
    return models.lecture_cnn(device="cpu")


def count(model: Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_names() -> None:
    assert models.names() == ["airbench94", "lecture", "lecture_cnn", "lenet5", "resnet20", "resnet9"]
    assert isinstance(models.create("lecture", device="cpu"), models.LectureCNN)
    assert isinstance(models.create("lenet5", num_classes=7, device="cpu"), models.LeNet5)
    with pytest.raises(ValueError, match="unknown model 'lenet'; known are airbench94, lecture, lecture_cnn, lenet5, "):
        models.create("lenet")
    with pytest.raises(ValueError, match="'lenet5' is taken"):
        models.register("lenet5")(models.lenet5)
    assert models.names().count("lenet5") == 1


def test_parameter_counts(lecture: models.LectureCNN) -> None:
    assert {name: tuple(p.shape) for name, p in lecture.named_parameters()} == LECTURE_SHAPES
    assert count(lecture) == 1_068_298
    assert count(models.lenet5(device="cpu")) == 61_706
    assert count(models.lenet5(num_classes=5, device="cpu")) == 61_706 - 5 * 85


@pytest.mark.parametrize(
    ("layer", "std", "bias"),
    [
        ("conv1", 0.05, 0.0),
        ("conv2", 0.05, 0.1),
        ("local3", 0.04, 0.1),
        ("local4", 0.04, 0.1),
        ("softmax_linear", 1 / 192, 0.0),
    ],
)
def test_lecture_weights_are_normal_cut_at_two_sigma(
    lecture: models.LectureCNN, layer: str, std: float, bias: float
) -> None:
    module = getattr(lecture, layer)
    weights = module.weight.numpy().astype(np.float64).ravel() / std
    # A standard normal cut at 2: probability mass erf(sqrt 2), density at the cut phi; variance 1 - 4 phi / mass.
    mass, phi = math.erf(math.sqrt(2.0)), math.exp(-2.0) / math.sqrt(2 * math.pi)
    variance = 1 - 4 * phi / mass
    assert np.abs(weights).max() <= 2 * (1 + 1e-6)
    assert abs(weights.mean()) < 5 * math.sqrt(variance / weights.size)
    assert abs(weights.var() / variance - 1) < 5 * math.sqrt(1.5 / weights.size)
    assert np.all(module.bias.numpy() == np.float32(bias))


def test_a_seed_gives_the_same_network() -> None:
    networks = []
    for seed in (1, 1, 2):
        gpucnn.manual_seed(seed)
        networks.append(models.lenet5(device="cpu").state_dict())
    for name, value in networks[0].items():
        assert np.array_equal(value.numpy(), networks[1][name].numpy())
        assert not np.array_equal(value.numpy(), networks[2][name].numpy())


@pytest.mark.parametrize("name", ["lecture_cnn", "lenet5"])
def test_logits_have_the_shape_of_the_classes_and_every_parameter_a_gradient(name: str) -> None:
    model = models.create(name, num_classes=6, device="cpu")
    images = gpucnn.randn(3, *model.input_shape, device="cpu")
    logits = model(images)
    assert logits.shape == (3, 6)
    F.cross_entropy(logits, gpucnn.tensor([0, 5, 2], device="cpu")).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.shape == parameter.shape, parameter_name
        assert np.any(parameter.grad.numpy()), parameter_name


def test_sizes_on_the_way_through_the_lecture_network(lecture: models.LectureCNN) -> None:
    with gpucnn.no_grad():
        x = lecture.conv1(gpucnn.zeros(1, 3, 24, 24, device="cpu"))
        assert x.shape == (1, 64, 24, 24)
        x = lecture.conv2(lecture.norm1(lecture.pool1(x)))
        assert x.shape == (1, 64, 12, 12)
        assert lecture.pool2(x).shape == (1, 64, 6, 6)
    assert (lecture.input_shape, lecture.data_set) == ((3, 24, 24), "cifar10")
    assert (models.LeNet5.input_shape, models.LeNet5.data_set) == ((1, 28, 28), "mnist")


def test_weight_decay_falls_on_the_weights_of_local3_and_local4(lecture: models.LectureCNN) -> None:
    plain, decayed = lecture.parameter_groups()
    names = {id(parameter): name for name, parameter in lecture.named_parameters()}
    assert [names[id(p)] for p in decayed["params"]] == ["local3.weight", "local4.weight"]
    assert (plain["weight_decay"], decayed["weight_decay"]) == (0.0, 0.004)
    assert {names[id(p)] for p in plain["params"]} == set(LECTURE_SHAPES) - {"local3.weight", "local4.weight"}
    assert lecture.parameter_groups(0.5)[1]["weight_decay"] == 0.5
    (group,) = models.lenet5(device="cpu").parameter_groups()
    assert len(group["params"]) == 10 and group["weight_decay"] == 0.0


def test_an_image_of_the_wrong_size_is_refused(lecture: models.LectureCNN) -> None:
    with pytest.raises(ValueError, match="linear"):
        lecture(gpucnn.zeros(1, 3, 32, 32, device="cpu"))


@pytest.mark.parametrize("name", ["lecture_cnn", "lenet5"])
def test_updates_copy_nothing_to_change_its_memory_order(name: str) -> None:
    model = models.create(name, device="cpu")
    optimizer = gpucnn.optim.SGD(model.parameter_groups(), lr=0.1, momentum=0.9)
    average = gpucnn.optim.MovingAverage(model.parameters())
    model(gpucnn.randn(2, *model.input_shape, device="cpu")).sum().backward()
    with layout.count_copies() as copies:
        for _ in range(2):
            optimizer.step()
            average.update()
    assert copies == [0]


def test_training_on_the_emulated_device_follows_the_cpu() -> None:
    weights = []
    for device in ("cpu", "emulated"):
        gpucnn.manual_seed(0)
        model = models.lenet5(device=device)
        optimizer = gpucnn.optim.SGD(model.parameter_groups(0.01), lr=0.05, momentum=0.9, nesterov=True)
        average = gpucnn.optim.MovingAverage(model.parameters(), 0.5)
        for _ in range(2):
            optimizer.zero_grad()
            images = gpucnn.randn(2, 1, 28, 28, device=device)
            F.cross_entropy(model(images), gpucnn.tensor([3, 8], device=device)).backward()
            optimizer.step()
            average.update()
        weights.append([a.numpy() for a in (*model.parameters(), *average.averages)])
    for a, b in zip(*weights, strict=True):
        # The two sum up to 400 products, forward and back, in orders of their own.
        assert np.abs(a - b).max() <= 400 * np.finfo(np.float32).eps * np.abs(a).max()


def test_training_steps_lower_the_loss() -> None:
    gpucnn.manual_seed(0)
    model = models.lenet5(device="cpu")
    optimizer = gpucnn.optim.SGD(model.parameter_groups(), lr=0.05, momentum=0.9)
    images, labels = gpucnn.randn(16, 1, 28, 28, device="cpu"), gpucnn.tensor(np.arange(16) % 10, device="cpu")
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert abs(losses[0] - math.log(10)) < 0.3 and losses[-1] < 0.5 * losses[0]
