"""gpucnn.cuda.graph on the emulated device: what is replayed is what the step does, and what cannot be is said."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import backends, graphs, nn, optim
from gpucnn import functional as F
from gpucnn.amp import GradScaler
from gpucnn.backends.emulator.array import RecordedArray
from gpucnn.nn.utils import clip_grad_norm_
from gpucnn.optim.lr_scheduler import StepLR

DEVICE = "emulated"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_EMULATOR", "fast")


def on_device(values: Any) -> gpucnn.Tensor:
    return gpucnn.tensor(np.asarray(values), device=DEVICE)


def batches(count: int, n: int = 3) -> list[tuple[gpucnn.Tensor, gpucnn.Tensor]]:
    rng = np.random.default_rng(7)
    return [
        (on_device(rng.normal(size=(n, 2, 6, 6)).astype(np.float32)), on_device(rng.integers(0, 4, n)))
        for _ in range(count)
    ]


class Training:
    """A small network with all that has a state: moments, averages, a schedule, dropout, running statistics."""

    def __init__(self) -> None:
        gpucnn.manual_seed(5)
        self.model = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, device=DEVICE), nn.BatchNorm2d(4, device=DEVICE), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 4, device=DEVICE),
        )  # fmt: skip
        self.optimizer = optim.Adam(self.model.parameters(), lr=0.05, weight_decay=0.01)
        self.average = optim.MovingAverage(self.model.parameters(), optim.tutorial_decay(), self.model.buffers())
        self.schedule = StepLR(self.optimizer, 2, 0.5)

    def step(self, x: gpucnn.Tensor, y: gpucnn.Tensor) -> gpucnn.Tensor:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        clip_grad_norm_(self.model.parameters(), 0.5)
        self.optimizer.step()
        self.average.update()
        return loss

    def state(self) -> list[bytes]:
        tensors = [*self.model.state_dict().values(), *self.average.all_averages()]
        tensors += [
            value for state in self.optimizer.state.values() for value in state.values() if hasattr(value, "numpy")
        ]
        tensors += [p.grad for p in self.model.parameters()]
        return [tensor.numpy().tobytes() for tensor in tensors]


def trained(graphed: bool, eager_at: tuple[int, ...] = ()) -> tuple[Any, ...]:
    training, losses, launches, replay = Training(), [], [], None
    engine: Any = backends.get(gpucnn.device(DEVICE)).engine  # type: ignore[attr-defined]
    for number, (x, y) in enumerate(batches(6)):
        with engine.record() as recorded:
            if not graphed or number in eager_at:
                loss = training.step(x, y)
            elif replay is None:
                replay = gpucnn.cuda.graph(training.step, x, y)
                loss = replay.first
            else:
                loss = replay(x, y)
        training.schedule.step()
        losses.append(loss.numpy().tobytes())
        launches.append(list(recorded))
    return losses, launches, training.state(), gpucnn.random.default_generator.state_dict(), replay


def test_replays_are_the_same_launches_with_the_same_bits() -> None:
    eager, captured = trained(False), trained(True)
    assert captured[:4] == eager[:4]
    (graph,) = captured[4].captured
    assert graph.launches == eager[1][-1]
    assert len(set(eager[0])) == 6


def rounded(graphed: bool) -> tuple[Any, ...]:
    """Training in float16 by hand, of a network whose first layer is frozen and is changed once all the same."""
    gpucnn.manual_seed(5)
    first, rest = nn.Linear(8, 8, device=DEVICE), [nn.Linear(8, 8, device=DEVICE), nn.Linear(8, 4, device=DEVICE)]
    first.weight.requires_grad_(False)
    model = nn.Sequential(first, nn.ReLU(), *rest)
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    scaler = GradScaler(init_scale=8.0)

    def step(x: gpucnn.Tensor, y: gpucnn.Tensor) -> gpucnn.Tensor:
        optimizer.zero_grad()
        with gpucnn.precision("float16"):
            loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    engine: Any = backends.get(gpucnn.device(DEVICE)).engine  # type: ignore[attr-defined]
    losses, launches, replay = [], [], None
    for number, (x, y) in enumerate(batches(5)):
        x = on_device(x.numpy().reshape(-1)[:24].reshape(3, 8))
        if number == 3:
            with gpucnn.no_grad():
                first.weight.copy_(first.weight * 2)
        with engine.record() as recorded:
            if graphed and replay is None:
                replay = gpucnn.cuda.graph(step, x, y)
                loss = replay.first
            else:
                loss = replay(x, y) if replay is not None else step(x, y)
        losses.append(loss.numpy().tobytes())
        launches.append(sorted(launch.kernel for launch in recorded) if number == 3 else list(recorded))
    return losses, launches, [tensor.numpy().tobytes() for tensor in model.state_dict().values()], scaler.state_dict()


def test_weights_are_rounded_where_the_step_itself_rounds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_EMULATOR_ARCH", "80")
    unrelated = nn.Linear(5, 5, device=DEVICE)
    with gpucnn.precision("float16"):
        unrelated(on_device(np.ones((2, 5), np.float32)))
    eager, captured = rounded(False), rounded(True)
    assert captured == eager
    assert [sum(launch.kernel == "cast_all_float16" for launch in launches) for launches in eager[1][1:3]] == [1, 1]


def test_replays_and_steps_run_as_they_are_may_alternate() -> None:
    assert trained(True, eager_at=(3,))[:4] == trained(False)[:4]


def test_after_a_capture_all_is_as_it_was() -> None:
    *_, replay = trained(True)
    assert not tracemalloc.is_tracing()
    outputs = replay(*batches(1)[0])
    assert type(outputs.data) is np.ndarray and not isinstance(outputs.data, RecordedArray)


def test_gradients_are_those_of_the_first_step_until_a_replay() -> None:
    def gradients(training: Training) -> list[bytes]:
        return [p.grad.numpy().tobytes() for p in training.model.parameters() if p.grad is not None]

    (x, y), eager, wanted = batches(1)[0], Training(), []
    for _ in range(2):
        eager.step(x, y)
        wanted.append(gradients(eager))
    captured = Training()
    replay = gpucnn.cuda.graph(captured.step, x, y)
    assert gradients(captured) == wanted[0] != wanted[1]

    def fails(x: gpucnn.Tensor, y: gpucnn.Tensor) -> float:
        captured.optimizer.zero_grad()
        return float(F.cross_entropy(captured.model(x), y))

    replay(x, y)
    assert gradients(captured) == wanted[1]
    kept = [p.grad for p in captured.model.parameters()]
    with pytest.raises(RuntimeError, match="reads a value"):
        graphs.CapturedStep(fails, (x, y))
    assert all(p.grad is gradient for p, gradient in zip(captured.model.parameters(), kept, strict=True))


def test_dropout_draws_anew_at_each_replay() -> None:
    x = on_device(np.ones((1, 64), np.float32))
    gpucnn.manual_seed(1)
    wanted = [F.dropout(x, 0.5).numpy().tobytes() for _ in range(4)]
    gpucnn.manual_seed(1)
    replay = gpucnn.cuda.graph(lambda x: F.dropout(x, 0.5), x)
    got = [replay.first.numpy().tobytes(), *(replay(x).numpy().tobytes() for _ in range(3))]
    assert got == wanted and len(set(got)) == 4
    gpucnn.manual_seed(1)  # the seed is part of the capture: it is captured again
    assert [replay(x).numpy().tobytes() for _ in range(2)] == wanted[:2]


def test_what_the_array_module_does_is_replayed_too() -> None:
    kept = on_device(np.zeros((4, 3), np.float32))

    def step(x: gpucnn.Tensor) -> tuple[gpucnn.Tensor, ...]:
        y = F.relu(x) + 2.0 * x.t().reshape(4, 3)
        kept.copy_(y)
        kept.add_(1.0)
        best = y.argmax(dim=1)
        parts = gpucnn.cat([y[:2], y[2:] * y.mean()])
        return y, best, parts, gpucnn.where(y > 0, y, -y).sum(), y.max(), gpucnn.stack([y, y]).exp()

    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(4, 3)).astype(np.float32) for _ in range(4)]
    replay = gpucnn.cuda.graph(step, on_device(inputs[0]))
    for values in inputs:
        got = [tensor.numpy() for tensor in replay(on_device(values))] + [kept.numpy()]
        wanted = [tensor.numpy() for tensor in step(on_device(values))] + [kept.numpy()]
        for mine, its in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(mine, its)
            assert mine.dtype == its.dtype


def test_copies_in_half_precision_follow_weights_that_a_replay_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rounded copy of a weight is kept as long as the weight stays: the capture makes its own, and after a replay
    the copy of before is out of date."""
    monkeypatch.setenv("GPUCNN_EMULATOR_ARCH", "80")
    weight = on_device(np.ones((8, 8), np.float32))
    x = on_device(np.eye(8, dtype=np.float32))

    def product(x: gpucnn.Tensor) -> gpucnn.Tensor:
        with gpucnn.precision("float16"):
            return F.linear(x, weight)

    def step(x: gpucnn.Tensor) -> gpucnn.Tensor:
        y = product(x)
        weight.mul_(2.0)
        return y

    replay = gpucnn.cuda.graph(step, x)
    assert product(x).numpy()[0, 0] == 2.0  # and now the copy is of the weight as it is
    seen = []
    for _ in range(2):
        seen += [replay(x).numpy()[0, 0], product(x).numpy()[0, 0]]
    assert seen == [2.0, 4.0, 4.0, 8.0]
    replay = gpucnn.cuda.graph(product, x)  # the copy is new when the capture begins, and yet is made at each replay
    weight.mul_(2.0)
    assert replay(x).numpy()[0, 0] == 16.0


