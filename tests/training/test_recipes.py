"""Recipes: files that say what their sources say, read and refused with the file's name."""

from __future__ import annotations

import numpy as np
import pytest

from gpucnn import data, models, training
from gpucnn.training import build, recipes


def test_the_lecture_recipe_is_the_tutorials():
    config = training.config_for("lecture")
    assert config.model == "lecture_cnn" and config == training.config_for("lecture_cnn") == training.config_for()
    assert config.optimizer == {"name": "sgd", "lr": 0.1, "weight_decay": 0.004}
    assert config.schedule == {"name": "step", "every": 350, "gamma": 0.1}
    assert (config.batch_size, config.average_decay, config.epochs) == (128, 0.9999, 10)


def test_every_model_has_a_recipe():
    for name in models.names():
        config = training.config_for(name, lr=0.5) if name != "airbench94" else training.config_for(name)
        assert config.model == models.canonical_name(name) and config.recipe in recipes.names()


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_takes_a_step(name, tmp_path):
    config = training.config_for(
        recipe=name, data="shapes", epochs=1, batch_size=4, accumulate=2, train_images=4, test_images=3, device="cpu"
    )
    last = training.train(config, out=tmp_path / "run").last
    assert last is not None and np.isfinite([last.train_loss, last.test_loss]).all() and last.step == 1


def _learning_rates(recipe: str, steps_per_epoch: int, **changes) -> list[list[float]]:
    """The learning rate of each optimizer at every step."""
    config = training.config_for(recipe=recipe, **changes)
    optimizers = build.optimizers(config, models.create(config.model, device="cpu"))
    schedulers = build.schedulers(config, optimizers, steps_per_epoch)
    rates = []
    for _ in range(config.epochs * steps_per_epoch):
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])
        for scheduler in schedulers:
            scheduler.step()
    return rates


def test_airbench_decays_linearly_and_its_whitening_bias_in_three_epochs():
    rates = np.array(_learning_rates("airbench94", 25))
    step = np.arange(200)
    filters, head, biases, whitening = rates.T
    np.testing.assert_allclose(filters, 0.24 * (1 - step / 200), rtol=1e-12)
    np.testing.assert_allclose(head, 0.67 * (1 - step / 200), rtol=1e-12)
    np.testing.assert_allclose(biases, 0.053 * (1 - step / 200), rtol=1e-12)
    np.testing.assert_allclose(whitening, 0.053 * np.maximum(1 - step / 75, 0), rtol=1e-12)


@pytest.mark.parametrize("epochs", [24, 12])
def test_resnet9_climbs_for_five_of_twenty_four_epochs(epochs):
    rates = np.array(_learning_rates("resnet9", 98, epochs=epochs))[:, 0]
    epoch = np.arange(epochs * 98) / 98 * 24 / epochs
    np.testing.assert_allclose(rates, 0.4 / 512 * np.interp(epoch, [0, 5, 24], [0, 1, 0]), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"name": "constant"}, [1.0] * 8),
        ({"name": "constant", "warmup": 1}, [0.0, 0.5, *[1.0] * 6]),
        ({"name": "step", "every": 2, "gamma": 0.1}, [1.0] * 4 + [0.1] * 4),
        ({"name": "multistep", "milestones": [1, 3], "gamma": 0.5}, [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]),
        ({"name": "linear", "end": 0.2}, [1 - 0.8 * k / 8 for k in range(8)]),
        ({"name": "linear", "warmup": 1}, [0.0, 0.5, *[1 - k / 6 for k in range(6)]]),
        ({"name": "cosine"}, [(1 + np.cos(np.pi * k / 8)) / 2 for k in range(8)]),
        ({"name": "cosine", "end": 0.5, "warmup": 2}, [0, 0.25, 0.5, 0.75]
         + [0.5 + 0.5 * (1 + np.cos(np.pi * k / 4)) / 2 for k in range(4)]),
    ],
)  # fmt: skip
def test_schedules_are_factors_of_the_learning_rate(schedule, expected):
    rates = np.array(_learning_rates("lenet5", 2, epochs=4, lr=0.3, schedule=schedule))[:, 0]
    np.testing.assert_allclose(rates, 0.3 * np.array(expected), rtol=1e-9, atol=1e-12)


def test_onecycle_rises_and_falls():
    rates = np.array(
        _learning_rates("lenet5", 10, epochs=4, lr=1.0, schedule={"name": "onecycle", "peak": 0.5, "start": 0.1})
    )
    rates = rates[:, 0]
    assert rates[0] == pytest.approx(0.1) and 18 <= rates.argmax() <= 21 and rates.max() == pytest.approx(1.0, abs=0.01)
    assert (np.diff(rates[:19]) > 0).all() and (np.diff(rates[21:]) < 0).all() and rates[-1] < 0.02


