"""Steps that are captured and replayed, beside the same steps run launch by launch, on the emulated device."""

from __future__ import annotations

import gc
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import backends, data, models, nn, optim, training
from gpucnn.data import DataLoader, ResidentLoader, Shapes
from gpucnn.training import build, config_for, step_memory
from gpucnn.training.errors import TrainingError
from gpucnn.training.inputs import transforms
from gpucnn.training.ring import Ring
from tests.training.training_support import Recorder, contents, lines, small

DEVICE = "emulated"
Result = tuple[list[bytes], list[Any], list[float]]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_EMULATOR", "fast")


def network(name: str) -> tuple[training.Config, nn.Module]:
    gpucnn.manual_seed(0)
    config = config_for(name, device=DEVICE, batch_size=4, data="shapes", epochs=2)
    narrow = {"widths": (4, 8, 8)} if name == "airbench94" else {}
    return config, models.create(name, device=DEVICE, num_classes=10, **narrow)


def trained(
    name: str,
    graph: bool,
    resident: bool = True,
    images: int = 14,
    batch: int = 4,
    tested: bool = False,
    **options: Any,
) -> Result:
    """A recipe on a few images: four steps an epoch, the last of them smaller; whitening is frozen in between."""
    gc.collect()
    config, model = network(name)
    dataset = Shapes(count=images)
    made = data.loader_for if resident else DataLoader
    transform = transforms(model, "shapes", config.augmentation)[0]
    loader = made(dataset, batch, True, transform, seed=1, device=DEVICE)
    assert isinstance(loader, ResidentLoader) == resident
    build.start_from_data(model, dataset, DEVICE)
    test = DataLoader(Shapes(count=2), 2, device=DEVICE, transform=transforms(model, "shapes")[1]) if tested else None
    optimizers = build.optimizers(config, model)
    average = optim.MovingAverage(model.parameters(), optim.tutorial_decay(), model.buffers())
    parameters = list(model.parameters())
    callbacks = [build.Freeze([next(p for p in parameters if p.requires_grad)], 5)] if name == "airbench94" else []
    trainer = training.Trainer(
        model, loader, test, optimizers, average, build.schedulers(config, optimizers, len(loader)), callbacks,
        schedule_every="step", graph=graph, reduction=config.reduction, label_smoothing=config.label_smoothing,
        **options,
    )  # fmt: skip
    with backends.get(gpucnn.device(DEVICE)).engine.record() as launches:  # type: ignore[attr-defined]
        records = trainer.run(2)
    assert (trainer.work._captured is not None) == graph
    tensors = [*model.state_dict().values(), *average.all_averages()]
    tensors += [p.grad for p in parameters if p.grad is not None]
    return [tensor.numpy().tobytes() for tensor in tensors], launches, [r.train_loss for r in records]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lecture_cnn", {"images": 5, "batch": 2}),
        ("airbench94", {"images": 7, "batch": 2, "precision": "float16", "tested": True}),
        ("lenet5", {"resident": False, "images": 10, "clip_norm": 0.1}),
        ("lenet5", {"images": 8, "batch": 3, "accumulate": 3, "read_steps": 4, "precision": "bfloat16"}),
    ],
)
def test_captured_steps_are_the_same_launches_with_the_same_bits(name: str, options: dict[str, Any]) -> None:
    eager, captured = trained(name, False, **options), trained(name, True, **options)
    assert captured[1] == eager[1]
    assert captured[0] == eager[0]
    assert captured[2] == eager[2]
    if "read_steps" in options:  # the last batch of an epoch has fewer parts, so other places among the results
        assert trained(name, True, **{**options, "read_steps": 1})[2] == eager[2]


def test_loss_scaling_skips_on_the_device_and_the_run_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_EMULATOR_ARCH", "80")
    results = []
    for graph in (False, True):
        gc.collect()
        gpucnn.manual_seed(0)
        trainer = _trainer(Plain(), graph, precision="float16")
        model = trainer.model
        trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": 2.0**40})
        (record,) = trainer.run(1)
        assert trainer.skipped_steps == record.skipped_steps == 3
        assert trainer.scaler.get_scale() == 2.0**37
        state = trainer.state_dict()
        results.append([tensor.numpy().tobytes() for tensor in model.state_dict().values()])
        assert state["scaler"]["scale"] == 2.0**37
    assert results[0] == results[1]


