"""The single operators that benchmarks/ measures: those of the lecture network, LeNet-5 and ResNet-9 in training at
batch 128, and those of VGG-16 on 8 images of 224 x 224 (K. Simonyan, A. Zisserman, arXiv 1409.1556, configuration D).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpucnn.bench.shapes import Shape

BATCH, VGG_BATCH = 128, 8
CONV_DIRECTIONS = ("fprop", "dgrad", "wgrad")
DIRECTIONS = ("forward", "backward")
TINY_BATCH, TINY_SIDE, TINY_CHANNELS = 2, 12, 8

Arguments = Sequence[Any]  # a framework's tensors
CALLS: dict[str, Callable[[Any, Arguments, Mapping[str, Any]], Any]] = {
    "conv": lambda F, t, options: F.conv2d(*t, **options),
    "max_pool": lambda F, t, options: F.max_pool2d(t[0], **options),
    "relu": lambda F, t, options: F.relu(t[0]),
    "lrn": lambda F, t, options: F.local_response_norm(t[0], **options),
    "batch_norm": lambda F, t, options: F.batch_norm(t[0], None, None, t[1], t[2], training=True),
    "linear": lambda F, t, options: F.linear(*t),
    "cross_entropy": lambda F, t, options: F.cross_entropy(*t),
}
"""By operator: the call in ``gpucnn.functional`` and in ``torch.nn.functional``, which have the same names."""


@dataclass(frozen=True)
class Case:
    """An operator of a layer at its sizes.

    Args:
        operator: a key of CALLS.
        network, layer: where it is from.
        sizes: of the input and of the parameters.
        options: of the call.
        labels: of how many classes the labels are that come last, 0 for no labels.
    """

    operator: str
    network: str
    layer: str
    sizes: tuple[tuple[int, ...], ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    labels: int = 0

    @property
    def shape(self) -> str:
        """As records have it: "128x64x12x12 64x5x5", "128x64x24x24 3/2", "128x384 192"."""
        x = "x".join(map(str, self.sizes[0]))
        if self.operator == "conv":
            k, _, r, s = self.sizes[1]
            return f"{x} {k}x{r}x{s}"
        if self.operator == "max_pool":
            return f"{x} {self.options['kernel_size']}/{self.options['stride']}"
        return f"{x} {self.sizes[1][0]}" if self.operator == "linear" else x

    @property
    def name(self) -> str:
        """For people and for pytest's -k."""
        return f"{self.operator}-{self.network}-{self.layer}-{self.shape.replace(' ', '-').replace('/', 's')}"

    @property
    def directions(self) -> tuple[str, ...]:
        """Those that training needs: nobody wants the gradient of the images."""
        if self.operator != "conv":
            return DIRECTIONS
        return CONV_DIRECTIONS if self.sizes[0][1] > 3 else ("fprop", "wgrad")

    def wants(self, direction: str) -> tuple[bool, ...]:
        """Of which arrays the gradient is wanted: of all but labels, in dgrad of the input's alone, in wgrad of the
        weight's alone."""
        count = len(self.sizes)
        if direction in ("dgrad", "wgrad"):
            return tuple(at == CONV_DIRECTIONS.index(direction) - 1 for at in range(count))
        return (True,) * count + (False,) * bool(self.labels)

    def arrays(self) -> list[Any]:
        """The input and the parameters: normal variates, never zeros, which some hardware computes faster; weights so
        that results have the input's size. Labels last."""
        generator = np.random.default_rng(0)
        made: list[Any] = [generator.standard_normal(size, dtype=np.float32) for size in self.sizes]
        if self.operator in ("conv", "linear"):
            made[1] /= np.float32(math.sqrt(made[1][0].size))
        if self.labels:
            made.append(generator.integers(0, self.labels, self.sizes[0][0]))
        return made

    def call(self, functional: Any, tensors: Arguments) -> Any:
        """The operator of a framework on its tensors."""
        return CALLS[self.operator](functional, tensors, self.options)

    def tiny(self) -> Case:
        """Of the same kind, at sizes that take no time."""
        (n, *x), *parameters = self.sizes
        n = min(n, TINY_BATCH)
        if self.operator == "cross_entropy":
            return replace(self, sizes=((n, *x),))
        least = [min(size, TINY_CHANNELS) for size in (x[0], *(p[0] for p in parameters))]
        c, *firsts = least
        side = tuple(min(size, TINY_SIDE) for size in x[1:])
        weights = tuple(
            (k, *(min(size, TINY_CHANNELS) for size in p[1:])) for k, p in zip(firsts, parameters, strict=True)
        )
        return replace(self, sizes=((n, c, *side), *weights))


def _conv(shape: Shape, bias: bool) -> Case:
    sizes: tuple[tuple[int, ...], ...] = (
        (shape.N, shape.C, shape.H, shape.H), (shape.K, shape.C, shape.R, shape.R),
    )  # fmt: skip
    options = {"stride": shape.stride, "padding": shape.pad}
    return Case("conv", shape.network, shape.layer, (*sizes, (shape.K,)) if bias else sizes, options)