def test_other_shapes_are_an_error_that_names_both_or_are_captured_too() -> None:
    step = lambda x: F.relu(x)  # noqa: E731
    small, large = on_device(-np.ones((2, 3), np.float32)), on_device(np.ones((4, 3), np.float32))
    replay = gpucnn.cuda.graph(step, small)
    with pytest.raises(ValueError, match=r"captured for inputs \(float32 \(2, 3\)\), got \(float32 \(4, 3\)\)"):
        replay(large)
    with pytest.raises(ValueError, match=r"captured for inputs .* got \(int64 \(2, 3\)\)"):
        replay(small.long())
    both = gpucnn.cuda.graph(step, small, shapes=2)
    for _ in range(3):
        np.testing.assert_array_equal(both(large).numpy(), np.ones((4, 3)))
        np.testing.assert_array_equal(both(small).numpy(), np.zeros((2, 3)))
    assert len(both.captured) == 2


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (lambda y: y.item(), r"Tensor\.item"),
        (lambda y: y.numpy(), r"Tensor\.numpy"),
        (lambda y: bool(y > 0), r"Tensor\.__bool__"),
        (lambda y: float(y), r"Tensor\.__float__"),
        (lambda y: y.tolist(), r"Tensor\.tolist"),
        (lambda y: y.backend.to_host(y.data), "an operator"),
        (lambda y: clip_grad_norm_([WEIGHT[0]], 1.0, error_if_nonfinite=True), r"\w.* in clip_grad_norm_"),
    ],
)
def test_a_host_read_names_the_operator_and_the_line(read: Any, name: str) -> None:
    weight = on_device(np.ones(3, np.float32)).requires_grad_()
    WEIGHT[:] = [weight]
    x = on_device(np.ones(3, np.float32))

    def step(x: gpucnn.Tensor) -> gpucnn.Tensor:
        loss = (x * weight).sum()
        loss.backward()
        read(loss)
        return loss

    with pytest.raises(RuntimeError, match=rf"cuda\.graph: {name} \(test_graphs\.py:\d+\) reads a value on the host"):
        gpucnn.cuda.graph(step, x)
    assert type(weight.data) is np.ndarray and not tracemalloc.is_tracing()
    assert gpucnn.cuda.graph(lambda x: x * weight, x)(x).tolist() == [1.0, 1.0, 1.0]


