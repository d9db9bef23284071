"""The loop against the same steps written out by hand, and what it measures."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

import gpucnn
from gpucnn import functional as F
from gpucnn import models, nn, optim, training
from gpucnn.data import DataLoader, Dataset, Shapes
from gpucnn.optim.lr_scheduler import StepLR
from gpucnn.training import loop
from gpucnn.training.metrics import Metrics, Pending
from tests.training.training_support import Recorder


def _blobs(n: int, seed: int) -> Dataset:
    """Two classes, dark and bright."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, n)
    images = generator.integers(0, 100, (n, 4, 4, 1)) + 100 * labels[:, None, None, None]
    return Dataset(images.astype(np.uint8), labels, ["dark", "bright"], train=seed == 0)


def _network() -> nn.Module:
    gpucnn.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8, device="cpu"), nn.ReLU(), nn.Linear(8, 2, device="cpu"))


def _fill(model: nn.Module, value: float) -> None:
    with gpucnn.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def _loaders(n: int = 37) -> tuple[DataLoader, DataLoader]:
    return (
        DataLoader(_blobs(n, 0), 8, shuffle=True, seed=1, device="cpu"),
        DataLoader(_blobs(21, 1), 8, device="cpu"),
    )


def _logits_by_hand(parameters: list[np.ndarray], images: np.ndarray) -> np.ndarray:
    """The network in NumPy, float64."""
    w1, b1, w2, b2 = (p.astype(np.float64) for p in parameters)
    hidden = np.maximum(images.reshape(len(images), -1).astype(np.float64) @ w1.T + b1, 0)
    return hidden @ w2.T + b2


