"""ResNet-9: D. Page, "How to train your ResNet", 2018 (the DAWNBench winner of its second to fourth parts)."""

from __future__ import annotations

from typing import Any

from gpucnn import nn
from gpucnn.models.registry import register
from gpucnn.tensor import Tensor


class Unit(nn.Module):
    """conv 3 x 3 -> batch norm -> ReLU, and a max-pool 2 if ``pool``."""

    def __init__(self, channels_in: int, channels_out: int, pool: bool, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        place = {"device": device, "dtype": dtype}
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False, **place)
        self.norm = nn.BatchNorm2d(channels_out, activation="relu", **place)
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(self.norm(self.conv(x)))
        return y


class Residual(nn.Module):
    """x + unit(unit(x))."""

    def __init__(self, channels: int, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.unit1 = Unit(channels, channels, pool=False, device=device, dtype=dtype)
        self.unit2 = Unit(channels, channels, pool=False, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.unit2(self.unit1(x))
        return y


class ResNet9(nn.Module):
    """Eight convolutions, two residual branches and a linear layer: (N, 3, 32, 32) to logits (N, num_classes);
    6,573,120 parameters for 10 classes.

    ``widths`` are the channels of prep and of the three layers. Initial values are PyTorch's.
    """

    input_shape = (3, 32, 32)
    data_set = "cifar10"
    weight_decay = 5e-4

    def __init__(
        self,
        num_classes: int = 10,
        device: Any = None,
        dtype: Any = None,
        widths: tuple[int, int, int, int] = (64, 128, 256, 512),
    ) -> None:
        super().__init__()
        place = {"device": device, "dtype": dtype}
        self.prep = Unit(self.input_shape[0], widths[0], pool=False, **place)  # 32 x 32 x 64
        self.layer1 = Unit(widths[0], widths[1], pool=True, **place)  # 16 x 16 x 128
        self.residual1 = Residual(widths[1], **place)
        self.layer2 = Unit(widths[1], widths[2], pool=True, **place)  # 8 x 8 x 256
        self.layer3 = Unit(widths[2], widths[3], pool=True, **place)  # 4 x 4 x 512
        self.residual3 = Residual(widths[3], **place)
        self.pool = nn.MaxPool2d(4)  # 1 x 1 x 512
        self.linear = nn.Linear(widths[3], num_classes, bias=False, **place)

    def forward(self, images: Tensor) -> Tensor:
        x = self.residual1(self.layer1(self.prep(images)))
        x = self.residual3(self.layer3(self.layer2(x)))
        logits: Tensor = self.linear(self.pool(x).flatten(1)) * 0.125
        return logits

    def parameter_groups(self, weight_decay: float = weight_decay) -> list[dict[str, Any]]:
        """For an optimizer: one group of all parameters, as Page has it."""
        return [{"params": list(self.parameters()), "weight_decay": weight_decay}]


@register("resnet9")
def resnet9(num_classes: int = 10, device: Any = None, dtype: Any = None, **options: Any) -> ResNet9:
    """A new :class:`ResNet9`."""
    return ResNet9(num_classes, device, dtype, **options)
