"""The 24 convolutions over which single operators are compared: from the networks of this package and from two large
ones, at batches of 32 to 1024.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gpucnn.geometry import Conv2dGeometry

TINY_BATCH, TINY_SIDE, TINY_CHANNELS = 2, 9, 8


@dataclass(frozen=True)
class Shape:
    """A convolution of N images (C, H, W) with K filters (C, R, S).

    ``network`` and ``layer`` say where it is from. The geometry's other letters follow from these.
    """

    network: str
    layer: str
    N: int
    C: int
    H: int
    K: int
    R: int
    stride: int = 1
    pad: int = 0

    @property
    def name(self) -> str:
        """As tables have it: "resnet9 layer2 512x128x16x16 256x3x3"."""
        sizes = f"{self.N}x{self.C}x{self.H}x{self.H} {self.K}x{self.R}x{self.R}"
        return f"{self.network} {self.layer} {sizes}" + (f" /{self.stride}" if self.stride > 1 else "")

    @property
    def geometry(self) -> Conv2dGeometry:
        """All of its sizes; images and filters are square."""
        images, filters = (self.N, self.C, self.H, self.H), (self.K, self.C, self.R, self.R)
        return Conv2dGeometry.of(images, filters, self.stride, self.pad)

    @property
    def flops(self) -> int:
        """Multiplications and additions, the same for each direction: 2 N P Q K C R S. Taps that fall into the padding
        count, as they do for cuDNN's users."""
        g = self.geometry
        return 2 * g.N * g.P * g.Q * g.K * g.C * g.R * g.S

    def size(self, itemsize: int, direction: str) -> int:
        """Bytes of one pass over the three arrays, ``itemsize`` an element; wgrad's result is float32 anyhow."""
        g = self.geometry
        x, w, y = g.N * g.H * g.W * g.C, g.K * g.R * g.S * g.C, g.N * g.P * g.Q * g.K
        return (x + y) * itemsize + w * (4 if direction == "wgrad" else itemsize)

    def tiny(self) -> Shape:
        """Of the same kind, small enough for a CPU that emulates a GPU."""
        c, k, side = min(self.C, TINY_CHANNELS), min(self.K, TINY_CHANNELS), max(min(self.H, TINY_SIDE), self.R)
        return replace(self, N=min(self.N, TINY_BATCH), C=c, K=k, H=side)


SHAPES = (
    Shape("lecture", "conv1", 128, 3, 24, 64, 5, pad=2),
    Shape("lecture", "conv2", 128, 64, 12, 64, 5, pad=2),
    Shape("lecture", "conv1", 1024, 3, 24, 64, 5, pad=2),
    Shape("lecture", "conv2", 1024, 64, 12, 64, 5, pad=2),
    Shape("resnet9", "prep", 512, 3, 32, 64, 3, pad=1),
    Shape("resnet9", "layer1", 512, 64, 32, 128, 3, pad=1),
    Shape("resnet9", "residual1", 512, 128, 16, 128, 3, pad=1),
    Shape("resnet9", "layer2", 512, 128, 16, 256, 3, pad=1),
    Shape("resnet9", "layer3", 512, 256, 8, 512, 3, pad=1),
    Shape("resnet9", "residual3", 512, 512, 4, 512, 3, pad=1),
    Shape("airbench94", "whiten", 1024, 3, 32, 24, 2),
    Shape("airbench94", "group1.conv1", 1024, 24, 31, 64, 3, pad=1),
    Shape("airbench94", "group1.conv2", 1024, 64, 15, 64, 3, pad=1),
    Shape("airbench94", "group2.conv1", 1024, 64, 15, 256, 3, pad=1),
    Shape("airbench94", "group2.conv2", 1024, 256, 7, 256, 3, pad=1),
    Shape("airbench94", "group3.conv2", 1024, 256, 3, 256, 3, pad=1),
    Shape("vgg16", "conv1_2", 32, 64, 224, 64, 3, pad=1),
    Shape("vgg16", "conv2_2", 32, 128, 112, 128, 3, pad=1),
    Shape("vgg16", "conv4_2", 64, 512, 28, 512, 3, pad=1),
    Shape("vgg16", "conv5_1", 256, 512, 14, 512, 3, pad=1),
    Shape("resnet50", "stem", 64, 3, 224, 64, 7, stride=2, pad=3),
    Shape("resnet50", "layer1.conv2", 256, 64, 56, 64, 3, pad=1),
    Shape("resnet50", "layer2.conv3", 128, 128, 28, 512, 1),
    Shape("resnet50", "layer3.0.conv2", 256, 256, 28, 256, 3, stride=2, pad=1),
)
"""In the order of their tables."""
