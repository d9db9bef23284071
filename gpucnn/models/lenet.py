"""LeNet-5: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 86,
1998.
"""

from __future__ import annotations

from typing import Any

from gpucnn.models.registry import register
from gpucnn.nn import Conv2d, Linear, Module
from gpucnn.tensor import Tensor


class LeNet5(Module):
    """LeNet-5 in its present-day form: (N, 1, 28, 28) to logits (N, num_classes); 61,706 parameters for 10 classes.

    The widths 6-16-120-84-10 are the paper's. It differs in what most do differently now: max-pooling without weights
    instead of trained sub-sampling, ReLU instead of the scaled tanh, all 16 maps of the second convolution see all 6 of
    the first, and a linear output under softmax cross-entropy instead of radial basis functions. The paper's 32 x 32
    input is MNIST's 28 x 28 padded by 2, which the first convolution does. Initial values are PyTorch's.
    """

    input_shape = (1, 28, 28)
    data_set = "mnist"
    weight_decay = 0.0

    def __init__(self, num_classes: int = 10, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        place = {"device": device, "dtype": dtype}
        self.conv1 = Conv2d(1, 6, 5, padding=2, activation="relu", max_pool=2, **place)  # 28 x 28 x 6, 14 x 14 x 6
        self.conv2 = Conv2d(6, 16, 5, activation="relu", max_pool=2, **place)  # 10 x 10 x 16, 5 x 5 x 16 = 400
        self.fc1 = Linear(400, 120, activation="relu", **place)
        self.fc2 = Linear(120, 84, activation="relu", **place)
        self.fc3 = Linear(84, num_classes, **place)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv2(self.conv1(images))
        logits: Tensor = self.fc3(self.fc2(self.fc1(x.flatten(1))))
        return logits

    def parameter_groups(self, weight_decay: float = weight_decay) -> list[dict[str, Any]]:
        """For an optimizer: one group of all parameters."""
        return [{"params": list(self.parameters()), "weight_decay": weight_decay}]


@register("lenet5")
def lenet5(num_classes: int = 10, device: Any = None, dtype: Any = None) -> LeNet5:
    """A new :class:`LeNet5`."""
    return LeNet5(num_classes, device, dtype)
