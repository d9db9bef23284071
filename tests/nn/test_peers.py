"""Networks, layers and optimizers beside PyTorch's, from the same weights."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import functional as F
from gpucnn import models, nn, optim

pytestmark = pytest.mark.peers


def lecture_in_torch() -> Any:
    """The lecture's network of PyTorch layers; TensorFlow's SAME pads a 3x3 stride 2 pool at bottom and right."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = torch.nn.Conv2d(3, 64, 5, padding=2)
            self.conv2 = torch.nn.Conv2d(64, 64, 5, padding=2)
            self.local3 = torch.nn.Linear(2304, 384)
            self.local4 = torch.nn.Linear(384, 192)
            self.softmax_linear = torch.nn.Linear(192, 10)
            self.norm = torch.nn.LocalResponseNorm(9, alpha=1e-3, beta=0.75, k=1.0)

        def pool(self, x: Any) -> Any:
            return torch.nn.functional.max_pool2d(torch.nn.functional.pad(x, (0, 1, 0, 1), value=-math.inf), 3, 2)

        def forward(self, x: Any) -> Any:
            x = self.norm(self.pool(torch.relu(self.conv1(x))))
            x = self.pool(self.norm(torch.relu(self.conv2(x))))
            x = torch.relu(self.local3(x.flatten(1)))
            return self.softmax_linear(torch.relu(self.local4(x)))

    return Net()


def lenet_in_torch() -> Any:
    import torch
    from torch.nn import Conv2d, Flatten, Linear, MaxPool2d, ReLU

    layers = [Conv2d(1, 6, 5, padding=2), ReLU(), MaxPool2d(2), Conv2d(6, 16, 5), ReLU(), MaxPool2d(2), Flatten()]
    return torch.nn.Sequential(*layers, Linear(400, 120), ReLU(), Linear(120, 84), ReLU(), Linear(84, 10))


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize(("name", "make"), [("lecture_cnn", lecture_in_torch), ("lenet5", lenet_in_torch)])
def test_logits_loss_and_gradients_are_pytorchs(name: str, make: Callable[[], Any]) -> None:
    """In float64, where both must agree far below what any wrong constant would change."""
    import torch

    gpucnn.manual_seed(2)
    model, peer = models.create(name, device="cpu", dtype=np.float64), make().double()
    state = model.state_dict()
    renamed = dict(zip(peer.state_dict(), state.values(), strict=True))
    peer.load_state_dict({key: torch.from_numpy(value.numpy()) for key, value in renamed.items()})
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((4, *model.input_shape)), rng.integers(0, 10, 4)
    logits, peer_logits = model(gpucnn.tensor(x, device="cpu")), peer(torch.from_numpy(x))
    assert relative(logits.numpy(), peer_logits.detach().numpy()) < 1e-12
    loss = F.cross_entropy(logits, gpucnn.tensor(labels, device="cpu"))
    peer_loss = torch.nn.functional.cross_entropy(peer_logits, torch.from_numpy(labels))
    assert loss.item() == pytest.approx(peer_loss.item(), rel=1e-12)
    loss.backward()
    peer_loss.backward()
    for (own_name, own), other in zip(model.named_parameters(), peer.parameters(), strict=True):
        assert own.grad is not None
        assert relative(own.grad.numpy(), other.grad.numpy()) < 1e-11, own_name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.01},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        {"momentum": 0.9, "weight_decay": 0.01, "maximize": True},
    ],
    ids=str,
)
def test_sgd_is_pytorchs(options: dict[str, Any]) -> None:
    import torch

    rng = np.random.default_rng(0)
    shapes = [(4, 3, 2, 2), (5, 3), (7,)]
    start = [rng.standard_normal(shape) for shape in shapes]
    own = [nn.Parameter(gpucnn.tensor(value, device="cpu")) for value in start]
    peer = [torch.nn.Parameter(torch.from_numpy(value.copy())) for value in start]
    ours = optim.SGD([{"params": own[:1], "lr": 0.3}, {"params": own[1:]}], lr=0.1, **options)
    theirs = torch.optim.SGD([{"params": peer[:1], "lr": 0.3}, {"params": peer[1:]}], lr=0.1, **options)
    schedule = optim.lr_scheduler.StepLR(ours, 3, gamma=0.5)
    peer_schedule = torch.optim.lr_scheduler.StepLR(theirs, 3, gamma=0.5)
    for step in range(8):
        for index, shape in enumerate(shapes):
            gradient = rng.standard_normal(shape)
            skipped = step == 0 and index == 1
            own[index].grad = None if skipped else gpucnn.tensor(gradient, device="cpu")
            peer[index].grad = None if skipped else torch.from_numpy(gradient.copy())
        ours.step()
        theirs.step()
        schedule.step()
        peer_schedule.step()
        assert schedule.get_last_lr() == pytest.approx(peer_schedule.get_last_lr(), rel=1e-14)
    for a, b in zip(own, peer, strict=True):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-13)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    assert [g["params"] for g in ours.state_dict()["param_groups"]] == [
        g["params"] for g in theirs.state_dict()["param_groups"]
    ]


