"""Which tensors came out of a ReLU, and which gradients are already 0 where those tensors are not positive.

ReLU's backward is dx = dy where y > 0, else 0. The operator that reads y can often write dy with those zeros in place
at no cost: a convolution's or a linear layer's dgrad does it in its epilogue, local response normalisation has y at
hand anyhow. So

* an output is *rectified* if its zeros come from a ReLU behind it, with nothing but steps in between that keep
  "positive or not" and send each gradient back to where its element came from: max pooling, dropout, other shapes of
  the same elements. The node that made it says so in its context, together with the version of the memory then, and an
  in-place change makes that void;
* a gradient is *masked* if it is 0 wherever the output that it is of is not positive. Autograd tells a node whether
  what it received is masked (a sum is if all its parts are), and hands it tensors without the mark: a function that
  says nothing passes nothing on.

ReLU's backward then returns a masked gradient as it is.
"""

from __future__ import annotations

from gpucnn.autograd import Context
from gpucnn.tensor import Tensor


def rectify(ctx: Context, y: Tensor) -> Tensor:
    """Says that ``y``, an output of the call of ``ctx``, came out of a ReLU in it."""
    ctx.rectified = y.version.count
    return y


def is_rectified(x: Tensor) -> bool:
    """Whether the gradient of ``x`` may be masked: it came out of a ReLU and is as the call that made it left it."""
    return x.node is not None and x.node.ctx.rectified == x.version.count


def keep(ctx: Context, x: Tensor, y: Tensor) -> Tensor:
    """Says that ``y`` is rectified if ``x`` is, for a call that makes ``y`` of ``x`` and whose backward ends in
    :func:`pass_on`."""
    if ctx.needs_input_grad[0] and is_rectified(x):
        ctx.rectified = y.version.count
    return y


def masked(dx: Tensor) -> Tensor:
    """Marks ``dx``, a gradient that backward returns, as masked."""
    dx.masked = True
    return dx


def pass_on(ctx: Context, dx: Tensor) -> Tensor:
    """Marks ``dx`` as masked if the gradient that backward received was."""
    return masked(dx) if ctx.received_masked else dx
