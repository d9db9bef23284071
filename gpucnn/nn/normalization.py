"""Normalisation layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn import functional as F
from gpucnn.creation import ones, tensor, zeros
from gpucnn.functional import checks
from gpucnn.functional.normalization import ACTIVATIONS, counted_batch_norm
from gpucnn.nn import init
from gpucnn.nn.module import Module
from gpucnn.nn.parameter import Parameter
from gpucnn.tensor import Tensor


class LocalResponseNorm(Module):
    """x / (k + alpha / size * (sum of squares over ``size`` neighbouring channels)) ** beta, as
    ``torch.nn.LocalResponseNorm``.

    Krizhevsky, Sutskever, Hinton, NIPS 2012, with PyTorch's division of alpha by ``size``. Raises ValueError for a size
    below 1.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"LocalResponseNorm: size must be a positive int, got {size!r}")
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class _BatchNorm(Module):
    """What the layers share; a subclass says which ranks of input it takes."""

    ranks: tuple[int, ...]
    weight: Any  # a Parameter, or None
    bias: Any
    running_mean: Any  # a Tensor, or None
    running_var: Any
    num_batches_tracked: Any

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if not isinstance(num_features, int) or num_features < 1:
            raise ValueError(f"{name}: num_features must be a positive int, got {num_features!r}")
        if not eps >= 0:
            raise ValueError(f"{name}: eps must be at least 0, got {eps!r}")
        checks.activation(name, activation, tuple(ACTIVATIONS))
        self.num_features, self.eps, self.momentum, self.activation = num_features, eps, momentum, activation
        self.affine, self.track_running_stats = affine, track_running_stats
        for parameter, wanted in (("weight", affine), ("bias", affine and bias)):
            values = ones(num_features, dtype=dtype, device=device) if wanted else None
            self.register_parameter(parameter, None if values is None else Parameter(values))
        buffers: tuple[Any, Any, Any] = (None, None, None)
        if track_running_stats:
            mean, var = (make(num_features, dtype=dtype, device=device) for make in (zeros, ones))
            buffers = (mean, var, tensor(0, dtype=np.int64, device=device))
        for buffer, value in zip(("running_mean", "running_var", "num_batches_tracked"), buffers, strict=True):
            self.register_buffer(buffer, value)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Running mean 0 and variance 1, of no batches."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Scale 1 and shift 0, and the running statistics reset."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in self.ranks:
            expected = " or ".join(f"{rank}-D" for rank in self.ranks)
            raise ValueError(f"{type(self).__name__}: expected {expected} input, got shape {input.shape}")
        own = not self.training or self.track_running_stats  # tracking may have been turned off after construction
        mean, var = (self.running_mean, self.running_var) if own else (None, None)
        training = self.training or self.running_mean is None
        momentum = 0.0 if self.momentum is None else self.momentum
        tracked = self.num_batches_tracked if self.training and self.track_running_stats else None
        if tracked is not None and self.momentum is None:
            momentum = 1.0 / (int(tracked) + 1)
        affine = self.weight, self.bias
        return counted_batch_norm(tracked, input, mean, var, *affine, training, momentum, self.eps, self.activation)

    def extra_repr(self) -> str:
        parts = (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine},"
            f" bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )
        return parts if self.activation is None else f"{parts}, activation={self.activation!r}"


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L) for each channel, as ``torch.nn.BatchNorm1d``.

    (x - mean) / sqrt(var + ``eps``) * ``weight`` + ``bias``: in training with the batch's own mean and (biased)
    variance, in evaluation with the running ones. These are buffers, updated in training by running = (1 -
    ``momentum``) * running + ``momentum`` * new, with the unbiased variance; with ``momentum=None`` they are the plain
    averages over the batches seen, ``num_batches_tracked`` of them. Without ``track_running_stats`` there are none, and
    the batch's own serve in evaluation too. ``weight`` and ``bias`` (``num_features``,) start at 1 and 0 and are None
    without ``affine``; ``bias=False`` leaves the shift out. A scale or shift that ``requires_grad_(False)`` froze costs
    no gradient. ``activation`` ("relu", "gelu", "gelu_tanh" or "silu") is applied to the result in the same pass.

    Ioffe, Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift"
    (2015). Raises ValueError for ``num_features`` below 1 and, when called, for an input of another rank or with one
    value a channel in training.
    """

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of images (N, C, H, W) for each channel, as ``torch.nn.BatchNorm2d``.

    Everything else is as in :class:`BatchNorm1d`.
    """

    ranks = (4,)