def test_weights_are_rounded_in_every_step_but_frozen_ones_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_EMULATOR_ARCH", "80")
    for frozen, rounds in ((False, 2 * (3 + 1)), (True, 1)):  # in each step and each evaluation
        launches = []
        for graph in (False, True):
            gc.collect()
            model = Plain()
            model.linear.weight.requires_grad_(not frozen)
            trainer = _trainer(model, graph, precision="float16")
            trainer.test_loader = trainer.train_loader
            with backends.get(gpucnn.device(DEVICE)).engine.record() as recorded:  # type: ignore[attr-defined]
                trainer.run(2)
            launches.append(recorded)
        assert launches[0] == launches[1]
        assert sum(launch.kernel == "cast_all_float16" for launch in launches[0]) == rounds


def test_a_run_that_is_resumed_in_the_middle_of_an_epoch_is_the_same(tmp_path: Path) -> None:
    common = {"device": DEVICE, "train_images": 28, "test_images": 4, "batch_size": 8, "log_steps": 2}

    class Stop(training.Callback):
        def on_step(self, trainer: Any) -> None:
            if trainer.step == 3:
                raise KeyboardInterrupt

    for name, graph in (("eager", False), ("graph", True), ("stopped", True)):
        config = small(**common, graph=graph, checkpoint_steps=2)
        if name != "stopped":
            training.train(config, out=tmp_path / name)
            continue
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build, "freezes", lambda *_: [Stop()])
            with pytest.raises(KeyboardInterrupt):
                training.train(config, out=tmp_path / name)
        training.train(resume=tmp_path / name)
    assert contents(tmp_path / "graph") == contents(tmp_path / "eager") == contents(tmp_path / "stopped")
    assert lines(tmp_path / "graph") == lines(tmp_path / "eager") == lines(tmp_path / "stopped")


