"""Awkward sizes for hypothesis: odd, asymmetric, strided, dilated, grouped, channels of any number, empty batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpucnn.geometry import Conv2dGeometry, Pool2dGeometry

quick = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
thorough = settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

_small = st.integers(1, 4)


@st.composite
def convolutions(draw: st.DrawFn) -> Conv2dGeometry:
    """Any convolution of up to 6 images of 13 x 13, up to 3 groups."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    c, k = groups * draw(st.integers(1, 9)), groups * draw(st.integers(1, 9))
    r, s = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    dilation = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    padding: Any = draw(st.one_of(
        st.tuples(st.tuples(_pad, _pad), st.tuples(_pad, _pad)), st.sampled_from(["same", "valid", 0, 1, (2, 1)])
    ))  # fmt: skip
    # Inputs at least as large as the filter, so that every padding will do.
    h = draw(st.integers(dilation[0] * (r - 1) + 1, dilation[0] * (r - 1) + 9))
    w = draw(st.integers(dilation[1] * (s - 1) + 1, dilation[1] * (s - 1) + 9))
    n = draw(st.sampled_from([0, 1, 1, 2, 3, 6]))
    stride = draw(_small), draw(_small)
    return Conv2dGeometry.of((n, c, h, w), (k, c // groups, r, s), stride, padding, dilation, groups)


_pad = st.integers(0, 5)


@st.composite
def poolings(draw: st.DrawFn, dilated: bool = True) -> Pool2dGeometry:
    """Any pooling of up to 5 images."""
    r, s = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    dilation = (draw(st.integers(1, 3)), draw(st.integers(1, 3))) if dilated else (1, 1)
    top, bottom = draw(st.integers(0, r // 2)), draw(st.integers(0, r // 2))
    left, right = draw(st.integers(0, s // 2)), draw(st.integers(0, s // 2))
    padding: Any = draw(st.sampled_from([((top, bottom), (left, right)), ((top, bottom), (left, right)), "same"]))
    h = draw(st.integers(dilation[0] * (r - 1) + 1, dilation[0] * (r - 1) + 9))
    w = draw(st.integers(dilation[1] * (s - 1) + 1, dilation[1] * (s - 1) + 9))
    shape = draw(st.sampled_from([0, 1, 2, 5])), draw(st.integers(1, 9)), h, w
    stride = draw(_small), draw(_small)
    return Pool2dGeometry.of(shape, (r, s), stride, padding, dilation, draw(st.booleans()))


dtypes = st.sampled_from([np.float32, np.float64])
seeds = st.integers(0, 2**31 - 1)


def normal(seed: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Standard normal values: non-uniform, of both signs."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
