"""ResNet-9, ResNet-20, airbench94, Muon and the initial values beside PyTorch's, from the same weights."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import functional as F
from gpucnn import models, nn, optim

pytestmark = pytest.mark.peers


def resnet9_in_torch() -> Any:
    import torch
    from torch import nn as tn

    class Unit(tn.Module):
        def __init__(self, c: int, k: int, pool: bool = False) -> None:
            super().__init__()
            self.conv, self.norm, self.pool = tn.Conv2d(c, k, 3, padding="same", bias=False), tn.BatchNorm2d(k), pool

        def forward(self, x: Any) -> Any:
            y = self.norm(self.conv(x)).relu()
            return torch.nn.functional.max_pool2d(y, 2) if self.pool else y

    class Residual(tn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.unit1, self.unit2 = Unit(c, c), Unit(c, c)

        def forward(self, x: Any) -> Any:
            return x + self.unit2(self.unit1(x))

    class Scale(tn.Module):
        def forward(self, x: Any) -> Any:
            return x * 0.125

    body = [Unit(3, 64), Unit(64, 128, True), Residual(128), Unit(128, 256, True), Unit(256, 512, True), Residual(512)]
    return tn.Sequential(*body, tn.MaxPool2d(4), tn.Flatten(), tn.Linear(512, 10, bias=False), Scale())


def resnet20_in_torch() -> Any:
    import torch
    from torch import nn as tn

    class Block(tn.Module):
        def __init__(self, c: int, k: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.norm1 = tn.Conv2d(c, k, 3, stride, 1, bias=False), tn.BatchNorm2d(k)
            self.conv2, self.norm2 = tn.Conv2d(k, k, 3, 1, 1, bias=False), tn.BatchNorm2d(k)
            self.stride, self.more = stride, k - c

        def forward(self, x: Any) -> Any:
            y = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
            short = torch.nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
            return (y + short).relu()

    blocks = [Block(c, k, s) for c, k, s in [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)]]
    layers = [tn.Conv2d(3, 16, 3, padding=1, bias=False), tn.BatchNorm2d(16), tn.ReLU(), *blocks]
    tail = [Block(64, 64, 1), Block(64, 64, 1), tn.AdaptiveAvgPool2d(1), tn.Flatten(), tn.Linear(64, 10)]
    return tn.Sequential(*layers, *tail)


def airbench94_in_torch(widths: tuple[int, int, int] = (64, 256, 256)) -> Any:
    from torch import nn as tn

    def norm(c: int) -> Any:
        layer = tn.BatchNorm2d(c, eps=1e-12, momentum=1 - 0.6)
        layer.weight.requires_grad = False
        return layer

    def group(c: int, k: int) -> list[Any]:
        conv1, conv2 = (tn.Conv2d(depth, k, 3, padding="same", bias=False) for depth in (c, k))
        return [conv1, tn.MaxPool2d(2), norm(k), tn.GELU(), conv2, norm(k), tn.GELU()]

    class Scale(tn.Module):
        def forward(self, x: Any) -> Any:
            return x / widths[2]

    whiten = tn.Conv2d(3, 24, 2, padding=0)
    whiten.weight.requires_grad = False
    body = [*group(24, widths[0]), *group(*widths[:2]), *group(*widths[1:])]
    return tn.Sequential(
        whiten, tn.GELU(), *body, tn.MaxPool2d(3), tn.Flatten(), tn.Linear(widths[2], 10, bias=False), Scale()
    )


PEERS: dict[str, Any] = {"resnet9": resnet9_in_torch, "resnet20": resnet20_in_torch, "airbench94": airbench94_in_torch}


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-300))


def pair(name: str, **options: Any) -> tuple[Any, Any, list[tuple[str, str]]]:
    """Our network, PyTorch's with its weights, and the names of the same entries in both, in order."""
    import torch

    gpucnn.manual_seed(2)
    model, peer = models.create(name, device="cpu", dtype=np.float64, **options), PEERS[name](**options).double()
    rng = np.random.default_rng(3)
    for parameter in model.parameters():  # away from 0 and 1, where a forgotten parameter would not show
        if parameter.requires_grad:
            with gpucnn.no_grad():
                parameter.copy_(parameter.numpy() * (1 + 0.1 * rng.standard_normal(parameter.shape)) + 0.01)
    names = list(zip(model.state_dict(), peer.state_dict(), strict=True))
    state = model.state_dict()
    peer.load_state_dict({theirs: torch.from_numpy(np.asarray(state[own].numpy())) for own, theirs in names})
    return model, peer, names


