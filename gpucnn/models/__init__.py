"""Networks, each in a file that reads like its source.

Every network states its ``input_shape`` (C, H, W), the ``data_set`` it was made for and its ``weight_decay``, and gives
an optimizer its ``parameter_groups()``. One whose sets of parameters have optimizers of their own has
``parameter_sets()`` too, and one that starts from data ``init_images``, how many, and ``init_from_data(images)``.
"""

from gpucnn.models.airbench94 import Airbench94, airbench94
from gpucnn.models.lecture import LectureCNN, lecture_cnn
from gpucnn.models.lenet import LeNet5, lenet5
from gpucnn.models.registry import canonical_name, create, names, register
from gpucnn.models.resnet9 import ResNet9, resnet9
from gpucnn.models.resnet20 import ResNet20, resnet20

__all__ = [
    "Airbench94",
    "LeNet5",
    "LectureCNN",
    "ResNet9",
    "ResNet20",
    "airbench94",
    "canonical_name",
    "create",
    "lecture_cnn",
    "lenet5",
    "names",
    "register",
    "resnet9",
    "resnet20",
]
