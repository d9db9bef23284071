"""gpucnn: convolutional networks on NVIDIA GPUs with kernels of its own, and the same on a CPU.

>>> import gpucnn
>>> x = gpucnn.tensor([1.0, 2.0, 3.0], device="cpu", requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad
tensor([2., 4., 6.])
"""

from typing import Any

from gpucnn import autograd, backends, cuda, dtypes, functional, random
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
from gpucnn.precision import get_precision, precision
from gpucnn.random import manual_seed
from gpucnn.tensor import Tensor, bool_, float16, float32, float64, int32, int64, uint8

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
    "bfloat16",
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
    "float16",
    "float32",
    "float64",
    "from_dlpack",
    "full",
    "functional",
    "get_precision",
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
    "precision",
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


def __getattr__(name: str) -> Any:
    if name == "bfloat16":  # its package is imported only where it is asked for
        return dtypes.bfloat16()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


cuda.on_import()
