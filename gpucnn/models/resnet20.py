"""ResNet-20 for CIFAR-10: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, section
4.2.
"""

from __future__ import annotations

from typing import Any

from gpucnn import functional as F
from gpucnn import nn
from gpucnn.functional.arithmetic import add
from gpucnn.models.registry import register
from gpucnn.nn import init
from gpucnn.tensor import Tensor


class BasicBlock(nn.Module):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x)))))), both convolutions 3 x 3, the first of ``stride``."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        place = {"device": device, "dtype": dtype}
        self.stride, self.added = stride, channels_out - channels_in
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False, **place)
        self.norm1 = nn.BatchNorm2d(channels_out, activation="relu", **place)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False, **place)
        self.norm2 = nn.BatchNorm2d(channels_out, **place)

    def shortcut(self, x: Tensor) -> Tensor:
        """The paper's option A, without parameters: every ``stride``-th pixel, and channels of zeros added at the
        end.
        """
        if self.stride > 1:
            x = F.avg_pool2d(x, 1, self.stride)
        return F.pad_channels(x, self.added) if self.added else x

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.norm1(self.conv1(x))))
        return add(y, self.shortcut(x), activation="relu")


class ResNet20(nn.Module):
    """One convolution, three stages of three blocks, average pooling, one linear layer: (N, 3, 32, 32) to logits
    (N, num_classes).

    269,722 parameters for 10 classes. ``depth`` = 6 ``blocks`` + 2 layers: 3 blocks a stage make 20. Weights are normal
    with standard deviation sqrt(2 / fan_in) as the paper's [13] (He and others, "Delving deep into rectifiers") has
    them; biases are 0. Raises ValueError for ``blocks`` below 1 and ``widths`` that become smaller, which the shortcut
    cannot follow.
    """

    input_shape = (3, 32, 32)
    data_set = "cifar10"
    weight_decay = 1e-4

    def __init__(
        self,
        num_classes: int = 10,
        device: Any = None,
        dtype: Any = None,
        blocks: int = 3,
        widths: tuple[int, int, int] = (16, 32, 64),
    ) -> None:
        super().__init__()
        if blocks < 1 or not widths[0] <= widths[1] <= widths[2]:
            raise ValueError(f"ResNet20: expected blocks >= 1 and widths that do not fall, got {blocks} and {widths}")
        place = {"device": device, "dtype": dtype}
        self.conv = nn.Conv2d(self.input_shape[0], widths[0], 3, padding=1, bias=False, **place)
        self.norm = nn.BatchNorm2d(widths[0], activation="relu", **place)
        self.stage1 = self._stage(widths[0], widths[0], blocks, 1, place)  # 32 x 32 x 16
        self.stage2 = self._stage(widths[0], widths[1], blocks, 2, place)  # 16 x 16 x 32
        self.stage3 = self._stage(widths[1], widths[2], blocks, 2, place)  # 8 x 8 x 64
        self.linear = nn.Linear(widths[2], num_classes, **place)
        self.reset_parameters()

    @staticmethod
    def _stage(channels_in: int, channels_out: int, blocks: int, stride: int, place: dict[str, Any]) -> nn.Sequential:
        first = BasicBlock(channels_in, channels_out, stride, **place)
        return nn.Sequential(first, *(BasicBlock(channels_out, channels_out, 1, **place) for _ in range(blocks - 1)))

    def reset_parameters(self) -> None:
        """Draws all weights again."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                init.kaiming_normal_(module.weight, nonlinearity="relu")
        init.zeros_(self.linear.bias)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.conv(images))
        x = self.stage3(self.stage2(self.stage1(x)))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits

    def parameter_groups(self, weight_decay: float = weight_decay) -> list[dict[str, Any]]:
        """For an optimizer: one group of all parameters, as in the paper."""
        return [{"params": list(self.parameters()), "weight_decay": weight_decay}]


@register("resnet20")
def resnet20(num_classes: int = 10, device: Any = None, dtype: Any = None, **options: Any) -> ResNet20:
    """A new :class:`ResNet20`."""
    return ResNet20(num_classes, device, dtype, **options)