@pytest.mark.parametrize("warmup", [0, 1])
def test_a_cycle_may_end_at_nothing_and_before_the_run(warmup):
    """The bias of the whitening trains for 3 of 8 epochs: its cycle is over then, and the others' goes on."""
    schedule = {"name": "onecycle", "end": 0.0, "warmup": warmup}
    rates = np.array(_learning_rates("airbench94", 5, epochs=8, schedule=schedule))
    whitening, filters = rates[:, 3], rates[:, 0]
    assert (whitening[15:] == 0).all() and (whitening[1:15] > 0).all()
    assert (filters[1:] > 0).all() and filters[-1] < 0.01 * filters.max() == pytest.approx(0.0024, rel=0.05)


@pytest.mark.parametrize("name", ["linear", "cosine", "onecycle"])
def test_a_run_resumed_for_more_epochs_goes_on_where_the_longer_schedule_is(name):
    def made(epochs):
        config = training.config_for("lenet5", epochs=epochs, lr=1.0, schedule={"name": name})
        (optimizer,) = build.optimizers(config, models.create("lenet5", device="cpu"))
        (scheduler,) = build.schedulers(config, [optimizer], 5)
        return optimizer, scheduler

    (_, short), (optimizer, long) = made(2), made(4)
    for _ in range(10):
        short.step()
    long.load_state_dict(short.state_dict())
    long.step()
    expected = _learning_rates("lenet5", 5, epochs=4, lr=1.0, schedule={"name": name})[11][0]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-6) and expected > 0.1


def test_a_recipe_of_ones_own(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('model = "lenet5"\nepochs = 2\n[optimizer]\nname = "AdamW"\nlr = 1e-3\nbetas = [0.9, 0.99]\n')
    config = training.config_for(recipe=file, seed=5)
    assert (config.recipe, config.epochs, config.seed) == ("mine", 2, 5)
    (optimizer,) = build.optimizers(config, models.create("lenet5", device="cpu"))
    assert type(optimizer).__name__ == "AdamW" and optimizer.param_groups[0]["betas"] == (0.9, 0.99)


@pytest.mark.parametrize(
    ("text", "error", "problem"),
    [
        ("epochs = ", ValueError, r"bad.toml: not a recipe in TOML: "),
        ("modle = 'lenet5'", ValueError, r"bad.toml: unknown key 'modle', known are model"),
        ("epochs = '3'", TypeError, r"bad.toml: epochs must be int, got '3' \(str\)"),
        ("model = 'lenet6'", ValueError, r"bad.toml: .*unknown model 'lenet6'; known are"),
        ("[optimizer]\nname = 'sgd'\nlr = true", TypeError, r"bad.toml: optimizer: lr must be float or int, got True"),
    ],
)
def test_a_bad_recipe_names_the_file_and_the_key(tmp_path, text, error, problem):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(error, match=problem):
        training.config_for(recipe=file)


def test_no_such_recipe():
    with pytest.raises(FileNotFoundError, match=r"no recipe 'airbench95'; known are airbench94, lecture,"):
        training.config_for(recipe="airbench95")


def test_an_unknown_model_lists_the_known():
    with pytest.raises(ValueError, match=r"unknown model 'lenet6'; known are airbench94, lecture, lecture_cnn, lenet5"):
        training.config_for("lenet6")


def test_sets_that_are_not_the_models():
    config = training.config_for("lenet5", optimizer={"head": {"name": "sgd", "lr": 0.1}})
    with pytest.raises(ValueError, match="has tables for head; lenet5's sets are none: one optimizer takes all"):
        build.optimizers(config, models.create("lenet5", device="cpu"))


def test_images_held_out_are_the_same_whatever_else_is_asked():
    whole = data.create("shapes", limit=50)
    train, val = build.split(whole, 15, seed=3)
    assert (len(train), len(val)) == (35, 15)
    together = np.concatenate([train.images, val.images])
    assert sorted(image.tobytes() for image in together) == sorted(image.tobytes() for image in whole.images)
    np.testing.assert_array_equal(build.split(whole, 15, seed=3)[1].images, val.images)
    assert not np.array_equal(build.split(whole, 15, seed=4)[1].images, val.images)
    assert build.split(whole, 0, seed=3) == (whole, None)
    with pytest.raises(ValueError, match="val_split: 50 images cannot be held out of 50"):
        build.split(whole, 50, seed=3)


def test_a_batch_larger_than_the_data(tmp_path):
    config = training.config_for("lenet5", data="shapes", train_images=30, batch_size=31, device="cpu")
    with pytest.raises(ValueError, match="batch_size 31 is larger than the 30 training images"):
        training.train(config, out=tmp_path / "run")
