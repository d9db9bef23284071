"""Convolutions of numbers of one sign, whose rounding errors do not cancel, beside PyTorch's.

A running sum of n such terms is off by about eps S sqrt(n) / 6, in any library: with hundreds of terms 4 eps S is too
little, and e, of a plain computation that adds up tap by tap, too. So e is PyTorch's own error here.
"""

from __future__ import annotations

import numpy as np
import pytest

from gpucnn.backends.numpy import NumpyBackend, conv2d, methods
from gpucnn.geometry import Conv2dGeometry
from tests.support import reference
from tests.support.tolerance import assert_close

pytestmark = pytest.mark.peers

backend = NumpyBackend()

GEOMETRIES = {
    methods.TOEPLITZ: Conv2dGeometry.of((2, 22, 27, 30), (7, 22, 7, 4), padding=(1, 2)),
    methods.WINOGRAD: Conv2dGeometry.of((4, 64, 13, 14), (56, 64, 3, 3), padding=1),
    methods.WINOGRAD5: Conv2dGeometry.of((12, 32, 17, 18), (28, 32, 5, 5), padding=2),
    methods.WINDOWS: Conv2dGeometry.of((3, 72, 14, 15), (40, 72, 3, 3), stride=2, padding=1),
}


@pytest.mark.parametrize("method", GEOMETRIES)
def test_convolution(method: str) -> None:
    import torch
    import torch.nn.functional as peer

    g = GEOMETRIES[method]
    assert methods.fprop_method(g) == method
    rng = np.random.default_rng(0)
    x, w, dy = (rng.random(shape, np.float32) for shape in (g.input_shape, g.weight_shape, g.output_shape))
    inputs, filters = (torch.tensor(a.transpose(0, 3, 1, 2), requires_grad=True) for a in (x, w))
    y = peer.conv2d(inputs, filters, None, (g.stride_h, g.stride_w), (g.pad_top, g.pad_left))
    y.backward(torch.tensor(dy.transpose(0, 3, 1, 2)))
    assert inputs.grad is not None and filters.grad is not None
    theirs = [t.permute(0, 2, 3, 1).numpy() for t in (y.detach(), inputs.grad, filters.grad)]
    ours = [backend.conv2d_fprop(x, w, None, g), backend.conv2d_dgrad(dy, w, g), conv2d.wgrad(x, dy, g)]
    formulas = [
        reference.conv2d_fprop(x, w, None, g),
        reference.conv2d_dgrad(dy, w, g),
        reference.conv2d_wgrad(x, dy, g),
    ]
    for name, got, other, expected in zip(("y", "dx", "dw"), ours, theirs, formulas, strict=True):
        assert_close(got, expected.value, expected.scale, other, what=f"{method}, {name}")