def _pool(network: str, layer: str, n: int, c: int, side: int, k: int, stride: int, ceil_mode: bool = False) -> Case:
    options = {"kernel_size": k, "stride": stride, "ceil_mode": ceil_mode}
    return Case("max_pool", network, layer, ((n, c, side, side),), options)


def _linear(network: str, layer: str, n: int, inputs: int, outputs: int) -> Case:
    bias = ((outputs,),) if network != "resnet9" else ()
    return Case("linear", network, layer, ((n, inputs), (outputs, inputs), *bias))


def _norm(layer: str, c: int, side: int) -> Case:
    return Case("batch_norm", "resnet9", layer, ((BATCH, c, side, side), (c,), (c,)))


def _all() -> Iterator[Case]:
    n, v = BATCH, VGG_BATCH
    yield _conv(Shape("lecture", "conv1", n, 3, 24, 64, 5, pad=2), bias=True)
    yield _conv(Shape("lecture", "conv2", n, 64, 12, 64, 5, pad=2), bias=True)
    yield _conv(Shape("lenet5", "conv1", n, 1, 28, 6, 5, pad=2), bias=True)
    yield _conv(Shape("lenet5", "conv2", n, 6, 14, 16, 5), bias=True)
    for layer, c, side, k in (
        ("prep", 3, 32, 64), ("layer1", 64, 32, 128), ("residual1", 128, 16, 128), ("layer2", 128, 16, 256),
        ("layer3", 256, 8, 512), ("residual3", 512, 4, 512),
    ):  # fmt: skip
        yield _conv(Shape("resnet9", layer, n, c, side, k, 3, pad=1), bias=False)
    for layer, c, side, k in (
        ("conv1_1", 3, 224, 64), ("conv1_2", 64, 224, 64), ("conv2_1", 64, 112, 128), ("conv2_2", 128, 112, 128),
        ("conv3_1", 128, 56, 256), ("conv3_2", 256, 56, 256), ("conv4_1", 256, 28, 512), ("conv4_2", 512, 28, 512),
        ("conv5_1", 512, 14, 512),
    ):  # fmt: skip
        yield _conv(Shape("vgg16", layer, v, c, side, k, 3, pad=1), bias=True)
    yield _pool("lecture", "pool1", n, 64, 24, 3, 2, ceil_mode=True)
    yield _pool("lecture", "pool2", n, 64, 12, 3, 2, ceil_mode=True)
    yield _pool("lenet5", "pool1", n, 6, 28, 2, 2)
    yield _pool("lenet5", "pool2", n, 16, 10, 2, 2)
    for layer, c, side, k in (
        ("layer1", 128, 32, 2),
        ("layer2", 256, 16, 2),
        ("layer3", 512, 8, 2),
        ("pool", 512, 4, 4),
    ):
        yield _pool("resnet9", layer, n, c, side, k, k)
    for layer, c, side in (
        ("pool1", 64, 224), ("pool2", 128, 112), ("pool3", 256, 56), ("pool4", 512, 28), ("pool5", 512, 14),
    ):  # fmt: skip
        yield _pool("vgg16", layer, v, c, side, 2, 2)
    for network, layer, size in (
        ("lecture", "conv1", (n, 64, 24, 24)), ("lecture", "conv2", (n, 64, 12, 12)), ("lecture", "local3", (n, 384)),
        ("lenet5", "conv1", (n, 6, 28, 28)), ("lenet5", "conv2", (n, 16, 10, 10)), ("lenet5", "fc1", (n, 120)),
        ("resnet9", "prep", (n, 64, 32, 32)), ("resnet9", "residual3", (n, 512, 4, 4)),
        ("vgg16", "conv1_2", (v, 64, 224, 224)), ("vgg16", "conv5_1", (v, 512, 14, 14)),
    ):  # fmt: skip
        yield Case("relu", network, layer, (size,))
    yield Case("lrn", "lecture", "norm1", ((n, 64, 12, 12),), {"size": 9, "alpha": 1e-3})
    for layer, c, side in (
        ("prep", 64, 32), ("layer1", 128, 32), ("residual1", 128, 16), ("layer2", 256, 16), ("layer3", 512, 8),
        ("residual3", 512, 4),
    ):  # fmt: skip
        yield _norm(layer, c, side)
    for network, layer, count, inputs, outputs in (
        ("lecture", "local3", n, 2304, 384), ("lecture", "local4", n, 384, 192),
        ("lecture", "softmax_linear", n, 192, 10),
        ("lenet5", "fc1", n, 400, 120), ("lenet5", "fc2", n, 120, 84), ("lenet5", "fc3", n, 84, 10),
        ("resnet9", "linear", n, 512, 10),
        ("vgg16", "fc6", v, 25088, 4096), ("vgg16", "fc7", v, 4096, 4096), ("vgg16", "fc8", v, 4096, 1000),
    ):  # fmt: skip
        yield _linear(network, layer, count, inputs, outputs)
    yield Case("cross_entropy", "lecture", "loss", ((n, 10),), labels=10)
    yield Case("cross_entropy", "vgg16", "loss", ((v, 1000),), labels=1000)


CASES = tuple(_all())
"""In the order of their tables."""