@pytest.mark.parametrize("name", PEERS)
def test_logits_loss_gradients_and_running_figures_are_pytorchs(name: str) -> None:
    """In float64, where both must agree far below what any wrong constant would change."""
    import torch

    model, peer, names = pair(name)
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((3, 3, 32, 32)), rng.integers(0, 10, 3)
    logits, peer_logits = model(gpucnn.tensor(x, device="cpu")), peer(torch.from_numpy(x))
    assert relative(logits.numpy(), peer_logits.detach().numpy()) < 1e-11
    F.cross_entropy(logits, gpucnn.tensor(labels, device="cpu")).backward()
    torch.nn.functional.cross_entropy(peer_logits, torch.from_numpy(labels)).backward()
    own, theirs = dict(model.named_parameters()), dict(peer.named_parameters())
    for ours_name, peer_name in names:
        if ours_name in own and own[ours_name].requires_grad:
            assert relative(own[ours_name].grad.numpy(), theirs[peer_name].grad.numpy()) < 1e-9, ours_name
    state, peer_state = model.state_dict(), peer.state_dict()
    for ours_name, peer_name in names:
        assert relative(state[ours_name].numpy(), peer_state[peer_name].numpy()) < 1e-11, ours_name
    with torch.no_grad():
        y = peer.eval()(torch.from_numpy(x)).numpy()
    assert relative(model.eval()(gpucnn.tensor(x, device="cpu")).numpy(), y) < 1e-11


def test_two_steps_of_airbench94_are_the_published_ones() -> None:
    """Its optimizers as its training script has them: SGD for biases and head, Muon after scaling the weights."""
    import torch

    model, peer, names = pair("airbench94", widths=(32, 64, 80))
    sets = model.parameter_sets()
    lr, head_lr, decay = 0.053, 0.67, 2e-6 * 8
    biases = {"params": sets["whitening_bias"] + sets["biases"], "lr": lr, "weight_decay": decay / lr}
    head = {"params": sets["head"], "lr": head_lr, "weight_decay": decay / head_lr}
    sgd = optim.SGD([biases, head], momentum=0.85, nesterov=True)
    muon = optim.Muon(sets["filters"], lr=0.24, momentum=0.6, ns_steps=3, weight_decay=0.0, renormalize=True)

    trained = {key: p for key, p in peer.named_parameters() if p.requires_grad}
    filters = [p for p in trained.values() if p.ndim == 4]
    ends = [p for p in trained.values() if p.ndim == 2]
    shifts = [p for p in trained.values() if p.ndim == 1]
    peer_sgd = torch.optim.SGD(
        [{"params": shifts, "lr": lr, "weight_decay": decay / lr},
         {"params": ends, "lr": head_lr, "weight_decay": decay / head_lr}], momentum=0.85, nesterov=True,
    )  # fmt: skip
    buffers = [torch.zeros_like(p) for p in filters]

    def peer_muon() -> None:
        for p, buffer in zip(filters, buffers, strict=True):
            buffer.mul_(0.6).add_(p.grad)
            g = p.grad.add(buffer, alpha=0.6).reshape(len(p), -1)
            p.data.mul_(len(p) ** 0.5 / p.data.norm())
            y = g / g.norm()  # 1e-7 is added there, and a lower bound here
            for _ in range(3):
                gram = y @ y.T
                y = 3.4445 * y + (-4.775 * gram + 2.0315 * gram @ gram) @ y
            p.data.add_(y.view(p.shape), alpha=-0.24)

    rng = np.random.default_rng(1)
    for _ in range(2):
        x, labels = rng.standard_normal((4, 3, 32, 32)), rng.integers(0, 10, 4)
        F.cross_entropy(
            model(gpucnn.tensor(x, device="cpu")), gpucnn.tensor(labels, device="cpu"), reduction="sum",
            label_smoothing=0.2,
        ).backward()  # fmt: skip
        loss = torch.nn.functional.cross_entropy(
            peer(torch.from_numpy(x)), torch.from_numpy(labels), reduction="sum", label_smoothing=0.2
        )
        loss.backward()
        for optimizer in (sgd, muon, peer_sgd):
            optimizer.step()
        peer_muon()
        for optimizer in (sgd, muon, peer_sgd):
            optimizer.zero_grad()
        for p in filters:
            p.grad = None
    state, peer_state = model.state_dict(), peer.state_dict()
    for ours_name, peer_name in names:
        assert relative(state[ours_name].numpy(), peer_state[peer_name].numpy()) < 1e-9, ours_name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0.1, "nesterov": False, "weight_decay": 0.0},
        {"lr": 0.1, "adjust_lr_fn": "match_rms_adamw", "momentum": 0.5, "ns_steps": 2},
        {"lr": 0.1, "adjust_lr_fn": "original", "ns_coefficients": (2.0, -1.5, 0.5), "eps": 10.0},
    ],
    ids=str,
)
def test_muon_is_pytorchs(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)  # PyTorch's iteration in float64
    rng = np.random.default_rng(0)
    shapes = [(5, 7), (7, 5), (7, 5), (6, 6), (1, 4), (4, 1)]
    start = [rng.standard_normal(shape) for shape in shapes]
    own = [nn.Parameter(gpucnn.tensor(value, device="cpu")) for value in start]
    peer = [torch.nn.Parameter(torch.from_numpy(value.copy())) for value in start]
    ours, theirs = optim.Muon(own, **options), torch.optim.Muon(peer, **options)
    for step in range(5):
        for index, shape in enumerate(shapes):
            gradient = rng.standard_normal(shape)
            skipped = step == 0 and index == 1
            own[index].grad = None if skipped else gpucnn.tensor(gradient, device="cpu")
            peer[index].grad = None if skipped else torch.from_numpy(gradient.copy())
        ours.step()
        theirs.step()
    for a, b in zip(own, peer, strict=True):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(
            ours.state[a]["momentum_buffer"].numpy(), theirs.state[b]["momentum_buffer"].numpy(), rtol=1e-12, atol=1e-14
        )


