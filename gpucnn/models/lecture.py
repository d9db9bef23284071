"""The lecture's network: TensorFlow's CIFAR-10 tutorial (``tutorials/image/cifar10``), layer by layer and to the last
constant.
"""

from __future__ import annotations

from typing import Any

from gpucnn.models.registry import register
from gpucnn.nn import Conv2d, Linear, LocalResponseNorm, MaxPool2d, Module, init
from gpucnn.tensor import Tensor


class LectureCNN(Module):
    """Two convolutions, three linear layers: (N, 3, 24, 24) to logits (N, num_classes); 1,068,298 parameters for 10
    classes.

    Weights are normal, drawn again beyond two sigma. The tutorial's loss adds wd / 2 * |W|^2 for the weights of local3
    and local4: :meth:`parameter_groups` says so to an optimizer. It trains on random 24 x 24 crops of CIFAR-10 and is
    judged on centre crops.
    """

    input_shape = (3, 24, 24)
    data_set = "cifar10"
    weight_decay = 0.004

    def __init__(self, num_classes: int = 10, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        place = {"device": device, "dtype": dtype}
        self.conv1 = Conv2d(3, 64, 5, padding="same", activation="relu", **place)  # 24 x 24 x 64
        self.pool1 = MaxPool2d(3, stride=2, padding="same")  # 12 x 12 x 64; pads bottom and right by one only
        # tf.nn.lrn(x, 4, bias=1, alpha=0.001 / 9, beta=0.75)
        self.norm1 = LocalResponseNorm(9, alpha=1e-3, beta=0.75, k=1.0)
        self.conv2 = Conv2d(64, 64, 5, padding="same", activation="relu", **place)  # 12 x 12 x 64
        self.norm2 = LocalResponseNorm(9, alpha=1e-3, beta=0.75, k=1.0)
        self.pool2 = MaxPool2d(3, stride=2, padding="same")  # 6 x 6 x 64 = 2304
        self.local3 = Linear(2304, 384, activation="relu", **place)
        self.local4 = Linear(384, 192, activation="relu", **place)
        self.softmax_linear = Linear(192, num_classes, **place)  # the loss applies the softmax
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all weights again."""
        for layer, std, bias in (
            (self.conv1, 0.05, 0.0),
            (self.conv2, 0.05, 0.1),
            (self.local3, 0.04, 0.1),
            (self.local4, 0.04, 0.1),
            (self.softmax_linear, 1 / 192, 0.0),
        ):
            init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            init.constant_(layer.bias, bias)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm1(self.pool1(self.conv1(images)))
        x = self.pool2(self.norm2(self.conv2(x)))
        x = self.local4(self.local3(x.flatten(1)))
        logits: Tensor = self.softmax_linear(x)
        return logits

    def parameter_groups(self, weight_decay: float = weight_decay) -> list[dict[str, Any]]:
        """For an optimizer: everything without weight decay, then the weights of local3 and local4 with it."""
        decayed = [self.local3.weight, self.local4.weight]
        rest = [parameter for parameter in self.parameters() if all(parameter is not other for other in decayed)]
        return [{"params": rest, "weight_decay": 0.0}, {"params": decayed, "weight_decay": weight_decay}]


@register("lecture_cnn", "lecture")
def lecture_cnn(num_classes: int = 10, device: Any = None, dtype: Any = None) -> LectureCNN:
    """A new :class:`LectureCNN`."""
    return LectureCNN(num_classes, device, dtype)
