"""Layers and what networks are built of, with PyTorch's names."""

from gpucnn.nn import init, utils
from gpucnn.nn.activation import GELU, ReLU, SiLU
from gpucnn.nn.containers import ModuleList, Sequential
from gpucnn.nn.convolution import Conv2d
from gpucnn.nn.dropout import Dropout
from gpucnn.nn.linear import Flatten, Identity, Linear
from gpucnn.nn.loss import CrossEntropyLoss
from gpucnn.nn.module import Module
from gpucnn.nn.normalization import BatchNorm1d, BatchNorm2d, LocalResponseNorm
from gpucnn.nn.parameter import Parameter
from gpucnn.nn.pooling import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    MaxPool2d,
)

__all__ = [
    "GELU",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Identity",
    "Linear",
    "LocalResponseNorm",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "Parameter",
    "ReLU",
    "Sequential",
    "SiLU",
    "init",
    "utils",
]