def test_muon_takes_pytorchs_arguments() -> None:
    import torch

    def arguments(function: Any) -> list[tuple[str, Any]]:
        return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]

    assert arguments(optim.Muon)[:-1] == arguments(torch.optim.Muon)
    assert arguments(optim.Muon)[-1] == ("renormalize", False)


@pytest.mark.parametrize(("shape", "groups"), [((4, 6, 3, 2), 1), ((6, 4, 1, 4), 1), ((6, 2, 3, 3), 3), ((4, 2, 5), 2)])
def test_dirac_is_pytorchs(shape: tuple[int, ...], groups: int) -> None:
    import torch

    own, peer = (
        nn.init.dirac_(gpucnn.empty(*shape, device="cpu"), groups),
        torch.nn.init.dirac_(torch.empty(shape), groups),
    )
    np.testing.assert_array_equal(own.numpy(), peer.numpy())


def test_the_first_layer_of_airbench94_is_the_published_one() -> None:
    """Its patches and eigenvectors in float64; the order of an eigenvector and its opposite is LAPACK's there."""
    import torch

    rng = np.random.default_rng(0)
    noise = rng.standard_normal((12, 3, 10, 10)) + rng.standard_normal((12, 1, 10, 10))
    images = torch.from_numpy((noise[:, :, 1:] + noise[:, :, :-1]).astype(np.float32))
    patches = images.unfold(2, 2, 1).unfold(3, 2, 1).transpose(1, 3).reshape(-1, 3, 2, 2).double()
    flat = patches.view(len(patches), -1)
    values, vectors = torch.linalg.eigh((flat.T @ flat) / len(flat), UPLO="U")
    half = (vectors.T.reshape(-1, 3, 2, 2) / torch.sqrt(values.view(-1, 1, 1, 1) + 5e-4)).numpy()
    model = models.airbench94(device="cpu", dtype=np.float64)
    model.init_from_data(gpucnn.tensor(images.numpy(), device="cpu"))
    own = model.whiten.weight.numpy()
    signs = np.sign((own[:12] * half).sum((1, 2, 3), keepdims=True))
    np.testing.assert_allclose(own[:12], signs * half, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(own[12:], -own[:12])
    assert math.isclose(float(np.abs(signs).min()), 1.0)
