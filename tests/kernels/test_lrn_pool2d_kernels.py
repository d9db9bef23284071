"""Local response normalisation's and max pooling's backward in one launch, against the formulas one after the other and
against the two launches bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn.geometry import Pool2dGeometry
from tests.kernels.arrays import exact_ends, host, launches, unaligned
from tests.kernels.halves import half_normal, half_types, same_values
from tests.support import reference
from tests.support.reference import Reference
from tests.support.tolerance import check

CONSTANTS = (9, 0.3, 0.75, 1.0)  # size, alpha, beta, k
Array = np.ndarray[Any, Any]

# (N, C, H, W), padding: one tile and many, odd and even sides, rows that a block takes in one piece or in several, 1 to
# 64 threads a pixel, windows whose last row or column lies beyond the image.
SHAPES = [
    ((2, 64, 12, 12), ((0, 1), (0, 1))), ((1, 4, 3, 3), 0), ((2, 8, 7, 9), 1), ((3, 12, 5, 131), 1),
    ((2, 256, 4, 13), 1), ((1, 20, 17, 26), ((1, 0), (0, 1))), ((1, 64, 18, 47), 0), ((0, 8, 6, 6), 0),
]  # fmt: skip


def geometry(shape: tuple[int, ...], padding: Any) -> Pool2dGeometry:
    return Pool2dGeometry.of(shape, 3, 2, padding)


def places(g: Pool2dGeometry, seed: int) -> Array:
    """For each window a tap that lies in the image, as forward would leave it."""
    generator = np.random.default_rng(seed)
    index = np.zeros(g.output_shape, np.uint8)
    for p in range(g.P):
        for q in range(g.Q):
            inside = [
                3 * r + s for r in range(3) for s in range(3)
                if 0 <= 2 * p - g.pad_top + r < g.H and 0 <= 2 * q - g.pad_left + s < g.W
            ]  # fmt: skip
            index[:, p, q] = generator.choice(inside, (g.N, g.C))
    return index


def scattered(dy: Array, index: Array, g: Pool2dGeometry) -> Array:
    """Max pooling's backward by definition, in the dtype of ``dy``."""
    dx = np.zeros(g.input_shape, dy.dtype)
    n, p, q, c = np.indices(dy.shape)
    r, s = np.divmod(index.astype(int), 3)
    np.add.at(dx, (n, 2 * p - g.pad_top + r, 2 * q - g.pad_left + s, c), dy)
    return dx


def lrn_of_pooled(dy: Array, index: Array, x: Array, g: Pool2dGeometry, *constants: Any, dtype: Any) -> Reference:
    found, sizes = (
        reference.lrn_backward(scattered(a.astype(dtype), index, g), x, None, *constants, dtype=dtype)
        for a in (dy, abs(dy))
    )
    return Reference(found.value, sizes.scale)


def pooled_of_lrn(dy: Array, x: Array, index: Array, g: Pool2dGeometry, *constants: Any, dtype: Any) -> Reference:
    found = reference.lrn_backward(dy, x, None, *constants, dtype=dtype)
    return Reference(scattered(found.value, index, g), scattered(found.scale, index, g))


def operands(g: Pool2dGeometry, dtype: Any, inner: tuple[int, ...]) -> tuple[Array, Array, Array]:
    return half_normal(1, g.output_shape, dtype), places(g, 2), half_normal(3, inner, dtype, 2.0)


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize(("shape", "padding"), SHAPES)
def test_lrn_of_pooled(backend: Any, shape: tuple[int, ...], padding: Any, planes: bool) -> None:
    g = geometry(shape, padding)
    dy, index, x = operands(g, np.float32, g.input_shape)
    given = backend.from_host(np.ascontiguousarray(dy.transpose(0, 3, 1, 2))).transpose(0, 2, 3, 1) if planes else None
    on_device = [backend.from_host(array) for array in (dy, index, x)]
    if given is not None:
        on_device[0] = given
    with exact_ends(backend), launches(backend) as names:
        plain, masked = (backend.lrn_backward_of_pooled(*on_device[:2], g, on_device[2], *CONSTANTS, mask)
                         for mask in (False, True))  # fmt: skip
    if dy.size:
        assert names == ["lrn_backward_pool_9_vec4"] * 2
    check(
        host(backend, plain), lambda a, b, c, *, dtype: lrn_of_pooled(a, b, c, g, *CONSTANTS, dtype=dtype), dy, index, x
    )
    same_values(host(backend, masked), np.where(x > 0, host(backend, plain), np.float32(0)))
    steps = backend.max_pool2d_backward(backend.from_host(dy), on_device[1], g)
    same_values(host(backend, plain), host(backend, backend.lrn_backward(steps, on_device[2], None, *CONSTANTS)))


