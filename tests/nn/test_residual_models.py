"""ResNet-9, ResNet-20 and airbench94: sizes, initial values, gradients, every device; PyTorch's are in
test_network_peers.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import functional as F
from gpucnn import layout, models, nn, optim
from gpucnn.nn.whitening import whitening_filters

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
COUNTS = {"resnet9": 6_573_120, "airbench94": 1_972_792, "resnet20": 269_722}
TINY: dict[str, dict[str, Any]] = {
    "resnet9": {"widths": (4, 6, 8, 10)},
    "airbench94": {"widths": (25, 28, 27)},
    "resnet20": {"widths": (4, 6, 9), "blocks": 1},
}


def tiny(name: str, device: str = "cpu", dtype: type = np.float32, **options: Any) -> Any:
    return models.create(name, device=device, dtype=dtype, **TINY[name], **options)


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_the_published_number(name: str) -> None:
    model = models.create(name, device="cpu")
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]
    assert model.input_shape == (3, 32, 32) and model.data_set == "cifar10"
    frozen = {key for key, p in model.named_parameters() if not p.requires_grad}
    expected = {f"group{i}.norm{j}.weight" for i in (1, 2, 3) for j in (1, 2)} | {"whiten.weight"}
    assert frozen == (expected if name == "airbench94" else set())


@pytest.mark.parametrize("name", COUNTS)
def test_logits_have_the_shape_of_the_classes_and_every_parameter_a_gradient(name: str) -> None:
    gpucnn.manual_seed(1)
    model = tiny(name, num_classes=7)
    logits = model(gpucnn.randn(5, 3, 32, 32, device="cpu"))
    assert logits.shape == (5, 7)
    F.cross_entropy(logits, gpucnn.tensor([0, 6, 2, 3, 3], device="cpu")).backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and np.any(parameter.grad.numpy()), key
        else:
            assert parameter.grad is None, key


@pytest.mark.parametrize("name", COUNTS)
def test_groups_hold_every_trained_parameter_once(name: str) -> None:
    model = tiny(name)
    trained = [id(p) for p in model.parameters() if p.requires_grad]
    groups = model.parameter_groups()
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(trained)
    assert {group["weight_decay"] for group in groups} - {0.0} == {model.weight_decay}
    assert {g["weight_decay"] for g in model.parameter_groups(0.25)} - {0.0} == {0.25}
    assert optim.SGD(groups, lr=0.1).param_groups


def test_the_sets_of_airbench94() -> None:
    model = models.airbench94(device="cpu")
    names = {id(p): key for key, p in model.named_parameters()}
    sets = {key: [names[id(p)] for p in chosen] for key, chosen in model.parameter_sets().items()}
    assert sets == {
        "whitening_bias": ["whiten.bias"],
        "biases": [f"group{i}.norm{j}.bias" for i in (1, 2, 3) for j in (1, 2)],
        "filters": [f"group{i}.conv{j}.weight" for i in (1, 2, 3) for j in (1, 2)],
        "head": ["head.weight"],
    }
    shapes = [tuple(p.shape) for p in model.parameter_sets()["filters"]]
    deep = [(256, 256, 3, 3)] * 3
    assert shapes == [(64, 24, 3, 3), (64, 64, 3, 3), (256, 64, 3, 3), *deep]


def test_airbench94_starts_as_published() -> None:
    gpucnn.manual_seed(3)
    model = models.airbench94(device="cpu")
    for conv in model.parameter_sets()["filters"]:
        weight = conv.numpy()
        k, c, _, _ = weight.shape
        identity = np.zeros((c, c, 3, 3), np.float32)
        identity[np.arange(c), np.arange(c), 1, 1] = 1.0
        np.testing.assert_array_equal(weight[:c], identity)
        assert k == c or 0.9 / math.sqrt(9 * c) < np.abs(weight[c:]).max() <= 1 / math.sqrt(9 * c)
    head = model.head.weight.numpy().astype(np.float64)
    assert head.std(ddof=1) == pytest.approx(1.0, rel=1e-6) and np.abs(head).max() < 1.9  # uniform: at most sqrt 3
    for group in (model.group1, model.group2, model.group3):
        for norm in (group.norm1, group.norm2):
            assert (norm.eps, norm.momentum) == (1e-12, 0.4)
            assert np.all(norm.weight.numpy() == 1.0) and not norm.bias.numpy().any()


@pytest.mark.parametrize("device", ["cpu", "emulated", CUDA])
def test_airbench94_takes_its_first_layer_from_images(device: str) -> None:
    images = np.random.default_rng(0).standard_normal((6, 3, 8, 9)).astype(np.float32)
    model = tiny("airbench94", device)
    assert model.init_images == 5000
    bias = model.whiten.bias.numpy()
    model.init_from_data(gpucnn.tensor(images, device=device))
    expected = whitening_filters(images, 2, eps=5e-4).astype(np.float32)
    np.testing.assert_array_equal(model.whiten.weight.numpy(), expected)
    np.testing.assert_array_equal(model.whiten.bias.numpy(), bias)
    assert not model.whiten.weight.requires_grad and layout.is_channels_last(model.whiten.weight.data)


def test_resnet20_starts_as_published() -> None:
    gpucnn.manual_seed(4)
    model = models.resnet20(device="cpu")
    for key, parameter in model.named_parameters():
        values = parameter.numpy().astype(np.float64)
        if "norm" in key or key == "linear.bias":
            assert np.all(values == (1.0 if key.endswith("weight") else 0.0)), key
        else:
            std = math.sqrt(2 / math.prod(parameter.shape[1:]))
            assert abs(values.std() / std - 1) < 5 / math.sqrt(2 * values.size), key


def test_the_shortcut_takes_every_second_pixel_and_adds_channels_of_zeros() -> None:
    block = models.resnet20(device="cpu").stage2[0]
    x = gpucnn.randn(2, 16, 5, 6, device="cpu")
    y = block.shortcut(x).numpy()
    assert y.shape == (2, 32, 3, 3) and not y[:, 16:].any()
    np.testing.assert_array_equal(y[:, :16], x.numpy()[:, :, ::2, ::2])
    plain = models.resnet20(device="cpu").stage1[0]
    assert plain.shortcut(x) is x


@pytest.mark.parametrize("options", [{"blocks": 0}, {"widths": (16, 8, 32)}])
def test_a_residual_network_that_cannot_be_built_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"ResNet20: expected blocks >= 1 and widths that do not fall, got "):
        models.resnet20(device="cpu", **options)


@pytest.mark.parametrize("name", COUNTS)
def test_a_seed_gives_the_same_network_on_every_device(name: str) -> None:
    states = []
    for seed, device in ((1, "cpu"), (1, "emulated"), (2, "cpu")):
        gpucnn.manual_seed(seed)
        states.append({key: value.numpy() for key, value in tiny(name, device).state_dict().items()})
    assert all(np.array_equal(states[1][key], value) for key, value in states[0].items())
    assert any(not np.array_equal(states[2][key], value) for key, value in states[0].items())


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("other", ["emulated", CUDA])
def test_the_kernels_agree_with_the_cpu(name: str, training: bool, other: str) -> None:
    results = []
    for device in ("cpu", other):
        gpucnn.manual_seed(5)
        model = tiny(name, device).train(training)
        logits = model(gpucnn.randn(2, 3, 32, 32, device=device))
        F.cross_entropy(logits, gpucnn.tensor([3, 1], device=device)).backward()
        gradients = [p.grad.numpy() for p in model.parameters() if p.grad is not None]
        results.append([logits.numpy(), *gradients, *(buffer.numpy() for buffer in model.buffers())])
    for a, b in zip(*results, strict=True):
        # The two sum up to 252 products, forward and back, in orders of their own.
        assert np.abs(a - b).max() <= 252 * np.finfo(np.float32).eps * max(np.abs(a).max(), 1e-2)


@pytest.mark.parametrize("name", COUNTS)
def test_weights_go_through_a_state_dict(name: str) -> None:
    first, second = tiny(name), tiny(name)
    x = gpucnn.randn(3, 3, 32, 32, device="cpu")
    first(x)  # moves the running figures
    assert not np.array_equal(first.eval()(x).numpy(), second.eval()(x).numpy())
    second.load_state_dict({key: value.numpy() for key, value in first.state_dict().items()})
    np.testing.assert_array_equal(first(x).numpy(), second(x).numpy())


@pytest.mark.parametrize("name", COUNTS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    """In float64, along one random direction of all trained parameters together."""
    gpucnn.manual_seed(6)
    model = tiny(name, dtype=np.float64)
    x = gpucnn.randn(4, 3, 32, 32, device="cpu").to(np.float64)
    labels = gpucnn.tensor([3, 1, 4, 1], device="cpu")
    trained = [p for p in model.parameters() if p.requires_grad]
    F.cross_entropy(model(x), labels, reduction="sum").backward()
    rng = np.random.default_rng(0)
    start = [p.numpy() for p in trained]
    directions = [rng.standard_normal(p.shape) * (np.abs(s).mean() + 0.1) for p, s in zip(trained, start, strict=True)]
    expected = sum(float((p.grad.numpy() * d).sum()) for p, d in zip(trained, directions, strict=True))

    def loss(step: float) -> float:
        with gpucnn.no_grad():
            for parameter, value, direction in zip(trained, start, directions, strict=True):
                parameter.copy_(value + step * direction)
            return float(F.cross_entropy(model(x), labels, reduction="sum").item())

    step = 1e-6
    assert (loss(step) - loss(-step)) / (2 * step) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", COUNTS)
def test_updates_copy_nothing_to_change_its_memory_order(name: str) -> None:
    model = tiny(name)
    model(gpucnn.randn(2, 3, 32, 32, device="cpu")).sum().backward()
    optimizer = optim.SGD(model.parameter_groups(), lr=0.1, momentum=0.9)
    with layout.count_copies() as copies:
        optimizer.step()
    assert copies == [0]


def test_training_steps_of_airbench94_lower_the_loss() -> None:
    gpucnn.manual_seed(0)
    model = tiny("airbench94")
    sets = model.parameter_sets()
    images, labels = gpucnn.randn(32, 3, 32, 32, device="cpu"), gpucnn.tensor(np.arange(32) % 10, device="cpu")
    model.init_from_data(images)
    muon = optim.Muon(sets["filters"], lr=0.1, momentum=0.6, ns_steps=3, weight_decay=0.0, renormalize=True)
    rest = sets["whitening_bias"] + sets["biases"] + sets["head"]
    sgd = optim.SGD(rest, lr=0.05, momentum=0.85, nesterov=True)
    losses = []
    for _ in range(12):
        loss = nn.CrossEntropyLoss()(model(images), labels)
        muon.zero_grad()
        sgd.zero_grad()
        loss.backward()
        muon.step()
        sgd.step()
        losses.append(loss.item())
    assert abs(losses[0] - math.log(10)) < 0.3 and losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", COUNTS)
def test_an_image_of_the_wrong_size_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"conv2d|linear|max_pool2d"):
        tiny(name)(gpucnn.zeros(2, 1, 32, 32, device="cpu"))
