"""Predictions are the network's logits in the order of the data set; loss and probabilities by the formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpucnn
from gpucnn import data, models, training
from gpucnn.training import predictions


@pytest.fixture
def lenet():
    gpucnn.manual_seed(5)
    return models.create("lenet5", device="cpu")


def loader(count: int, batch_size: int, **options):
    images = data.Shapes(train=False, count=count)
    model = models.create("lenet5", device="cpu")
    _, transform = training.transforms(model, "mnist")
    return data.DataLoader(images, batch_size, transform=transform, device="cpu", **options)


def test_logits_are_those_of_one_large_batch_and_labels_the_sets(lenet):
    lenet.train()
    batches = loader(50, 2)  # 25 batches: more than stay on the device at once
    seen = []
    found = predictions.predict(lenet, batches, watch=lambda done, total: seen.append((done, total)))
    assert lenet.training
    images, labels = next(iter(loader(50, 50)))
    with gpucnn.no_grad():
        expected = lenet.eval()(images).numpy()
    assert found.logits == pytest.approx(expected, abs=1e-6)
    assert (found.labels == labels.numpy()).all()
    assert (found.predicted == expected.argmax(axis=1)).all()
    assert seen == [(k, 25) for k in range(1, 26)]


def test_loss_and_accuracy_are_those_of_an_evaluation(lenet):
    found = predictions.predict(lenet, loader(50, 16))
    metrics = training.evaluate(lenet, loader(50, 16))
    assert found.accuracy == metrics.accuracy
    assert found.loss == pytest.approx(metrics.loss, rel=1e-6)


def test_probabilities_and_loss_by_hand():
    logits = np.array([[0.0, math.log(3.0)], [1000.0, 0.0]], dtype=np.float32)
    found = predictions.Predictions(logits, np.array([0, 0]))
    assert found.probabilities == pytest.approx(np.array([[0.25, 0.75], [1.0, 0.0]]))
    assert found.loss == pytest.approx((math.log(4.0) + 0.0) / 2)
    assert found.accuracy == 0.5


def test_views_are_those_of_test_time_augmentation(lenet):
    images, _ = next(iter(loader(6, 6)))
    mirrored = gpucnn.tensor(np.ascontiguousarray(images.numpy()[:, :, :, ::-1]), device="cpu")
    with gpucnn.no_grad():
        expected = 0.5 * (lenet.eval()(images).numpy() + lenet(mirrored).numpy())
    assert predictions.predict(lenet, loader(6, 6), "mirror").logits == pytest.approx(expected, abs=1e-6)


def test_what_cannot_be_in_order_or_is_not_finite_is_refused(lenet):
    with pytest.raises(ValueError, match="does not shuffle"):
        predictions.predict(lenet, loader(6, 6, shuffle=True))
    with gpucnn.no_grad():
        lenet.fc3.bias.fill_(math.nan)
    with pytest.raises(ValueError, match="image 0 are not finite"):
        predictions.predict(lenet, loader(6, 6))