WEIGHT: list[gpucnn.Tensor] = []


def test_what_is_computed_on_the_host_names_the_launch_and_the_line() -> None:
    x = on_device(np.ones((2, 3), np.float32))

    def step(x: gpucnn.Tensor) -> gpucnn.Tensor:
        doubled = np.asarray(x.data) * 2
        return F.relu(gpucnn.Tensor(doubled, DEVICE))

    with pytest.raises(
        RuntimeError,
        match=r"the launch relu_forward\w* reads x, and .*step \(test_graphs\.py:\d+: doubled = .*on the host",
    ):
        gpucnn.cuda.graph(step, x)
    with pytest.raises(RuntimeError, match=r"the step returns a tensor, and .*np\.asarray\(x\.data\) .*on the host"):
        gpucnn.cuda.graph(lambda x: gpucnn.Tensor(np.asarray(x.data) + 1, DEVICE), x)
    with pytest.raises(RuntimeError, match="a copy from the host cannot be captured"):
        gpucnn.cuda.graph(lambda x: x + gpucnn.tensor([1.0, 2.0, 3.0], device=DEVICE), x)
    with pytest.raises(RuntimeError, match=r"a copy from the host|draws random numbers on the host"):
        gpucnn.cuda.graph(lambda x: x + gpucnn.rand(2, 3, device=DEVICE), x)

    def unwritten(x: gpucnn.Tensor) -> gpucnn.Tensor:
        return F.relu(gpucnn.Tensor(x.backend.empty((2, 3)), DEVICE))  # type: ignore[attr-defined]

    with pytest.raises(RuntimeError, match="reads x, which nothing that was recorded has written"):
        gpucnn.cuda.graph(unwritten, x)