def _loss_by_hand(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(
        np.mean([math.log(sum(math.exp(v) for v in row)) - row[y] for row, y in zip(logits, labels, strict=True)])
    )


def _step_by_hand(parameters: list[np.ndarray], images: np.ndarray, labels: np.ndarray, lr: float) -> tuple[float, int]:
    """One step of plain SGD, gradients by the chain rule on paper; returns loss and number of right answers."""
    x = images.reshape(len(images), -1).astype(np.float64)
    w1, b1, w2, b2 = parameters
    before = x @ w1.T + b1
    hidden = np.maximum(before, 0)
    logits = hidden @ w2.T + b2
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    d = (p - np.eye(2)[labels]) / len(x)
    back = (d @ w2) * (before > 0)
    loss, right = _loss_by_hand(logits, labels), int((logits.argmax(axis=1) == labels).sum())
    for parameter, gradient in ((w2, d.T @ hidden), (b2, d.sum(0)), (w1, back.T @ x), (b1, back.sum(0))):
        parameter -= lr * gradient
    return loss, right


def test_two_epochs_are_the_steps_written_out_by_hand():
    train, test = _loaders()
    model = _network()
    hand = [p.numpy().astype(np.float64) for p in model.parameters()]
    averages = [p.copy() for p in hand]
    average = optim.MovingAverage(model.parameters(), optim.tutorial_decay(0.9999))
    records = training.Trainer(model, train, test, optim.SGD(model.parameters(), lr=0.3), average).run(2)
    steps = 0
    for epoch in range(2):
        losses, right = [], 0
        for batch in range(5):
            images, labels = train.host_batch(epoch, batch)
            loss, correct = _step_by_hand(hand, images.transpose(0, 3, 1, 2), labels, 0.3)
            losses.append((loss, len(labels)))
            right += correct
            steps += 1
            decay = min(0.9999, (1 + steps) / (10 + steps))
            averages = [decay * a + (1 - decay) * p for a, p in zip(averages, hand, strict=True)]
        record = records[epoch]
        assert (record.epoch, record.step) == (epoch + 1, steps)
        assert record.train_loss == pytest.approx(sum(loss * n for loss, n in losses) / 37, rel=1e-5)
        assert record.train_accuracy == right / 37
    for parameter, expected in zip(model.parameters(), hand, strict=True):
        np.testing.assert_allclose(parameter.numpy(), expected, rtol=0, atol=2e-6)
    blobs = _blobs(21, 1)
    pictures = blobs.images.transpose(0, 3, 1, 2) / 255
    for parameters, loss, accuracy in (
        (hand, records[1].test_loss, records[1].test_accuracy),
        (averages, records[1].average_loss, records[1].average_accuracy),
    ):
        logits = _logits_by_hand(parameters, pictures)
        assert loss == pytest.approx(_loss_by_hand(logits, blobs.labels), rel=1e-4)
        assert accuracy == (logits.argmax(axis=1) == blobs.labels).mean()
    assert records[1].test_loss != records[1].average_loss


@pytest.mark.parametrize("read_steps", [1, 3, 100])
def test_reading_losses_seldom_changes_nothing(read_steps):
    results = []
    for steps in (1, read_steps):
        train, test = _loaders()
        model = _network()
        trainer = training.Trainer(model, train, test, optim.SGD(model.parameters(), lr=0.3), read_steps=steps)
        records = trainer.run(2)
        results.append(
            ([(r.train_loss, r.train_accuracy, r.test_loss) for r in records], [p.numpy() for p in model.parameters()])
        )
    assert results[0][0] == results[1][0]
    for a, b in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("read_steps", [1, 4, 100])
def test_a_loss_that_is_not_finite_names_its_own_step_however_late_it_is_read(read_steps):
    train, test = _loaders()

    class Poison:
        def __call__(self, images, seed=0, step=0, epoch=0, indices=None):
            return np.where(step == 6, np.nan, images / 255).astype(np.float32)

    train.transform = Poison()
    model = _network()
    trainer = training.Trainer(model, train, test, optim.SGD(model.parameters(), lr=0.1), read_steps=read_steps)
    with pytest.raises(training.TrainingError, match=r"the loss became nan at step 7 \(epoch 2\)") as raised:
        trainer.run(3)
    assert raised.value.step == 7


def test_a_loss_that_is_not_finite_is_found_before_a_state_is_given_out():
    train, test = _loaders()
    model = _network()
    trainer = training.Trainer(model, train, test, optim.SGD(model.parameters(), lr=0.1), read_steps=100)

    class Save(training.Callback):
        def on_step(self, trainer):
            if trainer.step == 2:
                _fill(trainer.model, np.inf)
            if trainer.step == 4:
                trainer.state_dict()

    trainer.callbacks = [Save()]
    with pytest.raises(training.TrainingError, match="at step 3"), np.errstate(all="ignore"):
        trainer.run(1)


def test_dropout_goes_on_where_it_was(tmp_path):
    """The random streams are part of the state: a resumed run drops what the run would have dropped."""

    def trainer() -> training.Trainer:
        gpucnn.manual_seed(5)
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(16, 8, device="cpu"), nn.Dropout(0.5), nn.Linear(8, 2, device="cpu")
        )
        return training.Trainer(model, _loaders()[0], None, optim.SGD(model.parameters(), lr=0.1, momentum=0.9))

    class SaveAtStep3(training.Callback):
        def on_step(self, trainer):
            if trainer.step == 3:
                gpucnn.save(trainer.state_dict(), tmp_path / "state")

    whole = trainer()
    whole.callbacks = [SaveAtStep3()]
    whole.run(2)
    resumed = trainer()
    gpucnn.rand(4, device="cpu")
    resumed.load_state_dict(gpucnn.load(tmp_path / "state", device="cpu"))
    resumed.run(2)
    assert resumed.step == whole.step == 10
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_the_seconds_of_an_epoch_go_on_where_they_were():
    def trainer() -> training.Trainer:
        model = _network()
        return training.Trainer(model, _loaders()[0], None, optim.SGD(model.parameters(), lr=0.1))

    state = trainer().state_dict()
    resumed = trainer()
    resumed.load_state_dict({**state, "epoch_seconds": 1000.0})
    assert resumed.state_dict()["epoch_seconds"] == 1000
    first, second = resumed.run(2)
    assert 1000 < first.train_seconds < 1100 and second.train_seconds < 100
    assert first.examples_per_second == pytest.approx(37 / first.train_seconds)


def test_the_time_that_is_left_counts_examples_and_evaluations():
    model = _network()
    trainer = training.Trainer(model, *_loaders(), optim.SGD(model.parameters(), lr=0.1))
    assert trainer.seconds_left() is None
    trainer.epochs, trainer.epoch = 3, 1
    trainer.epoch_metrics.add(1.0, 0, 20)
    trainer.speed = SimpleNamespace(examples_per_second=10.0)
    assert trainer.seconds_left() == pytest.approx((2 * 37 - 20) / 10)
    trainer._evaluation_seconds = 7.0
    assert trainer.seconds_left() == pytest.approx((2 * 37 - 20) / 10 + 2 * 7)


def test_evaluation_leaves_model_and_average_as_they_were():
    _, test = _loaders()
    model = _network()
    model.train()
    average = optim.MovingAverage(model.parameters(), 0.5)
    kept = [p.numpy() for p in model.parameters()]
    _fill(model, 0.25)
    metrics = training.evaluate(model, test)
    assert metrics.examples == 21 and model.training

    class Stop(Exception):
        pass

    def stop(done, total):
        assert (done, total) == (1, 3)
        raise Stop

    with pytest.raises(Stop), average.applied():
        np.testing.assert_array_equal(next(iter(model.parameters())).numpy(), kept[0])
        training.evaluate(model, test, stop)
    assert model.training
    for parameter in model.parameters():
        assert (parameter.numpy() == 0.25).all()


