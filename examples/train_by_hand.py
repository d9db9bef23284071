"""The plain training loop: a small network on generated shapes, with a custom Function in it.

Run: python examples/train_by_hand.py [steps]     (GPUCNN_DEVICE=cpu, cuda or emulated chooses the device)
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import gpucnn
import gpucnn.functional as F
from gpucnn import Tensor, data, nn, optim


class Scale(gpucnn.Function):
    """z = x * y for a tensor x and a trained number y: forward and backward as the lecture writes them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return x * y

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor) -> Any:
        x, y = ctx.saved_tensors
        return grad_z * y, (grad_z * x).sum().reshape(1)


class Net(nn.Module):
    """Two convolutions, a linear layer, and logits scaled by a number that is trained with the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 16, 5, padding="same"), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(16, 32, 5, padding="same"), nn.ReLU(), nn.MaxPool2d(3, 2)),
            nn.Flatten(),
        )
        self.head = nn.Linear(32 * 7 * 7, 10)
        self.scale = nn.Parameter(gpucnn.ones(1, device="cpu"))

    def forward(self, x: Tensor) -> Tensor:
        return Scale.apply(self.head(self.features(x)), self.scale)


def main(steps: int = 300, batch_size: int = 32) -> float:
    """Trains for ``steps`` steps and returns the accuracy on 1000 test images."""
    gpucnn.manual_seed(0)
    device = gpucnn.zeros(1).device
    model = Net().to(device)
    optimizer = optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    pixels = data.transforms.Normalize(mean=0.5, std=0.25)
    train_set, test_set = data.Shapes(count=steps * batch_size), data.Shapes(train=False, count=1000)
    train = data.DataLoader(train_set, batch_size, shuffle=True, transform=pixels, device=device)
    for step, (images, labels) in enumerate(train, start=1):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        if step % 50 == 0 or step == steps:
            print(f"step {step}: loss {loss.item():.3f}")

    model.eval()
    hits = []
    with gpucnn.no_grad():
        for images, labels in data.DataLoader(test_set, 100, transform=pixels, device=device):
            hits.append((model(images).argmax(1) == labels).numpy())
    accuracy = float(np.concatenate(hits).mean())
    print(f"accuracy on 1000 test images: {accuracy:.1%} on {device}")
    return accuracy


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