def test_a_step_that_fails_by_itself_raises_its_own_error_and_draws_nothing() -> None:
    x = on_device(np.ones((2, 3), np.float32))
    calls = []

    def step(x: gpucnn.Tensor) -> gpucnn.Tensor:
        calls.append(1)
        y = F.dropout(x, 0.5)
        return y if len(calls) == 1 else y.reshape(7)

    gpucnn.manual_seed(3)
    with pytest.raises(ValueError, match="reshape"):
        gpucnn.cuda.graph(step, x)
    assert gpucnn.random.default_generator.state_dict()["steps"] == {"1": 1}


def test_a_label_out_of_range_is_found_at_the_next_read() -> None:
    logits = on_device(np.zeros((3, 4), np.float32))
    replay = gpucnn.cuda.graph(lambda x, y: F.cross_entropy(x, y), logits, on_device([0, 1, 2]))
    loss = replay(logits, on_device([0, 1, 9]))
    with pytest.raises(ValueError, match=r"cross_entropy: label 9 at row 2 is outside \[0, 4\)$"):
        loss.item()
    assert replay(logits, on_device([3, 1, 2])).item() == pytest.approx(np.log(4))


def test_bad_uses() -> None:
    x = on_device(np.ones(3, np.float32))
    with pytest.raises(RuntimeError, match=r"can be captured on cuda and emulated, not on cpu"):
        gpucnn.cuda.graph(F.relu, gpucnn.tensor([1.0], device="cpu"))
    with pytest.raises(RuntimeError, match="is being captured on emulated already"):
        gpucnn.cuda.graph(lambda x: gpucnn.cuda.graph(F.relu, x)(x), x)
    with pytest.raises(TypeError, match="input 0 must be a tensor, got ndarray"):
        gpucnn.cuda.graph(F.relu, np.ones(3), device=DEVICE)
    with pytest.raises(TypeError, match="step must be callable"):
        gpucnn.cuda.graph(3, x)
    with pytest.raises(ValueError, match="shapes must be at least 1"):
        gpucnn.cuda.graph(F.relu, x, shapes=0)
    with pytest.raises(ValueError, match="input 0 is on cpu"):
        gpucnn.cuda.graph(F.relu, x)(gpucnn.tensor([1.0, 2.0, 3.0], device="cpu"))
