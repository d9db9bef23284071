"""airbench94: K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, with the optimizers of its later
version, airbench94_muon.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn import functional as F
from gpucnn import nn
from gpucnn.autograd import no_grad
from gpucnn.models.registry import register
from gpucnn.nn import init
from gpucnn.nn.whitening import whitening_filters
from gpucnn.tensor import Tensor

WIDTHS = (64, 256, 256)
WINDOW = 2  # of the whitening layer


class Conv(nn.Conv2d):
    """A 3 x 3 convolution without bias whose first C_in filters start by passing on their input, the rest as
    PyTorch's.
    """

    def __init__(self, channels_in: int, channels_out: int, device: Any = None, dtype: Any = None) -> None:
        super().__init__(channels_in, channels_out, 3, padding="same", bias=False, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        init.dirac_(self.filters()[: self.in_channels])


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation with its scale fixed at 1, then GELU; the running figures take 0.4 of each batch's."""

    def __init__(self, channels: int, device: Any = None, dtype: Any = None) -> None:
        super().__init__(channels, eps=1e-12, momentum=0.4, device=device, dtype=dtype, activation="gelu")
        self.weight.requires_grad_(False)


class ConvGroup(nn.Module):
    """conv -> max-pool 2 -> norm -> GELU -> conv -> norm -> GELU."""

    def __init__(self, channels_in: int, channels_out: int, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        place = {"device": device, "dtype": dtype}
        self.conv1 = Conv(channels_in, channels_out, **place)
        self.pool = nn.MaxPool2d(2)
        self.norm1 = BatchNorm(channels_out, **place)
        self.conv2 = Conv(channels_out, channels_out, **place)
        self.norm2 = BatchNorm(channels_out, **place)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.pool(self.conv1(x)))
        y: Tensor = self.norm2(self.conv2(x))
        return y


class Airbench94(nn.Module):
    """A whitening layer, three groups of two convolutions, a linear head: (N, 3, 32, 32) to logits (N, num_classes).

    1,972,792 parameters for 10 classes, of which 1,971,352 are trained: the whitening filters and the scales of the
    batch normalisation stay as they are. The whitening filters are PyTorch's random ones until :meth:`init_from_data`
    has seen the first ``init_images`` images, normalised as in training. ``widths``: the channels of the three groups.

    The paper's recipe gives each of :meth:`parameter_sets` an optimizer of its own: Muon for the filters, SGD for the
    rest, and none for the whitening bias after three epochs.
    """

    input_shape = (3, 32, 32)
    data_set = "cifar10"
    weight_decay = 5e-4
    init_images = 5000

    def __init__(
        self, num_classes: int = 10, device: Any = None, dtype: Any = None, widths: tuple[int, int, int] = WIDTHS
    ) -> None:
        super().__init__()
        place = {"device": device, "dtype": dtype}
        channels = self.input_shape[0]
        whitened = 2 * channels * WINDOW * WINDOW
        self.whiten = nn.Conv2d(channels, whitened, WINDOW, **place)  # 31 x 31 x 24
        self.whiten.weight.requires_grad_(False)
        self.group1 = ConvGroup(whitened, widths[0], **place)  # 15 x 15 x 64
        self.group2 = ConvGroup(widths[0], widths[1], **place)  # 7 x 7 x 256
        self.group3 = ConvGroup(widths[1], widths[2], **place)  # 3 x 3 x 256
        self.pool = nn.MaxPool2d(3)  # 1 x 1 x 256
        self.head = nn.Linear(widths[2], num_classes, bias=False, **place)
        self.reset_head()

    def reset_head(self) -> None:
        """Draws the head's weights again, scaled to standard deviation 1."""
        self.head.reset_parameters()
        weights = self.head.weight.numpy().astype(np.float64)
        with no_grad():
            self.head.weight.copy_((weights / weights.std(ddof=1)).astype(weights.dtype))

    def init_from_data(self, images: Tensor) -> None:
        """Sets the whitening layer's filters from normalised training images (N, 3, H, W), by
        :func:`gpucnn.nn.whitening.whitening_filters`; the same on every device.
        """
        with no_grad():
            filters = whitening_filters(images.numpy(), WINDOW, eps=5e-4)
            self.whiten.weight.copy_(filters.astype(self.whiten.weight.dtype))

    def forward(self, images: Tensor) -> Tensor:
        x = F.gelu(self.whiten(images))
        x = self.group3(self.group2(self.group1(x)))
        x = self.pool(x).flatten(1)
        logits: Tensor = self.head(x) * (1.0 / self.head.in_features)
        return logits

    def parameter_sets(self) -> dict[str, list[nn.Parameter]]:
        """All trained parameters in the sets that have optimizers of their own."""
        groups = (self.group1, self.group2, self.group3)
        return {
            "whitening_bias": [self.whiten.bias],
            "biases": [norm.bias for group in groups for norm in (group.norm1, group.norm2)],
            "filters": [conv.weight for group in groups for conv in (group.conv1, group.conv2)],
            "head": [self.head.weight],
        }

    def parameter_groups(self, weight_decay: float = weight_decay) -> list[dict[str, Any]]:
        """For one optimizer: the biases without weight decay, then filters and head with it."""
        sets = self.parameter_sets()
        return [
            {"params": sets["whitening_bias"] + sets["biases"], "weight_decay": 0.0},
            {"params": sets["filters"] + sets["head"], "weight_decay": weight_decay},
        ]


@register("airbench94")
def airbench94(num_classes: int = 10, device: Any = None, dtype: Any = None, **options: Any) -> Airbench94:
    """A new :class:`Airbench94`."""
    return Airbench94(num_classes, device, dtype, **options)
