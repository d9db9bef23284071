"""Differentiable operators with PyTorch's names, one file a family: ``import gpucnn.functional as F``."""

from gpucnn.functional import methods as _methods  # noqa: F401 - gives Tensor its methods
from gpucnn.functional.activation import gelu, log_softmax, relu, silu, softmax
from gpucnn.functional.convolution import conv2d
from gpucnn.functional.dropout import dropout
from gpucnn.functional.linear import linear, matmul
from gpucnn.functional.loss import cross_entropy, cross_entropy_with_correct
from gpucnn.functional.normalization import batch_norm, local_response_norm
from gpucnn.functional.pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    avg_pool2d,
    max_pool2d,
)
from gpucnn.functional.shape import flatten, pad_channels

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "batch_norm",
    "conv2d",
    "cross_entropy",
    "cross_entropy_with_correct",
    "dropout",
    "flatten",
    "gelu",
    "linear",
    "local_response_norm",
    "log_softmax",
    "matmul",
    "max_pool2d",
    "pad_channels",
    "relu",
    "silu",
    "softmax",
]