@pytest.mark.parametrize(("shape", "padding"), SHAPES)
def test_pooled_of_lrn(backend: Any, shape: tuple[int, ...], padding: Any) -> None:
    g = geometry(shape, padding)
    dy, index, x = operands(g, np.float32, g.output_shape)
    on_device = [backend.from_host(array) for array in (dy, x, index)]
    with exact_ends(backend), launches(backend) as names:
        fused = [backend.max_pool2d_backward_of_lrn(*on_device[:2], *CONSTANTS, mask, on_device[2], g)
                 for mask in (False, True)]  # fmt: skip
    if dy.size:
        assert names == ["max_pool2d_backward_lrn_9_vec4"] * 2
    for mask, dx in enumerate(fused):
        steps = backend.lrn_backward(*on_device[:2], None, *CONSTANTS, bool(mask))
        same_values(host(backend, dx), host(backend, backend.max_pool2d_backward(steps, on_device[2], g)))
    check(
        host(backend, fused[0]),
        lambda a, b, c, *, dtype: pooled_of_lrn(a, b, c, g, *CONSTANTS, dtype=dtype),
        dy,
        x,
        index,
    )


@half_types
@pytest.mark.parametrize(("shape", "padding"), [SHAPES[0], ((2, 24, 9, 44), 1)])
def test_half_types(backend: Any, dtype: Any, shape: tuple[int, ...], padding: Any) -> None:
    """What stands between the two is rounded as it is in memory: the same bits as two launches."""
    g = geometry(shape, padding)
    for inner in (g.input_shape, g.output_shape):
        dy, index, x = (backend.from_host(array) for array in operands(g, dtype, inner))
        with launches(backend) as names:
            if inner == g.input_shape:
                fused = backend.lrn_backward_of_pooled(dy, index, g, x, *CONSTANTS, True)
            else:
                fused = backend.max_pool2d_backward_of_lrn(dy, x, *CONSTANTS, True, index, g)
        assert len(names) == 1 and names[0].endswith(f"_{dtype.name}x8")
        if inner == g.input_shape:
            steps = backend.lrn_backward(backend.max_pool2d_backward(dy, index, g), x, None, *CONSTANTS, True)
        else:
            steps = backend.max_pool2d_backward(backend.lrn_backward(dy, x, None, *CONSTANTS, True), index, g)
        same_values(host(backend, fused), host(backend, steps))


@pytest.mark.parametrize(
    ("shape", "size", "window"),
    [((2, 8, 6, 6), 5, (3, 2)), ((2, 6, 6, 6), 9, (3, 2)), ((2, 8, 6, 6), 9, (2, 2)), ((2, 8, 7, 7), 9, (3, 1))],
)
@pytest.mark.parametrize("planes", [False, True])
def test_others_take_two_launches(
    backend: Any, shape: tuple[int, ...], size: int, window: tuple[int, int], planes: bool
) -> None:
    g = Pool2dGeometry.of(shape, *window)
    constants = (size, *CONSTANTS[1:])
    x = backend.from_host(half_normal(1, g.input_shape, np.float32))
    pooled, index = backend.max_pool2d_forward(x, g)
    dy = backend.from_host(half_normal(2, g.output_shape, np.float32))
    given = dy
    if planes:
        given = backend.from_host(np.ascontiguousarray(backend.to_host(dy).transpose(0, 3, 1, 2))).transpose(0, 2, 3, 1)
    steps = backend.lrn_backward(backend.max_pool2d_backward(dy, index, g), x, None, *constants)
    with launches(backend) as names:
        one = backend.lrn_backward_of_pooled(given, index, g, x, *constants)
        other = backend.max_pool2d_backward_of_lrn(dy, pooled, *constants, False, index, g)
    assert len(names) == 4 + planes
    same_values(host(backend, one), host(backend, steps))
    steps = backend.max_pool2d_backward(backend.lrn_backward(dy, pooled, None, *constants), index, g)
    same_values(host(backend, other), host(backend, steps))


def test_arrays_off_16_bytes_take_two_launches(backend: Any) -> None:
    g = geometry((1, 8, 6, 6), 1)
    dy, index, x = operands(g, np.float32, g.input_shape)
    on_device = backend.from_host(dy), backend.from_host(index)
    with launches(backend) as names:
        odd = backend.lrn_backward_of_pooled(*on_device, g, unaligned(backend, x), *CONSTANTS)
    assert len(names) == 2
    check(
        host(backend, odd), lambda a, b, c, *, dtype: lrn_of_pooled(a, b, c, g, *CONSTANTS, dtype=dtype), dy, index, x
    )
