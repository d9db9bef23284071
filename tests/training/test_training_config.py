"""A run's config: checked key by key, saved and read back, and what a resumed run may change."""

from __future__ import annotations

import json

import pytest

from gpucnn import training
from gpucnn.training.config import Config

SGD = {"name": "sgd", "lr": 0.1}


def test_json_and_back():
    for recipe in ("lenet5", "airbench94", "resnet9"):
        config = training.config_for(recipe=recipe, data_dir="somewhere", seed=7)
        assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "error", "problem"),
    [
        ({"epoch": 3}, ValueError, "run.json: unknown key 'epoch', known are model, recipe, data,"),
        ({"epochs": 1.5}, TypeError, r"run.json: epochs must be int, got 1.5 \(float\)"),
        ({"epochs": True}, TypeError, "epochs must be int, got True"),
        ({"epochs": -1}, ValueError, "epochs must be 0 or more, got -1"),
        ({"batch_size": 0}, ValueError, "batch_size must be 1 or more, got 0"),
        ({"average_decay": 1}, ValueError, r"average_decay must be in \[0, 1\)"),
        ({"seed": 1 << 64}, ValueError, "seed must be below"),
        ({"checkpoint_steps": 0}, ValueError, "checkpoint_steps must be 1 or more"),
        ({"checkpoint_minutes": 0}, ValueError, "checkpoint_minutes must be above 0, got 0"),
        ({"data": 3}, TypeError, "data must be str or None, got 3"),
        ({"reduction": "none"}, ValueError, "reduction must be one of mean, sum, got 'none'"),
        ({"tta": "five"}, ValueError, "tta must be one of none, mirror, six, got 'five'"),
        ({"label_smoothing": 1.0}, ValueError, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ({"clip_norm": -1.0}, ValueError, "clip_norm must be above 0, got -1.0"),
        ({"accumulate": 9, "batch_size": 8}, ValueError, "accumulate 9 parts of a batch of 8 is too many"),
        ({"early_stop": 3}, ValueError, "early_stop looks at images held out: give val_split too"),
        # the optimizer's table
        ({"optimizer": "sgd"}, TypeError, "optimizer must be dict, got 'sgd'"),
        ({"optimizer": {}}, ValueError, "optimizer needs a name"),
        ({"optimizer": {"name": "sdg"}}, ValueError, "optimizer: name must be one of .*muon.*sgd, got 'sdg'"),
        ({"optimizer": {"name": "lookahead"}}, ValueError, "name must be one of adagrad, .*sgd, got 'lookahead'"),
        ({"optimizer": {"name": "sgd", "betas": [0.9, 0.99]}}, ValueError, "optimizer: unknown key 'betas', known are"),
        ({"optimizer": {"name": "sgd", "lr": "fast"}}, TypeError, r"optimizer: lr must be float or int, got 'fast'"),
        ({"optimizer": {"name": "sgd", "lr": float("nan")}}, ValueError, "lr must be 0 or more, got nan"),
        ({"optimizer": {"name": "sgd", "lr": float("inf")}}, ValueError, "lr must be 0 or more, got inf"),
        ({"optimizer": {"name": "sgd", "momentum": 1.0}}, ValueError, r"momentum must be in \[0, 1\), got 1.0"),
        ({"optimizer": {"name": "sgd", "nesterov": 1}}, TypeError, "nesterov must be bool, got 1"),
        ({"optimizer": {**SGD, "nesterov": True, "momentum": 0}}, ValueError, "nesterov needs a momentum above 0"),
        ({"optimizer": {"head": 3}}, TypeError, "optimizer must have a name, or be tables by parameter set; head is 3"),
        ({"optimizer": {"head": {**SGD, "epochs": 0}}}, ValueError, "optimizer.head: epochs must be above 0, got 0"),
        ({"optimizer": {**SGD, "epochs": 3}}, ValueError, "optimizer: unknown key 'epochs'"),
        # the schedule's
        ({"schedule": {"name": "cosin"}}, ValueError, "schedule: name must be one of constant, step, .*got 'cosin'"),
        ({"schedule": {"name": "step", "every": 3}}, ValueError, "schedule: step needs gamma"),
        ({"schedule": {"name": "cosine", "gamma": 1}}, ValueError, "schedule: unknown key 'gamma', known are name, wa"),
        ({"epochs": 5, "schedule": {"name": "cosine", "warmup": 5}}, ValueError, "5 epochs are not longer than the wa"),
        ({"schedule": {"name": [1]}}, ValueError, r"schedule: name must be one of constant, .*got \[1\]"),
        (
            {"schedule": {"name": "constant", "warmup": 3}, "optimizer": {"bias": {**SGD, "epochs": 3}}},
            ValueError,
            "optimizer.bias: 3 epochs are not longer than the warm-up of 3",
        ),
        (
            {"schedule": {"name": "piecewise", "epochs": [0, 5, 5], "factors": [0, 1, 0]}},
            ValueError,
            r"two or more increasing epochs and a factor for each, got \[0, 5, 5\] and \[0, 1, 0\]",
        ),
        (
            {"schedule": {"name": "piecewise", "epochs": [0, "5"], "factors": [0, 1]}},
            TypeError,
            "each of epochs must be float or int, got '5'",
        ),
        # and the augmentation's
        ({"augmentation": {"crop": 4}}, ValueError, "augmentation: unknown key 'crop', known are translate, flip"),
        ({"augmentation": {"flip": True}}, TypeError, "augmentation: flip must be str, got True"),
        ({"augmentation": {"cutout": -1}}, ValueError, "augmentation: cutout must be 0 or more, got -1"),
    ],
)
def test_a_wrong_value_names_key_expected_and_found(values, error, problem):
    with pytest.raises(error, match=problem) as raised:
        Config.from_dict(values, "run.json")
    assert str(raised.value).startswith("run.json: ")


def test_a_resumed_run_may_change_epochs_but_not_what_its_steps_depend_on():
    config = training.config_for("lenet5", seed=3)
    assert config.changed({"epochs": 30, "device": "cpu", "seed": 3}).epochs == 30
    with pytest.raises(
        ValueError, match=r"--resume: optimizer.lr is 0.02 in this run and cannot become 0.1; a resumed run may change"
    ):
        config.changed({"lr": 0.1})
    with pytest.raises(ValueError, match=r"--resume: optimizer.nesterov is None in this run and cannot become True"):
        config.changed({"optimizer.nesterov": True})
    with pytest.raises(ValueError, match="unknown key 'nix'"):
        config.changed({"nix": 1})


def test_changes_reach_into_tables():
    config = training.config_for("lenet5", lr=0.5, **{"schedule.gamma": 0.9, "optimizer.dampening": 0.1})
    assert (config.optimizer["lr"], config.optimizer["dampening"], config.schedule["gamma"]) == (0.5, 0.1, 0.9)
    several = training.config_for(recipe="airbench94", **{"optimizer.head.lr": 0.5})
    assert several.optimizer["head"]["lr"] == 0.5 and several.optimizer["biases"]["lr"] == 0.053
    with pytest.raises(ValueError, match=r"lr is not one number here: set optimizer.filters.lr, optimizer.head.lr"):
        training.config_for(recipe="airbench94", lr=0.5)
    with pytest.raises(ValueError, match=r"epochs.x: there is no table 'epochs'"):
        training.config_for("lenet5", **{"epochs.x": 1})
