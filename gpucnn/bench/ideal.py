"""What an ideally fused training step must touch, tensor by tensor: the measure for the bytes of a recorded one.

Ideal means: every product (of a convolution or a linear layer) reads its operands once and writes its result once,
bias, activation and the activation's mask within it; between two products there is one pass, which reads what the first
left and writes what the second reads and what backward will need; an index of pooling is one byte; there are no
partial sums. Batch norm needs one pass more each way: its sums must be there before anything is normalised. They are
taken as their tensor is made.

The passes are listed as they run. The figures of an example count elements of the type that the precision computes in,
those of a step count parameters: as the products read them, and in float32 (gradients, and what the optimizer holds).
"""

from __future__ import annotations

from dataclasses import dataclass

from gpucnn.precision import HALF


@dataclass(frozen=True)
class Pass:
    """One pass over memory.

    Args:
        name: what it computes.
        elements: of activations and their gradients that it reads and writes, an example.
        flags: bytes of other things, an example: pixels of the data set, pooling's places.
        weights: parameters that it reads in the type computed in.
        floats: parameters, gradients and the like that it reads or writes in float32.
    """

    name: str
    elements: int
    flags: int = 0
    weights: int = 0
    floats: int = 0

    def size(self, batch: int, precision: str = "float32") -> int:
        """Bytes of a step."""
        width = 2 if precision in HALF else 4
        return batch * (width * self.elements + self.flags) + width * self.weights + 4 * self.floats


def passes(network: str, precision: str = "float32") -> tuple[Pass, ...]:
    """The ideal step of ``"lecture_cnn"`` or ``"airbench94"``, with its own recipe. Raises ValueError for others."""
    if network == "lecture_cnn":
        return _lecture(precision)
    if network == "airbench94":
        return _airbench(precision)
    raise ValueError(f"ideal: the passes of lecture_cnn and airbench94 are listed, got {network!r}")


def ideal_bytes(network: str, batch: int, precision: str = "float32") -> int:
    """Bytes that an ideally fused training step touches."""
    return sum(one.size(batch, precision) for one in passes(network, precision))


def _lecture(precision: str) -> tuple[Pass, ...]:
    image, conv1, map1, map2 = 3 * 24 * 24, 64 * 24 * 24, 64 * 12 * 12, 64 * 6 * 6  # conv2 has maps of map1's size
    p_conv1, p_conv2 = 64 * 75 + 64, 64 * 1600 + 64
    p_local3, p_local4, p_head = 384 * map2 + 384, 192 * 384 + 192, 10 * 192 + 10
    parameters = p_conv1 + p_conv2 + p_local3 + p_local4 + p_head
    rounding = (Pass("weights rounded", 0, weights=parameters, floats=parameters),) if precision in HALF else ()
    return (
        Pass("batch: crop, flip, contrast, standardise", image, flags=image),
        *rounding,
        Pass("conv1", image + conv1, weights=p_conv1),
        Pass("pool1, norm1: both results are read later", conv1 + map1 + map1, flags=map1),
        Pass("conv2", map1 + map1, weights=p_conv2),
        Pass("norm2, pool2", map1 + map2, flags=map2),
        Pass("local3", map2 + 384, weights=p_local3),
        Pass("local4", 384 + 192, weights=p_local4),
        Pass("head", 192 + 10, weights=p_head),
        Pass("loss and its gradient", 10 + 10),
        Pass("head, dgrad with local4's mask", 10 + 192 + 192, weights=p_head),
        Pass("head, wgrad", 192 + 10, floats=p_head),
        Pass("local4, dgrad with local3's mask", 192 + 384 + 384, weights=p_local4),
        Pass("local4, wgrad", 384 + 192, floats=p_local4),
        Pass("local3, dgrad", 384 + map2, weights=p_local3),
        Pass("local3, wgrad", map2 + 384, floats=p_local3),
        Pass("pool2, norm2, conv2's mask", map2 + map1 + map1, flags=map2),
        Pass("conv2, dgrad", map1 + map1, weights=p_conv2),
        Pass("conv2, wgrad", map1 + map1, floats=p_conv2),
        Pass("norm1, pool1, conv1's mask", map1 + map1 + conv1, flags=map1),
        Pass("conv1, wgrad", conv1 + image, floats=p_conv1),
        Pass("optimizer: parameter, gradient, average", 0, floats=3 * parameters),
    )


def _airbench(precision: str) -> tuple[Pass, ...]:
    image, white = 3 * 32 * 32, 24 * 31 * 31
    widths = (
        (24, 64, 31, 15),
        (64, 256, 15, 7),
        (256, 256, 7, 3),
    )  # channels in and out, side of the maps, pooled side
    filters = sum(9 * (c + k) * k for c, k, _, _ in widths)
    forward, backward = [], []
    for number, (c, k, side, pooled) in enumerate(widths, 1):
        before, wide, small = c * side**2, k * side**2, k * pooled**2
        forward += [
            Pass(f"group {number}, conv1", before + wide, weights=9 * c * k),
            Pass(f"group {number}, pool and its statistics", wide + small, flags=small),
            Pass(f"group {number}, norm1 and GELU", small + small),
            Pass(f"group {number}, conv2 and its statistics", small + small, weights=9 * k * k),
            Pass(f"group {number}, norm2 and GELU", small + small),
        ]
        first = number == 1  # its dgrad is multiplied by GELU's slope, summed for the whitening's bias, and not kept
        backward += [
            [
                Pass(f"group {number}, norm2's sums, as its gradient is made", small),
                Pass(f"group {number}, norm2", 3 * small),
                Pass(f"group {number}, conv2, dgrad", small + small, weights=9 * k * k),
                Pass(f"group {number}, conv2, wgrad", small + small, floats=9 * k * k),
                Pass(f"group {number}, norm1's sums, as its gradient is made", small),
                Pass(f"group {number}, norm1, pool", 2 * small + wide, flags=small),
                Pass(f"group {number}, conv1, dgrad" + ", whitening's bias" * first, wide + before, weights=9 * c * k),
                Pass(f"group {number}, conv1, wgrad", wide + before, floats=9 * c * k),
            ]
        ]
    last = 256 * 3 * 3
    rounding = (Pass("filters rounded", 0, weights=filters, floats=filters),) if precision in HALF else ()
    return (
        Pass("batch: shift, flip, normalise", image, flags=image),
        *rounding,
        Pass("whitening; GELU, its argument kept", image + white + white),
        *forward,
        Pass("pool", last + 256, flags=256),
        Pass("head", 256 + 10),
        Pass("loss and its gradient", 10 + 10),
        Pass("head, dgrad", 10 + 256),
        Pass("head, wgrad", 256 + 10),
        Pass("pool", 256 + last, flags=256),
        *(one for group in reversed(backward) for one in group),
        # It reads gradient and momentum and writes the matrix; three iterations read that twice and write it, the last
        # one the filters instead.
        Pass("Muon", 0, floats=(3 + 3 * 3) * filters),
    )
