"""What compute-sanitizer watches: every kernel of a training step, at sizes that it gets through in seconds.

    python -m benchmarks.gpu_report.workload float16            launch by launch, each array in memory of its own
    python -m benchmarks.gpu_report.workload float16 --graph    captured, after the first step

For each network a line with its loss and a checksum of its weights: equal lines, equal bits.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

STEPS = 4
NETWORKS: tuple[tuple[str, dict[str, Any], int], ...] = (  # name, options, batch: odd sizes, so that tiles have edges
    ("lecture", {}, 3),
    ("lenet5", {}, 5),
    ("resnet9", {}, 2),
    ("airbench94", {"widths": (24, 40, 40)}, 3),
)


def line(name: str, options: dict[str, Any], batch: int, precision: str, device: str, graph: bool) -> str:
    """Training steps of a network by its recipe, from the making of a batch to the moving average."""
    import numpy as np

    from gpucnn import models, training
    from gpucnn.bench.training import OurTraining

    config = replace(training.config_for(name), batch_size=batch, clip_norm=1e3)
    c, h, w = models.create(name, device="cpu", **options).input_shape
    generator = np.random.default_rng(0)
    side = 8 if name == "lecture" else 0  # its crops are smaller than its images
    images = generator.integers(0, 256, (2 * batch, h + side, w + side, c), dtype=np.uint8)
    labels = generator.integers(0, 10, 2 * batch)
    ours = OurTraining(config, images, labels, precision, device, graph, rate=0.1, **options)
    ours.run(STEPS)
    ours.synchronize()
    weights = hashlib.sha256()
    for value in ours.model.state_dict().values():
        weights.update(np.ascontiguousarray(value.numpy()).tobytes())
    return f"{name} in {precision}: loss {ours.last_loss():.6f}, weights {weights.hexdigest()[:16]}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_report.workload")
    parser.add_argument("precision")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--graph", action="store_true", help="capture the step")
    given = parser.parse_args(arguments)
    if given.device.startswith("cuda") and not given.graph:
        import cupy

        cupy.cuda.set_allocator(None)  # a pool's blocks would hide what is read and written beyond an array
    for name, options, batch in NETWORKS:
        print(line(name, options, batch, given.precision, given.device, given.graph), flush=True)


if __name__ == "__main__":
    main()