class Plain(nn.Module):
    """One layer."""

    input_shape = (3, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(48, 10, device=DEVICE)

    def forward(self, x: gpucnn.Tensor) -> gpucnn.Tensor:
        return self.linear(x.reshape(x.shape[0], 48))


class Peeks(Plain):
    """Looks at a value while it computes."""

    def forward(self, x: gpucnn.Tensor) -> gpucnn.Tensor:
        y = super().forward(x)
        return y if y.max().item() < 100 else y * 0.5


def _trainer(model: nn.Module, graph: bool | None, **options: Any) -> training.Trainer:
    images = np.random.default_rng(0).integers(0, 255, (12, 4, 4, 3), dtype=np.uint8)
    dataset = data.Dataset(images, np.arange(12) % 10, [str(n) for n in range(10)], train=True)
    return training.Trainer(
        model, DataLoader(dataset, 4, seed=0, device=DEVICE), None, optim.SGD(model.parameters(), lr=0.1), graph=graph,
        **options,
    )  # fmt: skip


def test_a_step_that_cannot_be_captured_is_an_error_if_that_was_asked_for_else_a_message() -> None:
    with pytest.raises(TrainingError, match=r"the step cannot be captured: cuda\.graph: Tensor\.item \(test_capt"):
        _trainer(Peeks(), True).run(1)
    told = Recorder()
    trainer = _trainer(Peeks(), None, callbacks=[training.Report(told)])
    trainer.work.graph = True  # as on a GPU
    trainer.run(1)
    (message,) = told.messages
    assert "launch by launch, not as one CUDA graph: cuda.graph: Tensor.item" in message
    assert trainer.step == 3
    states = []
    for graph in (False, True):  # a capture that fails changes nothing
        gpucnn.manual_seed(0)
        trainer = _trainer(Peeks(), None)
        trainer.work.graph = graph
        trainer.run(2)
        states.append([parameter.numpy().tobytes() for parameter in trainer.model.parameters()])
    assert states[0] == states[1]
    with pytest.raises(ValueError, match="graph=True needs a model on cuda or emulated, this one is on cpu"):
        model = models.create("lenet5", device="cpu")
        loader = DataLoader(Shapes(count=4), 4, device="cpu", transform=transforms(model, "shapes")[0])
        training.Trainer(model, loader, None, optim.SGD(model.parameters()), graph=True)


def test_a_precision_that_the_gpu_lacks_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_EMULATOR_ARCH", "61")
    with pytest.raises(ValueError, match=r"precision: emulated .*does not compute in float16, it has float32"):
        _trainer(Plain(), False, precision="float16")
    with pytest.raises(ValueError, match="precision must be"):
        small(precision="int8")


# ---- memory ----


class OutOfMemoryError(Exception):
    """As CuPy's."""


def test_running_out_of_memory_says_what_the_step_needs_and_what_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = _trainer(Plain(), False)
    count = step_memory.of_step(trainer.model, trainer.optimizers)
    parameters = 4 * (48 * 10 + 10)
    assert count.fixed == 3 * parameters  # weights, gradients, and the momentum that SGD may make
    kept = 4 * 48 + 4 * 10  # the flattened input, which is a copy, and the logits
    assert count.per_example == 4 * 48 + kept + kept  # the input, what backward needs, and the gradients of both
    assert count.needed(4) == count.fixed + 4 * count.per_example
    assert count.largest_batch(count.needed(7) + 5) == 7
    assert count.largest_batch(100) == 0
    free = count.needed(2)
    monkeypatch.setattr(step_memory, "_free", lambda trainer: (free - 1000, 1 << 20, 1000))

    def fails(*args: Any) -> None:
        raise OutOfMemoryError("Out of memory allocating 1,024 bytes")

    monkeypatch.setattr(trainer.work, "run", fails)
    with pytest.raises(
        TrainingError,
        match=r"emulated ran out of memory at step 1 \(batch 4\): by the model's own count the step needs 0\.0 MiB;"
        r" 0\.0 MiB of 1\.0 MiB are free, 0\.0 MiB are this process's arrays;"
        r" the largest batch that fits by this count is 2 \(or --accumulate 2\)",
    ):
        trainer.run(1)


def test_the_ring_gives_each_step_its_own_numbers() -> None:
    backend: Any = backends.get(gpucnn.device(DEVICE))
    state = backend.constant(np.array([0, 0, 5, 0], np.int64))
    ring = Ring(gpucnn.device(DEVICE), state, 1 << 40, steps=4, parts=2)
    put = lambda loss, right, part: ring.put(  # noqa: E731
        gpucnn.tensor([loss], device=DEVICE), gpucnn.tensor([right], device=DEVICE, dtype="int32"), part, 2
    )
    for step in range(6, 9):
        for part in range(2):
            put(step + part / 2, 10 * step + part, part)
        ring.note(step, [3, 2], summed=False)
    assert len(ring) == 6
    found = ring.read()
    assert [tuple(batch) for batch in found] == [
        (step, step + part / 2, 10 * step + part, 3 - part) for step in range(6, 9) for part in range(2)
    ]
    assert ring.read() == [] and len(ring) == 0
    put(float("nan"), 1, 0)
    put(1.0, 1, 1)
    ring.note(9, [3, 2], summed=True)
    with pytest.raises(ArithmeticError, match="nan"):
        ring.read()


class _Gpu:
    """What the ring asks of CuPy: copies on a side stream that are done when their event is."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.events: list[Any] = []
        self.cuda = SimpleNamespace(
            Stream=lambda non_blocking: SimpleNamespace(wait_event=lambda event: self.log.append("side waits")),
            Event=self._event,
            get_current_stream=lambda: "steps",
            alloc_pinned_memory=lambda size: bytearray(size),
        )

    def _event(self, disable_timing: bool) -> Any:
        event = SimpleNamespace(done=False, synchronize=lambda: self.log.append("wait"))
        event.record = lambda stream: self.log.append("ready" if stream == "steps" else "copied")
        self.events.append(event)
        return event


class _OnGpu(np.ndarray):
    """An array whose copy to the host is a note in the log."""

    gpu: Any = None

    def get(self, stream: Any, out: Any, blocking: bool) -> None:
        assert not blocking and stream != "steps"
        self.gpu.log.append("get")
        out[...] = self


def test_results_come_to_the_host_without_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    backend: Any = backends.get(gpucnn.device(DEVICE))
    ring = Ring(gpucnn.device(DEVICE), backend.constant(np.zeros(4, np.int64)), 1 << 40, steps=4, parts=1)
    gpu = _Gpu()
    monkeypatch.setattr(_OnGpu, "gpu", gpu)
    ring.losses, ring.corrects = ring.losses.view(_OnGpu), ring.corrects.view(_OnGpu)
    ring.backend = SimpleNamespace(xp=gpu, context=nullcontext, check_faults=lambda: gpu.log.append("faults"))
    ring.losses[:2], ring.corrects[:2] = [1.5, 2.5], [3, 4]
    for step in (1, 2):
        ring.note(step, [8], summed=False)
    assert ring.ready() == []
    ring.start()
    assert gpu.log == ["ready", "side waits", "get", "get", "copied"]
    ring.losses[:] = 9.0  # later steps come to the same places: the copies are of before
    assert ring.ready() == [] and len(ring) == 2
    gpu.events[1].done = True
    assert [tuple(batch) for batch in ring.ready()] == [(1, 1.5, 3, 8), (2, 2.5, 4, 8)]
    ring.note(3, [8], summed=True)
    assert [batch.loss for batch in ring.read()] == [9.0 / 8]
    assert gpu.log[-2:] == ["wait", "faults"]
