"""A run's config: checked key by key, saved and read back, and what a resumed run may change."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpucnn import models, training
from gpucnn.training import recipes
from gpucnn.training.config import Config


def test_the_lecture_recipe_is_the_tutorials():
    config = training.config_for("lecture")
    assert config.model == "lecture_cnn" and config == training.config_for("lecture_cnn") == training.config_for()
    assert (config.batch_size, config.lr, config.momentum, config.weight_decay) == (128, 0.1, 0.0, 0.004)
    assert (config.lr_decay, config.lr_decay_epochs, config.average_decay, config.epochs) == (0.1, 350, 0.9999, 10)


def test_every_model_has_a_recipe():
    for name in models.names():
        config = training.config_for(name, lr=0.5, epochs=None)
        assert config.model in models.names() and config.lr == 0.5 and config.epochs == 10


def test_json_and_back():
    config = training.config_for("lenet5", data_dir="somewhere", seed=7)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "error", "problem"),
    [
        ({"epoch": 3}, ValueError, "run.json: unknown key 'epoch', known are model, data,"),
        ({"epochs": 1.5}, TypeError, r"run.json: epochs must be int, got 1.5 \(float\)"),
        ({"epochs": True}, TypeError, "epochs must be int, got True"),
        ({"epochs": -1}, ValueError, "epochs must be 0 or more, got -1"),
        ({"batch_size": 0}, ValueError, "batch_size must be above 0, got 0"),
        ({"lr": "fast"}, TypeError, r"lr must be float or int, got 'fast' \(str\)"),
        ({"lr": float("nan")}, ValueError, "lr must be 0 or more, got nan"),
        ({"lr": float("inf")}, ValueError, "lr must be 0 or more, got inf"),
        ({"momentum": 1.0}, ValueError, r"momentum must be in \[0, 1\), got 1.0"),
        ({"average_decay": 1}, ValueError, r"average_decay must be in \[0, 1\)"),
        ({"nesterov": True}, ValueError, "nesterov needs a momentum above 0"),
        ({"nesterov": 1}, TypeError, "nesterov must be bool, got 1"),
        ({"seed": 1 << 64}, ValueError, "seed must be below"),
        ({"checkpoint_steps": 0}, ValueError, "checkpoint_steps must be above 0"),
        ({"data": 3}, TypeError, "data must be str or None, got 3"),
    ],
)
def test_a_wrong_value_names_key_expected_and_found(values, error, problem):
    with pytest.raises(error, match=problem):
        Config.from_dict(values, "run.json")


def test_an_unknown_model_lists_the_known():
    with pytest.raises(ValueError, match=r"unknown model 'lenet6'; known are lecture, lecture_cnn, lenet5"):
        training.config_for("lenet6")


def test_a_resumed_run_may_change_epochs_but_not_what_its_steps_depend_on():
    config = training.config_for("lenet5", seed=3)
    assert config.changed({"epochs": 30, "device": "cpu", "seed": 3}).epochs == 30
    with pytest.raises(
        ValueError, match=r"--resume: lr is 0.02 in this run and cannot become 0.1; a resumed run may change"
    ):
        config.changed({"lr": 0.1})
    with pytest.raises(ValueError, match="unknown key 'nix'"):
        config.changed({"nix": 1})


def _model(name: str):
    return models.create(name, device="cpu")


@pytest.mark.parametrize("name", ["lecture_cnn", "lenet5"])
@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (20, 40, 3)])
def test_every_model_takes_every_data_set(name, shape):
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    model = _model(name)
    c, h, w = model.input_shape
    for transform in recipes.transforms(model, "shapes"):
        out = transform(images, seed=1, step=2)
        assert out.shape == (2, h, w, c) and out.dtype == np.float32 and np.isfinite(out).all()


def test_colour_becomes_grey_and_small_images_get_a_border():
    seen = []

    def keep(images, seed=0, step=0, epoch=0, indices=None):
        seen.append(images)
        return images.astype(np.float32)

    colour = np.zeros((1, 3, 4, 3), np.uint8)
    colour[0, 0, 0] = (255, 0, 0)
    colour[0, 1, 1] = (10, 200, 30)
    recipes.Adapt(keep, 1, 5, 4, crop=True)(colour)
    assert seen[0].shape == (1, 5, 4, 1)
    assert seen[0][0, 1, 0, 0] == 255 * 77 // 256
    assert seen[0][0, 2, 1, 0] == (10 * 77 + 200 * 150 + 30 * 29) // 256
    assert seen[0][0, 0].max() == seen[0][0, 4].max() == 0
    with pytest.raises(ValueError, match="the model takes 3 channels, the images have 2"):
        recipes.Adapt(keep, 3, 2, 2, crop=False)(np.zeros((1, 4, 4, 2), np.uint8))


def test_a_model_of_ones_own_says_what_is_missing():
    from gpucnn import nn

    with pytest.raises(ValueError, match=r"Sequential does not say its input_shape \(C, H, W\)"):
        recipes.transforms(nn.Sequential(), "mnist")
