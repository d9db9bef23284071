"""gpucnn: convolutional networks on NVIDIA GPUs with kernels of its own, and the same on a CPU.

>>> import gpucnn
>>> x = gpucnn.tensor([1.0, 2.0, 3.0], device="cpu", requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad
tensor([2., 4., 6.])
"""

from gpucnn import autograd, backends, cuda, functional, random
from gpucnn.autograd import Function, enable_grad, is_grad_enabled, no_grad
from gpucnn.creation import (
    arange,
    empty,
    from_dlpack,
    full,
    ones,
    ones_like,
    rand,
    randn,
    tensor,
    zeros,
    zeros_like,
)
from gpucnn.device import device
from gpucnn.functional.arithmetic import (
    abs,
    add,
    clip,
    div,
    exp,
    log,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    sqrt,
    sub,
    where,
)
from gpucnn.functional.linear import matmul
from gpucnn.functional.reduction import all, any, argmax, argmin, max, mean, min, std, sum, var
from gpucnn.functional.shape import cat, flatten, permute, reshape, split, squeeze, stack, transpose, unsqueeze
from gpucnn.gradient_check import gradcheck
from gpucnn.random import manual_seed
from gpucnn.tensor import Tensor, bool_, float32, float64, int32, int64, uint8

from gpucnn import models, nn, optim  # isort: skip - they build on all of the above
from gpucnn.serialization import load, save  # isort: skip

__version__ = "0.1.0"

__all__ = [
    "Function",
    "Tensor",
    "abs",
    "add",
    "all",
    "any",
    "arange",
    "argmax",
    "argmin",
    "autograd",
    "backends",
    "bool_",
    "cat",
    "clip",
    "cuda",
    "device",
    "div",
    "empty",
    "enable_grad",
    "exp",
    "flatten",
    "float32",
    "float64",
    "from_dlpack",
    "full",
    "functional",
    "gradcheck",
    "int32",
    "int64",
    "is_grad_enabled",
    "load",
    "log",
    "manual_seed",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "models",
    "mul",
    "neg",
    "nn",
    "no_grad",
    "ones",
    "ones_like",
    "optim",
    "permute",
    "pow",
    "rand",
    "randn",
    "random",
    "reshape",
    "save",
    "split",
    "sqrt",
    "squeeze",
    "stack",
    "std",
    "sub",
    "sum",
    "tensor",
    "transpose",
    "uint8",
    "unsqueeze",
    "var",
    "where",
    "zeros",
    "zeros_like",
]

cuda.on_import()
