"""How the two factors of the tolerance rule were found: ``python -m tests.support.calibrate``.

Operators known to be right, computed in float32 in five ways that round differently, are held to the rule with
both factors left open. A way of summing n products is one of: NumPy's BLAS; one product after the other (the
naive loop, whose rounding errors are the largest); the same with fused multiply-adds (what a GPU's threads do);
32 running sums side by side (what SIMD does); and NumPy's pairwise sum. For each, over many sizes and seeds,
the largest error is divided by what each term of the rule alone would allow with factor 1:

    by e      error / e, with e the largest error of the plain computation (here BLAS): the least factor that
    the first term needs by eps S  error / (eps S), elementwise: the least factor that the second term needs
    rule      error / max(2 e, 4 eps S), elementwise: the rule passes all where this is at most 1

NumPy 2.4 with its OpenBLAS on a Xeon with AVX-512 gave for sums of up to 16,384 products:

    way              by e  by eps S   rule
    blas              1.0      0.83   0.18
    in_order         17.1      1.89   0.47
    fused            17.1      1.92   0.48
    side_by_side      2.5      1.08   0.27
    pairwise          4.1      1.08   0.27

So the first term alone would refuse sums that are right (``by e``): BLAS adds in many running sums and is more
exact than the plain order. The second, at 4, is twice what the worst order needs, and is what sums are held to;
the first, at 2, serves where S says little, as in powers and exponentials, and costs nothing elsewhere, for e
lies below 1 eps S. What is wrong is far off: a product dropped or taken twice, or a neighbour's value, errs by
S / n to S, which for n up to 16,384 is 500 to 8 million eps S.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.tolerance import EPS_FACTOR, PLAIN_FACTOR

Array = NDArray[Any]

OUTPUTS = 512
LENGTHS = (1, 3, 9, 27, 75, 200, 576, 1600, 4096, 16384)
EPS = np.finfo(np.float32).eps


def blas(a: Array, b: Array) -> Array:
    return np.asarray(np.matmul(a[:, None, :], b[:, :, None])[:, 0, 0])


def in_order(a: Array, b: Array) -> Array:
    total = np.zeros(len(a), np.float32)
    for i in range(a.shape[1]):
        total = total + a[:, i] * b[:, i]
    return total


def fused(a: Array, b: Array) -> Array:
    """One rounding a step: float64 holds the product of two float32 exactly and its sum with a third nearly so."""
    total = np.zeros(len(a), np.float32)
    for i in range(a.shape[1]):
        total = (total.astype(np.float64) + a[:, i].astype(np.float64) * b[:, i]).astype(np.float32)
    return total


def side_by_side(a: Array, b: Array, lanes: int = 32) -> Array:
    padded = -(-a.shape[1] // lanes) * lanes
    products = np.zeros((len(a), padded), np.float32)
    products[:, : a.shape[1]] = a * b
    total = np.zeros((len(a), lanes), np.float32)
    for i in range(0, padded, lanes):
        total = total + products[:, i : i + lanes]
    while total.shape[1] > 1:
        total = total[:, ::2] + total[:, 1::2]
    return np.asarray(total[:, 0])


def pairwise(a: Array, b: Array) -> Array:
    return np.asarray((a * b).sum(axis=1))


WAYS: tuple[Callable[[Array, Array], Array], ...] = (blas, in_order, fused, side_by_side, pairwise)


def measure(way: Callable[[Array, Array], Array], seeds: int = 12) -> tuple[float, float, float]:
    """The largest of the three ratios over lengths, seeds, and data of both signs and, as after ReLU, of one."""
    worst = np.zeros(3)
    for length in LENGTHS:
        for seed in range(seeds):
            rng = np.random.default_rng((length, seed))
            a, b = rng.standard_normal((2, OUTPUTS, length)).astype(np.float32)
            if seed % 2:
                a = abs(a)
            exact = (a.astype(np.float64) * b).sum(axis=1)
            scale = EPS * abs(a.astype(np.float64) * b).sum(axis=1)
            plain = abs(blas(a, b) - exact).max()
            error = abs(way(a, b) - exact)
            allowed = np.maximum(PLAIN_FACTOR * plain, EPS_FACTOR * scale)
            with np.errstate(divide="ignore", invalid="ignore"):
                by_plain = error.max() / plain if plain else 0.0
            worst = np.maximum(worst, [by_plain, (error / scale).max(), (error / allowed).max()])
    return float(worst[0]), float(worst[1]), float(worst[2])


def main() -> None:
    print(f"{'way':14s} {'by e':>6s} {'by eps S':>9s} {'rule':>6s}")
    for way in WAYS:
        print("{:14s} {:6.1f} {:9.2f} {:6.2f}".format(way.__name__, *measure(way)))


if __name__ == "__main__":
    main()
