"""The layers of batch normalisation beside PyTorch's, over several steps in training and then in evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import nn
from tests.support import reference
from tests.support.tolerance import assert_close

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("device", ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 7), (3, 8, 5, 6)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": None},
        {"affine": False, "momentum": 0.6},
        {"track_running_stats": False, "eps": 0.01},
        {"bias": False},
    ],
    ids=lambda options: ", ".join(options) or "defaults",
)
def test_layers_are_pytorchs(device: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    """e of the tolerance rule is PyTorch's own error."""
    import torch

    rng = np.random.default_rng(0)
    name = "BatchNorm2d" if len(shape) == 4 else "BatchNorm1d"
    ours = getattr(nn, name)(shape[1], device=device, **options)
    peers = {t: getattr(torch.nn, name)(shape[1], dtype=t, **options) for t in (torch.float64, torch.float32)}
    exact = peers[torch.float64]
    assert list(ours.state_dict()) == list(exact.state_dict())
    values = {key: rng.standard_normal(shape[1]).astype(np.float32) for key, _ in ours.named_parameters()}
    ours.load_state_dict(values, strict=False)
    for peer in peers.values():
        peer.load_state_dict({key: torch.tensor(value) for key, value in values.items()}, strict=False)
    for training in (True, True, False):
        x, dy = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
        x += 3
        running = (
            None if training or exact.running_mean is None else tuple(b.numpy() for b in list(exact.buffers())[:2])
        )
        scales = sizes(x, dy, running, values, ours.eps)
        ours.train(training).zero_grad()
        tensor = gpucnn.tensor(x, device=device, requires_grad=True)
        y = ours(tensor)
        y.backward(gpucnn.tensor(dy, device=device))
        expected = []
        for dtype, peer in peers.items():
            peer.train(training).zero_grad()
            t = torch.tensor(x, dtype=dtype, requires_grad=True)
            z = peer(t)
            z.backward(torch.tensor(dy, dtype=dtype))
            gradients = [parameter.grad for parameter in peer.parameters()]
            expected.append([a.detach().numpy().copy() for a in (z, t.grad, *gradients, *peer.buffers())])
        results = [y, tensor.grad, *(p.grad for p in ours.parameters()), *ours.buffers()]
        names = ["y", "dx", *values, *(key for key, _ in ours.named_buffers())]
        for key, result, want, plain in zip(names, results, *expected, strict=True):
            if key == "num_batches_tracked":
                assert result.item() == want.item()
                continue
            assert_close(result.numpy(), want, scales.get(key, abs(want)), plain, what=f"{key}, training {training}")


def sizes(x: Any, dy: Any, running: Any, values: dict[str, Any], eps: float) -> dict[str, Any]:
    """S of y and of the gradients; that of a running mean is what its batches' means are summed from."""
    rows, upstream = np.moveaxis(x, 1, -1), np.moveaxis(dy, 1, -1)
    weight, bias = values.get("weight"), values.get("bias")
    y = reference.batch_norm_forward(rows, running, weight, bias, eps)
    dx, dweight, dbias = reference.batch_norm_backward(upstream, rows, running, weight, eps)
    back = [np.moveaxis(part.scale, -1, 1) for part in (y, dx) if part.scale is not None]
    mean = abs(x).mean(axis=(0, *range(2, x.ndim)))
    return dict(
        zip(("y", "dx", "weight", "bias", "running_mean"), (*back, dweight.scale, dbias.scale, mean), strict=True)
    )
