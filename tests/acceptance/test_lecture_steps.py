"""Ten training steps of the lecture network at batch 8: like the CPU's on the kernels, and equal from run to run."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from numpy.typing import NDArray

import gpucnn
import gpucnn.functional as F
from gpucnn import models, optim
from gpucnn.data import DataLoader, Shapes, transforms

STEPS, BATCH = 10, 8

GPU = pytest.param("cuda", marks=pytest.mark.gpu)


def train(device: str) -> tuple[list[float], list[NDArray[np.float32]]]:
    """The loss of each step and the weights after the last, by the lecture's recipe."""
    gpucnn.manual_seed(0)
    model = models.create("lecture").to(device)
    optimizer = optim.SGD(model.parameter_groups(0.004), lr=0.1)
    average = optim.MovingAverage(model.parameters(), optim.tutorial_decay())
    losses = []
    data = Shapes(count=STEPS * BATCH)
    for images, labels in DataLoader(data, BATCH, shuffle=True, transform=transforms.LectureTrain(), device=device):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update()
        losses.append(loss.item())
    assert len(losses) == STEPS
    return losses, [parameter.numpy() for parameter in model.parameters()]


@functools.cache
def first_run(device: str) -> tuple[list[float], list[NDArray[np.float32]]]:
    return train(device)


@pytest.fixture(autouse=True)
def one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the orders of threads agree is for the kernels' own tests, at sizes that take less time."""
    monkeypatch.setenv("GPUCNN_EMULATOR", "fast")


@pytest.mark.parametrize("device", ["emulated", GPU])
def test_losses_agree_with_the_cpu_at_each_step(device: str) -> None:
    np.testing.assert_allclose(first_run(device)[0], first_run("cpu")[0], rtol=1e-4)


@pytest.mark.parametrize("device", ["cpu", "emulated", GPU])
def test_two_runs_are_bit_identical(device: str) -> None:
    losses, weights = train(device)
    assert losses == first_run(device)[0]
    for weight, other in zip(weights, first_run(device)[1], strict=True):
        np.testing.assert_array_equal(weight, other)


def test_no_bit_depends_on_the_number_of_threads() -> None:
    """gpucnn's own and BLAS's, on the cpu."""
    from threadpoolctl import threadpool_limits

    from gpucnn.backends.numpy import threads

    before = threads.thread_count()
    try:
        for count in (1, 2, 5):
            threads.set_thread_count(count)
            with threadpool_limits(limits=count, user_api="blas"):
                losses, weights = train("cpu")
            assert losses == first_run("cpu")[0]
            for weight, other in zip(weights, first_run("cpu")[1], strict=True):
                np.testing.assert_array_equal(weight, other)
    finally:
        threads.set_thread_count(before)


@pytest.mark.parametrize("device", ["emulated", GPU])
def test_a_step_runs_on_the_projects_kernels(device: str) -> None:
    """Every primitive is one of kernels/, and the optimizer is one launch over all parameters."""
    model = models.create("lecture").to(device)
    optimizer = optim.SGD(model.parameter_groups(0.004), lr=0.1)
    images, labels = gpucnn.randn(2, 3, 24, 24, device=device), gpucnn.tensor([3, 7], device=device)
    backend = gpucnn.backends.get(gpucnn.device(device))
    with backend.engine.record() as launches:
        F.cross_entropy(model(images), labels).backward()
        before = len(launches)
        optimizer.step()
    assert [launch.kernel for launch in launches[before:]] == ["sgd_step"]
    families = {launch.kernel.split("_")[0] for launch in launches[:before]}
    assert families == {"conv2d", "cross", "gemm", "lrn", "max", "transpose"}
