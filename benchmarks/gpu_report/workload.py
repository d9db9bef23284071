"""What compute-sanitizer watches: every kernel of a training step, at sizes that it gets through in seconds.

python -m benchmarks.gpu_report.workload float16
"""

from __future__ import annotations

import sys

STEPS = 2
NETWORKS = (  # name, options, batch: odd sizes, so that tiles have edges
    ("lecture", {}, 3),
    ("lenet5", {}, 5),
    ("resnet9", {}, 2),
    ("airbench94", {"widths": (24, 40, 40)}, 3),
)


def main(precision: str) -> None:
    """A few training steps of small batches in ``precision`` with each network's own optimizers."""
    import numpy as np

    import gpucnn
    from gpucnn import backends, models, training
    from gpucnn import functional as F
    from gpucnn.training import build

    device = gpucnn.device("cuda")
    for name, options, batch in NETWORKS:
        gpucnn.manual_seed(1)
        model = models.create(name, device=device, **options)
        config = training.config_for(name)
        optimizers = build.optimizers(config, model)
        generator = np.random.default_rng(0)
        images = generator.standard_normal((batch, *model.input_shape)).astype(np.float32)
        labels = gpucnn.tensor(generator.integers(0, 10, batch), device=device)
        for _ in range(STEPS):
            with gpucnn.precision(precision):
                loss = F.cross_entropy(model(gpucnn.tensor(images, device=device)), labels)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
        backends.get(device).synchronize()
        print(f"{name} in {precision}: loss {loss.item():.4f}")


if __name__ == "__main__":
    main(sys.argv[1])
