"""PyTorch's switches for a fair comparison. This file and the other ``torch_*`` files are the only ones in the package
that import PyTorch, and only benchmarks import them.
"""

from __future__ import annotations

import torch


def settled(precision: str) -> None:
    """cuDNN chooses by timing; float32 means float32, and only "tf32" lets products round their inputs."""
    torch.backends.cudnn.benchmark = True
    allowed = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def set_threads(count: int) -> None:
    """How many threads an operator may use on the CPU."""
    torch.set_num_threads(count)


def gpu_available() -> bool:
    """Whether this PyTorch can use a GPU here."""
    return bool(torch.cuda.is_available())