def test_the_schedule_steps_once_an_epoch():
    train, _ = _loaders()
    model = _network()
    optimizer = optim.SGD(model.parameters(), lr=0.8)
    records = training.Trainer(model, train, None, optimizer, scheduler=StepLR(optimizer, 2, 0.5)).run(5)
    assert [r.lr for r in records] == [0.8, 0.8, 0.4, 0.4, 0.2]
    assert records[0].test_loss is None and records[0].average_accuracy is None


def test_callbacks_hear_everything_in_order():
    train, test = _loaders()
    model = _network()
    heard = []

    class Ear(training.Callback):
        def on_start(self, trainer):
            heard.append("start")

        def on_epoch_start(self, trainer):
            heard.append(f"epoch {trainer.epoch}")

        def on_step(self, trainer):
            heard.append(trainer.step)

        def on_evaluation_step(self, trainer, done, total):
            heard.append(f"{done}/{total}")

        def on_epoch_end(self, trainer, record):
            heard.append(f"end {record.epoch}")

    progress = Recorder()
    training.Trainer(
        model, train, test, optim.SGD(model.parameters(), lr=0.1), callbacks=[Ear(), training.Report(progress)]
    ).run(2)
    one = ["1/3", "2/3", "3/3"]
    expected = ["start", "epoch 0", 1, 2, 3, 4, 5, *one, "end 1", "epoch 1", 6, 7, 8, 9, 10, *one, "end 2"]
    assert heard == expected
    assert progress.epochs == [(1, 2, 5, 0), (2, 2, 5, 0)]
    assert [step[0] for step in progress.steps] == [1, 2, 3, 4, 5] * 2
    assert all(step[1] > 0 and 0 <= step[3] <= 1 and step[4] is not None and step[4] >= 0 for step in progress.steps)
    assert progress.records[1]["epoch"] == 2


def test_fit_learns_to_tell_dark_from_bright():
    model = _network()
    train, test = _loaders(200)
    records = training.fit(model, train, test, epochs=6, lr=0.2)
    assert records[-1].test_accuracy == 1.0 and records[-1].test_loss < records[0].test_loss


def test_fit_makes_loaders_of_data_sets():
    gpucnn.manual_seed(0)
    model = models.create("lenet5", device="cpu")
    records = training.fit(model, Shapes(count=64), Shapes(train=False, count=30), epochs=1, batch_size=16, seed=2)
    assert records[0].step == 4 and 0 <= records[0].test_accuracy <= 1


@pytest.mark.parametrize("anew", [True, False])
def test_fit_whitens_anew_unless_told_not_to(anew):
    model = models.create("airbench94", device="cpu", widths=(4, 4, 4))
    before = model.whiten.weight.numpy()
    training.fit(model, Shapes(count=16), batch_size=16, lr=0.0, seed=2, init_from_data=anew)
    assert np.array_equal(model.whiten.weight.numpy(), before) != anew


def test_pending_results_are_right_batch_by_batch():
    generator = np.random.default_rng(0)
    pending, expected = Pending(), []
    for n in (3, 5, 1):
        logits, labels = generator.normal(size=(n, 4)).astype(np.float32), generator.integers(0, 4, n)
        tensor, target = gpucnn.tensor(logits, device="cpu"), gpucnn.tensor(labels, device="cpu")
        right = (tensor.argmax(dim=1) == target).sum()
        pending.add(F.cross_entropy(tensor, target), right, n)
        expected.append((_loss_by_hand(logits.astype(np.float64), labels), int((logits.argmax(1) == labels).sum()), n))
    got = pending.read()
    assert [g[2:] for g in got] == [e[1:] for e in expected]
    assert [g.loss for g in got] == pytest.approx([e[0] for e in expected], rel=1e-6)
    assert len(pending) == 0 and pending.read() == []


def test_metrics_weigh_batches_by_their_size():
    metrics = Metrics()
    assert math.isnan(metrics.loss) and math.isnan(metrics.accuracy)
    metrics.add(1.0, 1, 3)
    metrics.add(4.0, 1, 1)
    assert (metrics.loss, metrics.accuracy) == (1.75, 0.5)
    assert Metrics.from_dict(metrics.to_dict()) == metrics


def test_speed_counts_while_the_clock_runs(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    speed = loop.Speed()
    assert speed.examples_per_second == 0
    for _ in range(3):
        speed.start()
        for _ in range(4):
            now[0] += 0.5
            speed.add(50)
        speed.stop()
        now[0] += 1000  # an evaluation
    assert speed.examples_per_second == pytest.approx(100) and speed.seconds == pytest.approx(6)


def test_speed_is_that_of_the_last_ten_seconds(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    speed = loop.Speed()
    speed.start()
    for examples in [1] * 30 + [100] * 11:
        now[0] += 1
        speed.add(examples)
    assert speed.examples_per_second == pytest.approx(100) and speed.seconds == pytest.approx(41)
