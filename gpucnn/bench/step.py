"""The training step that a profile takes apart: that of ``gpucnn train``, from its batch to its moving average."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpucnn.bench.profile import Call, Profile, count, timed, watching
from gpucnn.device import Device

DEFAULT_GPU = "h200"
MOST_TILES = 1 << 16  # of a launch whose last block adds up what the others left
FEW = 2  # images of the step that only loads kernels and makes the optimizers' state


def profile_step(
    model: str, batch_size: int | None, precision: str, device: Device, arch: int | None = None
) -> Profile:
    """The launches of one training step of a network with its recipe, on random images.

    On ``cuda`` the step runs, and each launch is timed afterwards. On ``emulated`` a small step runs, and one of
    ``batch_size`` is recorded only: its launches are counted at any size in seconds. ``arch`` is the compute capability
    that the emulated device stands for there, and whose instances it takes; None for the one that it has.

    Raises ValueError for an unknown network or precision and for one that the GPU does not support.
    """
    from gpucnn import backends, models

    name = models.canonical_name(model)
    backend: Any = backends.get(device)
    if device.type != "emulated":
        return _timed(backend, *_trainer(name, batch_size, precision, device))
    with backend.engine.standing_for(arch or backend.engine.arch):
        return _recorded(backend, *_trainer(name, batch_size, precision, device))


def _recorded(backend: Any, trainer: Any, few: Any, batches: Any) -> Profile:
    """A small step that runs, and one of whole batches that does not."""
    trainer.work.run(*few.make(0, 0))
    backend.counters(MOST_TILES)  # the small step asked for fewer
    with watching(backend.launch) as seen:
        trainer.work.capture(batches)
    return _profile(trainer, batches, [count(one) for one in seen])


def _timed(backend: Any, trainer: Any, few: Any, batches: Any) -> Profile:
    """A step on a GPU, and then each of its launches again."""
    from gpucnn.backends.cuda.tuning import event_timer

    for _ in range(2):  # the first loads kernels and makes the optimizers' state
        with watching(backend.launch) as seen:
            trainer.work.run(*batches.make(0, 0))
    backend.synchronize()
    timer = event_timer(backend.engine)
    return _profile(trainer, batches, [replace(count(o), seconds=timed(o, backend.launch, timer)) for o in seen])


def _profile(trainer: Any, batches: Any, calls: list[Call]) -> Profile:
    device = next(iter(trainer.model.parameters())).device
    return Profile(batches.dataset.name, batches.batch_size, trainer.precision, str(device), tuple(calls))


def _trainer(name: str, batch_size: int | None, precision: str, device: Device) -> tuple[Any, Any, Any]:
    """A trainer, a loader of few images and one of whole batches."""
    import gpucnn
    from gpucnn import models, training
    from gpucnn.data import Dataset, loader_for
    from gpucnn.training import build
    from gpucnn.training.inputs import transforms

    config = training.config_for(name)
    size = batch_size or config.batch_size
    gpucnn.manual_seed(0)
    network = models.create(name, device=device)
    shape = network.input_shape
    sides = (32, 32) if name == "lecture_cnn" else shape[1:]
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (size, *sides, shape[0]), dtype=np.uint8)
    labels = generator.integers(0, 10, size)
    data = Dataset(images, labels, tuple(map(str, range(10))), name=name)
    transform, _ = transforms(network, "cifar10", config.augmentation)
    few, batches = (
        loader_for(data, n, shuffle=True, transform=transform, seed=0, device=device) for n in (min(FEW, size), size)
    )
    trainer = training.Trainer(
        network, batches, None, build.optimizers(config, network), build.average(config, network),
        reduction=config.reduction, label_smoothing=config.label_smoothing, clip_norm=config.clip_norm,
        precision=precision, graph=False,
    )  # fmt: skip
    return trainer, few, batches
