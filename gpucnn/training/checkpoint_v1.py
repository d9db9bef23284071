"""Checkpoints of version 1, written before a run had tables for its optimizers and its schedule, in today's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OPTIMIZER = ("lr", "momentum", "nesterov", "weight_decay")


def upgraded(content: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of a checkpoint of version 1 as one of version 2. A run that goes on from it takes the same steps
    as before.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: the contents are not those of version 1.
    """
    old = dict(content["config"])
    state = dict(content["trainer"])
    every, gamma = int(old.pop("lr_decay_epochs")), float(old.pop("lr_decay"))
    optimizer = {"name": "sgd", **{key: old.pop(key) for key in _OPTIMIZER}}
    config = {**old, "optimizer": optimizer, "schedule": {"name": "step", "every": every, "gamma": gamma}}
    sgd, schedule = dict(state.pop("optimizer")), dict(state.pop("scheduler"))
    last_lr = float(sgd["param_groups"][0]["lr"])
    # The schedule counted epochs, and went on after an epoch's evaluation; it counts steps now.
    if state["trained"] and (int(state["epoch"]) + 1) % every == 0:
        schedule["last_lr"] = [lr * gamma for lr in schedule["last_lr"]]
        sgd["param_groups"] = [{**group, "lr": group["lr"] * gamma} for group in sgd["param_groups"]]
    schedule["last_epoch"] = int(state["step"])
    return {
        "version": 2,
        "config": config,
        "classes": content["classes"],
        "trainer": {
            **state,
            "optimizers": [sgd],
            "schedulers": [schedule],
            "lr": last_lr,
            "callbacks": {"JSONLines metrics.jsonl": {"bytes": content["metrics_bytes"]}},
        },
    }
