"""What a network's training step is made of, by its recipe: plain values that another process can be given as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

NETWORKS = ("lecture", "lenet5", "resnet9")
"""Those that ``gpucnn bench`` measures."""
RATE = 0.1  # of a recipe's learning rates: labels may be random, and the schedules' first steps are left out


@dataclass(frozen=True)
class Workload:
    """A network with the loss, the optimizers and the moving average of its recipe.

    Args:
        network: a name of it, as people use it.
        model: its own name.
        data: the data set of its recipe.
        input_shape: (C, H, W).
        optimizer: the recipe's table, or its tables by set of parameters.
        reduction, label_smoothing: of the loss.
        average_decay: of the moving average of the weights, None for none.
        augmentation: the recipe's table.
    """

    network: str
    model: str
    data: str
    input_shape: tuple[int, int, int]
    optimizer: dict[str, Any]
    reduction: str
    label_smoothing: float
    average_decay: float | None
    augmentation: dict[str, Any]

    @classmethod
    def of(cls, network: str) -> Workload:
        """Of a network by any of its names. Raises ValueError for an unknown one."""
        from gpucnn import models, training

        model = models.canonical_name(network)
        config = training.config_for(model)
        shape = tuple(models.create(model, device="cpu").input_shape)
        return cls(
            network, model, config.default_data, shape, config.optimizer, config.reduction, config.label_smoothing,
            config.average_decay, config.augmentation,
        )  # fmt: skip

    def to_json(self) -> str:
        """For :meth:`from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Workload:
        """The workload that :meth:`to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "input_shape": tuple(values["input_shape"])})
