"""Networks, each in a file that reads like its source.

Every network states its ``input_shape`` (C, H, W), the ``data_set`` it was made for and its ``weight_decay``, and gives
an optimizer its ``parameter_groups()``.
"""

from gpucnn.models.lecture import LectureCNN, lecture_cnn
from gpucnn.models.lenet import LeNet5, lenet5
from gpucnn.models.registry import canonical_name, create, names, register

__all__ = ["LeNet5", "LectureCNN", "canonical_name", "create", "lecture_cnn", "lenet5", "names", "register"]