def test_state_dicts_and_files_go_both_ways(tmp_path: Any) -> None:
    import safetensors.torch
    import torch

    gpucnn.manual_seed(1)
    own = nn.Sequential(
        nn.Conv2d(3, 4, (3, 2), device="cpu"), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 3 * 4, 2, device="cpu")
    )
    peer = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, (3, 2)), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(48, 2)
    )
    assert repr(own) == repr(peer) and list(own.state_dict()) == list(peer.state_dict())
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 5)).astype(np.float32)

    def agree() -> bool:
        with torch.no_grad():
            return relative(own(gpucnn.tensor(x, device="cpu")).numpy(), peer(torch.from_numpy(x)).numpy()) < 1e-5

    assert not agree()
    gpucnn.save(own.state_dict(), tmp_path / "own")
    peer.load_state_dict(safetensors.torch.load_file(tmp_path / "own"))
    assert agree()
    torch.nn.init.normal_(peer[3].weight)
    assert not agree()
    safetensors.torch.save_file(peer.state_dict(), tmp_path / "peer", metadata={"format": "pt"})
    own.load_state_dict(gpucnn.load(tmp_path / "peer", device="cpu"))
    assert agree()
    torch.nn.init.normal_(peer[0].weight)
    own.load_state_dict(peer.state_dict())  # its tensors are arrays to NumPy
    assert agree()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("uniform_", {"a": -1.0, "b": 0.5}),
        ("normal_", {"mean": 1.0, "std": 0.1}),
        ("trunc_normal_", {"std": 0.5, "a": -0.25, "b": 1.0}),
        ("kaiming_uniform_", {"a": 0.3}),
        ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "relu"}),
        ("xavier_uniform_", {"gain": 2.0}),
        ("xavier_normal_", {}),
    ],
)
def test_initialisers_have_pytorchs_distribution(name: str, options: dict[str, Any]) -> None:
    """The largest distance between the two empirical distribution functions, by Kolmogorov and Smirnov, at a level of
    1e-6.
    """
    import torch

    shape = (40, 20, 5, 5)
    torch.manual_seed(0)
    gpucnn.manual_seed(0)
    own = np.sort(getattr(nn.init, name)(gpucnn.empty(*shape, device="cpu"), **options).numpy().ravel())
    peer = np.sort(getattr(torch.nn.init, name)(torch.empty(shape), **options).numpy().ravel())
    both = np.concatenate([own, peer])
    distance = np.abs(np.searchsorted(own, both, "right") - np.searchsorted(peer, both, "right")).max() / own.size
    assert distance < math.sqrt(-math.log(1e-6 / 2) / 2) * math.sqrt(2 / own.size)


def _arguments(function: Any) -> dict[str, Any]:
    """Names and defaults of what a function takes, in their order, without ``self`` and what stands for any number."""
    parameters = inspect.signature(function).parameters.values()
    plain = [p for p in parameters if p.name != "self" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return {p.name: p.default for p in plain}


LAYERS = [name for name in nn.__all__ if name not in ("init", "utils", "Module", "Parameter")]
SCHEDULES = [name for name in optim.lr_scheduler.__all__ if name not in ("LRScheduler", "PiecewiseLinearLR")]
CLIPPING = ["clip_grad_norm_", "clip_grad_value_", "get_total_norm"]
INITIALISERS = [name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")]


@pytest.mark.parametrize("place", [
    *(f"nn.{name}" for name in LAYERS), *(f"nn.init.{name}" for name in INITIALISERS), "nn.init.calculate_gain",
    *(f"optim.{name}" for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad")),
    *(f"optim.lr_scheduler.{name}" for name in SCHEDULES), *(f"nn.utils.{name}" for name in CLIPPING),
    *(f"nn.Module.{name}" for name in ("apply", "cuda", "register_parameter", "register_buffer", "add_module",
                                       "requires_grad_", "zero_grad", "train", "named_parameters", "load_state_dict")),
])  # fmt: skip
def test_arguments_have_pytorchs_names_order_and_defaults(place: str) -> None:
    """What we take, PyTorch takes; ``data_format``, ``activation`` and ``max_pool`` alone are ours."""
    import torch

    own, peer = (_arguments(operator.attrgetter(place)(package)) for package in (gpucnn, torch))
    for name in ("data_format", "activation", "max_pool"):
        own.pop(name, None)
    assert {name: float(v) if isinstance(v, int) else v for name, v in own.items()} == {
        name: float(v) if isinstance(v, int) else v for name, v in peer.items() if name in own
    }
    assert list(own) == [name for name in peer if name in own]
