"""How many launches a network's training step makes, and that nothing in it is left to the array module.

On a GPU each operation of the array module (a sum, a cast, a copy to another order) is a launch of CuPy's besides ours.
Here, on the emulated device, the arrays of parameters and inputs, and all that kernels write, are :class:`Watched`.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest

import gpucnn
import gpucnn.functional as F
from gpucnn import Tensor, backends, models, nn
from gpucnn.backends.cuda import cross_entropy
from gpucnn.backends.emulator.engine import EmulatedKernel
from gpucnn.device import device as named

HARMLESS = ("shape", "ndim", "transpose", "may_share_memory", "shares_memory")  # they compute nothing


class Watched(np.ndarray[Any, Any]):
    """An array that notes what NumPy computes with it."""

    seen: ClassVar[list[str]] = []

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        note(f"{ufunc.__name__}.{method}")
        given = {"out": tuple(map(plain, out))} if out is not None else {}
        result = getattr(ufunc, method)(*map(plain, inputs), **given, **options)
        return result.view(Watched) if isinstance(result, np.ndarray) else result

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function.__name__ not in HARMLESS:
            note(function.__name__)
        return super().__array_function__(function, types, args, kwargs)

    def copy(self, *args: Any, **options: Any) -> Any:
        note("copy")
        return super().copy(*args, **options)

    def astype(self, *args: Any, **options: Any) -> Any:
        note("astype")
        return super().astype(*args, **options)

    def fill(self, value: Any) -> None:
        note("fill")
        super().fill(value)

    def __setitem__(self, index: Any, value: Any) -> None:
        note("assignment")
        super().__setitem__(index, value)


def plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, Watched) else value


def note(what: str) -> None:
    frames = [
        f"{f.filename.rpartition('gpucnn/')[2]}:{f.lineno}"
        for f in traceback.extract_stack()
        if "gpucnn/" in f.filename
    ]
    Watched.seen.append(f"{what} in {' > '.join(frames[-3:])}")


@pytest.fixture
def watched_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The emulator's engine with watched arrays; its launches are recorded and not run, for they are only counted."""
    engine: Any = backends.get(named("emulated")).engine  # type: ignore[attr-defined]
    empty = type(engine).empty
    monkeypatch.setattr(type(engine), "empty", lambda *args, **options: empty(*args, **options).view(Watched))

    def recorded(kernel: Any, grid: Any, block: Any, args: Any, shared_mem: int = 0) -> None:
        engine.launched(kernel.declaration.name, grid, block, shared_mem)

    monkeypatch.setattr(EmulatedKernel, "__call__", recorded)
    yield engine


def step(model: nn.Module, images: Tensor, labels: Tensor, precision: str) -> None:
    for parameter in model.parameters():
        parameter.grad = None
        parameter.modified()  # as an optimizer would
    with gpucnn.precision(precision):
        logits = model(images)
    loss, _ = F.cross_entropy_with_correct(logits, labels)
    loss.backward()


def counted(engine: Any, name: str, precision: str) -> list[str]:
    """The kernels of a step's forward and backward, in order, all of the array module's work having been ruled out."""
    model = models.create(name, device="emulated")
    model.train()
    images = gpucnn.randn(BATCH, *model.input_shape, device="emulated")
    labels = gpucnn.tensor(np.arange(BATCH) % 10, device="emulated")
    for tensor in (*model.parameters(), *model.buffers(), images):
        tensor.data = tensor.data.view(Watched)
    step(model, images, labels, precision)  # what is made once and kept is there
    Watched.seen.clear()
    with engine.record() as launches:
        step(model, images, labels, precision)
    assert Watched.seen == [], Counter(Watched.seen)
    return [launch.kernel for launch in launches]


BATCH = 16
# The most launches of forward and backward, by precision; the optimizer's and the batch's come besides. Half types
# have two or three more: the cast of the images, that of the weights, and for float16 that of the
# loss's gradient behind its scale.
MOST = {
    "lecture_cnn": (22, 25, 24),
    "lenet5": (21, 24, 23),
    "resnet9": (73, 76, 75),
    "resnet20": (173, 176, 175),
    "airbench94": (60, 63, 62),
}
PRECISIONS = ("float32", "float16", "bfloat16")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", MOST)
def test_launches_of_a_step(watched_engine: Any, name: str, precision: str) -> None:
    kernels = counted(watched_engine, name, precision)
    assert len(kernels) <= MOST[name][PRECISIONS.index(precision)], Counter(kernels)
    assert not any("relu" in kernel for kernel in kernels) or name == "resnet20", Counter(kernels)


class Users(nn.Module):
    """A network as anybody writes it: no keyword, F.relu and nn.ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, device="emulated"), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1, device="emulated"), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.hidden, self.head = nn.Linear(128, 16, device="emulated"), nn.Linear(16, 10, device="emulated")

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(F.relu(self.hidden(self.body(images))))
        return logits


def test_a_users_network_has_no_launch_for_relus_backward(watched_engine: Any) -> None:
    model = Users()
    images, labels = gpucnn.randn(2, 3, 8, 8, device="emulated"), gpucnn.tensor(np.array([1, 2]), device="emulated")
    step(model, images, labels, "float32")
    with watched_engine.record() as launches:
        step(model, images, labels, "float32")
    kernels = Counter(launch.kernel.split("_vec4")[0] for launch in launches)
    assert kernels["relu_forward"] == 3 and kernels["relu_backward"] == 0


@pytest.mark.parametrize(
    ("name", "precision", "most"),
    [
        ("lecture_cnn", "float32", 25),
        ("lecture_cnn", "bfloat16", 26),
        ("lecture_cnn", "float16", 29),  # the loss scale has two of its own, and one on the way into float16
        ("airbench94", "float32", 73),
        ("airbench94", "float16", 77),
    ],
)
def test_launches_of_a_whole_step(
    watched_engine: Any, monkeypatch: pytest.MonkeyPatch, name: str, precision: str, most: int
) -> None:
    """The batch from the data set on the device, the optimizers (airbench94's are Muon and SGD), the average and the
    results included: at most 30 in float32 for the lecture network, at most 80 for airbench94.
    """
    from gpucnn.bench.step import profile_step

    monkeypatch.setattr(cross_entropy, "check_labels", lambda labels, classes: None)  # no kernel has made them
    calls = profile_step(name, BATCH, precision, named("emulated")).calls
    assert len(calls) <= most, Counter(call.kernel for call in calls)
